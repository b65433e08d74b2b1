"""QuPath's own ``script`` command, for one script or for many in turn on the same open image."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qprd.predictions import MEAN_SCORE, SCORE

#: Runs scripts in turn in one QuPath, each as the script command does, and writes what each printed
#: and which objects the image then has. An error ends the image, after what had gone before.
_DRIVER = """
import qupath.lib.gui.scripting.QPEx
import qupath.lib.gui.scripting.languages.ScriptLanguageProvider
import qupath.lib.scripting.ScriptParameters

def project = getProject()
def imageData = getCurrentImageData()
def entry = getProjectEntry()
def gson = new com.google.gson.GsonBuilder().serializeNulls().create()
new File('FOLDER').listFiles().findAll { it.getName().endsWith('.step') }.sort().each { step ->
    def printed = new StringWriter()
    def error = null
    imageData.setChanged(false)
    def parameters = ScriptParameters.builder().setProject(project).setImageData(imageData)
            .setDefaultImports(QPEx.getCoreClasses()).setDefaultStaticImports([QPEx])
            .setBatchSaveResult(true).setScript(step.getText('UTF-8'))
            .setWriter(printed).setErrorWriter(printed).build()
    try {
        ScriptLanguageProvider.fromString('groovy').execute(parameters)
    } catch (Exception e) {
        error = e
        printed << 'ERROR ' << e
    }
    def boundsOf = { "${it.boundsX} ${it.boundsY} ${it.boundsWidth} ${it.boundsHeight}".toString() }
    def objects = imageData.getHierarchy().getAllObjects(false).collect { [
        id: it.getID().toString(),
        type: it.getClass().getSimpleName(),
        name: it.getName(),
        'class': it.getPathClass()?.toString(),
        color: it.getColor(),
        locked: it.isLocked(),
        description: it.isAnnotation() ? it.getDescription() : null,
        parent: it.getParent().isRootObject() ? 'root' : it.getParent().getID().toString(),
        roi: it.isTile() ? boundsOf(it.getROI()) : it.getROI().getGeometry().norm().toText(),
        nucleus: it.isCell() ? it.getNucleusROI()?.getGeometry()?.toText() : null,
        measurements: new TreeMap(it.getMeasurements()),
    ] }
    def metadata = new TreeMap(entry.getMetadataMap())
    def found = [
        printed: printed.toString(), objects: objects, metadata: metadata,
        changed: imageData.isChanged(),
    ]
    new File(step.getPath() + '.' + entry.getID()).setText(gson.toJson(found), 'UTF-8')
    if (error != null) {
        throw error
    }
}
"""

#: Stands in for the viewer of an open window, with QuPath's own display options, and paints with
#: QuPath's own code what the viewer would.
_VIEWER = """
import qupath.lib.gui.viewer.PathObjectPainter

class Platform { static void runLater(Closure task) { task() } }
class StandIn {
    static StandIn current
    def imageData, overlay
    def options = new qupath.lib.gui.viewer.OverlayOptions()
    def getImageData() { imageData }
    def getOverlayOptions() { options }
    void setCustomPixelLayerOverlay(o) { overlay = o }
    void resetCustomPixelLayerOverlay() { overlay = null }
    def selected, centered, downsample
    void setSelectedObject(object) { selected = object }
    void centerROI(roi) { centered = roi }
    void setDownsampleFactor(double factor) { downsample = factor }
    def getView() {
        def corner = { x, y -> new java.awt.geom.Point2D.Double(x, y) }
        [getWidth: { 800d }, getHeight: { 600d }, localToScreen: corner] as Sized
    }
    def getStage() { null }
}
interface Sized { double getWidth(); double getHeight(); Object localToScreen(double x, double y) }
def getQuPath() { StandIn.current }
def getCurrentViewer() {
    StandIn.current = StandIn.current ?: new StandIn(imageData: getCurrentImageData())
}
void paint(String file, double downsample) {
    def data = getCurrentImageData()
    def server = data.getServer()
    def options = StandIn.current.options
    def slide = server.readRegion(RegionRequest.createInstance(server, downsample))
    def (width, height) = [slide.getWidth(), slide.getHeight()]
    def layer = { draw ->
        def image = new BufferedImage(width, height, BufferedImage.TYPE_INT_ARGB)
        def graphics = image.createGraphics()
        graphics.setClip(0, 0, width, height)
        graphics.scale(1 / downsample, 1 / downsample)
        draw(graphics)
        graphics.dispose()
        image
    }
    def whole = ImageRegion.createInstance(0, 0, server.getWidth(), server.getHeight(), 0, 0)
    def under = layer { StandIn.current.overlay?.paintOverlay(it, whole, downsample, data, true) }
    def over = layer { graphics ->
        def all = data.getHierarchy().getAllObjects(false)
        (all.findAll { it.isDetection() } + all.findAll { it.isAnnotation() }).each {
            PathObjectPainter.paintObject(it, graphics, options, null, downsample)
        }
    }
    def picture = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB)
    def graphics = picture.createGraphics()
    graphics.drawImage(slide, 0, 0, null)
    graphics.setComposite(java.awt.AlphaComposite.SrcOver.derive(options.getOpacity()))
    graphics.drawImage(under, 0, 0, null)
    graphics.drawImage(over, 0, 0, null)
    graphics.dispose()
    def target = new File(file.replace('ENTRY', getProjectEntry().getID()))
    javax.imageio.ImageIO.write(picture, 'png', target)
}
"""

#: Stands in for the parts of a small window: what it says and which buttons it has.
_WINDOW = """
class Insets { Insets(double inset) { } }
class Label { static current; String text; Label() { current = this } }
class Button {
    static final List<Button> all = []
    final String text
    Closure onAction
    Button(String text) { this.text = text; all << this }
    static void press(String text) { all.find { it.text == text }.onAction() }
}
class HBox { HBox(double gap, Object... children) { } }
class VBox { def padding; VBox(double gap, Object... children) { } }
class Scene { Scene(Object root) { } }
class Window { static final List windows = [] }
class Stage {
    String title
    def scene
    boolean alwaysOnTop, open
    double x, y
    void initOwner(Object owner) { }
    void sizeToScene() { }
    void show() { open = true }
    void close() { open = false }
}
"""

#: Puts objects of a user, and of an earlier run of qprd, into the image.
SETUP = """
def plane = ImagePlane.getDefaultPlane()
def square = { x, y, size -> ROIs.createRectangleROI(x, y, size, size, plane) }
def drawn = { x, y, size, name ->
    PathObjects.createAnnotationObject(square(x, y, size), PathClass.fromString(name))
}
def objects = []

def own = drawn(0, 0, 500, 'Tumor: qprd')
own.setName('earlier contour')
own.setLocked(true)
own.measurements.put('qprd: mean score', 2d)
def inner = drawn(10, 10, 50, 'Tumor')
inner.setName('nested in an earlier contour')
inner.setLocked(true)
inner.setDescription('of a user')
own.addChildObject(inner)
def ownInner = drawn(100, 100, 50, 'qprd')
ownInner.measurements.put('qprd: mean score', 2d)
own.addChildObject(ownInner)
objects << own

def outer = drawn(1000, 1000, 500, 'Stroma')
outer.setName('outer')
def nestedOwn = PathObjects.createTileObject(square(1000, 1000, 64))
nestedOwn.setName('qprd tile')
nestedOwn.measurements.put('qprd: score', 3d)
outer.addChildObject(nestedOwn)
def cell = PathObjects.createCellObject(square(1100, 1100, 20), square(1105, 1105, 5))
cell.measurements.put('Nucleus: Area', 25d)
outer.addChildObject(cell)
objects << outer

def accepted = drawn(2000, 0, 100, 'Tumor')
accepted.setID(UUID.fromString('ACCEPTED'))
accepted.setName('accepted contour')
accepted.measurements.put('qprd: max score', 4d)
objects << accepted

def drawnWithOurClass = drawn(3000, 0, 100, 'Tumor: qprd')
drawnWithOurClass.setName('drawn by a person')
objects << drawnWithOurClass

def otherTile = PathObjects.createTileObject(square(0, 2000, 64))
otherTile.setName('qprd tile')
objects << otherTile
def scored = PathObjects.createTileObject(square(64, 2000, 64))
scored.setName('named by a person')
scored.measurements.put('qprd: score', 1d)
objects << scored
def qprdClass = PathClass.fromString('Tumor: qprd')
def detection = PathObjects.createDetectionObject(square(128, 2000, 9), qprdClass)
objects << detection
addObjects(objects)

def entry = getProjectEntry()
entry.putMetadataValue('qprd: old', 'x')
entry.putMetadataValue('stain', 'H&E')
entry.putMetadataValue('qprd-review by Anna', 'done')
"""


def launcher() -> Path:
    """A QuPath that runs scripts without a window; skips where there is none."""
    folders = [Path(folder) for folder in [os.environ.get("PAQUO_QUPATH_DIR")] if folder]
    folders += sorted(Path("/opt").glob("QuPath*"))
    for folder in folders:
        for program in (folder / "bin" / "QuPath", folder / "bin" / "QuPath.sh"):
            if program.is_file():
                return program
    pytest.skip("no QuPath that runs scripts: set PAQUO_QUPATH_DIR")


def run(script: Path, project: Path, *options: str) -> str:
    """Run one script on all images of a project; what it printed and logged."""
    done = subprocess.run(
        [str(launcher()), "script", "-p", str(project), *options, str(script)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return done.stdout + done.stderr


def run_in_turn(
    scripts: Sequence[str], project: Path, folder: Path
) -> list[dict[str, Mapping[str, Any]]]:
    """Run the texts of scripts in turn in one QuPath, which then saves the project's images.

    Returns:
        For each script and by entry id: what it ``printed``, the image's ``objects``, the entry's
        ``metadata``, and whether QuPath takes the image for ``changed``, after it. A script that
        failed has an ``ERROR`` in what it printed, and nothing came after it.
    """
    folder.mkdir()
    steps = [folder / f"{number:02}.step" for number in range(len(scripts))]
    for step, text in zip(steps, scripts, strict=True):
        step.write_text(text, encoding="utf-8")
    driver = folder / "driver.groovy"
    driver.write_text(_DRIVER.replace("FOLDER", str(folder)))
    log = run(driver, project, "--save")
    found = [
        {
            path.suffix[1:]: json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(folder.glob(f"{step.name}.*"))
        }
        for step in steps
    ]
    assert found[0], log
    return found


def in_a_viewer(script: str, afterwards: str) -> str:
    """The script as in a window whose viewer shows the image, and what to do after it."""
    lines = [line for line in script.splitlines() if not line.startswith("import javafx.")]
    window = _WINDOW if "new Stage()" in script else ""
    script = "\n".join(lines)
    script = script.replace(
        "new BufferedImageOverlay(viewer, [(region): picture])",
        "new BufferedImageOverlay(viewer.getOverlayOptions(), region, picture)",
    )
    return f"{script}\n{afterwards}\n{_VIEWER}\n{window}"


def with_setting(script: str, name: str, value: str) -> str:
    """The script with one of the settings at its top changed."""
    lines = script.splitlines()
    (line,) = (number for number, text in enumerate(lines) if text.startswith(f"final {name} = "))
    lines[line] = f"final {name} = {value}"
    return "\n".join(lines)


#: Writes all objects of the image, and their places in the hierarchy, to a file.
_DUMP = """
def objects = getCurrentHierarchy().getAllObjects(false).collect { [
    id: it.getID().toString(),
    type: it.getClass().getSimpleName(),
    name: it.getName(),
    'class': it.getPathClass()?.toString(),
    locked: it.isLocked(),
    description: it.isAnnotation() ? it.getDescription() : null,
    parent: it.getParent().isRootObject() ? 'root' : it.getParent().getID().toString(),
    roi: it.getROI().getGeometry().norm().toText(),
    nucleus: it.isCell() ? it.getNucleusROI()?.getGeometry()?.toText() : null,
    measurements: new TreeMap(it.getMeasurements()),
] }
def gson = new com.google.gson.GsonBuilder().serializeNulls().create()
new File('TARGET/' + getProjectEntry().getID() + '.json').text = gson.toJson(objects)
"""


def dump(project: Path, folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """All objects of the colon project by entry id and object id, as a folder of files has them."""
    folder.mkdir()
    script = folder / "dump.groovy"
    script.write_text(_DUMP.replace("TARGET", str(folder)))
    log = run(script, project)
    found = {
        path.stem: {item["id"]: item for item in json.loads(path.read_text())}
        for path in folder.glob("*.json")
    }
    assert sorted(found) == ["1", "2"], log
    return found


def is_own(item: Mapping[str, Any]) -> bool:
    """Whether an object of `dump` is of qprd."""
    if item["type"] == "PathAnnotationObject":
        own_class = "qprd" in (item["class"] or "").split(": ")
        return own_class and MEAN_SCORE in item["measurements"]
    return (
        item["type"] == "PathTileObject"
        and item["name"] in (None, "qprd tile")
        and SCORE in item["measurements"]
    )


def lead_to_slides(project: Path, shared_data: Path) -> Path:
    """Let the URIs of the colon project lead to its slides, as QuPath's window would make them."""
    slides = (shared_data / "slides").resolve().as_uri()
    text = project.read_text().replace("file:///data/colon/slides", slides)
    project.write_text(text)
    return project
