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
import javafx.application.Platform
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files

// As in qprd/predictions.py; a test compares the two.
final OWN = 'qprd'
final OLD_TILE = 'qprd tile'
final OWN_SCORE = 'qprd: score'
final OWN_MEAN_SCORE = 'qprd: mean score'
final OWN_RANK = 'qprd: review rank'
final OWN_PREFIX = 'qprd: '
final OWN_ID = 0x71707264L

// The rule of qprd's Python code (qprd/predictions.py, qprd/qupath/geojson.py): annotations of a class
// such as "Tumor: qprd" that have our mean score, and tiles that have
// our score and no name (those of earlier versions have one).
def isOwnClass = { pathClass ->
    pathClass != null && pathClass.toString().split(':').any { it.strip() == OWN }
}
def isOwn = { object ->
    def measurements = object.getMeasurements()
    object.isAnnotation() ? isOwnClass(object.getPathClass()) && measurements.containsKey(OWN_MEAN_SCORE)
            : object.isTile() && object.getName() in [null, OLD_TILE] && measurements.containsKey(OWN_SCORE)
}

def project = getProject()
def entry = getProjectEntry()
if (project == null || entry == null) {
    throw new IllegalStateException('qprd: open an image of a project first')
}
def name = entry.getOriginalImageName()

// Metadata are kept in the project, and objects with the image: both are saved, or neither. So the image is
// saved here, but not by "Run for project (without saving)".
def viewer = getCurrentViewer()
def inView = viewer != null && viewer.getImageData() == getCurrentImageData()
def saves = inView || binding.getVariable('qupath.script.batchSave')
def save = { Map<String, String> metadata, Closure<Boolean> outdated ->
    if (saves) {
        entry.saveImageData(getCurrentImageData())
        new ArrayList(entry.getMetadataKeys()).findAll(outdated).each { entry.removeMetadataValue(it) }
        metadata.each { key, value -> entry.putMetadataValue(key, value) }
    }
}
def file = project.getPath().getParent().resolve('qprd').resolve('predictions').resolve(entry.getID() + '.geojson')
def reviews = project.getPath().getParent().resolve('qprd').resolve('reviews').resolve(entry.getID() + '.jsonl')
def hasPredictions = Files.isRegularFile(file)
if (!hasPredictions && !Files.isRegularFile(reviews)) {
    println "qprd: no predictions for ${name} (${file})"
    return
}

// Entries get other ids when a project is made anew, and "qprd" folders can be copied: as in
// qprd/qupath/image_record.py, but for the fingerprint.
def refuseAnotherImage = { record, from ->
    def textOf = { key -> record?.get(key)?.getAsString() }
    def fileName = { uri -> uri == null ? null : uri.tokenize('/').last() }
    def another = textOf('entry') != null && textOf('entry') != entry.getID()
    try {
        def server = getCurrentServer()
        [width: server.getWidth(), height: server.getHeight()].each { key, size ->
            another |= record?.has(key) && Math.abs(record.get(key).getAsInt() - size) > 1
        }
    } catch (Exception ignored) {
        // The slide is not there.
    }
    if (textOf('image') != null && textOf('image') != name) {
        another |= textOf('uri') == null || fileName(textOf('uri')) != fileName(entry.getURIs()[0]?.toString())
    }
    if (another) {
        throw new IllegalStateException("qprd: ${from} is of the image ${textOf('image')}, and this image is ${name}: " +
                'nothing was changed. Run qprd predict --write-back for this image.')
    }
}

// All is read and checked before anything is changed.
def gson = GsonTools.getInstance()
def root = hasPredictions ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class) : null
refuseAnotherImage(root?.getAsJsonObject(OWN), file)
def predicted = hasPredictions ? GsonTools.parseObjectsFromGeoJSON(root) : []
if (!predicted.every(isOwn)) {
    throw new IllegalStateException("qprd: ${file} holds objects that are not qprd's; nothing was changed")
}
def metadata = root?.getAsJsonObject(OWN)?.getAsJsonObject('metadata')?.asMap() ?: [:]
if (!metadata.keySet().every { it.startsWith(OWN_PREFIX) }) {
    throw new IllegalStateException("qprd: ${file} holds metadata that is not qprd's; nothing was changed")
}

// Judgments made outside QuPath, as in qprd/qupath/reviews.py: of those about a region the last counts.
def regionOf = { object -> [object.getID(), object.getROI().getAllPoints() as Set] }
def judged = [:]
if (Files.isRegularFile(reviews)) {
    Files.readString(reviews, StandardCharsets.UTF_8).split('\n').findAll { it.strip() }.each { text ->
        def line
        try {
            line = gson.fromJson(text, JsonObject.class)
        } catch (JsonSyntaxException ignored) {
            // The rest of a line whose writer was killed.
            return
        }
        refuseAnotherImage(line.getAsJsonObject('image'), reviews)
        def region = GsonTools.parseObjectsFromGeoJSON(line.get('feature'))[0]
        judged[regionOf(region)] = line.get('verdict').getAsString() == 'none' ? null : region
    }
    judged = judged.findAll { it.value != null }
}

// QuPath shows an image without objects when it cannot read the image's data file, and saving then
// replaces that file: keep a copy.
def hierarchy = getCurrentHierarchy()
def summaryFile = entry.getEntryPath().resolve('summary.json')
if (hierarchy.isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = gson.fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        def data = entry.getEntryPath().resolve('data.qpdata')
        def copy = project.getPath().getParent().resolve('qprd').resolve('backup').resolve(entry.getID() + '.qpdata')
        if (Files.isRegularFile(data) && !Files.exists(copy)) {
            Files.createDirectories(copy.getParent())
            Files.copy(data, copy)
        }
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now: nothing was " +
                "imported. Its data file may be damaged; a copy is ${copy}. " +
                'If you deleted them, save the image and run this again.')
    }
}

// Users may have nested objects of theirs below ours: these move up before ours go.
def earlier = hierarchy.getAllObjects(false).findAll {
    isOwn(it) && (hasPredictions || it.isAnnotation() && judged.containsKey(regionOf(it)))
} as LinkedHashSet
earlier.each { object ->
    def others = object.getChildObjects().findAll { !earlier.contains(it) }
    if (others) {
        def parent = object.getParent()
        while (earlier.contains(parent)) {
            parent = parent.getParent()
        }
        parent.addChildObjects(others)
    }
}
hierarchy.removeObjects(earlier, false)

// As qprd/predictions.py makes ids of ours.
def ownId = {
    def random = UUID.randomUUID()
    new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL), random.getLeastSignificantBits())
}

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

def known = project.getPathClasses()
def missing = (predicted + added).findResults { it.getPathClass() }.unique().findAll { !known.contains(it) }
if (missing && saves) {
    // A project that lists none gets QuPath's default ones, unless it lists ours.
    if (known) {
        project.setPathClasses(known + missing)
    }
    def gui = getQuPath()
    if (gui != null) {
        // The open window keeps its own list, and would write that over the project's.
        Platform.runLater {
            def shown = gui.getAvailablePathClasses()
            missing.findAll { !shown.contains(it) }.each { shown.add(it) }
        }
    }
}
fireHierarchyUpdate()
save(metadata.collectEntries { key, value -> [key, value.getAsString()] }) { hasPredictions && it.startsWith(OWN_PREFIX) }
project.syncChanges()

def tiles = predicted.count { it.isTile() }
def regions = predicted.count { it.isAnnotation() && it.getMeasurements().containsKey(OWN_RANK) }
def contours = predicted.size() - tiles - regions
def counted = { count, noun -> "${count} ${noun}${count == 1 ? '' : 's'}" }
println "qprd: ${counted(tiles, 'tile')}${regions ? ", ${counted(regions, 'region')} to review" : ''} and " +
        "${counted(contours, 'contour')} into ${name}, ${counted(earlier.size(), 'earlier one')} replaced" +
        (added ? ", ${counted(added.size(), 'judgment')} made in the browser" : '')

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
