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

def project = getProject()
def entry = getProjectEntry()
if (project == null || entry == null) {
    throw new IllegalStateException('qprd: open an image of a project first')
}
def name = entry.getOriginalImageName()
def viewer = getCurrentViewer()
def inView = viewer != null && viewer.getImageData() == getCurrentImageData()

// QuPath takes the end of any script for a change of the image, and would ask whether to save it.
def seen = getCurrentImageData()
if (inView && !seen.isChanged()) {
    seen.getHierarchy().addListener(new PathObjectHierarchyListener() {
        boolean ended = false
        void hierarchyChanged(PathObjectHierarchyEvent event) {
            if (!ended && event.getSource() instanceof ScriptParameters) {
                seen.setChanged(false)
            }
            ended = true
        }
    })
}

// QuPath shows an image without objects when it cannot read the image's data file, and saving it, as
// "Run for project" does, then replaces that file.
def summaryFile = entry.getEntryPath().resolve('summary.json')
if (!inView && getCurrentHierarchy().isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = GsonTools.getInstance().fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now. Its data file may be " +
                'damaged. If you deleted them, save the image and run this again.')
    }
}

if (!SHOW) {
    if (inView) {
        Platform.runLater { viewer.resetCustomPixelLayerOverlay() }
    }
    return
}
// The folder may be of another project, whose images had the same ids: as qprd does for results.
def resultsOf = { Path folder ->
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
    def server = getCurrentServer()
    // An image may have been renamed since.
    def names = [name, entry.getURIs()[0]?.toString()?.tokenize('/')?.last()]
    def same = slide.get('entry_id').getAsString() == entry.getID() && names.contains(slide.get('image').getAsString()) &&
            [sides, [server.getWidth(), server.getHeight()]].transpose().every { Math.abs(it[0] - it[1]) <= 1 }
    if (!same) {
        throw new IllegalStateException("qprd: ${folder} has results of the image ${slide.get('image').getAsString()}, and " +
                "this image is ${name}: nothing was changed. Run qprd predict for this image.")
    }
    slide
}

def folder = project.getPath().getParent().resolve('qprd').resolve('results').resolve(entry.getID())
def file = folder.resolve('score_map.ome.tif')
if (!Files.isRegularFile(file)) {
    println "qprd: no score map of ${name} (${file}): run \"qprd predict\" first"
    return
}

resultsOf(folder)

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
    while ((size[0] as long) * size[1] > MAX_PIXELS * step * step) {
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
def calibrated = all('Channel')[0].getAttribute('Name') == 'probability'
def grid = all('M').collectEntries { [it.getAttribute('K'), Double.parseDouble(it.getTextContent())] }

def server = getCurrentServer()
def cell = grid.cell_px
def fits = grid.x_px == 0 && grid.y_px == 0 && Math.ceil(server.getWidth() / cell - 1e-6) == size[0] &&
        Math.ceil(server.getHeight() / cell - 1e-6) == size[1]
if (!fits) {
    throw new IllegalStateException("qprd: the score map of ${name} is of an image of another size: nothing is shown. " +
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
def range = calibrated ? [0.0d, 1.0d] : RAW_RANGE ?: [low, high]
println "qprd: ${name}: ${scored} cells of ${cell} px, ${calibrated ? 'probability' : 'raw score'} " +
        "from ${low} to ${high}, colors from ${range[0]} to ${range[1]}"
if (!inView) {
    return
}

def map = ColorMaps.getColorMaps().get(COLOR_MAP)
def picture = new BufferedImage(width, height, BufferedImage.TYPE_INT_ARGB)
def least = THRESHOLD == null ? Double.NEGATIVE_INFINITY : THRESHOLD as double
int[] pixels = new int[width * height]
for (int i = 0; i < scores.length; i++) {
    // Groovy takes NaN, not scored, for greater than any number.
    if (!Float.isNaN(scores[i]) && scores[i] >= least) {
        pixels[i] = map.getColor(scores[i], range[0], range[1]) | 0xff000000
    }
}
picture.setRGB(0, 0, width, height, pixels, 0, width)
def region = ImageRegion.createInstance(0, 0, Math.round(width * step * cell) as int, Math.round(height * step * cell) as int, 0, 0)
def overlay = new BufferedImageOverlay(viewer, [(region): picture])
overlay.setInterpolation(ImageInterpolation.BILINEAR)
Platform.runLater {
    viewer.getOverlayOptions().setShowPixelClassification(true)
    viewer.getOverlayOptions().setOpacity(OPACITY as float)
    if (HIDE_DETECTIONS) {
        viewer.getOverlayOptions().setShowDetections(false)
    }
    viewer.setCustomPixelLayerOverlay(overlay)
}
