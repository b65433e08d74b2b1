/*
 * qprd: remove qprd's objects
 *
 * Takes out of this image what qprd put there: its tiles, contours and regions to review, and the
 * metadata of the project entry that begin with "qprd: ". Your annotations and cells, and contours that
 * you gave another class (accepted or rejected) or another outline, are yours and stay. Files below
 * <project>/qprd/ stay too: "qprd write-back" brings everything back.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open, which is saved, or
 *   Run > Run for project   for the images that you choose.
 * Without a window: QuPath script --save --project project.qpproj remove_qprd_objects.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
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
final OWN_PREFIX = 'qprd: '

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

// QuPath shows an image without objects when it cannot read the image's data file, and saving then
// replaces that file.
def hierarchy = getCurrentHierarchy()
def summaryFile = entry.getEntryPath().resolve('summary.json')
if (hierarchy.isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = GsonTools.getInstance().fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now: nothing was " +
                'removed. Its data file may be damaged. If you deleted them, save the image and run this again.')
    }
}

// Users may have nested objects of theirs below ours: these move up before ours go.
def own = hierarchy.getAllObjects(false).findAll(isOwn) as LinkedHashSet
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
hierarchy.removeObjects(own, false)

fireHierarchyUpdate()
save([:]) { it.startsWith(OWN_PREFIX) }

// Classes of ours that no image bears any more leave the list. Other images are known by their summaries.
def borne = hierarchy.getAllObjects(false).findResults { it.getPathClass() } as Set
def bears = { other, pathClass ->
    def path = other.getEntryPath().resolve('summary.json')
    def summary = Files.isRegularFile(path)
            ? GsonTools.getInstance().fromJson(Files.readString(path, StandardCharsets.UTF_8), JsonObject.class) : null
    def counts = ['annotation', 'detection'].collect {
        summary?.getAsJsonObject('hierarchy')?.getAsJsonObject(it + 'ClassificationCounts')
    }
    counts.any { it == null ? other.hasImageData() : it.has(pathClass.toString()) }
}
def others = project.getImageList().reverse().findAll { it != entry }
def gone = !saves ? [] : project.getPathClasses().findAll { pathClass ->
    isOwnClass(pathClass) && !borne.contains(pathClass) && !others.any { bears(it, pathClass) }
}
if (gone) {
    project.setPathClasses(project.getPathClasses() - gone)
    def gui = getQuPath()
    if (gui != null) {
        // The open window keeps its own list, and would write that over the project's.
        Platform.runLater { gui.getAvailablePathClasses().removeAll(gone) }
    }
}
project.syncChanges()

def tiles = own.count { it.isTile() }
def counted = { count, noun -> "${count} ${noun}${count == 1 ? '' : 's'}" }
println "qprd: ${counted(tiles, 'tile')} and ${counted(own.size() - tiles, 'annotation')} out of ${name}"

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
