"""Bundles as earlier versions wrote them are still read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from qprd.bundle.ancestry import Ancestor, ReviewCounts
from qprd.bundle.formats import FORMAT, info_from_json, info_to_json
from qprd.bundle.records import BundleInfo
from qprd.errors import QprdError
from qprd.evaluation.calibration import Platt
from qprd.evaluation.operating_point import ValidationScores
from qprd.given_settings import stored_train_config
from qprd.slides.fingerprint import SlideIdentity

FORMAT_1: Mapping[str, Any] = {
    "name": "20260101-000000-resnet18",
    "teacher": {
        "name": "resnet18",
        "sha256": "0" * 64,
        "source": "torchvision",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "pretrained": True,
    },
    "mpp": 0.25,
    "patch_px": 256,
    "threshold": 1.25,
    "patch_score": "max",
    "classes": {"tumor": ["Tumor"], "normal": ["Normal"]},
    "calibration": {"slope": 2.0, "intercept": -1.0},
    "config": {"teacher": "resnet18", "epochs": 50, "lr": 1e-5},
    "metrics": {"val_auroc": 0.9},
    "patches": {"train_normal": 300},
    "training_slides": ["colon_1.tif"],
    "validation_slides": ["colon_2.tif"],
    "versions": {"qprd": "0.1.0"},
    "created": "2026-01-01T00:00:00Z",
    "format": 1,
}
CALIBRATION = {"method": "platt", "slope": 3.0, "intercept": -2.0, "reliability": None}
VALIDATION = {"tumor": [1.0, 2.0], "normal": [0.5], "false_positives": None}
FORMAT_2 = {**FORMAT_1, "format": 2, "calibration": CALIBRATION, "validation": VALIDATION}
FORMAT_3 = {
    **FORMAT_2,
    "format": 3,
    "recipe": "best",
    "config": {"recipe": "best", "teacher": "resnet18", "exact": False},
    "ancestors": [{"name": "first", "sha256": "1" * 64, "created": "2025-01-01T00:00:00Z"}],
    "annotations": [],
    "review": {"accepted": 1, "rejected": 2, "tumor_patches": 3, "normal_patches": 4},
    "dense": {
        "threshold": 1.5,
        "calibration": {**CALIBRATION, "slope": 4.0},
        "validation": {**VALIDATION, "tumor": [1.0, 3.0]},
    },
}


def read(document: Mapping[str, Any]) -> BundleInfo:
    return info_from_json(json.dumps(document), "here")


def test_format_1_scores_patch_by_patch_and_has_one_calibration_without_a_name() -> None:
    info = read(FORMAT_1)
    assert info.scoring.by == "patches"
    assert (info.scoring.threshold, info.scoring.patch_score) == (1.25, "max")
    assert info.scoring.calibration == Platt(2.0, -1.0)
    assert info.scoring.validation is None
    assert (info.network.recipe, info.network.model) == ("paper", "frd")
    assert info.network.teacher.name == "resnet18"
    assert (info.network.mpp, info.network.patch_px) == (0.25, 256)
    assert info.training.slides == (SlideIdentity("colon_1.tif"),)
    assert info.training.validation_slides == (SlideIdentity("colon_2.tif"),)
    assert info.training.classes["tumor"] == ("Tumor",)
    assert info.training.metrics == {"val_auroc": 0.9}
    assert stored_train_config(info.training.config, "here").epochs == 50


def test_format_2_has_validation_scores() -> None:
    scoring = read(FORMAT_2).scoring
    assert scoring.by == "patches"
    assert scoring.calibration == Platt(3.0, -2.0)
    assert scoring.validation == ValidationScores((1.0, 2.0), (0.5,))


def test_format_3_keeps_what_was_for_scores_from_fields_where_it_had_any() -> None:
    info = read(FORMAT_3)
    assert (info.scoring.by, info.scoring.threshold) == ("fields", 1.5)
    assert info.scoring.calibration == Platt(4.0, -2.0)
    assert info.scoring.validation == ValidationScores((1.0, 3.0), (0.5,))
    assert (info.network.recipe, info.network.model) == ("best", "standardized_frd")
    assert [ancestor.name for ancestor in info.training.ancestors] == ["first"]
    assert isinstance(info.training.ancestors[0], Ancestor)
    assert info.training.review == ReviewCounts(1, 2, 3, 4)
    assert stored_train_config(info.training.config, "here").scoring == "auto"
    never_validated = {"threshold": None, "calibration": None, "validation": None}
    info = read({**FORMAT_3, "dense": never_validated})
    assert (info.scoring.by, info.scoring.threshold) == ("fields", None)


def test_format_3_without_scores_from_fields_scores_patch_by_patch() -> None:
    config = {"recipe": "best", "teacher": "resnet18", "exact": True}
    info = read({**FORMAT_3, "dense": None, "config": config})
    assert (info.scoring.by, info.scoring.threshold) == ("patches", 1.25)
    assert info.scoring.validation == ValidationScores((1.0, 2.0), (0.5,))
    assert stored_train_config(info.training.config, "here").scoring == "patches"


@pytest.mark.parametrize("document", [FORMAT_1, FORMAT_2, FORMAT_3])
def test_an_earlier_bundle_is_the_same_in_the_current_format(document: Mapping[str, Any]) -> None:
    info = read(document)
    text = info_to_json(info)
    assert json.loads(text)["format"] == FORMAT
    assert info_from_json(text, "here") == info


@pytest.mark.parametrize("document", [FORMAT_1, FORMAT_2, FORMAT_3])
@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"scoring": "fields"},
        {"dense": "good"},
        {"dense": {"threshold": "1", "calibration": None, "validation": None}},
        {"config": []},
        {"mpp": 0},
    ],
)
def test_an_earlier_bundle_is_checked_like_any_other(
    document: Mapping[str, Any], change: Mapping[str, Any]
) -> None:
    with pytest.raises(QprdError, match="damaged"):
        read({**document, **change})
