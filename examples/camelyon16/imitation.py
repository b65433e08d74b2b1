"""Draw a tiny imitation of Camelyon16, to try the commands on: figures on it mean nothing.

    python examples/camelyon16/imitation.py DIR --xml FILE.xml [FILE.xml ...]

The slides are synthetic; their tumor has the outlines of the given ASAP files, shrunk and turned.
Folders and file names are the challenge's, the lists of patch centers the published ones'.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree

import numpy as np
import shapely
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from challenge import TRAIN, VAL
from qprd.demo.slides import draw_slide, write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.progress import printable
from qprd.qupath.asap import read_asap

#: So coarse that a slide of few pixels has room for lesions that count (275 um and longer).
MPP = 1.0
#: Has tumor in every imitated test slide of an odd number.
TEST = ("test_001", "test_002", "test_003", "test_004", "test_049", "test_114")
NORMAL = ("normal_001",)

_SIZE = (1100, 1000)
#: Glass around the tissue, and tissue around the tumor, as shares of an edge.
_GLASS, _FREE = 0.08, 0.2
_GLASS_RGB = 242
#: Outlines have a vertex every so many pixels, the real ones hundreds.
_VERTEX_PX = 1.0
_CENTERS = 40
_PATCH_PX = 64

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class _Textures:
    normal: _Pixels
    tumor: _Pixels


def imitate(
    folder: Path,
    xml: Sequence[Path],
    *,
    training: Sequence[str] = (*TRAIN, *VAL),
    test: Sequence[str] = TEST,
    seed: int = 0,
) -> None:
    """Draw slides, their annotations, ``reference.csv`` and lists of patch centers.

    Args:
        folder: New or empty.
        xml: ASAP files whose tumor is drawn, in turn.
        training: Slides with tumor.
        test: Slides of which every other one has tumor.
        seed: Of everything random.

    Raises:
        QprdError: the folder is not empty, or a file is not ASAP's.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QprdError("The folder is not empty.", where=str(folder), fix="Name a new folder.")
    textures = _textures(seed)
    places = [(f"training/tumor/{name}.tif", "training", name) for name in training]
    places += [(f"training/normal/{name}.tif", "training", name) for name in NORMAL]
    places += [(f"testing/images/{name}.tif", "testing", name) for name in test]
    reference = []
    for number, (file, part, name) in enumerate(places):
        rng = np.random.default_rng([seed, number])
        has_tumor = name.startswith("tumor_") or (part == "testing" and int(name[-3:]) % 2 == 1)
        tumor: shapely.Geometry = shapely.MultiPolygon()
        if has_tumor:
            drawn = folder / part / "lesion_annotations" / f"{name}.xml"
            drawn.parent.mkdir(parents=True, exist_ok=True)
            _shrink(xml[number % len(xml)], drawn, rng)
            tumor = shapely.union_all([region.geometry for region in read_asap(drawn).tumor])
        slide = folder / file
        slide.parent.mkdir(parents=True, exist_ok=True)
        write_pyramidal_tiff(_paint(tumor, textures, rng), slide, MPP)
        if part == "testing":
            reference.append(f"{name},{'Tumor' if has_tumor else 'Normal'}")
        kind = "test" if part == "testing" else "train"
        _write_centers(folder / "coords", kind, name, tumor, rng)
    (folder / "testing" / "reference.csv").write_text("\n".join(reference) + "\n", encoding="utf-8")


def _textures(seed: int) -> _Textures:
    """Two squares of tissue, cut out of one synthetic slide: drawing many takes minutes."""
    drawn = draw_slide(seed, 750, 750, mpp=MPP, tumor_nests=1)

    def square(polygons: Sequence[shapely.Polygon]) -> _Pixels:
        area = shapely.union_all(polygons)
        inside = np.pad(_mask(area, drawn.image.shape[:2]), 1)
        reach = ndimage.distance_transform_cdt(inside, "chessboard")
        row, column = np.unravel_index(reach.argmax(), reach.shape)
        half = int(reach.max()) - 1
        # Back to the frame without padding.
        return drawn.image[row - 1 - half : row - 1 + half, column - 1 - half : column - 1 + half]

    return _Textures(square(drawn.normal), square(drawn.tumor))


def _tissue() -> shapely.Polygon:
    """The outline of the tissue of a slide: a square with round corners."""
    width, height = _SIZE
    glass = _GLASS * width
    corner = width / 5
    square = shapely.box(glass, glass, width - glass, height - glass)
    return square.buffer(-corner).buffer(corner)


def _paint(tumor: shapely.Geometry, textures: _Textures, rng: np.random.Generator) -> _Pixels:
    width, height = _SIZE
    shape = (height, width)
    tissue = _mask(_tissue(), shape)
    nests = _mask(tumor, shape)
    image = np.full((*shape, 3), _GLASS_RGB, np.uint8)
    for region, texture in ((tissue & ~nests, textures.normal), (nests, textures.tumor)):
        image[region] = _tiled(texture, shape, rng)[region]
    stain = rng.uniform(0.85, 1.15, 3)
    # A look-up table, as every pixel of a value gets the same stain.
    tables = np.round(255 * (np.arange(256)[:, None] / 255) ** stain).astype(np.uint8)
    return np.stack([tables[image[..., c], c] for c in range(3)], axis=-1)


def _tiled(texture: _Pixels, shape: tuple[int, int], rng: np.random.Generator) -> _Pixels:
    """A texture and its mirror images, edge to edge, from a random place on."""
    mirrored = np.concatenate([texture, texture[::-1]])
    mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], axis=1)
    mirrored = np.roll(mirrored, rng.integers(0, mirrored.shape[:2]), axis=(0, 1))
    repeats = [-(-edge // own) for edge, own in zip(shape, mirrored.shape[:2], strict=True)]
    return np.tile(mirrored, (*repeats, 1))[: shape[0], : shape[1]]


def _mask(area: shapely.Geometry, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels inside of an area, holes left out."""
    image = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(image)
    for polygon in shapely.get_parts(area):
        draw.polygon(shapely.get_coordinates(polygon.exterior).ravel().tolist(), fill=1)
        for hole in polygon.interiors:
            draw.polygon(shapely.get_coordinates(hole).ravel().tolist(), fill=0)
    return np.array(image, dtype=np.bool_)


def _shrink(source: Path, target: Path, rng: np.random.Generator) -> None:
    """Copy an ASAP file, its coordinates moved into a small slide: scaled, mirrored, turned."""
    try:
        root = parse(source, forbid_dtd=True).getroot()
    except (OSError, ParseError, DefusedXmlException) as error:
        raise QprdError(f"This is not a file of ASAP: {error}.", where=str(source)) from error
    places = list(root.iter("Coordinate"))
    if not places:
        raise QprdError("This file has no annotation.", where=str(source))
    xy = np.array([[float(p.get("X", "nan")), float(p.get("Y", "nan"))] for p in places])
    if rng.random() < 0.5:
        xy = xy[:, ::-1]
    xy = xy * rng.choice([-1.0, 1.0], 2)
    size = np.array(_SIZE)
    room = size * (1 - 2 * _FREE)
    xy = xy - xy.min(axis=0)
    xy = xy * (room / xy.max(axis=0)).min() * rng.uniform(0.7, 1)
    xy = xy + size * _FREE + rng.random(2) * (room - xy.max(axis=0))
    for place, (x, y) in zip(places, xy, strict=True):
        place.set("X", f"{x:.3f}")
        place.set("Y", f"{y:.3f}")
    for outline in root.iter("Coordinates"):
        _thin(outline)
    ElementTree(root).write(target, encoding="utf-8", xml_declaration=True)


def _thin(outline: Element) -> None:
    """Take out vertices that no pixel shows, of an outline that stays one without them."""
    kept: list[Element] = []
    last = (math.inf, math.inf)
    for place in outline:
        here = float(place.get("X", "nan")), float(place.get("Y", "nan"))
        if math.dist(here, last) >= _VERTEX_PX:
            kept.append(place)
            last = here
    if len(kept) > 3:
        outline[:] = kept


def _write_centers(
    folder: Path, kind: str, name: str, tumor: shapely.Geometry, rng: np.random.Generator
) -> None:
    """Add a slide's centers to the two lists: ``good`` is normal and ``bad`` is tumor."""
    if not name.startswith(("tumor_", "test_")) or name in VAL:
        return
    folder.mkdir(exist_ok=True)
    size = np.array(_SIZE)
    tumor = tumor.simplify(1)
    # Patches of normal tissue reach into glass, as the published ones.
    tissue = _tissue().buffer(-_PATCH_PX / 4)
    areas = {"bad": tumor.buffer(-_PATCH_PX / 4), "good": tissue - tumor.buffer(_PATCH_PX)}
    for label, area in areas.items():
        points = rng.uniform(0, size, (20 * _CENTERS, 2)).round().astype(int)
        inside = points[shapely.contains_xy(area, points)][:_CENTERS]
        with (folder / f"{kind}_{label}.txt").open("a", encoding="utf-8", newline="") as file:
            file.writelines(f"{name},{x},{y}\r\n" for x, y in inside)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--xml", type=Path, nargs="+", required=True, help="files of ASAP")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    imitate(arguments.folder, arguments.xml, seed=arguments.seed)
    print(f"An imitation of Camelyon16: {arguments.folder}")


if __name__ == "__main__":
    try:
        main()
    except QprdError as error:
        sys.exit(printable(f"error: {error}"))
