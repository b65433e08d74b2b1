"""Opening of image files: slides through OpenSlide, plain images through Pillow."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path, PurePath
from typing import Final

import openslide
from PIL import ExifTags, Image, UnidentifiedImageError

from qprd.errors import QprdError

#: Said of a slide that is a folder of chunks.
ZARR: Final = "an OME-Zarr, which qprd does not read"
ZARR_FIX: Final = "Convert it to an OME-TIFF, by QuPath's export or by raw2ometiff, and take that."

#: Decoded pixels that OpenSlide keeps of a slide, for the next row of regions to use again.
_CACHE_BYTES = 128 << 20

#: Pixels of the largest tile that is decoded: OpenSlide ends the process where memory is too small.
_MAX_TILE_PX = 8192 * 8192

#: Pillow turns TIFF images as their orientation tag says; this turns them back.
_AS_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def open_image_file(path: Path) -> openslide.AbstractSlide:
    """Open a slide, or a plain RGB image that fits into memory.

    Slides are what OpenSlide 4 reads; of one in DICOM, any file of its series opens all levels.
    Plain images are PNG, JPEG, BMP and TIFF without tiles. They are shown as they are stored,
    whatever orientation they ask for: QuPath's readers (ImageJ, Bio-Formats) do the same.

    Raises:
        QprdError: The file is missing, unreadable, too large, or not an RGB image.
    """
    if is_zarr(path):
        raise QprdError(f"The slide is {ZARR}.", where=str(path), fix=ZARR_FIX)
    if not path.is_file():
        raise QprdError(
            "The slide is a folder, not a file." if path.is_dir() else "The slide does not exist.",
            where=str(path),
            fix="Name the folder that the slides are in with --slides DIR.",
        )
    try:
        handle = openslide.OpenSlide(path)
        with contextlib.suppress(openslide.OpenSlideVersionError):  # before OpenSlide 4
            handle.set_cache(openslide.OpenSlideCache(_CACHE_BYTES))
        _check_tiles(path, handle)
        return handle
    except openslide.OpenSlideUnsupportedFormatError:
        return openslide.ImageSlide(_read_image(path))
    except (openslide.OpenSlideError, OSError) as error:
        raise _not_a_slide(path, str(error)) from error


def is_zarr(path: PurePath) -> bool:
    """Whether a path is that of an OME-Zarr, or leads into one."""
    return any(part.lower().endswith(".zarr") for part in path.parts)


def _check_tiles(path: Path, handle: openslide.OpenSlide) -> None:
    for level in range(handle.level_count):
        sides = [f"openslide.level[{level}].tile-{side}" for side in ("width", "height")]
        width, height = (int(handle.properties.get(side, 0)) for side in sides)
        if width * height > _MAX_TILE_PX:
            handle.close()
            raise _not_a_slide(path, f"it has tiles of {width} x {height} px")


def _read_image(path: Path) -> Image.Image:
    """Return the pixels of a plain image as RGB, or as RGBA if some are transparent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP"))
        with image:
            if image.mode not in ("RGB", "RGBA", "P"):
                raise _not_a_slide(path, f"an image of {image.mode} pixels, not 8-bit RGB")
            turned = image.getexif().get(ExifTags.Base.Orientation)
            pixels = image.convert("RGBA" if image.has_transparency_data else "RGB")
            if image.format == "TIFF" and turned in _AS_STORED:
                return pixels.transpose(_AS_STORED[turned])
            return pixels
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise QprdError(
            f"The image is too large to be read without a pyramid (at most "
            f"{(Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels).",
            where=str(path),
            fix="Export it from QuPath as a pyramidal OME-TIFF.",
        ) from error
    except UnidentifiedImageError as error:
        raise _not_a_slide(path, "unknown format") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_a_slide(path, str(error)) from error


def _not_a_slide(path: Path, reason: str) -> QprdError:
    return QprdError(
        f"The file is not a slide that OpenSlide can read ({reason}).",
        where=str(path),
        fix="Check that the file is complete and opens in QuPath, "
        "or export it from QuPath as a pyramidal OME-TIFF.",
    )
