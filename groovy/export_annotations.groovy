/*
 * qprd: export annotations
 *
 * Writes all annotations of this image to <project>/qprd/annotations/<entry id>.geojson, from where
 * "qprd --backend exchange" reads them. It changes nothing in QuPath.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run               for the image that is open, as you see it, or
 *   Run > Run for project   for the images that you choose, as they were saved.
 * Without a window: QuPath script --project project.qpproj export_annotations.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.StandardCopyOption

// As in qprd/predictions.py; a test compares the two.
final OWN = 'qprd'
final FAULT = 'qprd: fault'

def project = getProject()
def entry = getProjectEntry()
if (project == null || entry == null) {
    throw new IllegalStateException('qprd: open an image of a project first')
}
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

def gson = GsonTools.getInstance()
def annotations = getAnnotationObjects()

// QuPath shows an image without objects when it cannot read the image's data file. An empty export
// must not then take the place of a good one.
def summaryFile = entry.getEntryPath().resolve('summary.json')
if (annotations.isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = gson.fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    def saved = summary?.getAsJsonObject('hierarchy')?.getAsJsonObject('objectTypeCounts')?.get('Annotations')
    if (saved != null && saved.getAsLong() > 0) {
        throw new IllegalStateException("qprd: ${entry.getOriginalImageName()} had ${saved} annotations " +
                'when it was saved, and has none now: nothing was exported. ' +
                'If you deleted them, save the image and run this again.')
    }
}

// The folder qprd may be a link, to another disk; nothing in it may lead elsewhere.
def own = project.getPath().getParent().resolve('qprd')
def folder = own.resolve('annotations')
Files.createDirectories(folder)
if (!folder.toRealPath().startsWith(own.toRealPath())) {
    throw new IllegalStateException("qprd: ${folder} leads out of the project: nothing was exported. Remove the link.")
}
def file = folder.resolve(entry.getID() + '.geojson')

// "qprd import-asap" may have added annotations to the file that this is about to replace.
def earlier = null
try {
    earlier = Files.isRegularFile(file) ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonElement.class) : null
} catch (JsonParseException | IOException ignored) {
    // A damaged file is there to be replaced.
}
def member = earlier instanceof JsonObject ? earlier.get(OWN) : null
def listed = member instanceof JsonObject ? member.get('imported') : null
def imported = listed instanceof JsonArray ? listed.collect { it.getAsString() } : []
def present = annotations.collect { it.getID().toString() } as Set
if (imported && imported.every { !present.contains(it) }) {
    throw new IllegalStateException("qprd: ${entry.getOriginalImageName()} lacks the ${imported.size()} annotations " +
            'that qprd import-asap added: nothing was exported. Run import_annotations.groovy first; ' +
            "if you do not want them, delete ${file}.")
}

// One annotation that QuPath cannot export, such as a polygon of two equal points, must not cost the others:
// it becomes the points of its outline, and qprd names it.
def broken = []
def exported = { annotation ->
    try {
        return gson.toJson(annotation)
    } catch (RuntimeException error) {
        broken << (annotation.getName() ?: annotation.getID().toString())
        def points = annotation.getROI().getAllPoints().findAll {
            Double.isFinite(it.getX()) && Double.isFinite(it.getY())
        }
        def roi = ROIs.createPointsROI(points, annotation.getROI().getImagePlane())
        def standIn = PathObjects.createAnnotationObject(roi, annotation.getPathClass())
        standIn.setID(annotation.getID())
        standIn.setName(annotation.getName())
        def feature = gson.fromJson(gson.toJson(standIn), JsonObject.class)
        feature.getAsJsonObject('properties').addProperty(FAULT, 'QuPath cannot export it: ' + error.getMessage())
        return gson.toJson(feature)
    }
}
def features = annotations.collect(exported).join(',')
// As in qprd/qupath/image_record.py, but for the fingerprint: what tells this image from others.
def record = [entry: entry.getID(), image: entry.getOriginalImageName(), uri: entry.getURIs()[0]?.toString()]
try {
    def server = getCurrentServer()
    record += [width: server.getWidth(), height: server.getHeight()]
} catch (Exception ignored) {
    // The slide is not there.
}
def source = gson.toJson(record)
def text = '{"type":"FeatureCollection","features":[' + features + "],\"${OWN}\":" + source + '}'

def temporary = folder.resolve('.' + entry.getID() + '.geojson.tmp')
try {
    Files.writeString(temporary, text, StandardCharsets.UTF_8)
    Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING)
} finally {
    Files.deleteIfExists(temporary)
}
def counted = { count, noun -> "${count} ${noun}${count == 1 ? '' : 's'}" }
println "qprd: ${counted(annotations.size(), 'annotation')} of ${entry.getOriginalImageName()} -> ${file}"
if (broken) {
    println "qprd: of these, QuPath cannot export ${broken.join(', ')}: they will not be used; draw them again or delete them"
}
