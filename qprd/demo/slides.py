"""Synthetic H&E slides: a demo project needs no patient.

A slide is drawn as two stain concentrations, hematoxylin and eosin, and becomes RGB by
Beer-Lambert's law, I = 255 exp(-(H h + E e)), as light through a real section does. Normal
tissue has crypt-like glands, stroma with fibers and fibroblasts, fat, and dense lymphoid
aggregates, so that tumor (crowded, large, irregular nuclei) is not merely what is dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree
from shapely.geometry import Polygon

from qprd.demo.canvas import Bools, Canvas, Floats, NucleusKind, dilate
from qprd.errors import QprdError

#: Optical densities of hematoxylin and eosin in R, G, B: between those of Ruifrok and Johnston
#: (2001), which are bluer than most scanners show them, and a real colon slide.
_HEMATOXYLIN = np.array([0.58, 0.75, 0.33])
_EOSIN = np.array([0.09, 0.95, 0.29])


@dataclass(frozen=True)
class SyntheticSlide:
    """A drawn slide and its truth.

    Attributes:
        image: RGB, (height, width, 3), 0..255.
        tumor: Outlines of the tumor nests, as an annotator would draw them, level-0 pixels.
        normal: Regions of normal tissue, away from tumor.
        mpp: Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    tumor: tuple[Polygon, ...]
    normal: tuple[Polygon, ...]
    mpp: float


_LYMPHOCYTE = NucleusKind((5.8, 7.4), (1.0, 1.18), 0.03, (1.25, 1.6), 0.22, 0.1, 0)
_GLAND = NucleusKind((7.5, 10.0), (1.5, 2.1), 0.03, (0.85, 1.15), 0.18, 0.25, 1)
_FIBROBLAST = NucleusKind((9.0, 15.0), (3.2, 5.5), 0.05, (0.75, 1.2), 0.15, 0.1, 0)
_TUMOR = NucleusKind((8.5, 15.0), (1.05, 1.7), 0.08, (0.7, 1.6), 0.17, 0.5, 3)


def draw_slide(
    seed: int,
    width_px: int = 2000,
    height_px: int = 2500,
    *,
    mpp: float = 0.5,
    tumor_nests: int = 6,
) -> SyntheticSlide:
    """Draw a slide; the same arguments give the same slide.

    Args:
        seed: Also decides the stain: each slide is a little redder, bluer, paler or darker.
        width_px: Width at level 0.
        height_px: Height at level 0.
        mpp: Micrometres per pixel; cells have their true size.
        tumor_nests: How many tumor nests to place (fewer where they find no room); 0 gives a
            slide of normal tissue.
    """
    canvas = Canvas(seed, width_px, height_px, mpp)
    tissue = _tissue(canvas)
    depth = ndimage.distance_transform_edt(np.pad(tissue, 1))[1:-1, 1:-1].astype(np.float32)
    free = depth > canvas.px(25)
    nests = _place(canvas, free, tumor_nests, (70.0, 130.0), irregular=0.16)
    nest_mask = _paint(canvas, nests)
    free &= ~dilate(nest_mask, canvas.px(35))
    fat = free & (canvas.noise(420) > 0.95) & ~dilate(nest_mask, canvas.px(60))
    fat = ndimage.gaussian_filter(fat.astype(np.float32), canvas.px(14)) > 0.55
    follicles = _place(canvas, free & ~dilate(fat, canvas.px(40)), 3, (45.0, 85.0), irregular=0.1)
    follicle_mask = _paint(canvas, follicles)
    crowd = free & ~dilate(fat, canvas.px(40)) & ~dilate(follicle_mask, canvas.px(35))
    glands = _place(canvas, crowd, 90, (24.0, 44.0), irregular=0.06, gap_um=6.0)
    gland_mask = _paint(canvas, glands)

    angle = _draw_stroma(canvas, tissue, depth)
    stroma = tissue & ~nest_mask & ~gland_mask & ~fat
    _draw_fibroblasts(canvas, stroma & ~follicle_mask & (depth > canvas.px(7)), angle)
    _draw_fat(canvas, fat)
    _draw_lymphocytes(canvas, stroma, follicle_mask, nest_mask)
    for outline in glands:
        _draw_gland(canvas, outline)
    for outline in nests:
        _draw_nest(canvas, outline)

    image = _scan(canvas)
    tumor = tuple(Polygon(nest).buffer(canvas.px(4)).simplify(canvas.px(1.0)) for nest in nests)
    return SyntheticSlide(image, tumor, _normal_regions(canvas, depth, nests), mpp)


def write_pyramidal_tiff(image: NDArray[np.uint8], path: Path, mpp: float) -> None:
    """Write a tiled JPEG pyramid that OpenSlide and QuPath open, with its resolution.

    Args:
        image: RGB, (height, width, 3).
        path: The file to write; replaced if it exists.
        mpp: Micrometres per pixel.

    Raises:
        QprdError: The extra ``demo`` is not installed.
    """
    import tifffile

    try:
        import imagecodecs  # noqa: F401
    except ImportError as error:
        raise QprdError(
            f"Writing slides needs the package {error.name}, which is not installed.",
            fix='pip install "qprd[demo]"',
        ) from error
    level = image
    with tifffile.TiffWriter(path) as tiff:
        for index in range(32):
            per_cm = 10_000 / (mpp * 2**index)
            tiff.write(
                level,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 88},
                subfiletype=0 if index == 0 else 1,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            if max(level.shape[:2]) <= 512:
                break
            level = _half(level)


def _half(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of 2 x 2 pixels; an odd last row or column is left out, as scanners do."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: height * 2, : width * 2].reshape(height, 2, width, 2, 3)
    return np.asarray(np.round(blocks.mean(axis=(1, 3), dtype=np.float32)), dtype=np.uint8)


def _tissue(canvas: Canvas) -> Bools:
    """One piece of tissue with a wavy border that reaches most of the slide."""
    y, x = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    u, v = x / canvas.width * 2 - 1, y / canvas.height * 2 - 1
    radius = (np.abs(u) ** 2.6 + np.abs(v) ** 2.6) ** (1 / 2.6)
    edge = 0.86 + 0.06 * canvas.noise(500) + 0.018 * canvas.noise(90) + 0.004 * canvas.noise(15)
    labels, count = ndimage.label(radius < edge)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=np.bool_)


def _outline(
    canvas: Canvas, x: float, y: float, radius: float, irregular: float
) -> NDArray[np.float64]:
    """Closed wavy outline around (x, y), (n, 2)."""
    rng = canvas.rng
    theta = np.linspace(0, 2 * math.pi, max(48, int(radius)), endpoint=False)
    wave = np.ones_like(theta)
    for k in range(2, 8):
        wave += irregular / k**0.6 * rng.normal() * np.cos(k * theta + rng.uniform(0, 2 * math.pi))
    stretch, turn = rng.uniform(1.0, 1.45), rng.uniform(0, math.pi)
    a = radius * wave * np.cos(theta) * math.sqrt(stretch)
    b = radius * wave * np.sin(theta) / math.sqrt(stretch)
    return np.stack(
        [x + a * math.cos(turn) - b * math.sin(turn), y + a * math.sin(turn) + b * math.cos(turn)],
        axis=1,
    )


def _place(
    canvas: Canvas,
    allowed: Bools,
    count: int,
    radius_um: tuple[float, float],
    *,
    irregular: float,
    gap_um: float = 30.0,
) -> list[NDArray[np.float64]]:
    """Outlines inside ``allowed`` that keep a gap from each other."""
    placed: list[NDArray[np.float64]] = []
    room = allowed.copy()
    for _ in range(count * 12):
        if len(placed) == count:
            break
        radius = canvas.px(canvas.rng.uniform(*radius_um))
        candidates = np.flatnonzero(room[::8, ::8])
        if candidates.size == 0:
            break
        row, column = divmod(int(canvas.rng.choice(candidates)), room[::8, ::8].shape[1])
        outline = _outline(canvas, column * 8.0, row * 8.0, radius, irregular)
        cells = np.round(outline).astype(np.intp)
        x, y = cells[:, 0], cells[:, 1]
        if x.min() < 0 or y.min() < 0 or x.max() >= canvas.width or y.max() >= canvas.height:
            continue
        if not room[y, x].all():
            continue
        placed.append(outline)
        grown = np.asarray(Polygon(outline).buffer(canvas.px(gap_um)).exterior.coords)
        room &= ~canvas.fill(grown)
    return placed


def _paint(canvas: Canvas, outlines: Sequence[NDArray[np.float64]]) -> Bools:
    mask = np.zeros((canvas.height, canvas.width), dtype=np.bool_)
    for outline in outlines:
        mask |= canvas.fill(outline)
    return mask


def _draw_stroma(canvas: Canvas, tissue: Bools, depth: Floats) -> Floats:
    """Wavy eosinophilic fibers; returns their direction (radians) for the fibroblasts."""
    shape = (canvas.height, canvas.width)
    bend = canvas.px(90)
    shift_x, shift_y = canvas.noise(330) * bend, canvas.noise(330) * bend
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    fibers = np.zeros(shape, dtype=np.float32)
    for along_um, across_um, weight in ((26.0, 1.1, 1.0), (60.0, 3.2, 0.9)):
        # Along a fiber nothing is fine: draw it short and stretch it.
        stretch = max(1, int(canvas.px(along_um) / 6))
        layer = canvas.rng.standard_normal((shape[0], shape[1] // stretch + 2), dtype=np.float32)
        sigma = (canvas.px(across_um), canvas.px(along_um) / stretch)
        layer = ndimage.gaussian_filter(layer, sigma, mode="wrap")
        image = Image.fromarray(layer / layer.std())
        fibers += weight * np.asarray(
            image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float32
        )
    fibers = ndimage.map_coordinates(fibers, (y + shift_y, x + shift_x), order=1, mode="wrap")
    # A fiber is a line of constant y + shift_y.
    slope_y, slope_x = np.gradient(shift_y)
    angle: Floats = np.arctan2(-slope_x, 1 + slope_y).astype(np.float32)
    ridges = np.tanh(fibers * 0.8)
    base = 0.36 + 0.06 * canvas.noise(250) + 0.03 * canvas.noise(12)
    loose = np.clip(0.5 + 0.5 * canvas.noise(160), 0, 1)
    density = base + ridges * (0.09 + 0.10 * loose)
    # Clefts between the bundles of loose stroma.
    density -= 0.30 * loose * np.clip(-fibers - 1.15, 0, 1)
    # Sections stain more strongly along their edge.
    density += 0.12 * np.exp(-depth / canvas.px(12))
    canvas.eosin += np.where(tissue, np.clip(density, 0.03, None), 0)
    canvas.hematoxylin += np.where(tissue, 0.07 + 0.015 * canvas.noise(60), 0)
    return angle


def _draw_fibroblasts(canvas: Canvas, stroma: Bools, angle: Floats) -> None:
    points = canvas.scatter(stroma, 17.0)
    points = points[canvas.rng.random(len(points)) < 0.62]
    column, row = np.clip(points.astype(np.intp), 0, (canvas.width - 1, canvas.height - 1)).T
    directions = angle[row, column] + canvas.rng.normal(0, 0.22, len(points))
    canvas.draw_nuclei(_FIBROBLAST, points, directions)


def _draw_fat(canvas: Canvas, fat: Bools) -> None:
    """Empty round cells with thin walls: Voronoi cells of scattered points."""
    if not fat.any():
        return
    centers = canvas.scatter(dilate(fat, canvas.px(60)), 46.0)
    rows, columns = np.nonzero(fat)
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    warp = canvas.px(3) * np.stack([canvas.noise(40)[fat], canvas.noise(40)[fat]], axis=1)
    nearest, _ = cKDTree(centers).query(pixels + warp, k=3)
    wall = np.clip((nearest[:, 1] - nearest[:, 0]) / canvas.px(2.4), 0, 1)
    # Where three cells meet the wall is thicker.
    corner = np.clip((nearest[:, 2] - nearest[:, 0]) / canvas.px(9.0), 0, 1)
    keep = 1 - wall * corner
    canvas.eosin[fat] *= (keep * 0.85).astype(np.float32)
    canvas.hematoxylin[fat] *= (keep * 0.8).astype(np.float32)
    walls = np.zeros_like(fat)
    walls[rows, columns] = keep > 0.75
    points = canvas.scatter(walls, 16.0)
    points = points[canvas.rng.random(len(points)) < 0.5]
    canvas.draw_nuclei(_FIBROBLAST, points, canvas.rng.uniform(0, math.pi, len(points)))


def _draw_lymphocytes(canvas: Canvas, stroma: Bools, follicles: Bools, nests: Bools) -> None:
    """Scattered everywhere, denser in patches and beside tumor, packed in follicles."""
    patches = canvas.noise(110)
    infiltrate = dilate(nests, canvas.px(45)) & (patches > 0.3)
    groups = (
        (stroma & ~follicles, 24.0, 0.28),
        (stroma & ~follicles & ((patches > 1.35) | infiltrate), 10.5, 0.75),
        (follicles & stroma, 7.6, 0.93),
    )
    canvas.eosin[follicles] *= 0.7
    canvas.hematoxylin[follicles] += 0.10
    for allowed, spacing_um, share in groups:
        points = canvas.scatter(allowed, spacing_um)
        points = points[canvas.rng.random(len(points)) < share]
        canvas.draw_nuclei(_LYMPHOCYTE, points, canvas.rng.uniform(0, math.pi, len(points)))


def _draw_gland(canvas: Canvas, outline: NDArray[np.float64]) -> None:
    """A ring of tall cells around a lumen: nuclei in order at the base, mucin towards the lumen."""
    rng = canvas.rng
    body = Polygon(outline)
    inside = canvas.fill(outline)
    rows, columns = np.nonzero(inside)
    window = np.s_[
        max(0, rows.min() - 4) : rows.max() + 5, max(0, columns.min() - 4) : columns.max() + 5
    ]
    part = inside[window]
    depth = ndimage.distance_transform_edt(part).astype(np.float32) * canvas.mpp
    tall = min(float(depth.max()) * 0.72, rng.uniform(19, 25))
    edge = np.clip(depth / 1.2, 0, 1)
    lumen = np.clip((depth - tall) / 1.5, 0, 1)
    apical = np.clip((depth - 10.5) / 3, 0, 1) * (1 - lumen)
    grain = 0.04 * rng.standard_normal(part.shape, dtype=np.float32)
    eosin = 0.36 - 0.12 * apical + grain - 0.34 * lumen
    hematoxylin = 0.24 - 0.07 * apical - 0.17 * lumen
    # Goblet cells: round pale drops of mucin on the lumen's side.
    for ring in _rings(body.buffer(-canvas.px(tall * 0.66))):
        count = int(ring.length / canvas.px(9.5))
        for i in range(count):
            if rng.random() < 0.35:
                continue
            spot = ring.interpolate((i + rng.uniform(-0.2, 0.2)) / count, normalized=True)
            radius = canvas.px(rng.uniform(2.6, 4.3))
            y, x = np.ogrid[: part.shape[0], : part.shape[1]]
            away = np.hypot(x + window[1].start - spot.x, y + window[0].start - spot.y).astype(
                np.float32
            )
            drop = np.clip((radius - away) / canvas.px(0.8), 0, 1)
            eosin = eosin * (1 - drop) + drop * 0.05
            hematoxylin = hematoxylin * (1 - drop) + drop * 0.12
    # A pale cleft and a thin basement membrane part the gland from the stroma.
    membrane = np.exp(-(((depth - 0.6) / 0.7) ** 2)) * part
    canvas.eosin[window] = canvas.eosin[window] * (1 - edge) + edge * np.clip(eosin, 0, None)
    canvas.hematoxylin[window] *= 1 - edge
    canvas.hematoxylin[window] += edge * np.clip(hematoxylin, 0, None)
    canvas.eosin[window] += 0.15 * membrane
    for ring in _rings(body.buffer(-canvas.px(5.8))):
        count = max(6, int(ring.length / canvas.px(5.6)))
        steps = (np.arange(count) + rng.uniform(-0.16, 0.16, count)) / count % 1.0
        spots = shapely.get_coordinates(
            shapely.line_interpolate_point(ring, steps, normalized=True)
        )
        ahead = shapely.get_coordinates(
            shapely.line_interpolate_point(ring, (steps + 0.004) % 1.0, normalized=True)
        )
        along = np.arctan2(ahead[:, 1] - spots[:, 1], ahead[:, 0] - spots[:, 0])
        spots = spots + rng.normal(0, canvas.px(0.7), spots.shape)
        canvas.draw_nuclei(
            _GLAND,
            spots,
            along + math.pi / 2 + rng.normal(0, 0.12, count),
        )


def _rings(shape: shapely.Geometry) -> list[shapely.LinearRing]:
    parts = shapely.get_parts(shape)
    return [part.exterior for part in parts if isinstance(part, Polygon) and not part.is_empty]


def _draw_nest(canvas: Canvas, outline: NDArray[np.float64]) -> None:
    """A solid sheet of tumor cells, with a few ragged lumina and necrotic debris."""
    rng = canvas.rng
    nest = canvas.fill(outline)
    rows, columns = np.nonzero(nest)
    margin = int(canvas.px(12))
    top, left = max(0, rows.min() - margin), max(0, columns.min() - margin)
    window = np.s_[top : rows.max() + margin, left : columns.max() + margin]
    part = nest[window]
    inward = ndimage.distance_transform_edt(part).astype(np.float32) * canvas.mpp
    outward = ndimage.distance_transform_edt(~part).astype(np.float32) * canvas.mpp
    # Fixation shrinks nests from the stroma, here and there.
    gaps = np.clip(canvas.noise(60, part.shape) - 0.1, 0, 1)
    halo = gaps * np.exp(-(((outward - 2.0) / 2.2) ** 2)) * ~part
    canvas.eosin[window] *= 1 - 0.9 * halo
    canvas.hematoxylin[window] *= 1 - 0.8 * halo
    lumina = (canvas.noise(38, part.shape) > rng.uniform(1.5, 2.1)) & (inward > 14)
    edge = np.clip(inward / 1.5, 0, 1)
    grain = 0.05 * rng.standard_normal(part.shape, dtype=np.float32)
    eosin = 0.34 + 0.05 * canvas.noise(30, part.shape) + grain
    hematoxylin = 0.27 + 0.04 * canvas.noise(25, part.shape)
    hollow = ndimage.gaussian_filter(lumina.astype(np.float32), canvas.px(0.8))
    eosin = eosin * (1 - hollow) + hollow * (0.06 + 0.10 * (canvas.noise(7, part.shape) > 0.9))
    hematoxylin = hematoxylin * (1 - hollow) + 0.03 * hollow
    canvas.eosin[window] = canvas.eosin[window] * (1 - edge) + edge * eosin
    canvas.hematoxylin[window] = canvas.hematoxylin[window] * (1 - edge) + edge * hematoxylin
    room = np.zeros_like(nest)
    room[window] = (inward > 3.5) & (hollow < 0.2)
    points = canvas.scatter(room, rng.uniform(11.0, 12.6))
    points = points[rng.random(len(points)) < 0.95]
    canvas.draw_nuclei(
        _TUMOR,
        points,
        rng.uniform(0, math.pi, len(points)),
    )


def _scan(canvas: Canvas) -> NDArray[np.uint8]:
    """Stain maps to RGB: this slide's stain and section, the scanner's optics and its sensor."""
    rng = canvas.rng
    hematoxylin, eosin = canvas.hematoxylin, canvas.eosin
    hematoxylin *= rng.uniform(0.85, 1.15) * (1 + 0.05 * canvas.noise(600))
    eosin *= rng.uniform(0.85, 1.2) * (1 + 0.06 * canvas.noise(500))
    stain_h = _HEMATOXYLIN * (1 + rng.normal(0, 0.05, 3))
    stain_e = _EOSIN * (1 + rng.normal(0, [0.05, 0.05, 0.15], 3))
    glass = np.array([241.0, 240.0, 242.0]) + rng.normal(0, 1.5, 3)
    optics = max(0.35, 0.32 / canvas.mpp)
    image = np.empty((canvas.height, canvas.width, 3), dtype=np.uint8)
    for channel in range(3):
        light = np.exp(-(hematoxylin * stain_h[channel] + eosin * stain_e[channel]))
        light = ndimage.gaussian_filter(light, optics) * glass[channel]
        light += rng.normal(0, 1.6, light.shape).astype(np.float32)
        image[..., channel] = np.clip(np.round(light), 0, 255)
    return image


def _normal_regions(
    canvas: Canvas, depth: Floats, nests: Sequence[NDArray[np.float64]]
) -> tuple[Polygon, ...]:
    """Tissue well inside the section and away from tumor, as simple outlines."""
    step = max(1, round(canvas.px(8)))
    inside = depth[::step, ::step] > canvas.px(20)
    rows, columns = np.nonzero(inside)
    cells = shapely.box(columns * step, rows * step, (columns + 1) * step, (rows + 1) * step)
    region = shapely.union_all(cells).buffer(0)
    for nest in nests:
        region = region.difference(Polygon(nest).buffer(canvas.px(40)))
    region = region.buffer(-canvas.px(15)).buffer(canvas.px(15)).simplify(canvas.px(3))
    smallest = canvas.px(120) ** 2
    parts = shapely.get_parts(region)
    return tuple(part for part in parts if isinstance(part, Polygon) and part.area > smallest)
