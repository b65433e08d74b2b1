/*
 * qprd: lay the heatmap over the image
 *
 * Lays the score map that "qprd predict" saved as <project>/qprd/results/<entry id>/score_map.ome.tif
 * over the image that is open, smoothly, in magma from 0 (dark) to 1 (light). It needs no tiles in the
 * image. A view only: nothing of the image is changed or saved, and the next image is shown without.
 * Show or hide it with the C key (pixel classification); the opacity is also the slider in the toolbar.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run                                for the image that is open, or
 *   Run > Run for project (without saving)   to print the figures of the images that you choose.
 * Without a window, for the figures: QuPath script --project project.qpproj overlay_heatmap.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import javafx.application.Platform
import qupath.lib.color.ColorMaps
import qupath.lib.gui.viewer.ImageInterpolation
import qupath.lib.gui.viewer.overlays.BufferedImageOverlay
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import javax.imageio.ImageIO
import javax.imageio.plugins.tiff.TIFFDirectory
import javax.xml.parsers.DocumentBuilderFactory
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

// false takes the heatmap away again.
final SHOW = true
// What is below this is transparent; null shows all. A probability, or a raw score where there is none.
final THRESHOLD = null
// 0 (invisible) to 1 (hides the tissue).
final OPACITY = 0.6
final COLOR_MAP = 'Magma'
// Hides detections, qprd's tiles among them, whose outlines would be over it; D shows them again.
final HIDE_DETECTIONS = true
// Ends of the colors for raw scores, [low, high]; null takes those of the image. Probabilities: 0 to 1.
final RAW_RANGE = null
// Memory: a larger map is thinned out.
final MAX_PIXELS = 16_000_000L

def image = projectImage()
def viewer = image.viewer
keepUnchanged(image)
if (viewer == null) {
    refuseLostObjects(image, 'nothing is shown')
}
if (!SHOW) {
    if (viewer != null) {
        Platform.runLater { viewer.resetCustomPixelLayerOverlay() }
    }
    return
}
def map = scoreMapOf(image, MAX_PIXELS)
if (map == null) {
    println "qprd: no score map of ${image.name} (${scoreMapFile(image)}): run \"qprd predict\" first"
    return
}
def range = map.calibrated ? [0.0d, 1.0d] : RAW_RANGE ?: [map.low, map.high]
println "qprd: ${image.name}: ${map.scored} cells of ${map.cell} px, ${map.calibrated ? 'probability' : 'raw score'} " +
        "from ${map.low} to ${map.high}, colors from ${range[0]} to ${range[1]}"
if (viewer == null) {
    return
}
def least = THRESHOLD == null ? Double.NEGATIVE_INFINITY : THRESHOLD as double
def overlay = overlayOf(viewer, map, range, least, COLOR_MAP)
Platform.runLater {
    viewer.getOverlayOptions().setShowPixelClassification(true)
    viewer.getOverlayOptions().setOpacity(OPACITY as float)
    if (HIDE_DETECTIONS) {
        viewer.getOverlayOptions().setShowDetections(false)
    }
    viewer.setCustomPixelLayerOverlay(overlay)
}

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

/** Let QuPath not ask whether to save an image that was only looked at: it takes the end of any script for a change. */
void keepUnchanged(Map image) {
    def data = image.data
    if (image.viewer == null || data.isChanged()) {
        return
    }
    image.hierarchy.addListener(new PathObjectHierarchyListener() {
        boolean ended = false
        void hierarchyChanged(PathObjectHierarchyEvent event) {
            if (!ended && event.getSource() instanceof ScriptParameters) {
                data.setChanged(false)
            }
            ended = true
        }
    })
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
// ---- end of part image ----

// ---- part records: generated from parts/records.groovy, do not edit here ----
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
// ---- end of part records ----

// ---- part overlay: generated from parts/overlay.groovy, do not edit here ----
Path scoreMapFile(Map image) {
    image.folder.resolve('results').resolve(image.entry.getID()).resolve('score_map.ome.tif')
}

/** The score map of an image, thinned out by whole steps to the most pixels that are wanted; null if there is none. */
Map scoreMapOf(Map image, long mostPixels) {
    def file = scoreMapFile(image)
    if (!Files.isRegularFile(file)) {
        return null
    }
    resultsOf(image)

    // By Java's own reader: it is in every QuPath, and reads the largest level.
    def values = null
    def description = null
    def step = 1
    def size = null
    def stream = ImageIO.createImageInputStream(file.toFile())
    try {
        def reader = ImageIO.getImageReadersByFormatName('tiff').next()
        reader.setInput(stream)
        size = [reader.getWidth(0), reader.getHeight(0)]
        while ((size[0] as long) * size[1] > mostPixels * step * step) {
            step++
        }
        def how = reader.getDefaultReadParam()
        how.setSourceSubsampling(step, step, 0, 0)
        values = reader.read(0, how).getRaster()
        description = TIFFDirectory.createFromMetadata(reader.getImageMetadata(0)).getTIFFField(270).getAsString(0)
    } finally {
        stream?.close()
    }
    def factory = DocumentBuilderFactory.newInstance()
    factory.setFeature('http://apache.org/xml/features/disallow-doctype-decl', true)
    def root = factory.newDocumentBuilder().parse(new ByteArrayInputStream(description.getBytes(StandardCharsets.UTF_8))).getDocumentElement()
    def all = { tag -> def nodes = root.getElementsByTagName(tag); (0..<nodes.getLength()).collect { nodes.item(it) } }
    def grid = all('M').collectEntries { [it.getAttribute('K'), Double.parseDouble(it.getTextContent())] }

    def server = image.data.getServer()
    def cell = grid.cell_px
    def fits = grid.x_px == 0 && grid.y_px == 0 && Math.ceil(server.getWidth() / cell - 1e-6) == size[0] &&
            Math.ceil(server.getHeight() / cell - 1e-6) == size[1]
    if (!fits) {
        throw new IllegalStateException("qprd: the score map of ${image.name} is of an image of another size: nothing is shown. " +
                'Run "qprd predict" again.')
    }
    def (width, height) = [values.getWidth(), values.getHeight()]
    float[] scores = values.getSamples(0, 0, width, height, 0, (float[]) null)
    def scored = 0
    def low = Float.POSITIVE_INFINITY
    def high = Float.NEGATIVE_INFINITY
    for (float score : scores) {
        if (!Float.isNaN(score)) {
            scored++
            low = Math.min(low, score)
            high = Math.max(high, score)
        }
    }
    [scores: scores, width: width, height: height, cell: cell, step: step, scored: scored, low: low, high: high,
     calibrated: all('Channel')[0].getAttribute('Name') == 'probability']
}

/** A layer over the image in the colors of its score map; what is below the least value is clear. */
BufferedImageOverlay overlayOf(viewer, Map map, List range, double least, String colorMap) {
    def colors = ColorMaps.getColorMaps().get(colorMap)
    def picture = new BufferedImage(map.width, map.height, BufferedImage.TYPE_INT_ARGB)
    int[] pixels = new int[map.width * map.height]
    float[] scores = map.scores
    for (int i = 0; i < scores.length; i++) {
        // Groovy takes NaN, not scored, for greater than any number.
        if (!Float.isNaN(scores[i]) && scores[i] >= least) {
            pixels[i] = colors.getColor(scores[i], range[0], range[1]) | 0xff000000
        }
    }
    picture.setRGB(0, 0, map.width, map.height, pixels, 0, map.width)
    def pitch = map.step * map.cell
    def region = ImageRegion.createInstance(0, 0, Math.round(map.width * pitch) as int, Math.round(map.height * pitch) as int, 0, 0)
    def overlay = new BufferedImageOverlay(viewer, [(region): picture])
    overlay.setInterpolation(ImageInterpolation.BILINEAR)
    overlay
}
// ---- end of part overlay ----
