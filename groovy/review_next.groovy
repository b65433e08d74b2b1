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
import groovy.transform.Field
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
final TITLE = 'qprd: review'

def image = currentImage()
def viewer = image.viewer
keepUnchanged(image)
if (viewer == null) {
    refuseLostObjects(image, 'nothing is shown')
}
def review = reviewOf(image, ACCEPTED, PIECE_UM, MOST_PIECES)
def items = review.items
println "qprd: ${image.name} has ${counted(review.regions, 'region')} and ${counted(review.contours, 'contour')} to review" +
        (!review.large ? '' : "; ${review.large} ${review.large == 1 ? 'is' : 'are'} large: " +
                "${counted(review.pieces, 'piece')} of ${review.large == 1 ? 'it' : 'them'}")
if (viewer == null) {
    items.eachWithIndex { object, index ->
        def roi = object.getROI()
        println "${index + 1}. ${review.told[object.getID()]} at (${Math.round(roi.getCentroidX())}, ${Math.round(roi.getCentroidY())})"
    }
    return
}
if (items.isEmpty()) {
    return
}

Platform.runLater {
    Window.getWindows().findAll { it instanceof Stage && it.getTitle() == TITLE }.each { it.close() }
    def at = 0
    def said = new Label()
    def window = new Stage()
    def say = { String text ->
        said.setText(text)
        // The window has the size of what it says.
        window.sizeToScene()
    }
    def left = { unanswered(image, items) }
    def stillHere = {
        def here = viewer.getImageData() == image.data
        if (!here) {
            window.close()
        }
        here
    }
    def show = {
        if (at >= items.size()) {
            say("All ${items.size()} seen, ${items.size() - left()} judged.\nSave: File > Save.")
            return
        }
        def object = annotationOf(image, items[at])
        def roi = object.getROI()
        def id = object.getID()
        def classes = !isOwnClass(object.getPathClass()) ? "Its class is ${object.getPathClass()} now."
                : "Accept gives it the class ${review.accepted[id]}, Reject ${REJECTED}."
        say("${at + 1} of ${items.size()}, ${left()} without an answer\n${review.told[id]}\n${classes}")
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
            judge(image, items[at], className, window)
            step(1)
        }
    }
    def button = { text, action ->
        def made = new Button(text)
        made.setOnAction { action() }
        made
    }
    def buttons = new HBox(6,
            button('_Accept') { if (at < items.size()) { classify(review.accepted[items[at].getID()]) } },
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

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String REVIEW = 'Review'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_PROBABILITY = 'qprd: probability'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
@Field static final String OWN_MEAN_PROBABILITY = 'qprd: mean probability'
@Field static final String OWN_NUMBER = 'qprd: number'
@Field static final String OWN_RANK = 'qprd: review rank'
@Field static final long OWN_ID = 0x71707264L
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

boolean isReviewClass(pathClass) {
    partsOf(pathClass) == [REVIEW, OWN]
}

boolean isOwnAnnotation(object) {
    object.isAnnotation() && isOwnClass(object.getPathClass()) && object.getMeasurements().containsKey(OWN_MEAN_SCORE)
}

boolean isOwnContour(object) {
    isOwnAnnotation(object) && !partsOf(object.getPathClass()).contains(REVIEW)
}

/** A random id of ours, as qprd/predictions.py makes them. */
UUID ownId() {
    def random = UUID.randomUUID()
    new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL), random.getLeastSignificantBits())
}
// ---- end of part objects ----

// ---- part review: generated from parts/review.groovy, do not edit here ----
/**
 * What is to review, in its order: regions by their rank, then contours and pieces of large ones, the least certain
 * first.
 *
 * @param accepted  class of what is accepted; null takes that of the contour without "qprd"
 * @param pieceUm   a contour that is longer than two such edges is asked about in squares of this edge
 * @param most      so many pieces at the most
 * @return items, and by their ids what is told of each and which class it gets; how many regions, contours, large
 *         ones and pieces there are
 */
Map reviewOf(Map image, String accepted, double pieceUm, int most) {
    def annotations = image.hierarchy.getAnnotationObjects()
    // NaN, of a region whose outline was changed, comes last.
    def rankOf = { object -> object.getMeasurementList().get(OWN_RANK) }
    def numberOf = { object -> object.getMeasurementList().get(OWN_NUMBER) }
    def regions = annotations.findAll { isReviewClass(it.getPathClass()) }
            .sort(false) { a, b -> rankOf(a) <=> rankOf(b) ?: a.getID() <=> b.getID() }
    def contours = annotations.findAll { isOwnContour(it) }
    def calibrated = contours.every { it.getMeasurements().containsKey(OWN_MEAN_PROBABILITY) }
    def measurement = calibrated ? OWN_MEAN_PROBABILITY : OWN_MEAN_SCORE
    def meanOf = { object -> object.getMeasurementList().get(measurement) }

    def calibration = image.data.getServer().getPixelCalibration()
    def edge = pieceUm / (calibration.hasPixelSizeMicrons() ? calibration.getAveragedPixelSizeMicrons() : 0.5d)
    def (large, small) = contours.split { Math.max(it.getROI().getBoundsWidth(), it.getROI().getBoundsHeight()) > 2 * edge }
    def numberOfPiece = [:]
    def pieces = large.collectMany { contour ->
        piecesOf(image, contour, edge, calibrated).each { numberOfPiece[it.getID()] = numberOf(contour) }
    }
    pieces = pieces.sort(false) { a, b -> meanOf(a) <=> meanOf(b) ?:
            a.getROI().getBoundsY() <=> b.getROI().getBoundsY() ?: a.getROI().getBoundsX() <=> b.getROI().getBoundsX() }
    def byMean = { a, b -> meanOf(a) <=> meanOf(b) ?: a.getID() <=> b.getID() }
    def items = regions + (small + pieces.take(most)).sort(false, byMean)

    def tell = { object ->
        def number = { value -> Double.isNaN(value) ? '' : " ${value as int}" }
        def what = isReviewClass(object.getPathClass()) ? 'Region' + number(rankOf(object)) :
                numberOfPiece.containsKey(object.getID()) ? 'Piece of contour' + number(numberOfPiece[object.getID()])
                        : 'Contour' + number(numberOf(object))
        def mean = meanOf(object)
        what + (Double.isNaN(mean) ? '' : ", ${measurement - OWN_PREFIX} ${String.format(Locale.ROOT, '%.3f', mean)}")
    }
    def plain = { object -> (partsOf(object.getPathClass()) - OWN).join(': ') ?: null }
    def tumor = contours.findResult(plain) ?: 'Tumor'
    def classOf = { object ->
        accepted ?: (isReviewClass(object.getPathClass()) ? tumor : plain(object) ?: tumor)
    }
    [items: items, told: items.collectEntries { [it.getID(), tell(it)] },
     accepted: items.collectEntries { [it.getID(), classOf(it)] },
     regions: regions.size(), contours: contours.size(), large: large.size(), pieces: Math.min(pieces.size(), most)]
}

/**
 * Squares of a contour, as nobody can answer for one that covers half a slide: those with tissue that nobody has
 * judged. They are in the image once somebody accepts or rejects them.
 */
List piecesOf(Map image, contour, double edge, boolean calibrated) {
    def roi = contour.getROI()
    def geometry = roi.getGeometry()
    def outline = PreparedGeometryFactory.prepare(geometry)
    def values = [:].withDefault { [] }
    image.hierarchy.getTileObjects().findAll { it.getMeasurements().containsKey(OWN_SCORE) }.each { tile ->
        def (x, y) = [tile.getROI().getCentroidX(), tile.getROI().getCentroidY()]
        if (outline.contains(geometry.getFactory().createPoint(new Coordinate(x, y)))) {
            values[[(x / edge) as int, (y / edge) as int]] << tile.getMeasurementList()
        }
    }
    def judged = image.hierarchy.getAnnotationObjects().findAll { !isOwnClass(it.getPathClass()) }
            .collect { it.getROI().getGeometry() }
    values.findResults { cell, measured ->
        def square = GeometryTools.createRectangle(cell[0] * edge, cell[1] * edge, edge, edge)
        def part = GeometryTools.ensurePolygonal(square.intersection(geometry))
        def known = judged.sum { it.intersects(part) ? it.intersection(part).getArea() : 0d } ?: 0d
        if (part.getArea() < 0.1 * edge * edge || known > 0.5 * part.getArea()) {
            return null
        }
        def piece = PathObjects.createAnnotationObject(GeometryTools.geometryToROI(part, roi.getImagePlane()),
                contour.getPathClass())
        piece.setID(ownId())
        def average = { key -> measured.collect { it.get(key) }.average() as double }
        piece.getMeasurementList().put(OWN_MEAN_SCORE, average(OWN_SCORE))
        if (calibrated) {
            piece.getMeasurementList().put(OWN_MEAN_PROBABILITY, average(OWN_PROBABILITY))
        }
        piece
    }
}

/**
 * An item as it is in the image now, where an edit or QuPath's Undo may have put another annotation of its id. Itself if
 * there is none: a piece that nobody has judged.
 */
def annotationOf(Map image, item) {
    image.hierarchy.getAnnotationObjects().find { it.getID() == item.getID() } ?: item
}

/** How many of the items have no answer; there may be a hundred thousand objects to look through for them. */
int unanswered(Map image, List items) {
    def present = image.hierarchy.getAnnotationObjects().collectEntries { [it.getID(), it] }
    items.count { isOwnClass((present[it.getID()] ?: it).getPathClass()) }
}

/** An item as an annotation of the image: a piece comes into it as a copy. */
def addedOf(Map image, item) {
    def found = annotationOf(image, item)
    if (!found.is(item) || image.hierarchy.getAnnotationObjects().contains(item)) {
        return found
    }
    def copy = PathObjects.createAnnotationObject(item.getROI(), item.getPathClass())
    copy.setID(item.getID())
    item.getMeasurements().each { name, value -> copy.getMeasurementList().put(name, value as double) }
    image.hierarchy.addObject(copy)
    copy
}

/** Give an item a class, by which it is the user's. */
void judge(Map image, item, String className, source) {
    def annotation = addedOf(image, item)
    annotation.setPathClass(PathClass.fromString(className))
    image.hierarchy.fireObjectClassificationsChangedEvent(source, [annotation])
}
// ---- end of part review ----
