"""A slide known by what it is: a fingerprint of its file, and the part of the file that is shown.

Names are for people: an image may be renamed, two images may have one name, and one file may be in
a project several times.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from qprd.checked import STRICT, Text
from qprd.errors import QprdError, read_errors
from qprd.names import composed
from qprd.slides.frame import Frame
from qprd.slides.slide import Slide

#: What is read of a file: both ends, and places evenly spread between them; 192 KiB in all.
_END_BYTES = 64 * 2**10
_PLACES = 8
_PLACE_BYTES = 8 * 2**10
#: Edge of the squares at the corners of level 0. Of each its mean color counts, in steps: decoders
#: differ in the last bit.
_CORNER_PX = 256
_COLOR_STEP = 16

Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]

#: A file, its size in bytes, and when it was last changed.
_File = tuple[Path, int, int]


@dataclass(frozen=True, config=STRICT)
class SlideIdentity:
    """What distinguishes a slide from all others.

    Attributes:
        fingerprint: Of its file; None where it is not known, as in bundles of an earlier qprd.
        area: x, y, width and height of what is shown of the file, in its level-0 pixels; None for
            all of it.
    """

    name: Text
    fingerprint: Fingerprint | None = None
    area: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, name: str, fingerprint: str | None, frame: Frame) -> SlideIdentity:
        """The identity of a slide that is shown in this frame."""
        area = (frame.file_x, frame.file_y, frame.file_width, frame.file_height)
        return cls(name, fingerprint, area)

    def is_same_file_as(self, other: SlideIdentity) -> bool:
        """Whether both show one file; names decide where the fingerprint of either is not known."""
        if self.fingerprint is None or other.fingerprint is None:
            return composed(self.name) == composed(other.name)
        return self.fingerprint == other.fingerprint

    def is_same_as(self, other: SlideIdentity) -> bool:
        """Whether both show the same tissue: one file, and parts of it that overlap."""
        return self.is_same_file_as(other) and _overlap(self.area, other.area)


class KnownSlides:
    """Slides in which others are looked up."""

    def __init__(self, slides: Iterable[SlideIdentity]) -> None:
        self._by_key: dict[str | None, list[SlideIdentity]] = defaultdict(list)
        for slide in slides:
            for key in {composed(slide.name), slide.fingerprint}:
                self._by_key[key].append(slide)

    def __contains__(self, slide: SlideIdentity) -> bool:
        keys = (composed(slide.name), slide.fingerprint)
        return any(slide.is_same_as(known) for key in keys for known in self._by_key.get(key, ()))

    def has_file_of(self, slide: SlideIdentity) -> bool:
        """Whether one of them is known to show a part of the same file."""
        return slide.fingerprint is not None and slide.fingerprint in self._by_key


def fingerprint(path: Path) -> str:
    """Compute a digest of a slide's file, which does not depend on its name, folder or computer.

    It is made of the size of the file, 192 KiB of its bytes, the dimensions of level 0, and the
    colors of four squares of 256 px at its corners. MIRAX slides keep their pixels in a folder
    beside the ``.mrxs``, whose files count as one with it. A process computes it once as long as
    the file does not change.

    Raises:
        QprdError: the slide is missing, cannot be read, or is no slide.

    Examples:
        >>> len(fingerprint(Path("demo/slides/demo_4.tif")))
        32
    """
    fix = "Get read access to it, or copy it again from its source."
    with read_errors("The slide", path, fix=fix):
        return _fingerprint(path, tuple(map(_file, _files(path))))


def file_state(path: Path) -> tuple[int, int]:
    """Size of a slide's files, and when they were last changed: cheap to compare."""
    with read_errors("The slide", path):
        _, sizes, times = zip(*map(_file, _files(path)), strict=True)
    return sum(sizes), max(times)


def _files(path: Path) -> list[Path]:
    """The files that a slide consists of, in a fixed order."""
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        # File managers leave files of their own, such as .DS_Store.
        parts = (f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
        return [*sorted(f for f in parts if f.suffix == ".dat" or f.name == "Slidedat.ini"), path]
    if path.suffix.lower() == ".dcm":
        # Those of another slide in the same folder only cost another look.
        return sorted({path, *path.parent.glob("*.dcm")})
    return [path]


def _file(path: Path) -> _File:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@cache
def _fingerprint(path: Path, files: tuple[_File, ...]) -> str:
    with Slide(path, mpp=1.0, use_bounds=False) as slide:
        # Before the pixels: OpenSlide answers nothing more once some could not be read.
        series = slide.series
        pixels = f"{slide.width} x {slide.height} px {_corner_colors(slide)}"
    if series:
        # A slide in DICOM has several files, and any of them opens it.
        return hashlib.blake2b(f"{series} {pixels}".encode(), digest_size=16).hexdigest()
    size = sum(size for _, size, _ in files)
    digest = hashlib.blake2b(f"{size} bytes {pixels}".encode(), digest_size=16)
    digest.update(_bytes_at(files, 0, _END_BYTES))
    for place in range(1, _PLACES + 1):
        digest.update(_bytes_at(files, size * place // (_PLACES + 1), _PLACE_BYTES))
    digest.update(_bytes_at(files, max(0, size - _END_BYTES), _END_BYTES))
    return digest.hexdigest()


def _bytes_at(files: tuple[_File, ...], offset: int, count: int) -> bytes:
    """Bytes of files as if they were one."""
    found = b""
    for path, size, _ in files:
        if offset < size and len(found) < count:
            with path.open("rb") as file:
                file.seek(offset)
                found += file.read(count - len(found))
        offset = max(0, offset - size)
    return found


def _corner_colors(slide: Slide) -> list[list[int]]:
    """Mean red, green and blue at each corner in steps; empty where the file is damaged."""
    width, height = min(_CORNER_PX, slide.width), min(_CORNER_PX, slide.height)
    colors: list[list[int]] = []
    for x in (0, slide.width - width):
        for y in (0, slide.height - height):
            try:
                pixels = slide.read_region(x, y, width, height, None)
            except QprdError:
                colors.append([])
            else:
                colors.append((pixels.mean(axis=(0, 1)) // _COLOR_STEP).astype(int).tolist())
    return colors


def _overlap(
    one: tuple[int, int, int, int] | None, other: tuple[int, int, int, int] | None
) -> bool:
    """Whether two areas share pixels; None is all of the file."""
    if one is None or other is None:
        return True
    return all(
        max(one[axis], other[axis]) < min(one[axis] + one[axis + 2], other[axis] + other[axis + 2])
        for axis in (0, 1)
    )
