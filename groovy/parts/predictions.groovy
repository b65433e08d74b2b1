/* What "qprd predict --write-back" wrote for an image, and judgments that were made in the browser. */

import com.google.gson.JsonObject
import com.google.gson.JsonSyntaxException
import qupath.lib.io.GsonTools

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

/** What two regions have in common that are the same. */
List regionOf(object) {
    [object.getID(), object.getROI().getAllPoints() as Set]
}

/** Judgments made outside QuPath by region, as in qprd/qupath/reviews.py: of those about a region the last counts. */
Map judgmentsIn(Path file, Closure check) {
    if (!Files.isRegularFile(file)) {
        return [:]
    }
    def judged = [:]
    Files.readString(file, StandardCharsets.UTF_8).split('\n').findAll { it.strip() }.each { text ->
        def line
        try {
            line = GsonTools.getInstance().fromJson(text, JsonObject.class)
        } catch (JsonSyntaxException ignored) {
            // The rest of a line whose writer was killed.
            return
        }
        check(line.getAsJsonObject('image'))
        def region = GsonTools.parseObjectsFromGeoJSON(line.get('feature'))[0]
        judged[regionOf(region)] = line.get('verdict').getAsString() == 'none' ? null : region
    }
    judged.findAll { it.value != null }
}

/** A copy of the data file of an image, kept for good; says where it is. */
String keepDataFile(Map image) {
    def data = image.entry.getEntryPath().resolve('data.qpdata')
    def copy = image.folder.resolve('backup').resolve(image.entry.getID() + '.qpdata')
    if (Files.isRegularFile(data) && !Files.exists(copy)) {
        Files.createDirectories(copy.getParent())
        Files.copy(data, copy)
    }
    "; a copy is ${copy}"
}

/**
 * Bring predictions and judgments into an image, which is saved if it saves, and say what was done. What an earlier
 * run of qprd put there is replaced; nothing else is touched.
 */
String importPredictions(Map image) {
    def file = image.folder.resolve('predictions').resolve(image.entry.getID() + '.geojson')
    def reviews = image.folder.resolve('reviews').resolve(image.entry.getID() + '.jsonl')
    def hasPredictions = Files.isRegularFile(file)
    if (!hasPredictions && !Files.isRegularFile(reviews)) {
        return "qprd: no predictions for ${image.name} (${file})"
    }
    def command = 'qprd predict --write-back'

    // All is read and checked before anything is changed.
    def gson = GsonTools.getInstance()
    def root = hasPredictions ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class) : null
    refuseAnotherImage(image, root?.getAsJsonObject(OWN), file, command)
    def predicted = hasPredictions ? GsonTools.parseObjectsFromGeoJSON(root) : []
    if (!predicted.every { isOwn(it) }) {
        throw new IllegalStateException("qprd: ${file} holds objects that are not qprd's; nothing was changed")
    }
    def metadata = root?.getAsJsonObject(OWN)?.getAsJsonObject('metadata')?.asMap() ?: [:]
    if (!metadata.keySet().every { it.startsWith(OWN_PREFIX) }) {
        throw new IllegalStateException("qprd: ${file} holds metadata that is not qprd's; nothing was changed")
    }
    def judged = judgmentsIn(reviews) { refuseAnotherImage(image, it, reviews, command) }
    refuseLostObjects(image, 'nothing was imported') { keepDataFile(image) }

    def hierarchy = image.hierarchy
    def earlier = hierarchy.getAllObjects(false).findAll {
        isOwn(it) && (hasPredictions || it.isAnnotation() && judged.containsKey(regionOf(it)))
    }
    removeOwn(image, earlier)

    // A region to review that a user judged keeps its id: nobody is asked twice.
    def taken = hierarchy.getAllObjects(false).collect { it.getID() } as Set
    // A class that was given here outweighs a judgment made outside.
    def added = judged.values().findAll { !taken.contains(it.getID()) }
    hierarchy.addObjects(added)
    taken.addAll(added.collect { it.getID() })
    predicted = predicted.findAll { it.isTile() || !judged.containsKey(regionOf(it)) }
    predicted = predicted.findAll { !(taken.contains(it.getID()) && it.getMeasurements().containsKey(OWN_RANK)) }
    // A contour that a user accepted keeps its id; the new one at its place needs another.
    predicted.findAll { taken.contains(it.getID()) }.each { it.setID(ownId()) }
    hierarchy.addObjects(predicted)

    if (image.saves) {
        listClasses(image.project, predicted + added)
    }
    saveImage(image, metadata.collectEntries { key, value -> [key, value.getAsString()] }) {
        hasPredictions && it.startsWith(OWN_PREFIX)
    }
    def tiles = predicted.count { it.isTile() }
    def regions = predicted.count { it.isAnnotation() && it.getMeasurements().containsKey(OWN_RANK) }
    def contours = predicted.size() - tiles - regions
    "qprd: ${counted(tiles, 'tile')}${regions ? ", ${counted(regions, 'region')} to review" : ''} and " +
            "${counted(contours, 'contour')} into ${image.name}, ${counted(earlier.size(), 'earlier one')} replaced" +
            (added ? ", ${counted(added.size(), 'judgment')} made in the browser" : '')
}
