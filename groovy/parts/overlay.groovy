/* The score map that "qprd predict" saved, as a smooth picture over the image. */

import qupath.lib.color.ColorMaps
import qupath.lib.gui.viewer.ImageInterpolation
import qupath.lib.gui.viewer.overlays.BufferedImageOverlay

import javax.imageio.ImageIO
import javax.imageio.plugins.tiff.TIFFDirectory
import javax.xml.parsers.DocumentBuilderFactory
import java.nio.charset.StandardCharsets
import java.nio.file.Files
import java.nio.file.Path

Path scoreMapFile(Map image) {
    image.folder.resolve('results').resolve(image.entry.getID()).resolve('score_map.ome.tif')
}

/** The score map of an image, thinned out by whole steps to the most pixels that are wanted; null if there is none. */
Map scoreMapOf(Map image, long mostPixels) {
    def file = scoreMapFile(image)
    if (!Files.isRegularFile(file)) {
        return null
    }
    resultsOf(image)

    // By Java's own reader: it is in every QuPath, and reads the largest level.
    def values = null
    def description = null
    def step = 1
    def size = null
    def stream = ImageIO.createImageInputStream(file.toFile())
    try {
        def reader = ImageIO.getImageReadersByFormatName('tiff').next()
        reader.setInput(stream)
        size = [reader.getWidth(0), reader.getHeight(0)]
        while ((size[0] as long) * size[1] > mostPixels * step * step) {
            step++
        }
        def how = reader.getDefaultReadParam()
        how.setSourceSubsampling(step, step, 0, 0)
        values = reader.read(0, how).getRaster()
        description = TIFFDirectory.createFromMetadata(reader.getImageMetadata(0)).getTIFFField(270).getAsString(0)
    } finally {
        stream?.close()
    }
    def factory = DocumentBuilderFactory.newInstance()
    factory.setFeature('http://apache.org/xml/features/disallow-doctype-decl', true)
    def root = factory.newDocumentBuilder().parse(new ByteArrayInputStream(description.getBytes(StandardCharsets.UTF_8))).getDocumentElement()
    def all = { tag -> def nodes = root.getElementsByTagName(tag); (0..<nodes.getLength()).collect { nodes.item(it) } }
    def grid = all('M').collectEntries { [it.getAttribute('K'), Double.parseDouble(it.getTextContent())] }

    def server = image.data.getServer()
    def cell = grid.cell_px
    def fits = grid.x_px == 0 && grid.y_px == 0 && Math.ceil(server.getWidth() / cell - 1e-6) == size[0] &&
            Math.ceil(server.getHeight() / cell - 1e-6) == size[1]
    if (!fits) {
        throw new IllegalStateException("qprd: the score map of ${image.name} is of an image of another size: nothing is shown. " +
                'Run "qprd predict" again.')
    }
    def (width, height) = [values.getWidth(), values.getHeight()]
    float[] scores = values.getSamples(0, 0, width, height, 0, (float[]) null)
    def scored = 0
    def low = Float.POSITIVE_INFINITY
    def high = Float.NEGATIVE_INFINITY
    for (float score : scores) {
        if (!Float.isNaN(score)) {
            scored++
            low = Math.min(low, score)
            high = Math.max(high, score)
        }
    }
    [scores: scores, width: width, height: height, cell: cell, step: step, scored: scored, low: low, high: high,
     calibrated: all('Channel')[0].getAttribute('Name') == 'probability']
}

/** A layer over the image in the colors of its score map; what is below the least value is clear. */
BufferedImageOverlay overlayOf(viewer, Map map, List range, double least, String colorMap) {
    def colors = ColorMaps.getColorMaps().get(colorMap)
    def picture = new BufferedImage(map.width, map.height, BufferedImage.TYPE_INT_ARGB)
    int[] pixels = new int[map.width * map.height]
    float[] scores = map.scores
    for (int i = 0; i < scores.length; i++) {
        // Groovy takes NaN, not scored, for greater than any number.
        if (!Float.isNaN(scores[i]) && scores[i] >= least) {
            pixels[i] = colors.getColor(scores[i], range[0], range[1]) | 0xff000000
        }
    }
    picture.setRGB(0, 0, map.width, map.height, pixels, 0, map.width)
    def pitch = map.step * map.cell
    def region = ImageRegion.createInstance(0, 0, Math.round(map.width * pitch) as int, Math.round(map.height * pitch) as int, 0, 0)
    def overlay = new BufferedImageOverlay(viewer, [(region): picture])
    overlay.setInterpolation(ImageInterpolation.BILINEAR)
    overlay
}
