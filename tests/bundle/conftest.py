"""A model of which a bundle is made, and the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qprd.bundle.names import INFO_FILE, MODEL_FILE
from qprd.bundle.records import (
    BundleInfo,
    NetworkInfo,
    ScoringInfo,
    TeacherInfo,
    TrainingInfo,
)
from qprd.bundle.writing import save_bundle
from qprd.evaluation.calibration import Isotonic
from qprd.evaluation.operating_point import ValidationScores
from qprd.evaluation.reliability import Reliability, ReliabilityBin
from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.teacher import build_teacher
from qprd.slides.fingerprint import SlideIdentity

RELIABILITY = Reliability(
    reason="it fits",
    n_tumor=30,
    n_normal=31,
    folds=5,
    by_slide=True,
    log_loss_platt=0.5,
    log_loss_isotonic=None,
    brier_score=0.2,
    expected_calibration_error=0.1,
    bins=(ReliabilityBin(61, 0.5, 0.25), ReliabilityBin(0, None, None)),
)
ISOTONIC = Isotonic((-1.5, 0.25, 40.0), (0.0, 0.5, 0.5), 2.0, -1.0, reliability=RELIABILITY)


@pytest.fixture(scope="session")
def model() -> FRD:
    frd = build_network(FRD, build_teacher("resnet18", pretrained=False), seed=0)
    frd.train()
    frd(torch.rand(2, 3, 64, 64))  # so that the batch statistics are not the initial ones
    return frd.eval()


@pytest.fixture(scope="session")
def info(model: FRD) -> BundleInfo:
    return BundleInfo(
        name="colon 1",
        network=NetworkInfo(TeacherInfo.of(model.teacher), "paper", "frd", 0.5, 128),
        scoring=ScoringInfo("fields", "mean", 1.25, ISOTONIC, ValidationScores((1.0, 2.0), (0.5,))),
        training=TrainingInfo(
            config={"teacher": "resnet18", "alpha": "auto", "images": [], "weights": None},
            classes={"tumor": ("Tumor",), "normal": ("Normal", "Stroma: Ünder")},
            patches={"normal": 300, "tumor": 30},
            slides=(SlideIdentity("colon_1.tif", "0" * 32, (0, 0, 3584, 8448)),),
            validation_slides=(SlideIdentity("colon_2.tif", "1" * 32),),
            metrics={"auroc": 0.9, "history": [1, 2.5, None]},
        ),
    )


@pytest.fixture(scope="session")
def saved(model: FRD, info: BundleInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "colon"
    save_bundle(folder, model, info)
    return folder


@pytest.fixture
def bundle(saved: Path, tmp_path: Path) -> Path:
    """A bundle that a test may spoil: its JSON is a copy, its weights a hard link."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / INFO_FILE).write_bytes((saved / INFO_FILE).read_bytes())
    (folder / MODEL_FILE).hardlink_to(saved / MODEL_FILE)
    return folder
