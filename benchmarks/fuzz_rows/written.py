"""Small inputs, written by qprd itself where it writes such files."""

from __future__ import annotations

import io
import json
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from safetensors.torch import save
from shapely.geometry import box, mapping

from qprd.bundle.formats import info_to_json
from qprd.bundle.records import BundleInfo, NetworkInfo, ScoringInfo, TeacherInfo, TrainingInfo
from qprd.evaluation.calibration import Isotonic
from qprd.evaluation.operating_point import ValidationScores
from qprd.files.backups import MANIFESTS, KeptFile, Manifest, Subject
from qprd.predictions import LesionPoints, ScoreMap
from qprd.results.folder import SlideResult, save_result
from qprd.results.objects import predicted_objects
from qprd.slides.fingerprint import SlideIdentity
from qprd.slides.frame import Frame

#: Tensors of a bundle that stand in for those of a network.
TENSORS = {"a.weight": torch.zeros(2, 3), "b.bias": torch.ones(4)}

SETTINGS = b"""[train]
recipe = "paper"
teacher = "resnet18"
mpp = 0.5
alpha = 0.25
tumor_class = ["Tumor", "Carcinoma: in situ"]
operating-point = "sensitivity=0.95"
augment = true
[predict]
threshold = 1.25
stride = 64
image = ["colon_*.tif"]
"""

PATCHES = b"""slide,name,x,y,size_px,mpp,label,split,reviewed
1,colon_1.tif,0,128,64.0,0.5,tumor,train,no
1,colon_1.tif,512,128,64.0,0.5,normal,train,yes
2,"colon, 2.tif",0,128,63.5,0.5,tumor,val,no
"""

ASAP = b"""<?xml version="1.0"?>
<ASAP_Annotations><Annotations>
<Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58"><Coordinates>
<Coordinate Order="0" X="10" Y="20.5"/><Coordinate Order="1" X="110" Y="20"/>
<Coordinate Order="2" X="110" Y="90"/></Coordinates></Annotation>
<Annotation Name="Hole" Type="Rectangle" PartOfGroup="Exclusion"><Coordinates>
<Coordinate Order="0" X="40" Y="40"/><Coordinate Order="1" X="60" Y="40"/>
<Coordinate Order="2" X="60" Y="50"/><Coordinate Order="3" X="40" Y="50"/>
</Coordinates></Annotation>
</Annotations><AnnotationGroups><Group Name="Tumor" PartOfGroup="None"/>
<Group Name="Exclusion" PartOfGroup="None"/></AnnotationGroups></ASAP_Annotations>
"""

CAMELYON = json.dumps(
    {
        "positive": [{"name": "a", "vertices": [[10, 20], [110, 20], [110, 90]]}],
        "negative": [{"name": "b", "vertices": [[40, 40], [60, 40], [60, 50], [40, 50]]}],
    }
).encode()

CLASSES = b'{"pathClasses": [{"name": "Tumor", "color": -3670016}, {"name": "Ignore*"}]}'

SUMMARY = json.dumps(
    {
        "serverBuilder": {},
        "hierarchy": {
            "nObjects": 3,
            "objectTypeCounts": {"Annotations": 2},
            "annotationClassificationCounts": {"Tumor": 1, "Unclassified": 1},
        },
    }
).encode()

SERVER: dict[str, Any] = {
    "builderType": "rotated",
    "rotation": "ROTATE_90",
    "builder": {
        "builderType": "cropped",
        "region": {"x": 10, "y": 20, "width": 500, "height": 400, "z": 0, "t": 0},
        "builder": {
            "builderType": "uri",
            "providerClassName": "qupath.lib.images.servers.openslide.OpenslideServerBuilder",
            "uri": "file:///G:/slides/colon%201.tif",
            "args": [],
            "metadata": {
                "name": "colon 1.tif",
                "width": 1000,
                "height": 800,
                "isRGB": True,
                "pixelType": "UINT8",
                "sizeZ": 1,
                "sizeT": 1,
                "pixelCalibration": {
                    "pixelWidth": {"value": 0.5, "unit": "µm"},
                    "pixelHeight": {"value": 0.5, "unit": "µm"},
                },
                "levels": [{"downsample": 1.0, "width": 1000, "height": 800}],
            },
        },
    },
}
_BARE_SERVER = {key: SERVER["builder"]["builder"][key] for key in ("builderType", "uri", "args")}


def project(server: object = None) -> bytes:
    """A project of one image, whose metadata are in ``server.json`` unless a server is given."""
    image = {
        "serverBuilder": SERVER["builder"] if server is None else server,
        "entryID": 1,
        "imageName": "colon 1.tif",
        "metadata": {"split": "train", "Train/Validation/Test type": "Train"},
    }
    return json.dumps(
        {"version": "0.6.0", "uri": "file:/G:/p/p.qpproj", "images": [image]}
    ).encode()


def bare_project() -> bytes:
    """A project that says nothing of its image but where it is."""
    return project(_BARE_SERVER)


def drawn() -> bytes:
    """A polygon with a hole, a MultiPolygon with a part in another, nested objects, a point."""
    shapes = [
        ("Tumor", mapping(box(0, 0, 200, 200).difference(box(50, 50, 90, 90)))),
        ("Normal", {"type": "MultiPolygon", "coordinates": [_ring(300, 90), _ring(310, 40)]}),
        ("Other", {"type": "Point", "coordinates": [5, 5], "plane": {"z": 0, "t": 0, "c": -1}}),
    ]
    features: list[dict[str, Any]] = [
        {
            "type": "Feature",
            "id": f"00000000-0000-4000-8000-00000000000{number}",
            "geometry": geometry,
            "properties": {
                "objectType": "annotation",
                "name": name,
                "classification": {"name": name, "color": [200, 0, 0]},
                "isLocked": True,
                "measurements": {"qprd: mean score": 1.5, "x": "NaN"},
            },
        }
        for number, (name, geometry) in enumerate(shapes)
    ]
    features[0]["properties"]["childObjects"] = [features.pop()]
    return json.dumps({"type": "FeatureCollection", "features": features}).encode()


def _ring(start: float, edge: float) -> list[list[tuple[float, float]]]:
    return [list(box(start, start, start + edge, start + edge).exterior.coords)]


def bundle_json() -> bytes:
    """The description of a bundle, with calibration and validation."""
    teacher = TeacherInfo("resnet18", "0" * 64, "random", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    scores = ValidationScores((1.0, 2.0), (0.5, 0.75))
    calibration = Isotonic((-1.5, 0.25, 40.0), (0.0, 0.5, 0.5), 2.0, -1.0)
    info = BundleInfo(
        "fuzzed",
        NetworkInfo(teacher, "best", "discriminant", 0.5, 128),
        ScoringInfo("fields", "mean", 1.25, calibration, scores),
        TrainingInfo(
            config={"teacher": "resnet18", "mpp": 0.5},
            classes={"tumor": ("Tumor",)},
            slides=(SlideIdentity("colon 1.tif", "0" * 32, (0, 0, 9, 9)),),
        ),
        created=datetime(2026, 1, 1, tzinfo=timezone.utc),
        versions={},
    )
    return info_to_json(info).encode()


def tensors() -> bytes:
    """`TENSORS` as safetensors."""
    return bytes(save(TENSORS))


def manifest() -> bytes:
    """A manifest, or a journal, of two files."""
    staged = ".1.geojson.01234567-1-01234567.tmp"
    step = Manifest(
        command="write-back",
        backend="exchange",
        qprd="0",
        time="2026-01-01T00-00-00.000000Z",
        subject=Subject("1", "colon 1.tif"),
        files=(
            KeptFile("qprd/predictions/1.geojson", None, "1" * 64, staged),
            KeptFile("data/1/data.qpdata", "0" * 64, None, None),
        ),
        folder="qprd/backups/2026-01-01T00-00-00.000000Z/0001",
    )
    return MANIFESTS.dump_json(step)


def results() -> dict[str, bytes]:
    """The files of a prediction, by name."""
    scores = np.array([[0.5, np.nan], [2.0, 1.0]], np.float32)
    score_map = ScoreMap(scores, 0.0, 0.0, 64.0, 0.5)
    predictions = predicted_objects(
        score_map,
        [box(0, 64, 64, 128)],
        bundle="fuzzed",
        entry_id="1",
        size=(128, 128),
        tumor_class="Tumor",
        probability_of=None,
        metadata={"qprd: bundle": "fuzzed"},
    )
    slide = SlideResult(
        entry_id="1",
        image="colon 1.tif",
        bundle="fuzzed",
        created="2026-01-01T00:00:00+00:00",
        slide_score=2.0,
        threshold=1.5,
        tissue_um2=1.0,
        tumor_um2=1.0,
        tiles=3,
        contours=1,
        mpp=0.5,
        seconds=1.0,
        frame=Frame(0, 0, 128, 128),
    )
    points = LesionPoints(np.array([2.0, 1.0]), np.array([32.0, 96.0]), np.array([96.0, 96.0]))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "1")
        save_result(
            place,
            slide,
            score_map,
            predictions,
            probabilities=None,
            lesion_points=points,
            overview=b"",
        )
        return {path.name: path.read_bytes() for path in place.iterdir()}


def slide() -> bytes:
    """A TIFF file in tiles, one of them missing."""
    pixels = np.full((64, 64, 3), 200, np.uint8)
    pixels[16:48, 16:48] = (150, 60, 120)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, tile=(32, 32), compression="zlib", metadata=None)
    return buffer.getvalue()
