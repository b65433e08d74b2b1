/*
 * qprd: remove qprd's objects
 *
 * Takes out of this image what qprd put there: its tiles, contours and regions to review, and the
 * metadata of the project entry that begin with "qprd: ". Your annotations and cells, and contours that
 * you gave another class (accepted or rejected) or another outline, are yours and stay. Files below
 * <project>/qprd/ stay too: "qprd write-back" brings everything back.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open (save it yourself: File > Save), or
 *   Run > Run for project   for the images that you choose; QuPath saves them.
 * Without a window: QuPath script --save --project project.qpproj remove_qprd_objects.groovy
 * The entry metadata is saved with the project at once.
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import qupath.lib.io.GsonTools

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

def keys = new ArrayList(entry.getMetadataKeys()).findAll { it.startsWith(OWN_PREFIX) }
if (keys) {
    keys.each { entry.removeMetadataValue(it) }
    project.syncChanges()
}
fireHierarchyUpdate()

def tiles = own.count { it.isTile() }
println "qprd: ${tiles} tiles and ${own.size() - tiles} annotations out of ${name}"
