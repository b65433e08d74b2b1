/*
 * qprd: review, the next one first
 *
 * Steps through what qprd asks you to look at: regions of class "Review: qprd" in their order ("qprd predict
 * --uncertain N" marks them), then its contours, the most uncertain (of the lowest mean probability) first, and
 * of a large contour the most uncertain pieces.
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
import org.locationtech.jts.geom.Coordinate
import org.locationtech.jts.geom.prep.PreparedGeometryFactory
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.charset.StandardCharsets
import java.nio.file.Files

// Class of what is accepted; null takes that of the contour without "qprd": "Tumor: qprd" becomes "Tumor".
final ACCEPTED = null
final REJECTED = 'Normal'
// A contour that is longer than two such edges is asked about in squares of this edge, at most so many.
final PIECE_UM = 500
final MOST_PIECES = 20

// As in qprd/predictions.py; a test compares the two.
final OWN = 'qprd'
final OWN_MEAN_SCORE = 'qprd: mean score'
final OWN_MEAN_PROBABILITY = 'qprd: mean probability'
final OWN_SCORE = 'qprd: score'
final OWN_PROBABILITY = 'qprd: probability'
final OWN_NUMBER = 'qprd: number'
final OWN_RANK = 'qprd: review rank'
final OWN_PREFIX = 'qprd: '
final OWN_ID = 0x71707264L
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

// Nobody can answer for a contour that covers half a slide. It is cut into squares, of which those are shown whose
// tissue is least certain and that nobody has judged. They are in the image once somebody accepts or rejects them.
def server = getCurrentServer()
def calibration = server.getPixelCalibration()
def edge = PIECE_UM / (calibration.hasPixelSizeMicrons() ? calibration.getAveragedPixelSizeMicrons() : 0.5d)
def numberOf = { object -> object.getMeasurementList().get(OWN_NUMBER) }
def pieceOf = [:]
def isLarge = { Math.max(it.getROI().getBoundsWidth(), it.getROI().getBoundsHeight()) > 2 * edge }
def cut = { contour ->
    def roi = contour.getROI()
    def geometry = roi.getGeometry()
    def outline = PreparedGeometryFactory.prepare(geometry)
    def values = [:].withDefault { [] }
    getTileObjects().findAll { it.getMeasurements().containsKey(OWN_SCORE) }.each { tile ->
        def (x, y) = [tile.getROI().getCentroidX(), tile.getROI().getCentroidY()]
        if (outline.contains(geometry.getFactory().createPoint(new Coordinate(x, y)))) {
            values[[(x / edge) as int, (y / edge) as int]] << tile.getMeasurementList()
        }
    }
    def judged = annotations.findAll { !partsOf(it.getPathClass()).contains(OWN) }.collect { it.getROI().getGeometry() }
    values.findResults { cell, measured ->
        def square = GeometryTools.createRectangle(cell[0] * edge, cell[1] * edge, edge, edge)
        def part = GeometryTools.ensurePolygonal(square.intersection(geometry))
        def known = judged.sum { it.intersects(part) ? it.intersection(part).getArea() : 0d } ?: 0d
        if (part.getArea() < 0.1 * edge * edge || known > 0.5 * part.getArea()) {
            return null
        }
        def piece = PathObjects.createAnnotationObject(GeometryTools.geometryToROI(part, roi.getImagePlane()),
                contour.getPathClass())
        def random = UUID.randomUUID()
        piece.setID(new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL),
                random.getLeastSignificantBits()))
        def average = { key -> measured.collect { it.get(key) }.average() as double }
        piece.getMeasurementList().put(OWN_MEAN_SCORE, average(OWN_SCORE))
        if (calibrated) {
            piece.getMeasurementList().put(OWN_MEAN_PROBABILITY, average(OWN_PROBABILITY))
        }
        pieceOf[piece.getID()] = numberOf(contour)
        piece
    }
}
def meanOf = { object -> object.getMeasurementList().get(measurement) }
def byMean = { a, b -> meanOf(a) <=> meanOf(b) ?: a.getID() <=> b.getID() }
def (large, small) = contours.split(isLarge)
def pieces = large.collectMany(cut).sort(false) { a, b -> meanOf(a) <=> meanOf(b) ?:
        a.getROI().getBoundsY() <=> b.getROI().getBoundsY() ?: a.getROI().getBoundsX() <=> b.getROI().getBoundsX() }
def items = regions + (small + pieces.take(MOST_PIECES)).sort(false, byMean)
def tell = { object ->
    def number = { value -> Double.isNaN(value) ? '' : " ${value as int}" }
    def what = isReview(object) ? 'Region' + number(rankOf(object)) :
            pieceOf.containsKey(object.getID()) ? 'Piece of contour' + number(pieceOf[object.getID()]) : 'Contour' + number(numberOf(object))
    def mean = meanOf(object)
    what + (Double.isNaN(mean) ? '' : ", ${measurement - OWN_PREFIX} ${String.format(Locale.ROOT, '%.3f', mean)}")
}
def counted = { count, noun -> "${count} ${noun}${count == 1 ? '' : 's'}" }
println "qprd: ${name} has ${counted(regions.size(), 'region')} and ${counted(contours.size(), 'contour')} to review" +
        (!large ? '' : "; ${large.size()} ${large.size() == 1 ? 'is' : 'are'} large: " +
                "${counted(Math.min(pieces.size(), MOST_PIECES), 'piece')} of ${large.size() == 1 ? 'it' : 'them'}")
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
    def told = items.collectEntries { [it.getID(), tell(it)] }
    def accepted = items.collectEntries { [it.getID(), acceptedAs(it)] }
    def judged = [] as Set
    def said = new Label()
    def window = new Stage()
    def say = { String text ->
        said.setText(text)
        // The window has the size of what it says.
        window.sizeToScene()
    }
    def stillHere = {
        def here = viewer.getImageData() == imageData
        if (!here) {
            window.close()
        }
        here
    }
    def show = {
        if (at >= items.size()) {
            say("All ${items.size()} seen, ${judged.size()} judged.\nSave: File > Save.")
            return
        }
        def object = items[at]
        def roi = object.getROI()
        def id = object.getID()
        def classes = judged.contains(id) ? "Its class is ${object.getPathClass()} now."
                : "Accept gives it the class ${accepted[id]}, Reject ${REJECTED}."
        say("${at + 1} of ${items.size()}, ${items.size() - judged.size()} without an answer\n${told[id]}\n${classes}")
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
            judged << object.getID()
            if (object.getParent() == null) {
                hierarchy.addObject(object)
            } else {
                hierarchy.fireObjectClassificationsChangedEvent(window, [object])
            }
            step(1)
        }
    }
    def button = { text, action ->
        def made = new Button(text)
        made.setOnAction { action() }
        made
    }
    def buttons = new HBox(6,
            button('_Accept') { if (at < items.size()) { classify(accepted[items[at].getID()]) } },
            button('_Reject') { classify(REJECTED) },
            button('_Next') { step(1) },
            button('_Back') { step(-1) })
    def box = new VBox(8, said, buttons)
    box.setPadding(new Insets(10))
    window.setTitle(TITLE)
    window.initOwner(getQuPath().getStage())
    window.setScene(new Scene(box))
    window.setAlwaysOnTop(true)
    // In a corner, as the middle of the view is what is asked about.
    def corner = viewer.getView().localToScreen(12, 12)
    window.setX(corner.getX())
    window.setY(corner.getY())
    window.show()
    show()
}
