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
import groovy.transform.Field
import javafx.application.Platform
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files

def image = projectImage()
refuseLostObjects(image, 'nothing was removed')
def own = image.hierarchy.getAllObjects(false).findAll { isOwn(it) }
removeOwn(image, own)
saveImage(image, [:]) { it.startsWith(OWN_PREFIX) }

// Classes of ours that no image bears any more leave the list. Other images are known by their summaries.
def borne = image.hierarchy.getAllObjects(false).findResults { it.getPathClass() } as Set
def bears = { other, pathClass ->
    def summary = savedHierarchy([entry: other])
    def counts = ['annotation', 'detection'].collect { summary?.getAsJsonObject(it + 'ClassificationCounts') }
    counts.any { it == null ? other.hasImageData() : it.has(pathClass.toString()) }
}
def others = image.project.getImageList().reverse().findAll { it != image.entry }
def gone = !image.saves ? [] : image.project.getPathClasses().findAll { pathClass ->
    isOwnClass(pathClass) && !borne.contains(pathClass) && !others.any { bears(it, pathClass) }
}
if (gone) {
    image.project.setPathClasses(image.project.getPathClasses() - gone)
    image.project.syncChanges()
    def gui = getQuPath()
    if (gui != null) {
        // The open window keeps its own list, and would write that over the project's.
        Platform.runLater { gui.getAvailablePathClasses().removeAll(gone) }
    }
}
def tiles = own.count { it.isTile() }
println "qprd: ${counted(tiles, 'tile')} and ${counted(own.size() - tiles, 'annotation')} out of ${image.name}"
keepUnchanged(image)

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
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
// ---- end of part saving ----
