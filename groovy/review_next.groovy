/*
 * qprd: review, the next one first
 *
 * Steps through what qprd asks you to look at: regions of class "Review: qprd" in their order ("qprd predict
 * --uncertain N" marks them), then its contours, the most uncertain (of the lowest mean probability) first.
 * A small window accepts (class Tumor), rejects (class Normal) or passes over the one that is selected and
 * centered. To edit one, change its outline with QuPath's tools before you accept it. What you accept or
 * reject is yours from then on, and the next "qprd train" learns from it. Nothing else is touched. Save when
 * you are done: File > Save.
 *
 * To run it: Automate > Script editor, open this file, then
 *   Run > Run                                for the image that is open, or
 *   Run > Run for project (without saving)   to print the order in the images that you choose.
 * Without a window, for the order: QuPath script --project project.qpproj review_next.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import javafx.application.Platform
import javafx.geometry.Insets
import javafx.scene.Scene
import javafx.scene.control.Button
import javafx.scene.control.Label
import javafx.scene.layout.HBox
import javafx.scene.layout.VBox
import javafx.stage.Stage
import javafx.stage.Window
import qupath.lib.io.GsonTools

import java.nio.charset.StandardCharsets
import java.nio.file.Files

// Class of what is accepted; null takes that of the contour without "qprd": "Tumor: qprd" becomes "Tumor".
final ACCEPTED = null
final REJECTED = 'Normal'

// As in qprd/predictions.py; a test compares the two.
final OWN = 'qprd'
final OWN_MEAN_SCORE = 'qprd: mean score'
final OWN_MEAN_PROBABILITY = 'qprd: mean probability'
final OWN_RANK = 'qprd: review rank'
final OWN_PREFIX = 'qprd: '
final REVIEW = 'Review'
final TITLE = 'qprd: review'

def partsOf = { pathClass -> pathClass == null ? [] : pathClass.toString().split(':').collect { it.strip() } }
def isReview = { object -> partsOf(object.getPathClass()) == [REVIEW, OWN] }
def isContour = { object ->
    def parts = partsOf(object.getPathClass())
    parts.contains(OWN) && !parts.contains(REVIEW) && object.getMeasurements().containsKey(OWN_MEAN_SCORE)
}

def entry = getProjectEntry()
def name = entry?.getOriginalImageName() ?: getCurrentServer().getMetadata().getName()
def viewer = getCurrentViewer()
def inView = viewer != null && viewer.getImageData() == getCurrentImageData()

// QuPath shows an image without objects when it cannot read the image's data file, and saving it, as
// "Run for project" does, then replaces that file.
def summaryFile = entry?.getEntryPath()?.resolve('summary.json')
if (!inView && summaryFile != null && getCurrentHierarchy().isEmpty() && Files.isRegularFile(summaryFile)) {
    def summary = GsonTools.getInstance().fromJson(Files.readString(summaryFile, StandardCharsets.UTF_8), JsonObject.class)
    // The root object counts as one.
    def saved = summary?.getAsJsonObject('hierarchy')?.get('nObjects')
    if (saved != null && saved.getAsLong() > 1) {
        throw new IllegalStateException("qprd: ${name} had objects when it was saved, and has none now. Its data file may be " +
                'damaged. If you deleted them, save the image and run this again.')
    }
}

def annotations = getAnnotationObjects()
// NaN, of a region whose outline was changed, comes last.
def rankOf = { object -> object.getMeasurementList().get(OWN_RANK) }
def regions = annotations.findAll(isReview).sort(false) { a, b -> rankOf(a) <=> rankOf(b) ?: a.getID() <=> b.getID() }
def contours = annotations.findAll(isContour)
def calibrated = contours.every { it.getMeasurements().containsKey(OWN_MEAN_PROBABILITY) }
def measurement = calibrated ? OWN_MEAN_PROBABILITY : OWN_MEAN_SCORE
def meanOf = { object -> object.getMeasurementList().get(measurement) }
contours = contours.sort(false) { a, b -> meanOf(a) <=> meanOf(b) ?: a.getID() <=> b.getID() }
def items = regions + contours
def tell = { object ->
    def mean = meanOf(object)
    (object.getName() ?: object.getPathClass().toString()) +
            (Double.isNaN(mean) ? '' : ", ${measurement - OWN_PREFIX} ${String.format(Locale.ROOT, '%.3f', mean)}")
}

println "qprd: ${name} has ${regions.size()} regions and ${contours.size()} contours to review"
if (!inView) {
    items.eachWithIndex { object, index ->
        def roi = object.getROI()
        println "${index + 1}. ${tell(object)} at (${Math.round(roi.getCentroidX())}, ${Math.round(roi.getCentroidY())})"
    }
    return
}
if (items.isEmpty()) {
    return
}

def imageData = getCurrentImageData()
def hierarchy = imageData.getHierarchy()
def tumor = contours.findResult { object -> (partsOf(object.getPathClass()) - OWN).join(': ') ?: null } ?: 'Tumor'
def acceptedAs = { object ->
    ACCEPTED ?: (isReview(object) ? tumor : (partsOf(object.getPathClass()) - OWN).join(': ') ?: tumor)
}

Platform.runLater {
    Window.getWindows().findAll { it instanceof Stage && it.getTitle() == TITLE }.each { it.close() }
    def at = 0
    def said = new Label()
    def window = new Stage()
    def stillHere = {
        def here = viewer.getImageData() == imageData
        if (!here) {
            window.close()
        }
        here
    }
    def show = {
        if (at >= items.size()) {
            said.setText("All ${items.size()} seen. Save: File > Save.")
            return
        }
        def object = items[at]
        def roi = object.getROI()
        said.setText("${at + 1} of ${items.size()}: ${tell(object)}\n${object.getPathClass() ?: 'no class'}")
        def needed = Math.max(roi.getBoundsWidth() / viewer.getView().getWidth(), roi.getBoundsHeight() / viewer.getView().getHeight())
        viewer.setDownsampleFactor(Math.max(3 * needed, 1d))
        viewer.centerROI(roi)
        viewer.setSelectedObject(object)
    }
    def step = { by ->
        if (stillHere()) {
            at = Math.max(0, Math.min(items.size(), at + by))
            show()
        }
    }
    def classify = { className ->
        if (stillHere() && at < items.size()) {
            def object = items[at]
            object.setPathClass(PathClass.fromString(className))
            hierarchy.fireObjectClassificationsChangedEvent(window, [object])
            step(1)
        }
    }
    def button = { text, action ->
        def made = new Button(text)
        made.setOnAction { action() }
        made
    }
    def names = items.collectEntries { [it.getID(), acceptedAs(it)] }
    def buttons = new HBox(6,
            button('_Accept') { if (at < items.size()) { classify(names[items[at].getID()]) } },
            button('_Reject') { classify(REJECTED) },
            button('_Next') { step(1) },
            button('_Back') { step(-1) })
    def box = new VBox(8, said, buttons)
    box.setPadding(new Insets(10))
    window.setTitle(TITLE)
    window.initOwner(getQuPath().getStage())
    window.setScene(new Scene(box))
    window.setAlwaysOnTop(true)
    window.show()
    show()
}
