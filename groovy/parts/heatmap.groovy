/* The tiles of an image in the colors of their scores. */

import qupath.lib.color.ColorMaps
import qupath.lib.gui.tools.MeasurementMapper

/**
 * What the tiles of an image are colored by: the tiles, their measurement, and the ends of the colors, 0 and 1 for
 * probabilities. Null where there are none.
 */
Map tileScores(Map image, List rawRange) {
    def tiles = ownTiles(image)
    if (tiles.isEmpty()) {
        return null
    }
    def measurement = tileMeasurement(tiles)
    def values = tiles.collect { it.getMeasurements().get(measurement) as double }
    [tiles: tiles, measurement: measurement, values: values,
     range: measurement == OWN_PROBABILITY ? [0.0d, 1.0d] : rawRange ?: [values.min(), values.max()]]
}

/** Colors of tiles; those below the least value are as good as invisible. */
MeasurementMapper tileColors(Map scores, double least, String name) {
    def map = ColorMaps.getColorMaps().get(name)
    // No color at all would leave a tile in the color of the one painted before it when zoomed out, and a
    // color without opacity is opaque to QuPath.
    def unseen = 0x01000000
    def colors = new ColorMaps.ColorMap() {
        String getName() { name }
        Integer getColor(double value, double low, double high) {
            value >= least ? map.getColor(value, low, high) : unseen
        }
    }
    def mapper = new MeasurementMapper(colors, scores.measurement, scores.tiles)
    mapper.setDisplayMinValue(scores.range[0])
    mapper.setDisplayMaxValue(scores.range[1])
    mapper
}
