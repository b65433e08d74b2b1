/*
 * qprd: import predictions
 *
 * Brings what "qprd predict --write-back" wrote to <project>/qprd/predictions/<entry id>.geojson into
 * this image: tiles with scores, contours, regions to review ("--uncertain N"), and the slide's score as
 * metadata of the project entry.
 * What an earlier run of qprd put there is replaced. Nothing else is touched: your annotations and
 * cells, and contours that you gave another class (accepted or rejected), stay as they are.
 * What was accepted or rejected in the browser ("qprd view") comes in with its class.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open, which is saved, or
 *   Run > Run for project   for the images that you choose.
 * Without a window: QuPath script --save --project project.qpproj import_predictions.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import com.google.gson.JsonSyntaxException
import groovy.transform.Field
import javafx.application.Platform
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

def image = projectImage()
println importPredictions(image)
keepUnchanged(image)

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
@Field static final String OWN_RANK = 'qprd: review rank'
@Field static final long OWN_ID = 0x71707264L
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

String counted(int count, String noun) {
    "${count} ${noun}${count == 1 ? '' : 's'}"
}
// ---- end of part image ----

// ---- part objects: generated from parts/objects.groovy, do not edit here ----
List<String> partsOf(pathClass) {
    pathClass == null ? [] : pathClass.toString().split(':').collect { it.strip() }
}

boolean isOwnClass(pathClass) {
    partsOf(pathClass).contains(OWN)
}

boolean isOwnTile(object) {
    object.isTile() && object.getName() in [null, OLD_TILE] && object.getMeasurements().containsKey(OWN_SCORE)
}

boolean isOwnAnnotation(object) {
    object.isAnnotation() && isOwnClass(object.getPathClass()) && object.getMeasurements().containsKey(OWN_MEAN_SCORE)
}

boolean isOwn(object) {
    isOwnTile(object) || isOwnAnnotation(object)
}

/** A random id of ours, as qprd/predictions.py makes them. */
UUID ownId() {
    def random = UUID.randomUUID()
    new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL), random.getLeastSignificantBits())
}

/** Take objects of ours out. Users may have nested objects of theirs below them: these move up first. */
void removeOwn(Map image, Collection objects) {
    def own = objects as LinkedHashSet
    own.each { object ->
        def others = object.getChildObjects().findAll { !own.contains(it) }
        if (others) {
            def parent = object.getParent()
            while (own.contains(parent)) {
                parent = parent.getParent()
            }
            parent.addChildObjects(others)
        }
    }
    image.hierarchy.removeObjects(own, false)
}
// ---- end of part objects ----

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
/**
 * Save a changed image and the metadata of its entry. QuPath keeps metadata in the project, and objects with the
 * image: both are saved, or neither.
 */
void saveImage(Map image, Map<String, String> metadata, Closure<Boolean> outdated) {
    image.hierarchy.fireHierarchyChangedEvent(this)
    if (image.saves) {
        def entry = image.entry
        // What a user draws meanwhile may not be in the file, and QuPath takes all for saved at the end.
        def drawn = false
        def listener = { drawn = true } as PathObjectHierarchyListener
        image.hierarchy.addListener(listener)
        try {
            entry.saveImageData(image.data)
        } finally {
            image.hierarchy.removeListener(listener)
        }
        if (drawn) {
            image.data.setChanged(true)
        }
        new ArrayList(entry.getMetadataKeys()).findAll(outdated).each { entry.removeMetadataValue(it) }
        metadata.each { key, value -> entry.putMetadataValue(key, value) }
    }
    image.project.syncChanges()
}

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

// ---- part predictions: generated from parts/predictions.groovy, do not edit here ----
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
// ---- end of part predictions ----
