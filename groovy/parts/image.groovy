/* The image that a script works on. */

import com.google.gson.JsonObject
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files

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
