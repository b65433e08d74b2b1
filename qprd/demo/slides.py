"""Draw H&E slides with known tumor, and write them as pyramidal TIFF.

A slide is drawn as two stain concentrations, hematoxylin H and eosin E, and becomes RGB by
Beer-Lambert's law, I = glass * exp(-(H h + E e)). Normal tissue has fibrous stroma, glands and
dense lymphoid follicles, so that tumor (crowded, large, irregular nuclei) is not merely what is
dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from shapely.geometry import Polygon

from qprd.errors import QprdError
from qprd.slides.tissue import TissueMask

#: Optical densities of hematoxylin and eosin in R, G, B: between those of Ruifrok and Johnston
#: (2001), which are bluer than most scanners show them, and a real colon slide.
_HEMATOXYLIN = np.array([0.58, 0.75, 0.33])
_EOSIN = np.array([0.09, 0.95, 0.29])

#: Edge of a square of the coarse grid on which structures are placed.
_GRID_UM = 4.0

#: Distance from structures that a slide has none of.
_FAR_UM = 1e6

_Floats = NDArray[np.float32]
_Bools = NDArray[np.bool_]


class _Nuclei(NamedTuple):
    """Look of one kind of nucleus: ranges of its long axis, of long by short, and of hematoxylin.

    ``wobble`` is how far the outline strays from an ellipse, as a share of the radius, and ``pale``
    how much paler than its membrane the center is, 0..1.
    """

    length_um: tuple[float, float]
    aspect: tuple[float, float]
    density: tuple[float, float]
    wobble: float = 0.03
    pale: float = 0.1


_LYMPHOCYTE = _Nuclei((5.8, 7.4), (1.0, 1.2), (1.2, 1.55))
_GLAND = _Nuclei((7.5, 10.0), (1.5, 2.1), (0.8, 1.1))
_FIBROBLAST = _Nuclei((9.0, 15.0), (3.2, 5.5), (0.75, 1.1))
_TUMOR = _Nuclei((8.5, 15.0), (1.05, 1.7), (0.65, 1.4), wobble=0.09, pale=0.5)


@dataclass(frozen=True)
class SyntheticSlide:
    """A drawn slide and its ground truth.

    Attributes:
        image: RGB, (height, width, 3), 0..255.
        tumor: Outlines of the tumor nests, as an annotator would draw them, in level-0 pixels.
        normal: Regions of normal tissue at a distance from tumor, in level-0 pixels.
    """

    image: NDArray[np.uint8]
    tumor: tuple[Polygon, ...]
    normal: tuple[Polygon, ...]
    mpp: float


def draw_slide(
    seed: int,
    width_px: int = 2000,
    height_px: int = 2500,
    *,
    mpp: float = 0.5,
    tumor_nests: int = 6,
) -> SyntheticSlide:
    """Draw a slide; the same arguments give the same slide.

    The seed decides the stain too: each slide is a little redder, bluer, paler or darker. Cells
    have their true size. There are fewer tumor nests if there is no room for them.
    """
    painter = _Painter(seed, width_px, height_px, mpp)
    # Structures are given by how deep a pixel lies in them, in micrometers.
    tissue = painter.tissue()
    room = painter.distance_um(~painter.coarse(tissue)) > 20
    clear = room.copy()
    nest = painter.blobs(room, tumor_nests, (60, 115), wobble_um=12, gap_um=40)
    follicle = painter.blobs(room, 3, (40, 75), wobble_um=8, gap_um=20)
    gland = painter.blobs(room, 90, (24, 44), wobble_um=3, gap_um=12)
    epithelium = np.maximum(gland, nest) > 0

    fibers, across_um = painter.fibers()
    eosin = 0.36 + 0.11 * fibers + 0.06 * painter.noise(200)
    eosin[follicle > 0] *= 0.6
    eosin[epithelium] = 0.33 + 0.04 * painter.noise(2)[epithelium]
    hematoxylin = np.full_like(eosin, 0.07)
    hematoxylin[np.maximum(nest, follicle) > 0], hematoxylin[gland > 0] = 0.26, 0.2
    lumen = gland > 20
    eosin[lumen], hematoxylin[lumen] = 0.04, 0.06

    # Lymphocytes lie scattered, in groups and beside tumor, and packed in follicles; the nuclei of
    # a gland stand upright along its rim.
    stroma = tissue & ~epithelium & (follicle < 0)
    infiltrate = (painter.noise(110) > 1.3) | ((nest > -45) & (painter.noise(80) > 0.5))
    for kind, where, spacing_um, angle in (
        (_FIBROBLAST, stroma, 22.0, _slope(across_um) + math.pi / 2),
        (_LYMPHOCYTE, stroma, 45.0, None),
        (_LYMPHOCYTE, stroma & infiltrate, 12.0, None),
        (_LYMPHOCYTE, follicle > 0, 7.2, None),
        (_GLAND, (gland > 4) & (gland < 9), 5.5, _slope(gland)),
        (_TUMOR, nest > 4, 12.0, None),
    ):
        painter.draw_nuclei(kind, where, spacing_um, angle)
    image = painter.scan(tissue, hematoxylin, np.clip(eosin, 0.03, None))

    tumor = painter.coarse(nest > 0)
    normal = clear & (painter.distance_um(tumor) > 50)
    return SyntheticSlide(image, painter.outlines(tumor), painter.outlines(normal), mpp)


class _Painter:
    """The size, resolution and random numbers of a slide, and the nuclei drawn so far."""

    def __init__(self, seed: int, width: int, height: int, mpp: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.mpp = mpp
        self._shape = (height, width)
        self._step = max(1, round(_GRID_UM / mpp))
        self._nuclei = Image.new("F", (width, height))

    def noise(self, scale_um: float, along_um: float | None = None) -> _Floats:
        """Smooth noise, mean 0, standard deviation about 1; ``along_um`` is from left to right."""
        scales_px = np.array([scale_um, along_um or scale_um]) / self.mpp
        steps = np.maximum(1.0, scales_px / 4)
        grid = np.ceil(self._shape / steps).astype(int) + 8
        white = self.rng.standard_normal(grid, dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, 0.4 * scales_px / steps, mode="wrap")
        height, width = self._shape / steps
        image = Image.fromarray(smooth / smooth.std()).resize(
            self._nuclei.size, Image.Resampling.BICUBIC, (3, 3, 3 + width, 3 + height)
        )
        return np.asarray(image, dtype=np.float32)

    def tissue(self) -> _Bools:
        """One piece of tissue that covers most of the slide."""
        height, width = self._shape
        y, x = np.ogrid[:height, :width]
        radius = (np.abs(2 * x / width - 1) ** 3 + np.abs(2 * y / height - 1) ** 3) ** (1 / 3)
        edge = 0.85 + 0.06 * self.noise(500) + 0.018 * self.noise(90) + 0.004 * self.noise(15)
        labels, _ = ndimage.label(radius < edge)
        largest = labels == np.bincount(labels[labels > 0]).argmax()
        return np.asarray(ndimage.binary_fill_holes(largest), dtype=np.bool_)

    def coarse(self, mask: _Bools) -> _Bools:
        """Every so many pixels of a mask: enough to place and outline structures."""
        return mask[:: self._step, :: self._step]

    def distance_um(self, mask: _Bools) -> _Floats:
        """Distance of each pixel of the coarse grid from a coarse mask."""
        if not mask.any():
            return np.full(mask.shape, _FAR_UM, dtype=np.float32)
        distance = ndimage.distance_transform_edt(~mask, sampling=self._step * self.mpp)
        return np.asarray(distance, dtype=np.float32)

    def blobs(
        self,
        room: _Bools,
        count: int,
        radius_um: tuple[float, float],
        *,
        wobble_um: float,
        gap_um: float,
    ) -> _Floats:
        """Place up to ``count`` wavy disks where a coarse mask has room, and take the room.

        Their outlines stray from circles by ``wobble_um`` (standard deviation), and they keep
        ``gap_um`` from each other.

        Returns:
            Depth of each pixel within its disk, in micrometers; negative outside of all.
        """
        depth = np.full(self._shape, -_FAR_UM, dtype=np.float32)
        grid = np.ogrid[: self._shape[0], : self._shape[1]]
        y, x = (at.astype(np.float32) * self.mpp + wobble_um * self.noise(70) for at in grid)
        rows, columns = np.ogrid[: room.shape[0], : room.shape[1]]
        for radius in self.rng.uniform(*radius_um, count):
            spots = np.argwhere(self.distance_um(~np.pad(room, 1))[1:-1, 1:-1] > radius)
            if len(spots):
                row, column = self.rng.choice(spots)
                away = np.hypot(rows - row, columns - column) * self._step * self.mpp
                room &= away > radius + gap_um
                center, reach = np.array([row, column]) * self._step, (radius + 100) / self.mpp
                near = tuple(slice(max(0, int(at - reach)), int(at + reach)) for at in center)
                top, left = center * self.mpp
                own = np.float32(radius) - np.hypot(y[near] - top, x[near] - left)
                depth[near] = np.maximum(depth[near], own)
        return depth

    def fibers(self) -> tuple[_Floats, _Floats]:
        """Density of the wavy fibers of stroma, as `noise`, and the position across them in um."""
        straight = 0.7 * self.noise(4, 60) + 0.7 * self.noise(12, 150)
        y, x = np.mgrid[: self._shape[0], : self._shape[1]].astype(np.float32)
        y += 90 / self.mpp * self.noise(330)
        return ndimage.map_coordinates(straight, (y, x), order=1, mode="wrap"), y * self.mpp

    def draw_nuclei(
        self, kind: _Nuclei, where: _Bools, spacing_um: float, angle: _Floats | None
    ) -> None:
        """Scatter nuclei over a mask, on a jittered triangular grid.

        ``angle`` is the direction of their long axes at each pixel, in radians; random if None.
        """
        rng, spacing = self.rng, spacing_um / self.mpp
        rows, columns = np.mgrid[: self._shape[0] : 0.87 * spacing, : self._shape[1] : spacing]
        columns[1::2] += spacing / 2
        xy = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        xy += rng.uniform(-0.3, 0.3, xy.shape) * spacing
        column, row = np.clip(xy, 0, np.array(where.shape[::-1]) - 1).astype(int).T
        xy, row, column = (array[where[row, column]] for array in (xy, row, column))
        turn = rng.uniform(0, math.pi, len(xy)) if angle is None else angle[row, column]

        # Outlines are complex numbers, x + iy: turning one is a product.
        around = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        phase = rng.uniform(0, 2 * math.pi, (2, len(xy), 1))
        radius = 1 + kind.wobble * sum(np.cos((k + 2) * around + phase[k]) for k in range(2))
        aspect = rng.uniform(*kind.aspect, (len(xy), 1))
        half_px = rng.uniform(*kind.length_um, (len(xy), 1)) / 2 / self.mpp
        outlines = half_px * radius * (np.cos(around) + 1j * np.sin(around) / aspect)
        outlines *= np.exp(1j * (turn + rng.normal(0, 0.15, len(xy))))[:, None]
        centers = xy @ [1, 1j]
        densities = rng.uniform(*kind.density, len(xy))
        draw = ImageDraw.Draw(self._nuclei)
        for center, outline, density in zip(centers, outlines, densities, strict=True):
            for size, shade in ((1.0, 1.0), (0.6, 1 - kind.pale)):
                xy_pairs = (center + size * outline).view(np.float64).tolist()
                draw.polygon(xy_pairs, fill=density * shade)

    def scan(self, tissue: _Bools, hematoxylin: _Floats, eosin: _Floats) -> NDArray[np.uint8]:
        """RGB of the stains and the nuclei, with optics and noise of a scanner."""
        rng = self.rng
        nuclei = np.asarray(self._nuclei) * (1 + 0.2 * self.noise(2))
        eosin = tissue * eosin * np.exp(-nuclei)
        hematoxylin = tissue * (hematoxylin + nuclei)
        eosin *= rng.uniform(0.85, 1.2) * (1 + 0.06 * self.noise(500))
        hematoxylin *= rng.uniform(0.85, 1.15) * (1 + 0.05 * self.noise(600))
        stain_h = (_HEMATOXYLIN * (1 + rng.normal(0, 0.05, 3))).tolist()
        stain_e = (_EOSIN * (1 + rng.normal(0, [0.05, 0.05, 0.15]))).tolist()
        glass = (np.array([241.0, 240.0, 242.0]) + rng.normal(0, 1.5, 3)).tolist()
        image = np.empty((*self._shape, 3), dtype=np.uint8)
        for channel in range(3):
            light = np.exp(-(hematoxylin * stain_h[channel] + eosin * stain_e[channel]))
            light = ndimage.gaussian_filter(light, 0.35 / self.mpp) * glass[channel]
            noisy = light + 1.6 * rng.standard_normal(light.shape, dtype=np.float32)
            image[..., channel] = np.clip(np.round(noisy), 0, 255)
        return image

    def outlines(self, mask: _Bools) -> tuple[Polygon, ...]:
        """Outlines of the larger pieces of a coarse mask, in level-0 pixels."""
        polygons = TissueMask(mask, self._step).to_polygons().simplify(self._step)
        parts = shapely.get_parts(polygons)
        return tuple(parts[shapely.area(parts) > (60 / self.mpp) ** 2])


def _slope(field: _Floats) -> _Floats:
    """Direction in which a field rises most, in radians, at each pixel."""
    down, right = np.gradient(field)
    return np.asarray(np.arctan2(down, right), dtype=np.float32)


def write_pyramidal_tiff(image: NDArray[np.uint8], path: Path, mpp: float) -> None:
    """Write RGB (height, width, 3) as a tiled JPEG pyramid that OpenSlide and QuPath open.

    It states its resolution, micrometers per pixel.

    Raises:
        QprdError: The extra ``demo`` is not installed.
    """
    import tifffile
    from skimage.transform import downscale_local_mean

    try:
        import imagecodecs  # noqa: F401
    except ImportError as error:
        raise QprdError(
            f"Writing slides needs the package {error.name}, which is not installed.",
            fix='pip install "qprd[timm]"',
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
            # An odd last row or column is left out, as scanners do.
            height, width = (side // 2 * 2 for side in level.shape[:2])
            smaller = downscale_local_mean(level[:height, :width], (2, 2, 1))
            level = np.round(smaller).astype(np.uint8)
