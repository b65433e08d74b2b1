/*
 * Which objects are qprd's: the rule of its Python code (qprd/predictions.py, qprd/qupath/geojson.py). They are
 * annotations of a class such as "Tumor: qprd" that have our mean score, and tiles that have our score and no
 * name (those of earlier versions have one).
 */

List<String> partsOf(pathClass) {
    pathClass == null ? [] : pathClass.toString().split(':').collect { it.strip() }
}

boolean isOwnClass(pathClass) {
    partsOf(pathClass).contains(OWN)
}

boolean isReviewClass(pathClass) {
    partsOf(pathClass) == [REVIEW, OWN]
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

boolean isOwn(object) {
    isOwnTile(object) || isOwnAnnotation(object)
}

List ownTiles(Map image) {
    image.hierarchy.getTileObjects().findAll { isOwnTile(it) } as List
}

/** The measurement that tiles are shown by: their probability, or the raw score where one has none. */
String tileMeasurement(List tiles) {
    tiles.every { it.getMeasurements().containsKey(OWN_PROBABILITY) } ? OWN_PROBABILITY : OWN_SCORE
}

/** A random id of ours, as qprd/predictions.py makes them. */
UUID ownId() {
    def random = UUID.randomUUID()
    new UUID((OWN_ID << 32) | (random.getMostSignificantBits() & 0xffffffffL), random.getLeastSignificantBits())
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
