"""Where results land: QuPath's own pixels at our objects are the pixels that qprd scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.predictions import SCORE, PredictedTile, Predictions, object_id
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath
from qprd.qupath.paquo_backend import PaquoProject
from qprd.qupath.project import Project
from qprd.slides.slide import Slide
from tests.helpers.plain_images import plain_image

pytestmark = pytest.mark.qupath

#: Steps from the file to what QuPath shows, as `TransformedServerBuilder` has them.
Step = tuple[str, Any]

TILE_PX = 64

_SERVERS = "qupath.lib.images.servers"
OPENSLIDE = f"{_SERVERS}.openslide.OpenslideServerBuilder"
IMAGEJ = "qupath.imagej.images.servers.ImageJServerBuilder"

_TURNS: Sequence[tuple[Step, ...]] = [(("rotate", turn),) for turn in (90, 180, 270)]
#: Small enough for the smallest slide used here, and off every grid.
_CROP: Step = ("crop", (30, 71, 401, 433))
_INNER_CROP: Step = ("crop", (5, 7, 300, 310))
_NESTINGS: Sequence[tuple[Step, ...]] = [
    (),
    *_TURNS,
    (_CROP,),
    *((_CROP, *turn) for turn in _TURNS),
    *((*turn, _CROP) for turn in _TURNS),
    (_CROP, ("rotate", 90), _INNER_CROP, ("rotate", 180)),
]


def _id(steps: tuple[Step, ...]) -> str:
    return (
        "-".join(name if name in ("crop", "pyramid") else f"{name}{value}" for name, value in steps)
        or "file"
    )


@pytest.fixture(params=["bounds", "colon_2.tif", "cmu-1-small-region.svs"])
def slide_path(request: pytest.FixtureRequest) -> Path:
    """A slide with OpenSlide bounds, and two real ones without."""
    if request.param == "bounds":
        scn: tuple[Path, NDArray[np.uint8]] = request.getfixturevalue("scn")
        return scn[0]
    data: Path = request.getfixturevalue("shared_data")
    return data / "slides" / request.param


@pytest.fixture
def make_project(qupath: QuPath, tmp_path: Path) -> Callable[..., Path]:
    """Lets QuPath make a project of one slide, which it shows through some steps."""

    def make(
        slide: Path,
        steps: Sequence[Step] = (),
        *,
        reader: str = OPENSLIDE,
        args: Sequence[str] = (),
    ) -> Path:
        from paquo._logging import redirect
        from paquo.java import BufferedImage, File, JClass

        with redirect():
            folder = tmp_path / "project"
            folder.mkdir()
            project = JClass("qupath.lib.projects.Projects").createProject(
                File(str(folder)), BufferedImage
            )
            uri = JClass("java.net.URI")(slide.resolve().as_uri())
            server = JClass(reader)().buildServer(uri, list(args))
            for name, value in steps:
                server = _step(server, name, value)
            entry = project.addImage(server.getBuilder())
            entry.setImageName(slide.name)
            server.close()
            project.syncChanges()
        return folder / "project.qpproj"

    return make


def _step(server: Any, name: str, value: Any) -> Any:
    from paquo.java import JClass

    if name == "pyramid":
        return JClass(f"{_SERVERS}.ImageServers").pyramidalize(server)
    builder = JClass(f"{_SERVERS}.TransformedServerBuilder")(server)
    if name == "rotate":
        rotation = JClass("qupath.lib.images.servers.RotatedImageServer").Rotation
        return builder.rotate(rotation.valueOf(f"ROTATE_{value}")).build()
    if name == "crop":
        region = JClass("qupath.lib.regions.ImageRegion").createInstance(*value, 0, 0)
        return builder.crop(region).build()
    return getattr(builder, name)(*value).build()


def tiles_of(slide: Slide) -> Predictions:
    """Tiles in all corners, where a wrong frame shows first, and some in between."""
    right, bottom = slide.width - TILE_PX, slide.height - TILE_PX
    assert min(right, bottom) > 0
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    between = np.random.default_rng(0).integers(0, (right, bottom), (6, 2)).tolist()
    return Predictions(
        tiles=tuple(
            PredictedTile(
                object_id("bundle", "1", "tile", number),
                float(x),
                float(y),
                TILE_PX,
                TILE_PX,
                {SCORE: 1.0},
            )
            for number, (x, y) in enumerate([*corners, *between])
        ),
        contours=(),
        metadata={"qprd: bundle": "bundle"},
    )


def qupath_pixels(project: Path, objects: Path | None = None) -> Mapping[str, NDArray[np.uint8]]:
    """RGB of each tile of ours, read by QuPath's server at the tile's ROI, by object id.

    Args:
        project: Its first entry is read.
        objects: A GeoJSON file to take the tiles from instead of the entry's data.
    """
    from paquo._logging import redirect
    from paquo.java import BufferedImage, File, JClass, PathIO, ProjectIO

    request = JClass("qupath.lib.regions.RegionRequest")
    found: dict[str, NDArray[np.uint8]] = {}
    with redirect():
        entry = ProjectIO.loadProject(File(str(project)), BufferedImage).getImageList()[0]
        if objects is None:
            items = entry.readImageData().getHierarchy().getFlattenedObjectList(None)
        else:
            items = PathIO.readObjects(File(str(objects)).toPath())
        server = entry.getServerBuilder().build()
        for item in items:
            if not item.isTile():
                continue
            roi = item.getROI()
            image = server.readRegion(request.createInstance(server.getPath(), 1.0, roi))
            width, height = int(image.getWidth()), int(image.getHeight())
            argb = np.array(image.getRGB(0, 0, width, height, None, 0, width), dtype=np.int32)
            channels = argb.view(np.uint8).reshape(height, width, 4)
            found[str(item.getID())] = channels[..., 2::-1]
        server.close()
    return found


def assert_on_the_right_pixels(
    project: Project, shown: Callable[[], Mapping[str, Any]], *, unscanned: bool = False
) -> None:
    """Compare pixels of tiles in the corners and in between.

    Args:
        project: Its first entry is compared.
        shown: Reads QuPath's pixels.
        unscanned: Parts of the slide were not scanned; they are black in QuPath and white in qprd,
            where white means glass.
    """
    compared = 0
    entry = project.entries()[0]
    with open_slide(entry, assume_mpp=0.5) as slide:
        predictions = tiles_of(slide)
        project.write_predictions(entry, predictions)
        read = shown()
        assert set(read) == {tile.id for tile in predictions.tiles}
        for tile in predictions.tiles:
            ours = slide.read_region(tile.x, tile.y, TILE_PX, TILE_PX, None)
            where = (ours < 255).any(axis=-1) if unscanned else np.ones(ours.shape[:2], np.bool_)
            compared += int(where.sum())
            np.testing.assert_array_equal(
                read[tile.id][where], ours[where], err_msg=f"{tile.x}, {tile.y}"
            )
    assert compared > 1000


@pytest.mark.parametrize("steps", _NESTINGS, ids=_id)
def test_tiles_in_qupath_are_on_the_pixels_that_qprd_read(
    make_project: Callable[..., Path], slide_path: Path, steps: tuple[Step, ...]
) -> None:
    path = make_project(slide_path, steps)
    with PaquoProject(path) as project:
        assert_on_the_right_pixels(project, lambda: qupath_pixels(path))


@pytest.mark.parametrize("steps", [(), (_CROP, ("rotate", 270))], ids=_id)
def test_tiles_to_be_imported_are_on_the_pixels_that_qprd_read(
    make_project: Callable[..., Path], slide_path: Path, steps: tuple[Step, ...]
) -> None:
    path = make_project(slide_path, steps)
    written = ProjectLayout(path).predictions / "1.geojson"
    with ExchangeProject(path) as project:
        assert_on_the_right_pixels(project, lambda: qupath_pixels(path, written))


_PYRAMID: Step = ("pyramid", None)


@pytest.mark.parametrize(
    "steps",
    [(_PYRAMID,), (_PYRAMID, _CROP, ("rotate", 90)), (("rotate", 90), _PYRAMID, _CROP)],
    ids=_id,
)
def test_a_pyramid_made_by_qupath_changes_no_pixel(
    make_project: Callable[..., Path], shared_data: Path, steps: tuple[Step, ...]
) -> None:
    path = make_project(shared_data / "slides" / "cmu-1-small-region.svs", steps)
    with PaquoProject(path) as project:
        assert_on_the_right_pixels(project, lambda: qupath_pixels(path))


@pytest.mark.parametrize("steps", [(), (_CROP, ("rotate", 90))], ids=_id)
def test_a_slide_that_is_not_cropped_to_its_bounds_is_read_whole(
    make_project: Callable[..., Path],
    scn: tuple[Path, NDArray[np.uint8]],
    steps: tuple[Step, ...],
) -> None:
    path = make_project(scn[0], steps, args=("--no-crop",))
    with PaquoProject(path) as project:
        assert_on_the_right_pixels(project, lambda: qupath_pixels(path), unscanned=True)


@pytest.mark.parametrize("steps", [(), (_PYRAMID,), (_PYRAMID, _CROP, ("rotate", 270))], ids=_id)
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "tif", "lzw", "turned jpg", "turned tif"])
def test_plain_images_are_on_the_pixels_that_imagej_shows(
    make_project: Callable[..., Path], tmp_path: Path, kind: str, steps: tuple[Step, ...]
) -> None:
    path = make_project(plain_image(tmp_path, kind), steps, reader=IMAGEJ)
    with PaquoProject(path) as project:
        assert_on_the_right_pixels(project, lambda: qupath_pixels(path))


@pytest.mark.parametrize(
    ("step", "why"),
    [(("extractChannels", ([0, 1],)), "channels"), (("reorderRGB", ("BGR",)), "color")],
    ids=["two channels", "colors swapped"],
)
def test_what_qupath_shows_in_another_way_is_refused(
    make_project: Callable[..., Path],
    scn: tuple[Path, NDArray[np.uint8]],
    step: Step,
    why: str,
) -> None:
    path = make_project(scn[0], [step])
    for opened in (PaquoProject(path), ExchangeProject(path)):
        with opened as project, pytest.raises(QprdError, match=f"cannot be used: .*{why}"):
            open_slide(project.entries()[0], assume_mpp=0.5)
