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
import groovy.transform.Field
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

def image = currentImage()
keepUnchanged(image)
if (image.viewer == null) {
    refuseLostObjects(image, 'nothing is shown')
}
def scores = tileScores(image, RAW_RANGE)
if (scores == null) {
    println "qprd: ${image.name} has no tiles of qprd: run \"qprd predict --write-back\" first"
    return
}
def least = THRESHOLD == null ? Double.NEGATIVE_INFINITY : THRESHOLD as double
println "qprd: ${scores.values.count { it >= least }} of ${scores.tiles.size()} tiles of ${image.name} shown, " +
        "${scores.measurement - OWN_PREFIX}, colors from ${scores.range[0]} to ${scores.range[1]}"
if (image.viewer == null) {
    return
}
def options = image.viewer.getOverlayOptions()
if (!SHOW) {
    Platform.runLater {
        options.resetMeasurementMapper()
        options.setFillDetections(false)
    }
    return
}
def mapper = tileColors(scores, least, COLOR_MAP)
Platform.runLater {
    options.setShowDetections(true)
    options.setFillDetections(true)
    options.setOpacity(OPACITY as float)
    options.setMeasurementMapper(mapper)
}

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_PROBABILITY = 'qprd: probability'
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

// ---- part objects: generated from parts/objects.groovy, do not edit here ----
boolean isOwnTile(object) {
    object.isTile() && object.getName() in [null, OLD_TILE] && object.getMeasurements().containsKey(OWN_SCORE)
}

List ownTiles(Map image) {
    image.hierarchy.getTileObjects().findAll { isOwnTile(it) } as List
}

/** The measurement that tiles are shown by: their probability, or the raw score where one has none. */
String tileMeasurement(List tiles) {
    tiles.every { it.getMeasurements().containsKey(OWN_PROBABILITY) } ? OWN_PROBABILITY : OWN_SCORE
}
// ---- end of part objects ----

// ---- part heatmap: generated from parts/heatmap.groovy, do not edit here ----
/**
 * What the tiles of an image are colored by: the tiles, their measurement, and the ends of the colors, 0 and 1 for
 * probabilities. Null where there are none.
 */
Map tileScores(Map image, List rawRange) {
    def tiles = ownTiles(image)
    if (tiles.isEmpty()) {
        return null
    }
    def measurement = tileMeasurement(tiles)
    def values = tiles.collect { it.getMeasurements().get(measurement) as double }
    [tiles: tiles, measurement: measurement, values: values,
     range: measurement == OWN_PROBABILITY ? [0.0d, 1.0d] : rawRange ?: [values.min(), values.max()]]
}

/** Colors of tiles; those below the least value are as good as invisible. */
MeasurementMapper tileColors(Map scores, double least, String name) {
    def map = ColorMaps.getColorMaps().get(name)
    // No color at all would leave a tile in the color of the one painted before it when zoomed out, and a
    // color without opacity is opaque to QuPath.
    def unseen = 0x01000000
    def colors = new ColorMaps.ColorMap() {
        String getName() { name }
        Integer getColor(double value, double low, double high) {
            value >= least ? map.getColor(value, low, high) : unseen
        }
    }
    def mapper = new MeasurementMapper(colors, scores.measurement, scores.tiles)
    mapper.setDisplayMinValue(scores.range[0])
    mapper.setDisplayMaxValue(scores.range[1])
    mapper
}
// ---- end of part heatmap ----
