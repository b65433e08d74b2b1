/*
 * qprd: import annotations
 *
 * Brings annotations that "qprd import-asap" added to <project>/qprd/annotations/<entry id>.geojson into
 * this image, each once. Nothing else is touched. Run it before export_annotations.groovy, which writes
 * that file anew from what QuPath has.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open (save it yourself: File > Save), or
 *   Run > Run for project   for the images that you choose; QuPath saves them.
 * Without a window: QuPath script --save --project project.qpproj import_annotations.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import javafx.application.Platform
import qupath.lib.io.GsonTools

import java.nio.charset.StandardCharsets
import java.nio.file.Files

// As in qprd/predictions.py; a test compares the two.
final OWN = 'qprd'

def project = getProject()
def entry = getProjectEntry()
if (project == null || entry == null) {
    throw new IllegalStateException('qprd: open an image of a project first')
}
def name = entry.getOriginalImageName()
def file = project.getPath().getParent().resolve('qprd').resolve('annotations').resolve(entry.getID() + '.geojson')
def gson = GsonTools.getInstance()
def root = Files.isRegularFile(file) ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class) : null
def listed = root?.getAsJsonObject(OWN)?.getAsJsonArray('imported')
if (listed == null) {
    println "qprd: nothing was imported for ${name} (${file})"
    return
}
// Entries get other ids when a project is made anew, and "qprd" folders can be copied: as in
// qprd/qupath/image_record.py, but for the fingerprint.
def refuseAnotherImage = { record ->
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
        throw new IllegalStateException("qprd: ${file} is of the image ${textOf('image')}, and this image is ${name}: " +
                'nothing was changed. Run qprd import-asap for this image.')
    }
}
refuseAnotherImage(root.getAsJsonObject(OWN))
def imported = listed.collect { it.getAsString() } as Set
def found = GsonTools.parseObjectsFromGeoJSON(root).findAll { imported.contains(it.getID().toString()) }

// QuPath shows an image without objects when it cannot read the image's data file, and saving then
// replaces that file.
def hierarchy = getCurrentHierarchy()
def summaryFile = entry.getEntryPath().resolve('summary.json')
if (hierarchy.isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = gson.fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now: nothing was " +
                'imported. Its data file may be damaged. If you deleted them, save the image and run this again.')
    }
}

def present = hierarchy.getAllObjects(false).collect { it.getID() } as Set
def added = found.findAll { !present.contains(it.getID()) }
hierarchy.addObjects(added)

def known = project.getPathClasses()
def missing = added.findResults { it.getPathClass() }.unique().findAll { !known.contains(it) }
// A project that lists none gets QuPath's default ones, unless it lists ours.
if (missing && known) {
    project.setPathClasses(known + missing)
    project.syncChanges()
}
def gui = getQuPath()
if (missing && gui != null) {
    // The open window keeps its own list, and would write that over the project's.
    Platform.runLater {
        def shown = gui.getAvailablePathClasses()
        missing.findAll { !shown.contains(it) }.each { shown.add(it) }
    }
}
fireHierarchyUpdate()
def counted = { count, noun -> "${count} ${noun}${count == 1 ? '' : 's'}" }
println "qprd: ${counted(added.size(), 'annotation')} into ${name}, ${found.size() - added.size()} were there already"
