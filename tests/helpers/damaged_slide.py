"""Slides that open, and cannot be read where a patch needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import tifffile

from tests.helpers.drawn_project import edit


def overwrite_tiles(slide: Path) -> None:
    """Overwrite what the level-0 tiles of a TIFF hold; coarser levels are intact."""
    content = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            content[start : start + size] = bytes(size)
    slide.write_bytes(content)


def cut_off(slide: Path) -> None:
    """Let the last level-0 tile of a TIFF lie beyond the end of the file."""
    with tifffile.TiffFile(slide, mode="r+") as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        end = slide.stat().st_size - 10
        page.tags["TileOffsets"].overwrite((*page.dataoffsets[:-1], end))


def change_slide_of(
    project: Path, entry_id: int, folder: Path, change: Callable[[Path], None]
) -> None:
    """Let an entry of a project show a changed copy of its slide."""

    def show_copy(root):  # type: ignore[no-untyped-def]
        builder = root["images"][entry_id - 1]["serverBuilder"]
        slide = Path(builder["uri"].removeprefix("file://"))
        copy = Path(shutil.copyfile(slide, folder / slide.name))
        change(copy)
        builder["uri"] = copy.as_uri()

    edit(project, show_copy)
