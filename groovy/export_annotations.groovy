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

import com.google.gson.Gson
import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParseException
import groovy.transform.Field
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.StandardCopyOption

def image = projectImage()
keepUnchanged(image)
println exportAnnotations(image)

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String FAULT = 'qprd: fault'
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

String counted(int count, String noun) {
    "${count} ${noun}${count == 1 ? '' : 's'}"
}
// ---- end of part image ----

// ---- part annotations: generated from parts/annotations.groovy, do not edit here ----
Path annotationFile(Map image) {
    image.folder.resolve('annotations').resolve(image.entry.getID() + '.geojson')
}

/** Write all annotations of an image to its file, and say what was done. Nothing is changed in QuPath. */
String exportAnnotations(Map image) {
    def gson = GsonTools.getInstance()
    def annotations = image.hierarchy.getAnnotationObjects()
    // An empty export of an image that QuPath could not read must not take the place of a good one.
    def saved = !annotations.isEmpty() ? null : savedHierarchy(image)?.getAsJsonObject('objectTypeCounts')?.get('Annotations')
    if (saved != null && saved.getAsLong() > 0) {
        throw new IllegalStateException("qprd: ${image.name} had ${saved} annotations " +
                'when it was saved, and has none now: nothing was exported. ' +
                'If you deleted them, save the image and run this again.')
    }

    // The folder qprd may be a link, to another disk; nothing in it may lead elsewhere.
    def file = annotationFile(image)
    def folder = file.getParent()
    Files.createDirectories(folder)
    if (!folder.toRealPath().startsWith(image.folder.toRealPath())) {
        throw new IllegalStateException("qprd: ${folder} leads out of the project: nothing was exported. Remove the link.")
    }

    // "qprd import-asap" may have added annotations to the file that this is about to replace.
    def imported = importedIds(gson, file)
    def present = annotations.collect { it.getID().toString() } as Set
    if (imported && imported.every { !present.contains(it) }) {
        throw new IllegalStateException("qprd: ${image.name} lacks the ${imported.size()} annotations " +
                'that qprd import-asap added: nothing was exported. Run import_annotations.groovy first; ' +
                "if you do not want them, delete ${file}.")
    }

    def broken = []
    def features = annotations.collect { featureOf(gson, it, broken) }.join(',')
    // As in qprd/qupath/image_record.py, but for the fingerprint: what tells this image from others.
    def record = [entry: image.entry.getID(), image: image.name, uri: image.entry.getURIs()[0]?.toString()]
    try {
        def server = image.data.getServer()
        record += [width: server.getWidth(), height: server.getHeight()]
    } catch (Exception ignored) {
        // The slide is not there.
    }
    def text = '{"type":"FeatureCollection","features":[' + features + "],\"${OWN}\":" + gson.toJson(record) + '}'
    def temporary = folder.resolve('.' + image.entry.getID() + '.geojson.tmp')
    try {
        Files.writeString(temporary, text, StandardCharsets.UTF_8)
        Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING)
    } finally {
        Files.deleteIfExists(temporary)
    }
    "qprd: ${counted(annotations.size(), 'annotation')} of ${image.name} -> ${file}" + (!broken ? '' :
            "\nqprd: of these, QuPath cannot export ${broken.join(', ')}: they will not be used; draw them again or delete them")
}

/** Ids of what "qprd import-asap" added to a file, which may be missing or damaged. */
List<String> importedIds(Gson gson, Path file) {
    def earlier = null
    try {
        earlier = Files.isRegularFile(file) ? gson.fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonElement.class) : null
    } catch (JsonParseException | IOException ignored) {
        // A damaged file is there to be replaced.
    }
    def member = earlier instanceof JsonObject ? earlier.get(OWN) : null
    def listed = member instanceof JsonObject ? member.get('imported') : null
    listed instanceof JsonArray ? listed.collect { it.getAsString() } : []
}

/**
 * An annotation as GeoJSON. One that QuPath cannot export, such as a polygon of two equal points, must not cost the
 * others: it becomes the points of its outline, and qprd names it.
 */
String featureOf(Gson gson, annotation, List<String> broken) {
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
// ---- end of part annotations ----
