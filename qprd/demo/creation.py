"""Create a QuPath project without QuPath, with its annotations as exchange files."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openslide

from qprd.errors import QprdError
from qprd.files.atomic import write_errors
from qprd.files.layout import ProjectLayout
from qprd.files.transaction import FileTransaction
from qprd.qupath.pathclasses import argb_from_color, classes_path, classes_text
from qprd.qupath.project import PathClass

#: The QuPath version whose project format is written.
_FORMAT_VERSION = "0.6.0"
_THUMBNAIL_PX = (1000, 800)
_CHANNELS = (("Red", (255, 0, 0)), ("Green", (0, 255, 0)), ("Blue", (0, 0, 255)))

DEFAULT_CLASSES = (
    PathClass("Tumor", (200, 0, 0)),
    PathClass("Normal", (0, 200, 0)),
    PathClass("Ignore*", (180, 180, 180)),
)


@dataclass(frozen=True)
class NewSlide:
    """A slide of a new project: an RGB file that OpenSlide reads, and GeoJSON as QuPath has it."""

    path: Path
    mpp: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, object] | None = None


def create_project(
    folder: Path, slides: Sequence[NewSlide], *, classes: Sequence[PathClass] = DEFAULT_CLASSES
) -> Path:
    """Write a project for QuPath 0.6 and later, with its annotations as exchange files.

    The backend paquo takes them from there, too, and brings them into QuPath when it first writes.
    Entry ids are 1, 2, ... in the order of the slides.

    Returns:
        The ``project.qpproj``.

    Raises:
        QprdError: The folder holds a project or cannot be written, or a slide cannot be used.
    """
    project = folder.resolve() / "project.qpproj"
    if project.exists():
        raise QprdError(
            "The folder already holds a project.", where=str(project), fix="Name a new folder."
        )
    layout = ProjectLayout(project)
    images: list[dict[str, object]] = []
    with FileTransaction(project.parent) as transaction:
        for entry_id, slide in enumerate(slides, start=1):
            builder = _server_builder(slide)
            entry_folder = project.parent / "data" / str(entry_id)
            transaction.stage_text(entry_folder / "server.json", _json(builder))
            _save_thumbnail(slide.path, transaction.stage(entry_folder / "thumbnail.jpg"))
            if slide.annotations is not None:
                transaction.stage_text(
                    layout.annotations / f"{entry_id}.geojson", _json(slide.annotations)
                )
            images.append(
                {
                    "serverBuilder": builder,
                    "entryID": entry_id,
                    "randomizedName": str(uuid.uuid4()),
                    "imageName": slide.path.name,
                    "metadata": dict(slide.metadata),
                    "tags": [],
                }
            )
        items: list[object] = [
            {"name": known.name, "color": argb_from_color(known.color or (128, 128, 128))}
            for known in classes
        ]
        transaction.stage_text(classes_path(project), classes_text(items))
        now_ms = time.time_ns() // 10**6
        root = {
            "version": _FORMAT_VERSION,
            "createTimestamp": now_ms,
            "modifyTimestamp": now_ms,
            "uri": project.as_uri(),
            "lastID": len(slides),
            "images": images,
        }
        transaction.stage_text(project, _json(root))
        transaction.commit()
    return project


def _server_builder(slide: NewSlide) -> dict[str, object]:
    """The record that QuPath keeps of a slide that it reads with OpenSlide."""
    path = slide.path.resolve()
    try:
        with openslide.OpenSlide(path) as opened:
            levels = opened.level_dimensions
            properties = dict(opened.properties)
    except (openslide.OpenSlideError, OSError) as error:
        raise QprdError(
            f"This slide cannot be opened: {error}.",
            where=str(path),
            fix="Check that the file is complete and opens in QuPath.",
        ) from error
    if openslide.PROPERTY_NAME_BOUNDS_WIDTH in properties:
        raise QprdError(
            "This slide shows only a part of its file (openslide.bounds).",
            where=str(path),
            fix="Create the project in QuPath.",
        )
    width, height = levels[0]
    side = {"value": slide.mpp, "unit": "µm"}
    return {
        "builderType": "uri",
        "providerClassName": "qupath.lib.images.servers.openslide.OpenslideServerBuilder",
        "uri": path.as_uri(),
        "args": [],
        "metadata": {
            "name": path.name,
            "width": width,
            "height": height,
            "sizeZ": 1,
            "sizeT": 1,
            "channelType": "DEFAULT",
            "isRGB": True,
            "pixelType": "UINT8",
            "levels": [
                {
                    "downsample": (width / level_width + height / level_height) / 2,
                    "width": level_width,
                    "height": level_height,
                }
                for level_width, level_height in levels
            ],
            "channels": [
                {"name": name, "color": argb_from_color(color)} for name, color in _CHANNELS
            ],
            "pixelCalibration": {
                "pixelWidth": side,
                "pixelHeight": side,
                "zSpacing": {"value": 1.0, "unit": "z-slice"},
                "timeUnit": "SECONDS",
                "timepoints": [],
            },
            "preferredTileWidth": 256,
            "preferredTileHeight": 256,
        },
    }


def _save_thumbnail(slide: Path, target: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        thumbnail = opened.get_thumbnail(_THUMBNAIL_PX)
    with write_errors("The thumbnail", target):
        thumbnail.save(target, format="JPEG")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
