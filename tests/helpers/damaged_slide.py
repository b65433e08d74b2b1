"""Slides that open, and cannot be read where a patch needs them."""

from __future__ import annotations

from pathlib import Path

import tifffile

from tests.helpers.drawn_project import edit


def damage(slide: Path, copy: Path) -> Path:
    """Copy a pyramidal TIFF and overwrite what its level-0 tiles hold; the overview is intact."""
    content = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            content[start : start + size] = bytes(size)
    copy.write_bytes(content)
    return copy


def damage_slide_of(project: Path, entry_id: int, folder: Path) -> None:
    """Let an entry of a project show a damaged copy of its slide."""

    def change(root):  # type: ignore[no-untyped-def]
        builder = root["images"][entry_id - 1]["serverBuilder"]
        slide = Path(builder["uri"].removeprefix("file://"))
        builder["uri"] = damage(slide, folder / slide.name).as_uri()

    edit(project, change)
