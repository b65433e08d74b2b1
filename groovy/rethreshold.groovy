/*
 * qprd: another threshold
 *
 * Draws qprd's contours of this image anew, at a threshold of your own, from the tiles that are in it.
 * Tiles at or above the threshold get the class of the contours ("Tumor: qprd"). Contours that qprd or
 * this script drew before are replaced. Nothing else is touched: your annotations and cells, and
 * contours that you gave another class (accepted or rejected) or another outline, stay as they are.
 *
 * To run it: Automate > Script editor, open this file, set THRESHOLD below, then
 *   Run > Run               for the image that is open, which is saved, or
 *   Run > Run for project   for the images that you choose.
 * Without a window: QuPath script --save --project project.qpproj rethreshold.groovy
 *
 * For QuPath 0.5.1, 0.6 and 0.7.
 */

import com.google.gson.JsonObject
import groovy.transform.CompileStatic
import groovy.transform.Field
import javafx.application.Platform
import org.locationtech.jts.algorithm.locate.IndexedPointInAreaLocator
import org.locationtech.jts.geom.Coordinate
import org.locationtech.jts.geom.Envelope
import org.locationtech.jts.geom.Geometry
import org.locationtech.jts.geom.GeometryFactory
import org.locationtech.jts.geom.LinearRing
import org.locationtech.jts.geom.Location
import org.locationtech.jts.geom.Polygon
import org.locationtech.jts.geom.PrecisionModel
import org.locationtech.jts.operation.polygonize.Polygonizer
import org.locationtech.jts.operation.union.UnaryUnionOp
import org.locationtech.jts.precision.GeometryPrecisionReducer
import org.locationtech.jts.simplify.TopologyPreservingSimplifier
import qupath.lib.io.GsonTools
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyEvent
import qupath.lib.objects.hierarchy.events.PathObjectHierarchyListener
import qupath.lib.scripting.ScriptParameters

import java.nio.ByteBuffer
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.security.MessageDigest

// A probability, or a raw score where the tiles have no probability.
final THRESHOLD = 0.5
// Smaller contours are dropped, smaller holes filled; null does as the prediction did.
final MIN_AREA_UM2 = null
// Outlines are simplified by at most this; null does as the prediction did.
final TOLERANCE_UM = null

def image = projectImage()
refuseLostObjects(image, 'nothing was changed')
def grid = gridOf(image)
if (grid == null) {
    println "qprd: ${image.name} has no tiles of qprd: run \"qprd predict --write-back\" first"
    return
}
println drawContours(image, grid, THRESHOLD, MIN_AREA_UM2, TOLERANCE_UM)
keepUnchanged(image)

// ---- part names: generated from parts/names.groovy, do not edit here ----
@Field static final String OWN = 'qprd'
@Field static final String REVIEW = 'Review'
@Field static final String OLD_TILE = 'qprd tile'
@Field static final String OWN_PREFIX = 'qprd: '
@Field static final String OWN_SCORE = 'qprd: score'
@Field static final String OWN_PROBABILITY = 'qprd: probability'
@Field static final String OWN_MEAN_SCORE = 'qprd: mean score'
@Field static final String OWN_MAX_SCORE = 'qprd: max score'
@Field static final String OWN_MEAN_PROBABILITY = 'qprd: mean probability'
@Field static final String OWN_AREA = 'qprd: area um^2'
@Field static final String OWN_NUMBER = 'qprd: number'
@Field static final String OWN_BUNDLE = 'qprd: bundle'
@Field static final String OWN_THRESHOLD = 'qprd: threshold'
@Field static final String OWN_PROBABILITY_THRESHOLD = 'qprd: probability threshold'
@Field static final String OWN_THRESHOLD_SET_IN = 'qprd: threshold set in'
@Field static final String CONTOUR_CLASS = 'Tumor: qprd'
@Field static final List CONTOUR_COLOR = [255, 140, 0]
@Field static final int TILE_COLOR = 0x01ffffff
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

boolean isOwnContour(object) {
    isOwnAnnotation(object) && !partsOf(object.getPathClass()).contains(REVIEW)
}

List ownTiles(Map image) {
    image.hierarchy.getTileObjects().findAll { isOwnTile(it) } as List
}

/** The measurement that tiles are shown by: their probability, or the raw score where one has none. */
String tileMeasurement(List tiles) {
    tiles.every { it.getMeasurements().containsKey(OWN_PROBABILITY) } ? OWN_PROBABILITY : OWN_SCORE
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

// ---- part records: generated from parts/records.groovy, do not edit here ----
/** What "qprd predict" saved about this image; null if there is nothing. */
JsonObject resultsOf(Map image) {
    def folder = image.folder.resolve('results').resolve(image.entry.getID())
    def file = folder.resolve('slide.json')
    if (!Files.isRegularFile(file)) {
        return null
    }
    def slide = GsonTools.getInstance().fromJson(Files.readString(file, StandardCharsets.UTF_8), JsonObject.class)
    def frame = slide.getAsJsonObject('frame')
    def sides = ['file_width', 'file_height'].collect { frame.get(it).getAsInt() }
    if (frame.get('rotation').getAsInt() % 180 != 0) {
        sides = sides.reverse()
    }
    def server = image.data.getServer()
    // An image may have been renamed since.
    def names = [image.name, image.entry.getURIs()[0]?.toString()?.tokenize('/')?.last()]
    def same = slide.get('entry_id').getAsString() == image.entry.getID() && names.contains(slide.get('image').getAsString()) &&
            [sides, [server.getWidth(), server.getHeight()]].transpose().every { Math.abs(it[0] - it[1]) <= 1 }
    if (!same) {
        throw new IllegalStateException("qprd: ${folder} has results of the image ${slide.get('image').getAsString()}, and " +
                "this image is ${image.name}: nothing was changed. Run qprd predict for this image.")
    }
    slide
}
// ---- end of part records ----

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
// ---- end of part saving ----

// ---- part contours: generated from parts/contours.groovy, do not edit here ----
@Field static final Map<String, Double> CONTOUR_DEFAULTS = [min_area_um2: 5000d, tolerance_um: 4d]

/** The tiles of an image as a grid; null if it has none. */
Grid gridOf(Map image) {
    def tiles = ownTiles(image)
    if (tiles.isEmpty()) {
        return null
    }
    def calibrated = tileMeasurement(tiles) == OWN_PROBABILITY
    def edge = tiles.collect { Math.max(it.getROI().getBoundsWidth(), it.getROI().getBoundsHeight()) }.max()
    def left = tiles.min { it.getROI().getBoundsX() }.getROI().getBoundsX()
    def top = tiles.min { it.getROI().getBoundsY() }.getROI().getBoundsY()
    def columnOf = { tile -> Math.round((tile.getROI().getBoundsX() - left) / edge) as int }
    def rowOf = { tile -> Math.round((tile.getROI().getBoundsY() - top) / edge) as int }
    def last = tiles.max { it.getROI().getBoundsX() }
    def lowest = tiles.max { it.getROI().getBoundsY() }
    def columns = columnOf(last) + 1
    def rows = rowOf(lowest) + 1
    // Positions are rounded to 0.01 px; over the whole grid that does not matter.
    def pitch = columns > 1 ? (last.getROI().getBoundsX() - left) / (columns - 1)
            : rows > 1 ? (lowest.getROI().getBoundsY() - top) / (rows - 1) : edge
    def grid = new Grid(tiles, calibrated, left, top, pitch, rows, columns)
    tiles.each { tile ->
        def roi = tile.getROI()
        // Those at the right and lower edge of the slide end there.
        def whole = { length, isLast -> Math.abs(length - edge) < 0.02 || isLast && length < edge }
        def fits = whole(roi.getBoundsWidth(), columnOf(tile) == columns - 1) &&
                whole(roi.getBoundsHeight(), rowOf(tile) == rows - 1) &&
                Math.abs(left + columnOf(tile) * pitch - roi.getBoundsX()) < 1 &&
                Math.abs(top + rowOf(tile) * pitch - roi.getBoundsY()) < 1
        if (!fits) {
            throw new IllegalStateException("qprd: the tiles of ${image.name} are not those of one prediction: nothing was " +
                    'changed. Run "qprd write-back" or import_predictions.groovy to have them anew.')
        }
        def cell = rowOf(tile) * columns + columnOf(tile)
        def measured = tile.getMeasurementList()
        grid.scores[cell] = measured.get(OWN_SCORE)
        grid.probabilities[cell] = calibrated ? measured.get(OWN_PROBABILITY) : Double.NaN
    }
    grid
}

/** Micrometers a pixel: QuPath's, or those that the prediction assumed; NaN if neither is known. */
double resolutionOf(Map image) {
    def calibration = image.data.getServer().getPixelCalibration()
    calibration.hasPixelSizeMicrons() ? calibration.getAveragedPixelSizeMicrons()
            : resultsOf(image)?.get('mpp')?.getAsDouble() ?: Double.NaN
}

/** A setting with which the prediction of an image drew its contours; the default where none is recorded. */
double contourSetting(Map image, String name) {
    def recorded = resultsOf(image)?.get(name)
    recorded == null || recorded.isJsonNull() ? CONTOUR_DEFAULTS[name] : recorded.getAsDouble()
}

/**
 * Outlines of what is at or above a threshold, largest first; nothing is changed. Without a known resolution none
 * is dropped and none simplified.
 *
 * @param minAreaUm2   smaller contours are dropped, smaller holes filled; null does as the prediction did
 * @param toleranceUm  how far a simplified outline may be from the exact one; null, too
 */
List<Polygon> outlinesAt(Map image, Grid grid, double threshold, Double minAreaUm2 = null, Double toleranceUm = null) {
    def server = image.data.getServer()
    def mpp = resolutionOf(image)
    def frame = new Envelope(0, server.getWidth(), 0, server.getHeight())
    def minArea = minAreaUm2 != null ? minAreaUm2 : contourSetting(image, 'min_area_um2')
    def tolerance = toleranceUm != null ? toleranceUm : contourSetting(image, 'tolerance_um')
    Double.isNaN(mpp) ? grid.contours(threshold, frame, 0d, 0d)
            : grid.contours(threshold, frame, minArea / (mpp * mpp), tolerance / mpp)
}

/**
 * Replace the contours of an image by those at a threshold, save it with that threshold, and say what was done.
 * Tiles at or above it get the class of the contours.
 */
String drawContours(Map image, Grid grid, double threshold, Double minAreaUm2 = null, Double toleranceUm = null) {
    def polygons = outlinesAt(image, grid, threshold, minAreaUm2, toleranceUm)
    def mpp = resolutionOf(image)
    def (hierarchy, project, tiles) = [image.hierarchy, image.project, grid.tiles]

    // All is known; what follows changes the image.
    def earlier = hierarchy.getAllObjects(false).findAll { isOwnContour(it) }
    def isContourClass = { isOwnClass(it) && !partsOf(it).contains(REVIEW) }
    def contourClass = earlier.findResult { it.getPathClass() } ?:
            tiles.findResult { isContourClass(it.getPathClass()) ? it.getPathClass() : null } ?:
            project.getPathClasses().find(isContourClass) ?: PathClass.fromString(CONTOUR_CLASS, ColorTools.packRGB(*CONTOUR_COLOR))
    removeOwn(image, earlier)

    // A contour that a user accepted keeps its id; the new one at its place needs another.
    def taken = hierarchy.getAllObjects(false).collect { it.getID() } as HashSet
    def bundle = image.entry.getMetadataValue(OWN_BUNDLE) ?: ''
    def plane = tiles[0].getROI().getImagePlane()
    def contours = polygons.withIndex().collect { polygon, index ->
        def contour = PathObjects.createAnnotationObject(GeometryTools.geometryToROI(polygon, plane), contourClass)
        def id = Grid.uuid("${bundle}/${image.entry.getID()}/contour/${index}")
        for (int again = 1; taken.contains(id); again++) {
            id = Grid.uuid("${bundle}/${image.entry.getID()}/contour/${index}/${again}")
        }
        taken.add(id)
        contour.setID(id)
        def measured = contour.getMeasurementList()
        measured.put(OWN_NUMBER, index + 1 as double)
        def cells = grid.cellsIn(polygon)
        measured.put(OWN_MEAN_SCORE, cells.collect { grid.scores[it] }.average() as double)
        measured.put(OWN_MAX_SCORE, cells.collect { grid.scores[it] }.max() as double)
        if (grid.calibrated) {
            measured.put(OWN_MEAN_PROBABILITY, cells.collect { grid.probabilities[it] }.average() as double)
        }
        if (!Double.isNaN(mpp)) {
            measured.put(OWN_AREA, polygon.getArea() * mpp * mpp)
        }
        contour
    }
    hierarchy.addObjects(contours)

    def measurement = tileMeasurement(tiles)
    def above = tiles.findAll { it.getMeasurementList().get(measurement) >= threshold } as LinkedHashSet
    tiles.each { tile ->
        if (above.contains(tile)) {
            tile.setPathClass(contourClass)
            // A new class takes the color away, and QuPath would outline the tile.
            tile.setColor(TILE_COLOR)
        } else if (isContourClass(tile.getPathClass())) {
            tile.resetPathClass()
        }
    }
    hierarchy.fireObjectClassificationsChangedEvent(this, tiles)

    // The threshold of a slide is a raw score: the lowest that reaches the probability, or one that no tile reaches.
    def scoreOf = { tile -> tile.getMeasurementList().get(OWN_SCORE) }
    def raw = !grid.calibrated ? threshold : above ? above.collect(scoreOf).min() : tiles.collect(scoreOf).max() + 0.001d
    def told = [(OWN_THRESHOLD): String.format(Locale.ROOT, '%.4f', raw), (OWN_THRESHOLD_SET_IN): 'QuPath'] +
            (grid.calibrated ? [(OWN_PROBABILITY_THRESHOLD): threshold.toString()] : [:])
    if (image.saves) {
        listClasses(project, contours + above.toList())
    }
    saveImage(image, told) { false }
    "qprd: ${above.size()} of ${tiles.size()} tiles of ${image.name} have a ${measurement - OWN_PREFIX} of ${threshold} or more: " +
            "${counted(contours.size(), 'contour')}, ${counted(earlier.size(), 'earlier one')} replaced"
}

/** The scores of the tiles, and the outlines of what is at or above a threshold. */
@CompileStatic
class Grid {
    final double left, top, pitch
    final int rows, columns
    final List tiles
    final boolean calibrated
    final double[] scores, probabilities
    private final GeometryFactory factory = new GeometryFactory()

    Grid(List tiles, boolean calibrated, double left, double top, double pitch, int rows, int columns) {
        this.tiles = tiles
        this.calibrated = calibrated
        this.left = left
        this.top = top
        this.pitch = pitch
        this.rows = rows
        this.columns = columns
        scores = new double[rows * columns]
        probabilities = new double[rows * columns]
        Arrays.fill(scores, Double.NaN)
        Arrays.fill(probabilities, Double.NaN)
    }

    /**
     * The iso-line of the surface through the centers of the tiles, as qprd/results/contours.py draws it:
     * marching squares with linear interpolation, along the edge of a tile where tissue ends.
     * Largest first.
     */
    List<Polygon> contours(double threshold, Envelope image, double minArea, double tolerance) {
        def polygonizer = new Polygonizer(true)
        outline(excess(calibrated ? probabilities : scores, threshold), polygonizer)
        def large = new ArrayList<Geometry>()
        for (Polygon polygon : polygonsOf(polygonizer.getGeometry())) {
            def holes = (0..<polygon.getNumInteriorRing()).collect { int i -> polygon.getInteriorRingN(i) }
                    .findAll { factory.createPolygon(it).getArea() >= minArea }
            def filled = factory.createPolygon(polygon.getExteriorRing(), holes as LinearRing[])
            if (filled.getArea() >= minArea) {
                // Where a ring begins is chance, and the simplification keeps that point.
                large.add(filled.norm())
            }
        }
        if (large.isEmpty()) {
            return []
        }
        large.sort()
        // A hole that was filled may have had a region in it. All are simplified together, so that none
        // crosses another, and then rounded each by itself, so that none is joined to another.
        def simple = TopologyPreservingSimplifier.simplify(UnaryUnionOp.union(large), tolerance)
        def frame = factory.toGeometry(image)
        return polygonsOf(simple)
                .collectMany { polygonsOf(GeometryPrecisionReducer.reduce(it.intersection(frame), new PrecisionModel(100))) }
                .findAll { it.getArea() > 0 && it.getArea() >= minArea }
                .sort { Polygon a, Polygon b -> b.getArea() <=> a.getArea() ?: a.compareTo(b) }
    }

    /** The tiles whose centers are in a polygon; of one too thin to have any, those it overlaps. */
    List<Integer> cellsIn(Polygon polygon) {
        def bounds = polygon.getEnvelopeInternal()
        def locator = new IndexedPointInAreaLocator(polygon)
        def inside = new ArrayList<Integer>()
        def touched = new ArrayList<Integer>()
        int toRow = Math.min(rows - 1, (int) Math.floor((bounds.getMaxY() - top) / pitch))
        int toColumn = Math.min(columns - 1, (int) Math.floor((bounds.getMaxX() - left) / pitch))
        for (int row = Math.max(0, (int) Math.floor((bounds.getMinY() - top) / pitch)); row <= toRow; row++) {
            for (int column = Math.max(0, (int) Math.floor((bounds.getMinX() - left) / pitch)); column <= toColumn; column++) {
                int cell = row * columns + column
                if (Double.isNaN(scores[cell])) {
                    continue
                }
                touched.add(cell)
                def center = new Coordinate(left + (column + 0.5d) * pitch, top + (row + 0.5d) * pitch)
                if (locator.locate(center) != Location.EXTERIOR) {
                    inside.add(cell)
                }
            }
        }
        return inside.isEmpty() ? touched : inside
    }

    /** A UUID, as qprd/predictions.py makes it. */
    static UUID uuid(CharSequence text) {
        def space = UUID.fromString('6d2f2ad4-30b8-5b0c-9d0e-6f1b7d0c8a11')
        def digest = MessageDigest.getInstance('SHA-1')
        digest.update(ByteBuffer.allocate(16).putLong(space.getMostSignificantBits())
                .putLong(space.getLeastSignificantBits()).array())
        byte[] hash = digest.digest(text.toString().getBytes(StandardCharsets.UTF_8))
        hash[6] = (byte) ((hash[6] & 0x0f) | 0x50)
        hash[8] = (byte) ((hash[8] & 0x3f) | 0x80)
        def buffer = ByteBuffer.wrap(hash)
        // Ids of ours begin with "qprd".
        return new UUID((0x71707264L << 32) | (buffer.getLong() & 0xffffffffL), buffer.getLong())
    }

    private static List<Polygon> polygonsOf(Geometry geometry) {
        def found = new ArrayList<Polygon>()
        for (int i = 0; i < geometry.getNumGeometries(); i++) {
            def part = geometry.getGeometryN(i)
            if (part instanceof Polygon && !part.isEmpty()) {
                found.add((Polygon) part)
            }
        }
        return found
    }

    /**
     * How far each tile is over the threshold, with one cell of outside on every side; never 0, which
     * would put the outline through a center. A cell without a tile gets the negative mean of its
     * neighbors above the threshold: the outline is midway.
     */
    private double[] excess(double[] values, double threshold) {
        int width = columns + 2
        double largest = 0
        // Groovy takes NaN for greater than any number.
        for (double value : values) {
            if (!Double.isNaN(value) && Math.abs(value - threshold) > largest) {
                largest = Math.abs(value - threshold)
            }
        }
        double smallest = 1e-3d * (largest > 0 ? largest : 1)
        def over = new double[(rows + 2) * width]
        Arrays.fill(over, Double.NaN)
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                double value = values[row * columns + column]
                if (!Double.isNaN(value)) {
                    over[(row + 1) * width + column + 1] = value >= threshold ? Math.max(value - threshold, smallest)
                            : Math.min(value - threshold, -smallest)
                }
            }
        }
        double[] result = over.clone()
        for (int row = 0; row < rows + 2; row++) {
            for (int column = 0; column < width; column++) {
                int cell = row * width + column
                if (!Double.isNaN(over[cell])) {
                    continue
                }
                double total = 0
                int count = 0
                double[] around = [row > 0 ? over[cell - width] : Double.NaN, row <= rows ? over[cell + width] : Double.NaN,
                                   column > 0 ? over[cell - 1] : Double.NaN, column <= columns ? over[cell + 1] : Double.NaN]
                for (double neighbor : around) {
                    if (!Double.isNaN(neighbor) && neighbor > 0) {
                        total += neighbor
                        count++
                    }
                }
                // A hair below, so that a corner between two cells of tissue and two of glass does not join.
                result[cell] = count > 0 ? Math.min(-(1 + 1e-9d) * total / count, -smallest) : -smallest
            }
        }
        return result
    }

    /** The outline of what is positive, piece by piece: one or two for each square of four centers. */
    private void outline(double[] excess, Polygonizer pieces) {
        int width = columns + 2
        for (int row = 0; row <= rows; row++) {
            for (int column = 0; column <= columns; column++) {
                double a = excess[row * width + column], b = excess[row * width + column + 1]
                double d = excess[(row + 1) * width + column], e = excess[(row + 1) * width + column + 1]
                // A side is walked the same way for both of its squares, which so find the same point.
                def upper = (a > 0) == (b > 0) ? null : at(column + a / (a - b), row)
                def lower = (d > 0) == (e > 0) ? null : at(column + d / (d - e), row + 1)
                def before = (a > 0) == (d > 0) ? null : at(column, row + a / (a - d))
                def after = (b > 0) == (e > 0) ? null : at(column + 1, row + b / (b - e))
                def crossed = [upper, lower, before, after].findAll { it != null }
                if (crossed.size() == 2) {
                    piece(pieces, crossed[0], crossed[1])
                } else if (crossed.size() == 4) {
                    // Two corners across are inside: their mean decides whether they are joined.
                    boolean joined = a + b + d + e > 0
                    piece(pieces, upper, (a > 0) == joined ? after : before)
                    piece(pieces, lower, (a > 0) == joined ? before : after)
                }
            }
        }
    }

    private Coordinate at(double column, double row) {
        // Column and row 1 are the center of the first cell.
        return new Coordinate(left + (column - 0.5d) * pitch, top + (row - 0.5d) * pitch)
    }

    private void piece(Polygonizer pieces, Coordinate from, Coordinate to) {
        pieces.add(factory.createLineString([from, to] as Coordinate[]))
    }
}
// ---- end of part contours ----
