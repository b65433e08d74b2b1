/* How a changed image is saved with the project. */

import javafx.application.Platform
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener

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
