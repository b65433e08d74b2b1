// Loops over many objects, inside QuPath's JVM: one call from Python costs microseconds, and there
// may be a million cells. Compiled once per process by qprd/qupath/java.py.

import com.google.gson.JsonObject
import groovy.transform.CompileStatic
import java.nio.charset.StandardCharsets
import org.locationtech.jts.geom.Coordinate
import org.locationtech.jts.io.WKBReader
import qupath.lib.geom.Point2
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerBuilder
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO
import qupath.lib.objects.PathAnnotationObject
import qupath.lib.objects.PathCellObject
import qupath.lib.objects.PathObject
import qupath.lib.objects.PathObjectTools
import qupath.lib.objects.PathObjects
import qupath.lib.objects.TMACoreObject
import qupath.lib.objects.classes.PathClass
import qupath.lib.objects.hierarchy.PathObjectHierarchy
import qupath.lib.regions.ImagePlane
import qupath.lib.roi.GeometryROI
import qupath.lib.roi.GeometryTools
import qupath.lib.roi.ROIs
import qupath.lib.roi.interfaces.ROI

/**
 * A data.qpdata: a header and serialized objects, the last of them "EOF", one of them the hierarchy.
 *
 * All but the hierarchy is written again as it was read. QuPath's own way (ImageData) would append
 * steps to the user's workflow each time, and needs the slide where the project lacks its metadata.
 */
@CompileStatic
class DataFile {
    public String header
    public PathObjectHierarchy hierarchy
    /** Names of the classes that this QuPath lacks, of an extension for instance. */
    public List<String> unknown = []
    private List<Object> parts = []
    private int hierarchyIndex = -1

    static DataFile read(String path) throws IOException {
        def file = new DataFile()
        def stream = PathIO.createObjectInputStream(new BufferedInputStream(new FileInputStream(path)))
        try {
            file.header = stream.readUTF()
            if (!file.header.startsWith("Data file version"))
                throw new IOException("no QuPath data file")
            while (true) {
                Object part = null
                try {
                    part = stream.readObject()
                } catch (ClassNotFoundException error) {
                    file.unknown << error.message
                }
                if (part instanceof PathObjectHierarchy) {
                    // A deserialized hierarchy lacks its caches; QuPath does the same.
                    file.hierarchy = new PathObjectHierarchy()
                    file.hierarchy.setHierarchy((PathObjectHierarchy) part)
                    file.hierarchyIndex = file.parts.size()
                }
                file.parts << part
                if ("EOF".equals(part))
                    break
            }
        } finally {
            stream.close()
        }
        if (file.hierarchy == null)
            throw new IOException("the file holds no objects")
        return file
    }

    /** Save an image without objects as QuPath does; the slide need not be there. */
    static void create(String path, String serverBuilder, String imageType, String fullId) throws IOException {
        def builder = GsonTools.getInstance().fromJson(serverBuilder, ImageServerBuilder.ServerBuilder)
        def data = new ImageData(builder, new PathObjectHierarchy(), ImageData.ImageType.valueOf(imageType))
        data.setProperty("PROJECT_ENTRY_ID", fullId)
        def out = new FileOutputStream(path)
        try {
            PathIO.writeImageData(out, data)
        } finally {
            out.close()
        }
    }

    void write(String path) throws IOException {
        def out = new FileOutputStream(path)
        try {
            def stream = new ObjectOutputStream(new BufferedOutputStream(out))
            stream.writeUTF(header)
            for (int i = 0; i < parts.size(); i++)
                stream.writeObject(i == hierarchyIndex ? hierarchy : parts[i])
            stream.flush()
            out.getFD().sync()
        } finally {
            out.close()
        }
    }

    /** Name of the image type, such as BRIGHTFIELD_H_E. */
    String imageType() {
        for (Object part : parts)
            if (part instanceof ImageData.ImageType)
                return ((ImageData.ImageType) part).name()
        return ImageData.ImageType.UNSET.name()
    }
}

/** A 64-bit digest (splitmix64 steps) of an object: against accidents, not against forgers. */
@CompileStatic
class Digest {
    public long value = 0

    Digest addObject(PathObject object, PathObject parent) {
        add(object.getClass().getName())
        add(parent == null || parent.isRootObject() ? "" : parent.getID().toString())
        add(object.getName())
        add(Objects.toString(object.getColor()))
        add(Objects.toString(object.getPathClass()))
        add(object.getClassProbability())
        add(object.isLocked() ? 1.0d : 0.0d)
        // The description of an annotation is one of its metadata.
        for (Map.Entry<String, String> entry : new TreeMap<String, String>(object.getMetadata()).entrySet()) {
            add(entry.getKey())
            add(entry.getValue())
        }
        add(object.getROI())
        if (object instanceof PathCellObject)
            add(((PathCellObject) object).getNucleusROI())
        if (object instanceof TMACoreObject)
            add(((TMACoreObject) object).isMissing() ? 1.0d : 0.0d)
        for (String name : object.getMeasurementList().getNames())
            add(name)
        for (double value : object.getMeasurementList().values())
            add(value)
        return this
    }

    private void add(ROI roi) {
        if (roi == null) {
            add("no ROI")
            return
        }
        add(roi.getClass().getName())
        add((double) roi.getC())
        add((double) roi.getZ())
        add((double) roi.getT())
        add(roi.getBoundsX())
        add(roi.getBoundsY())
        add(roi.getBoundsWidth())
        add(roi.getBoundsHeight())
        if (roi instanceof GeometryROI) {
            for (Coordinate point : roi.getGeometry().getCoordinates()) {
                add(point.x)
                add(point.y)
            }
            add(roi.getGeometry().getGeometryType())
            add((double) roi.getGeometry().getArea())
        } else {
            for (Point2 point : roi.getAllPoints()) {
                add(point.getX())
                add(point.getY())
            }
        }
    }

    private void add(String text) {
        if (text == null) {
            add(-1L)
            return
        }
        add((long) text.length())
        for (int i = 0; i < text.length(); i++)
            add((long) text.charAt(i))
    }

    private void add(double number) {
        add(Double.doubleToLongBits(number))
    }

    private void add(long bits) {
        long mixed = value ^ bits
        mixed += 0x9E3779B97F4A7C15L
        mixed = (mixed ^ (mixed >>> 30)) * 0xBF58476D1CE4E5B9L
        mixed = (mixed ^ (mixed >>> 27)) * 0x94D049BB133111EBL
        value = mixed ^ (mixed >>> 31)
    }
}

@CompileStatic
class Bulk {
    static int countObjects(PathObjectHierarchy hierarchy) {
        return hierarchy.getObjects(null, null).size()
    }

    /** What QuPath's summary.json says about a hierarchy, as JSON. */
    static String summary(PathObjectHierarchy hierarchy) {
        def all = hierarchy.getObjects(null, null)
        def types = all.countBy { PathObjectTools.getSuitableName(it.getClass(), true) }
        def name = { PathObject it -> it.getPathClass() == null ? "Unclassified" : it.getPathClass().toString() }
        def annotations = all.findAll { it.isAnnotation() }.countBy(name)
        def detections = all.findAll { it.isDetection() }.countBy(name)
        return GsonTools.getInstance().toJson([
                nObjects: all.size(),
                objectTypeCounts: types,
                annotationClassificationCounts: annotations,
                detectionClassificationCounts: detections])
    }

    /**
     * QuPath's own GeoJSON export of annotations. One that QuPath cannot export, such as a polygon of two
     * equal points, becomes the points of its outline, with what QuPath said as its property `fault`.
     */
    static byte[] asGeoJson(Collection<PathObject> annotations, String fault) {
        try {
            return geoJson(annotations).getBytes(StandardCharsets.UTF_8)
        } catch (RuntimeException ignored) {
            def features = annotations.collect { exported(it, fault) }
            return ('[' + features.join(',') + ']').getBytes(StandardCharsets.UTF_8)
        }
    }

    private static String geoJson(Collection<PathObject> objects) {
        def bytes = new ByteArrayOutputStream()
        PathIO.exportObjectsAsGeoJSON(bytes, objects, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
        return bytes.toString(StandardCharsets.UTF_8)
    }

    private static String exported(PathObject annotation, String fault) {
        try {
            return geoJson([annotation])
        } catch (RuntimeException error) {
            def points = annotation.getROI().getAllPoints().findAll {
                Double.isFinite(it.getX()) && Double.isFinite(it.getY())
            }
            def roi = ROIs.createPointsROI(points, annotation.getROI().getImagePlane())
            def standIn = PathObjects.createAnnotationObject(roi, annotation.getPathClass())
            standIn.setID(annotation.getID())
            standIn.setName(annotation.getName())
            def gson = GsonTools.getInstance()
            def feature = gson.fromJson(gson.toJson(standIn), JsonObject)
            feature.getAsJsonObject('properties').addProperty(fault, 'QuPath cannot export it: ' + error.getMessage())
            return gson.toJson(feature)
        }
    }

    static void addGeoJson(PathObjectHierarchy hierarchy, String text) {
        def stream = new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8))
        hierarchy.addObjects(PathIO.readObjectsFromGeoJSON(stream))
    }

    /** Names of the classes that objects have. */
    static String[] classNames(PathObjectHierarchy hierarchy) {
        def names = new LinkedHashSet<String>()
        for (PathObject object : hierarchy.getObjects(null, null))
            if (object.getPathClass() != null)
                names << object.getPathClass().toString()
        return names as String[]
    }

    static List<PathObject> annotationsOfClasses(PathObjectHierarchy hierarchy, String[] names, String measurement) {
        def wanted = new HashSet<String>(Arrays.asList(names))
        return hierarchy.getAnnotationObjects()
                .findAll { it.getPathClass() != null && wanted.contains(it.getPathClass().toString()) }
                .findAll { it.getMeasurementList().containsKey(measurement) }
                .toList()
    }

    static List<PathObject> annotationsWithIds(PathObjectHierarchy hierarchy, String[] ids) {
        def wanted = new HashSet<String>(Arrays.asList(ids))
        return hierarchy.getAnnotationObjects().findAll { wanted.contains(it.getID().toString()) }.toList()
    }

    /** Tiles with a measurement that have no name, or this one. */
    static List<PathObject> tilesOf(PathObjectHierarchy hierarchy, String name, String measurement) {
        def found = new ArrayList<PathObject>()
        for (PathObject tile : hierarchy.getTileObjects())
            if ((tile.getName() == null || tile.getName() == name) && tile.getMeasurementList().containsKey(measurement))
                found.add(tile)
        return found
    }

    static List<PathObject> joined(List<PathObject> first, List<PathObject> second) {
        return first + second
    }

    /** A digest of all that each object is, by id, except for those in `own`. */
    static Map<String, Long> digests(PathObjectHierarchy hierarchy, List<PathObject> own) {
        Set<PathObject> ignored = Collections.newSetFromMap(new IdentityHashMap<PathObject, Boolean>())
        ignored.addAll(own)
        def digests = new HashMap<String, Long>()
        for (PathObject object : hierarchy.getObjects(null, null)) {
            if (ignored.contains(object) || object.isRootObject())
                continue
            def id = object.getID().toString()
            long digest = new Digest().addObject(object, survivingAncestor(object, ignored)).value
            // Ids need not be unique; objects that share one are summed up.
            digests.put(id, digest + digests.getOrDefault(id, 0L))
        }
        return digests
    }

    private static PathObject survivingAncestor(PathObject object, Set<PathObject> removed) {
        def ancestor = object.getParent()
        while (ancestor != null && removed.contains(ancestor))
            ancestor = ancestor.getParent()
        return ancestor
    }

    /** Ids of the objects that are missing, new or not as they were. */
    static String[] changed(Map<String, Long> before, Map<String, Long> after) {
        def ids = new TreeSet<String>()
        for (String id : before.keySet())
            if (before.get(id) != after.get(id))
                ids << id
        for (String id : after.keySet())
            if (!before.containsKey(id))
                ids << id
        return ids as String[]
    }

    /** One text instead of many: strings cross from Python and back at a price each. */
    private static String[] lines(String text) {
        return text.isEmpty() ? new String[0] : text.split("\n")
    }

    /** Indices of the ids, one a line, that other objects have already. */
    static int[] taken(Map<String, Long> digests, String idLines) {
        def ids = lines(idLines)
        def indices = []
        for (int i = 0; i < ids.length; i++)
            if (digests.containsKey(ids[i]))
                indices << i
        return indices as int[]
    }

    /** Tiles: an id a line; x, y, width and height of each in `places`; a measurement that is NaN is left out. */
    static List<PathObject> createTiles(String idLines, double[] places, String[] measurements, double[] values,
                                        int argb) {
        def ids = lines(idLines)
        def plane = ImagePlane.getDefaultPlane()
        def tiles = new ArrayList<PathObject>(ids.length)
        for (int i = 0; i < ids.length; i++) {
            def roi = ROIs.createRectangleROI(places[4 * i], places[4 * i + 1], places[4 * i + 2], places[4 * i + 3],
                    plane)
            def tile = PathObjects.createTileObject(roi)
            tile.setColor(argb)
            finish(tile, ids[i], measurements, values, i)
            tiles.add(tile)
        }
        return tiles
    }

    static void setColor(String className, int argb) {
        PathClass.fromString(className, argb).setColor(argb)
    }

    /** Annotations from hexadecimal WKB; the class gets the color unless there is one of that name. */
    static List<PathObject> createAnnotations(String[] ids, String[] outlines, String[] names, String className,
                                              int argb, String[] measurements, double[] values) {
        def pathClass = PathClass.fromString(className, argb)
        def reader = new WKBReader(GeometryTools.getDefaultFactory())
        def annotations = new ArrayList<PathObject>(ids.length)
        for (int i = 0; i < ids.length; i++) {
            def roi = GeometryTools.geometryToROI(reader.read(WKBReader.hexToBytes(outlines[i])))
            def annotation = PathObjects.createAnnotationObject(roi, pathClass)
            if (!names[i].isEmpty())
                annotation.setName(names[i])
            finish(annotation, ids[i], measurements, values, i)
            annotations.add(annotation)
        }
        return annotations
    }

    private static void finish(PathObject object, String id, String[] measurements, double[] values, int row) {
        object.setID(UUID.fromString(id))
        def list = object.getMeasurementList()
        for (int m = 0; m < measurements.length; m++) {
            double value = values[row * measurements.length + m]
            if (!Double.isNaN(value))
                list.put(measurements[m], value)
        }
        list.close()
    }

    /** Put `added` below the root in place of `own`; children that others gave to `own` stay. */
    static void replace(PathObjectHierarchy hierarchy, List<PathObject> own, List<PathObject> added) {
        Set<PathObject> removed = Collections.newSetFromMap(new IdentityHashMap<PathObject, Boolean>())
        removed.addAll(own)
        for (PathObject object : own) {
            def kept = object.getChildObjects().findAll { !removed.contains(it) }
            if (!kept.isEmpty())
                survivingAncestor(object, removed).addChildObjects(kept)
        }
        hierarchy.removeObjects(own, false)
        hierarchy.addObjects(added)
    }

    /** Per object: id (one a line), bounds (x, y, width, height), measurements (NaN if none). */
    static Map<String, Object> columns(List<PathObject> objects) {
        def measurements = new LinkedHashSet<String>()
        for (PathObject object : objects)
            measurements.addAll(object.getMeasurementList().getNames())
        def names = measurements as String[]
        int n = objects.size()
        def ids = new StringBuilder(37 * n)
        def bounds = new double[4 * n]
        def values = new double[n * names.length]
        for (int i = 0; i < n; i++) {
            def object = objects[i]
            def roi = object.getROI()
            if (i > 0)
                ids.append('\n')
            ids.append(object.getID().toString())
            bounds[4 * i] = roi.getBoundsX()
            bounds[4 * i + 1] = roi.getBoundsY()
            bounds[4 * i + 2] = roi.getBoundsWidth()
            bounds[4 * i + 3] = roi.getBoundsHeight()
            def list = object.getMeasurementList()
            for (int m = 0; m < names.length; m++)
                values[i * names.length + m] = list.get(names[m])
        }
        return [ids: ids.toString(), bounds: bounds, measurements: names, values: values] as Map<String, Object>
    }
}
