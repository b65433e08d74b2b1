/*
 * qprd: show the heatmap
 *
 * Colors qprd's tiles by their probability, magma from 0 (dark) to 1 (light), over every image of this
 * project that is opened from now on. A view only: nothing of the image is changed or saved.
 * Show or hide it with the D key (detections); the opacity is also the slider in the toolbar.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run                                for the image that is open, or
 *   Run > Run for project (without saving)   to print the figures of the images that you choose.
 * Without a window, for the figures: QuPath script --project project.qpproj show_heatmap.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import javafx.application.Platform
import qupath.lib.color.ColorMaps
import qupath.lib.gui.tools.MeasurementMapper
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files

// false takes the colors away again.
final SHOW = true
// Tiles below this are transparent; null shows all. A probability, or a raw score where there is none.
final THRESHOLD = null
// 0 (invisible) to 1 (hides the tissue).
final OPACITY = 0.6
final COLOR_MAP = 'Magma'
// Ends of the colors for raw scores, [low, high]; null takes those of the image. Probabilities: 0 to 1.
final RAW_RANGE = null

// As in qprd/predictions.py; a test compares the two.
final OLD_TILE = 'qprd tile'
final OWN_SCORE = 'qprd: score'
final OWN_PROBABILITY = 'qprd: probability'
final OWN_PREFIX = 'qprd: '

def entry = getProjectEntry()
def name = entry?.getOriginalImageName() ?: getCurrentServer().getMetadata().getName()
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
def summaryFile = entry?.getEntryPath()?.resolve('summary.json')
if (!inView && summaryFile != null && getCurrentHierarchy().isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = GsonTools.getInstance().fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now. Its data file may be " +
                'damaged. If you deleted them, save the image and run this again.')
    }
}

def tiles = getTileObjects().findAll { it.getName() in [null, OLD_TILE] && it.getMeasurements().containsKey(OWN_SCORE) }
if (tiles.isEmpty()) {
    println "qprd: ${name} has no tiles of qprd: run \"qprd predict --write-back\" first"
    return
}
def calibrated = tiles.every { it.getMeasurements().containsKey(OWN_PROBABILITY) }
def measurement = calibrated ? OWN_PROBABILITY : OWN_SCORE
def values = tiles.collect { it.getMeasurements().get(measurement) as double }
def range = calibrated ? [0.0d, 1.0d] : RAW_RANGE ?: [values.min(), values.max()]
def least = THRESHOLD == null ? Double.NEGATIVE_INFINITY : THRESHOLD as double
println "qprd: ${values.count { it >= least }} of ${tiles.size()} tiles of ${name} shown, ${measurement - OWN_PREFIX}, " +
        "colors from ${range[0]} to ${range[1]}"

if (!inView) {
    return
}
def options = viewer.getOverlayOptions()
if (!SHOW) {
    Platform.runLater {
        options.resetMeasurementMapper()
        options.setFillDetections(false)
    }
    return
}
def magma = ColorMaps.getColorMaps().get(COLOR_MAP)
// No color at all would leave a tile in the color of the one painted before it when zoomed out, and a
// color without opacity is opaque to QuPath: this is as good as invisible.
final UNSEEN = 0x01000000
def colors = new ColorMaps.ColorMap() {
    String getName() { COLOR_MAP }
    Integer getColor(double value, double low, double high) {
        value >= least ? magma.getColor(value, low, high) : UNSEEN
    }
}
def mapper = new MeasurementMapper(colors, measurement, tiles)
mapper.setDisplayMinValue(range[0])
mapper.setDisplayMaxValue(range[1])
Platform.runLater {
    options.setShowDetections(true)
    options.setFillDetections(true)
    options.setOpacity(OPACITY as float)
    options.setMeasurementMapper(mapper)
}
