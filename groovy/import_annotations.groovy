/*
 * qprd: import annotations
 *
 * Brings annotations that "qprd import-asap" added to <project>/qprd/annotations/<entry id>.geojson into
 * this image, each once. Nothing else is touched. Run it before export_annotations.groovy, which writes
 * that file anew from what QuPath has.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open (save it yourself: File > Save), or
 *   Run > Run for project   for the images that you choose; QuPath saves them.
 * Without a window: QuPath script --save --project project.qpproj import_annotations.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import groovy.transform.Field
import javafx.application.Platform
import qupath.lib.io.GsonTools

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

def image = projectImage()
def file = annotationFile(image)
def root = Files.isRegularFile(file) ? GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class) : null
def listed = root?.getAsJsonObject(OWN)?.getAsJsonArray('imported')
if (listed == null) {
    println "qprd: nothing was imported for ${image.name} (${file})"
    return
}
refuseAnotherImage(image, root.getAsJsonObject(OWN), file, 'qprd import-asap')
def imported = listed.collect { it.getAsString() } as Set
def found = GsonTools.parseObjectsFromGeoJSON(root).findAll { imported.contains(it.getID().toString()) }
refuseLostObjects(image, 'nothing was imported')

def present = image.hierarchy.getAllObjects(false).collect { it.getID() } as Set
def added = found.findAll { !present.contains(it.getID()) }
image.hierarchy.addObjects(added)
listClasses(image.project, added)
image.project.syncChanges()
fireHierarchyUpdate()
println "qprd: ${counted(added.size(), 'annotation')} into ${image.name}, ${found.size() - added.size()} were there already"

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
// ---- end of part names ----

// ---- part image: generated from parts/image.groovy, do not edit here ----
/**
 * An image with its place in a project. The entry is null outside of a project, and the viewer is null unless it
 * shows the image. What is shown is saved when a script changes it.
 */
Map imageOf(project, data, viewer) {
    def entry = project == null || data == null ? null : project.getEntry(data)
    def inView = data != null && viewer?.getImageData() == data
    [project: project, entry: entry, data: data, hierarchy: data?.getHierarchy(), viewer: inView ? viewer : null,
     saves: inView, folder: project?.getPath()?.getParent()?.resolve('qprd'),
     name: entry?.getOriginalImageName() ?: data?.getServer()?.getMetadata()?.getName()]
}

/** The image that the script runs for. "Run for project" saves it, but not "Run for project (without saving)". */
Map currentImage() {
    def image = imageOf(getProject(), getCurrentImageData(), getCurrentViewer())
    if (image.data == null) {
        throw new IllegalStateException('qprd: open an image first')
    }
    image.saves = image.viewer != null || binding.getVariable('qupath.script.batchSave')
    image
}

/** The image that the script runs for, which must be one of a project. */
Map projectImage() {
    def image = currentImage()
    if (image.entry == null) {
        throw new IllegalStateException('qprd: open an image of a project first')
    }
    image
}

/** What an image had when it was saved, as QuPath counts it; null if it never was. */
JsonObject savedHierarchy(Map image) {
    def file = image.entry?.getEntryPath()?.resolve('summary.json')
    if (file == null || !Files.isRegularFile(file)) {
        return null
    }
    def summary = GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class)
    summary?.getAsJsonObject('hierarchy')
}

/**
 * Refuse an image that has lost its objects: QuPath shows one whose data file it cannot read without any, and
 * saving it replaces that file.
 */
void refuseLostObjects(Map image, String outcome, Closure<String> beforehand = { '' }) {
    // The root object counts as one.
    def saved = image.hierarchy.isEmpty() ? savedHierarchy(image)?.get('nObjects') : null
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${image.name} had objects when it was saved, and has none now: ${outcome}. " +
                "Its data file may be damaged${beforehand()}. " +
                'If you deleted them, save the image and run this again.')
    }
}

String counted(int count, String noun) {
    "${count} ${noun}${count == 1 ? '' : 's'}"
}
// ---- end of part image ----

// ---- part records: generated from parts/records.groovy, do not edit here ----
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
// ---- end of part records ----

// ---- part saving: generated from parts/saving.groovy, do not edit here ----
/** Add the classes that objects bear to the project's list and to that of the open window, which would replace it. */
void listClasses(project, Collection objects) {
    def known = project.getPathClasses()
    def missing = objects.findResults { it.getPathClass() }.unique().findAll { !known.contains(it) }
    // A project that lists none gets QuPath's default ones, unless it lists ours.
    if (missing && known) {
        project.setPathClasses(known + missing)
    }
    def gui = getQuPath()
    if (missing && gui != null) {
        Platform.runLater {
            def shown = gui.getAvailablePathClasses()
            missing.findAll { !shown.contains(it) }.each { shown.add(it) }
        }
    }
}
// ---- end of part saving ----

// ---- part annotations: generated from parts/annotations.groovy, do not edit here ----
Path annotationFile(Map image) {
    image.folder.resolve('annotations').resolve(image.entry.getID() + '.geojson')
}
// ---- end of part annotations ----
