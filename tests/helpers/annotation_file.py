"""A file of annotations as QuPath exports it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def annotation_file(folder: Path, name: str, marker: str = "a", **members: Any) -> Path:
    """Write a file with one annotation of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]},
        "properties": {"name": marker, "classification": {"name": "Drawn", "color": [1, 2, 3]}},
    }
    path = folder / name
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **members}))
    return path
