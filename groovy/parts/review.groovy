/* What qprd asks people to look at in an image. */

import org.locationtech.jts.geom.Coordinate
import org.locationtech.jts.geom.prep.PreparedGeometryFactory

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
