"""The brush of synthetic slides: stain maps, smooth noise, outlines and nuclei."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

#: Angles, and nuclei at each of them, drawn once for every kind and slide.
_TURNS = 24
_SHAPES = 9


@dataclass(frozen=True)
class NucleusKind:
    """Shape and chromatin of one kind of nucleus; lengths in micrometres.

    Attributes:
        length_um: Range of the long axis.
        aspect: Range of long by short axis.
        irregular: How far the outline strays from an ellipse, as a fraction of the radius.
        density: Range of hematoxylin.
        texture: Contrast of the chromatin.
        vesicular: How much paler the center is than the membrane, 0..1.
        nucleoli: Largest number of nucleoli.
    """

    length_um: tuple[float, float]
    aspect: tuple[float, float]
    irregular: float
    density: tuple[float, float]
    texture: float
    vesicular: float
    nucleoli: int


class Canvas:
    """The stain maps under the brush, and the random numbers of one slide.

    Args:
        seed: Of all that is random in the slide.
        width: In pixels.
        height: In pixels.
        mpp: Micrometres per pixel.
    """

    def __init__(self, seed: int, width: int, height: int, mpp: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.width, self.height, self.mpp = width, height, mpp
        self.hematoxylin: Floats = np.zeros((height, width), dtype=np.float32)
        self.eosin: Floats = np.zeros((height, width), dtype=np.float32)
        self._stamps: dict[NucleusKind, list[list[tuple[Floats, Floats]]]] = {}

    def px(self, um: float) -> float:
        """A length in pixels."""
        return um / self.mpp

    def noise(self, scale_um: float, shape: tuple[int, ...] = ()) -> Floats:
        """Smooth noise, mean 0 and standard deviation 1, features of about ``scale_um``."""
        height, width = shape or (self.height, self.width)
        step = max(1.0, self.px(scale_um) / 4)
        grid = (math.ceil(height / step) + 8, math.ceil(width / step) + 8)
        coarse = ndimage.gaussian_filter(
            self.rng.standard_normal(grid, dtype=np.float32), 1.6, mode="wrap"
        )
        coarse = (coarse - coarse.mean()) / coarse.std()
        box = (3.0, 3.0, 3.0 + width / step, 3.0 + height / step)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box)
        return np.asarray(image, dtype=np.float32)

    def fill(self, outline: NDArray[np.float64]) -> Bools:
        """Mask of a closed outline of (x, y)."""
        image = Image.new("L", (self.width, self.height))
        ImageDraw.Draw(image).polygon(outline.ravel().tolist(), fill=1)
        return np.asarray(image, dtype=np.bool_)

    def scatter(self, allowed: Bools, spacing_um: float) -> NDArray[np.float64]:
        """Points (x, y) of ``allowed`` on a jittered triangular grid of a spacing."""
        spacing = self.px(spacing_um)
        rows = np.arange(0.0, self.height, spacing * 0.87)
        columns = np.arange(0.0, self.width + spacing, spacing)
        x = columns[None, :] + (np.arange(rows.size) % 2)[:, None] * spacing / 2
        points = np.stack([x, np.broadcast_to(rows[:, None], x.shape)], axis=-1).reshape(-1, 2)
        points = points + self.rng.uniform(-0.3, 0.3, points.shape) * spacing
        column, row = np.round(points).astype(np.intp).T
        inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
        points, column, row = points[inside], column[inside], row[inside]
        return np.asarray(points[allowed[row, column]])

    def draw_nuclei(
        self,
        kind: NucleusKind,
        centers: NDArray[np.float64],
        angles: NDArray[np.float64],
    ) -> None:
        """Stamp nuclei at (x, y) with their long axes at ``angles`` (radians, y down)."""
        stamps = self._library(kind)
        picks = self.rng.integers(_SHAPES, size=len(centers))
        for (x, y), angle, pick in zip(centers, angles, picks, strict=True):
            alpha, density = stamps[int(angle % math.pi / math.pi * _TURNS) % _TURNS][pick]
            self._stamp(alpha, density, round(x), round(y))

    def _library(self, kind: NucleusKind) -> list[list[tuple[Floats, Floats]]]:
        """This slide's nuclei of a kind: `_SHAPES` of them at each of `_TURNS` angles."""
        if kind not in self._stamps:
            self._stamps[kind] = [
                [
                    _nucleus(self.rng, kind, self.mpp, math.pi * (turn + 0.5) / _TURNS)
                    for _ in range(_SHAPES)
                ]
                for turn in range(_TURNS)
            ]
        return self._stamps[kind]

    def _stamp(self, alpha: Floats, density: Floats, x: int, y: int) -> None:
        half = alpha.shape[0] // 2
        top, left = max(0, y - half), max(0, x - half)
        bottom, right = min(self.height, y + half + 1), min(self.width, x + half + 1)
        if top >= bottom or left >= right:
            return
        part = np.s_[top - y + half : bottom - y + half, left - x + half : right - x + half]
        here = np.s_[top:bottom, left:right]
        a, d = alpha[part], density[part]
        # Nuclei overlap in a section of 4 um: where two cross, the stain adds up a little.
        under = self.hematoxylin[here]
        self.hematoxylin[here] = under * (1 - a) + a * (d + 0.2 * np.minimum(under, 1.0))
        self.eosin[here] *= 1 - 0.55 * a


def dilate(mask: Bools, radius: float) -> Bools:
    """Dilation by a disk, to the nearest few pixels."""
    if not mask.any():
        return mask
    step = 4
    coarse = ndimage.distance_transform_edt(~mask[::step, ::step]) <= radius / step
    fine = np.repeat(np.repeat(coarse, step, axis=0), step, axis=1)
    return np.asarray(fine[: mask.shape[0], : mask.shape[1]] | mask, dtype=np.bool_)


def _nucleus(
    rng: np.random.Generator, kind: NucleusKind, mpp: float, angle: float
) -> tuple[Floats, Floats]:
    """Opacity (0..1) and hematoxylin of one nucleus on a square of odd edge."""
    long_px = rng.uniform(*kind.length_um) / mpp / 2
    short_px = max(1.0, long_px / rng.uniform(*kind.aspect))
    half = math.ceil(long_px * (1 + 3 * kind.irregular)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    u = (x * math.cos(angle) + y * math.sin(angle)) / long_px
    v = (-x * math.sin(angle) + y * math.cos(angle)) / short_px
    theta = np.arctan2(v, u)
    outline = np.ones_like(u)
    for k in (2, 3, 4, 5):
        outline += kind.irregular * rng.normal() / k**0.4 * np.cos(k * theta + rng.uniform(0, 6.3))
    radius = np.hypot(u, v) / np.clip(outline, 0.5, None)
    alpha = np.clip((1 - radius) * short_px / 1.3 + 0.5, 0, 1)
    grain = ndimage.gaussian_filter(
        rng.standard_normal(u.shape, dtype=np.float32), max(0.6, 0.55 / mpp)
    )
    grain *= kind.texture / max(float(grain.std()), 1e-6)
    center = np.clip(1 - radius, 0, 1) ** 0.7
    pale = kind.vesicular * rng.uniform(0.1, 1.0)
    # Chromatin lies along the membrane.
    membrane = 0.25 * np.exp(-(((radius - 0.9) / 0.13) ** 2))
    density = rng.uniform(*kind.density) * (1 - pale * center + grain + membrane)
    for _ in range(int(rng.integers(kind.nucleoli + 1))):
        at_u, at_v = rng.uniform(-0.45, 0.45, 2)
        spot = np.hypot((u - at_u) * long_px, (v - at_v) * short_px)
        density += 0.6 * np.exp(-((spot * mpp / rng.uniform(0.6, 1.0)) ** 2))
    return alpha.astype(np.float32), np.clip(density, 0.15, 2.2).astype(np.float32)
