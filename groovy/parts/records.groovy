/* Whether files below <project>/qprd/ are of this image. */

import com.google.gson.JsonObject
import qupath.lib.io.GsonTools

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

/**
 * Refuse what was written for another image: entries get other ids when a project is made anew, and "qprd"
 * folders can be copied. As in qprd/qupath/image_record.py, but for the fingerprint.
 */
void refuseAnotherImage(Map image, JsonObject record, Path file, String command) {
    def textOf = { key -> record?.get(key)?.getAsString() }
    def fileName = { uri -> uri == null ? null : uri.tokenize('/').last() }
    def another = textOf('entry') != null && textOf('entry') != image.entry.getID()
    try {
        def server = image.data.getServer()
        [width: server.getWidth(), height: server.getHeight()].each { key, size ->
            another |= record?.has(key) && Math.abs(record.get(key).getAsInt() - size) > 1
        }
    } catch (Exception ignored) {
        // The slide is not there.
    }
    if (textOf('image') != null && textOf('image') != image.name) {
        another |= textOf('uri') == null || fileName(textOf('uri')) != fileName(image.entry.getURIs()[0]?.toString())
    }
    if (another) {
        throw new IllegalStateException("qprd: ${file} is of the image ${textOf('image')}, and this image is ${image.name}: " +
                "nothing was changed. Run ${command} for this image.")
    }
}

/** What "qprd predict" saved about this image; null if there is nothing. */
JsonObject resultsOf(Map image) {
    def folder = image.folder.resolve('results').resolve(image.entry.getID())
    def file = folder.resolve('slide.json')
    if (!Files.isRegularFile(file)) {
        return null
    }
    def slide = GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class)
    def frame = slide.getAsJsonObject('frame')
    def sides = ['file_width', 'file_height'].collect { frame.get(it).getAsInt() }
    if (frame.get('rotation').getAsInt() % 180 != 0) {
        sides = sides.reverse()
    }
    def server = image.data.getServer()
    // An image may have been renamed since.
    def names = [image.name, image.entry.getURIs()[0]?.toString()?.tokenize('/')?.last()]
    def same = slide.get('entry_id').getAsString() == image.entry.getID() && names.contains(slide.get('image').getAsString()) &&
            [sides, [server.getWidth(), server.getHeight()]].transpose().every { Math.abs(it[0] - it[1]) <= 1 }
    if (!same) {
        throw new IllegalStateException("qprd: ${folder} has results of the image ${slide.get('image').getAsString()}, and " +
                "this image is ${image.name}: nothing was changed. Run qprd predict for this image.")
    }
    slide
}
