"""QuPath's coordinate frame of a slide, as pure geometry.

QuPath shows a file through up to three steps, each with its own (0, 0): OpenSlide's bounds
(`OpenslideImageServer`), a crop (`CroppedImageServer`), a clockwise rotation
(`RotatedImageServer`). Annotations and predictions are in the last frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError

Rotation = Literal[0, 90, 180, 270]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_BOUNDS = tuple(f"openslide.bounds-{name}" for name in ("x", "y", "width", "height"))


@dataclass(frozen=True)
class Frame:
    """A rectangle of the file's level 0 and its rotation.

    Attributes:
        file_x: Left edge of the rectangle in level-0 pixels of the file.
        file_y: Top edge of the rectangle in level-0 pixels of the file.
        file_width: Width of the rectangle before the rotation.
        file_height: Height of the rectangle before the rotation.
        rotation: Clockwise rotation in degrees.
    """

    file_x: int
    file_y: int
    file_width: int
    file_height: int
    rotation: Rotation = 0

    @property
    def width(self) -> int:
        """Width in the rotated frame."""
        return self.file_height if self.rotation in (90, 270) else self.file_width

    @property
    def height(self) -> int:
        """Height in the rotated frame."""
        return self.file_width if self.rotation in (90, 270) else self.file_height

    def to_file(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """Map a rectangle of the frame to level-0 pixels of the file.

        Same equations as `RotatedImageServer.rotateRequest`, for real-valued rectangles.

        Returns:
            x, y, width, height in the file; width and height are swapped at 90 and 270 degrees.
        """
        if self.rotation == 90:
            x, y, width, height = y, self.width - x - width, height, width
        elif self.rotation == 180:
            x, y = self.width - x - width, self.height - y - height
        elif self.rotation == 270:
            x, y, width, height = self.height - y - height, x, height, width
        return self.file_x + x, self.file_y + y, width, height

    def orient(self, pixels: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Rotate pixels (rows, columns, ...) from the file's orientation into the frame's."""
        return np.ascontiguousarray(np.rot90(pixels, k=-(self.rotation // 90)))


def slide_bounds(
    properties: Mapping[str, str], width: int, height: int
) -> tuple[int, int, int, int]:
    """Return the part of the file that QuPath shows: x, y, width, height in level-0 pixels.

    As in QuPath, the bounds count only if all four properties are there and are integers.
    """
    try:
        x, y, bounds_width, bounds_height = (int(properties[name]) for name in _BOUNDS)
    except (KeyError, ValueError):
        return 0, 0, width, height
    if bounds_width < 1 or bounds_height < 1:
        return 0, 0, width, height
    return x, y, bounds_width, bounds_height


def qupath_frame(
    bounds: tuple[int, int, int, int],
    crop: tuple[int, int, int, int] | None = None,
    rotation: Rotation = 0,
) -> Frame:
    """Compose bounds, then crop, then rotation.

    Args:
        bounds: From `slide_bounds`.
        crop: x, y, width, height in the unrotated frame of the bounds. As in QuPath it may reach
            beyond the bounds.
        rotation: Clockwise.

    Raises:
        QprdError: The crop is empty or the rotation not a quarter turn.
    """
    if rotation not in (0, 90, 180, 270):
        raise QprdError(
            f"A slide cannot be rotated by {rotation} degrees.", fix="Use 0, 90, 180 or 270."
        )
    x, y, width, height = bounds
    if crop is not None:
        crop_x, crop_y, width, height = crop
        if width < 1 or height < 1:
            raise QprdError(
                f"The crop of the slide is empty ({width} x {height} pixels).",
                fix="Crop the image again in QuPath.",
            )
        x, y = x + crop_x, y + crop_y
    return Frame(x, y, width, height, rotation)
