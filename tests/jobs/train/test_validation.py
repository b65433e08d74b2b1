"""What validation slides decide, and that test slides decide nothing."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qprd.bundle.names import INFO_FILE, MODEL_FILE, PATCHES_FILE
from qprd.bundle.reading import read_bundle_info
from qprd.errors import QprdError
from qprd.evaluation.operating_point import achieved_at
from qprd.jobs.train.job import train_project
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.results.arrays import load_score_map
from qprd.results.lesion_points import lesion_points
from qprd.sampling.table import PatchTable
from tests.helpers.drawn_project import (
    NAMES,
    NORMAL,
    copied,
    edit,
    outlines,
    predict,
    snapshot,
    train,
    training,
)
from tests.helpers.one_second import OneSecond

#: The painted slides are smaller than the distance within which one lesion point suppresses others.
RADIUS_UM = 40.0


@pytest.fixture(autouse=True)
def _near_points(monkeypatch: pytest.MonkeyPatch) -> None:
    near = functools.partial(lesion_points, radius_um=RADIUS_UM)
    monkeypatch.setattr("qprd.jobs.train.validation.lesion_points", near)


def drawn_on(project: Path, number: int) -> Path:
    return project.parent / "qprd" / "annotations" / f"{number}.geojson"


@pytest.fixture
def tested_project(project: Path) -> Path:
    """The third slide is annotated, and is for testing."""
    edit(project, lambda root: root["images"][2]["metadata"].update(split="test"))
    drawn_on(project, 3).write_text(json.dumps(outlines()))
    return project


def swapped(text: str) -> str:
    return text.replace('"Tumor"', '"?"').replace('"Normal"', '"Tumor"').replace('"?"', '"Normal"')


def only_normal(text: str) -> str:
    return text.replace('"Tumor"', '"Normal"')


def scrambled(project: Path, folder: Path, number: int, scramble: Callable[[str], str]) -> Path:
    """A copy of a project with other labels on one slide."""
    other = copied(project, folder)
    file = drawn_on(other, number)
    file.write_text(scramble(file.read_text()))
    assert file.read_text() != drawn_on(project, number).read_text()
    return other


def bundle_of(project: Path, rule: str) -> Path:
    return train(project, operating_point=rule, val_patches=12, patch_px=64).bundle


def assert_same_bundle(first: Path, second: Path) -> None:
    info = read_bundle_info(first)
    assert info.scoring.threshold is not None
    assert info.scoring.calibration is not None
    for file in (INFO_FILE, MODEL_FILE):
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    # The scrambling reached the patches: the test slide was not just left out.
    first_table, second_table = (
        PatchTable.from_csv(path / PATCHES_FILE) for path in (first, second)
    )
    for split in ("train", "val"):
        assert first_table.subset(split).patches == second_table.subset(split).patches
    assert first_table.counts()["test", "tumor"] > 0
    assert first_table.subset("test").patches != second_table.subset("test").patches


def test_scrambled_test_labels_give_the_same_bundle_byte_for_byte(
    tested_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.jobs.train.job.datetime", OneSecond)
    on_test = scrambled(tested_project, tmp_path / "test", 3, only_normal)
    on_val = scrambled(tested_project, tmp_path / "val", 2, swapped)
    bundle, same, other = (bundle_of(p, "accuracy") for p in (tested_project, on_test, on_val))
    assert_same_bundle(bundle, same)
    # The same cannot be said of labels that count.
    assert (bundle / INFO_FILE).read_bytes() != (other / INFO_FILE).read_bytes()
    assert read_bundle_info(bundle).scoring.threshold != read_bundle_info(other).scoring.threshold


def test_scrambled_test_labels_do_not_change_the_count_of_false_positives(
    tested_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qprd.jobs.train.job.datetime", OneSecond)
    on_test = scrambled(tested_project, tmp_path / "test", 3, swapped)
    bundle, same = (bundle_of(project, "fp-per-slide=1") for project in (tested_project, on_test))
    assert_same_bundle(bundle, same)


def test_false_positives_are_the_lesion_points_in_what_is_labeled_normal(project: Path) -> None:
    summary = train(project, operating_point="fp-per-slide=1", patch_px=64)
    info = read_bundle_info(summary.bundle)
    validation = summary.validation
    assert info.training.config["operating_point"] == validation.operating_point == "fp-per-slide=1"
    assert info.scoring.validation is not None
    counted = info.scoring.validation.false_positives
    assert counted is not None
    assert counted.slides == 1

    predict(project, stride=None, images=(NAMES[1],))
    score_map = load_score_map(project.parent / "qprd" / "results" / "2")
    found = lesion_points(score_map, radius_um=RADIUS_UM)
    left, top, right, bottom = NORMAL.bounds
    inside = (found.x > left) & (found.x < right) & (found.y > top) & (found.y < bottom)
    assert 1 < inside.sum() < len(found)
    assert counted.scores == tuple(found.scores[inside].tolist())

    assert validation.threshold is not None
    assert validation.achieved == achieved_at(validation.threshold, info.scoring.validation)
    assert validation.achieved.false_positives_per_slide == 1
    assert info.training.metrics["operating_point"]["false_positives_per_slide"] == 1  # type: ignore[index,call-overload]
    assert f"threshold {validation.threshold:.3f}" in "\n".join(summary.lines())
    # 224 x 512 px are drawn as normal, of 512 x 576 px of tissue.
    assert any("in 39% of the tissue" in note for note in summary.notes)
    # Other numbers of false positives need no other training.
    none = predict(project, operating_point="fp-per-slide=0", images=(NAMES[2],))
    assert none.threshold == np.nextafter(counted.scores[0], np.inf)


def test_a_slide_without_drawn_normal_counts_in_the_tissue_away_from_tumor(project: Path) -> None:
    drawn_on(project, 2).write_text(json.dumps(only_true()))
    # More than there are: the lowest score of all, and a word of warning.
    summary = train(project, operating_point="fp-per-slide=100", margin_um=20, patch_px=64)
    validation = read_bundle_info(summary.bundle).scoring.validation
    assert validation is not None
    assert validation.false_positives is not None
    assert validation.false_positives.scores[-1] == summary.validation.threshold
    assert any("ask for fewer" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda project: {"images": (NAMES[0],), "normal": 6, "tumor": 4}, "also trains"),
        (lambda project: drawn_on(project, 2).write_text(json.dumps(only_true())), "normal"),
    ],
)
def test_a_rule_that_cannot_be_met_is_told_before_the_training(
    project: Path, change: Callable[[Path], Any], told: str
) -> None:
    flags = change(project)
    before = snapshot(project.parent)
    with pytest.raises(QprdError, match=told) as caught:
        train(
            project,
            **({"val_patches": 2, **flags} if isinstance(flags, dict) else {"val_patches": None}),
            operating_point="fp-per-slide=1",
            margin_um=10_000,
        )
    assert caught.value.where == "--operating-point"
    assert snapshot(project.parent) == before


def only_true() -> dict[str, object]:
    document = outlines()
    document["features"] = document["features"][:1]  # type: ignore[index]
    return document


class FailsOn(SilentProgress):
    """Raises once a bar of this title begins."""

    def __init__(self, title: str, error: BaseException) -> None:
        self.title, self.error = title, error

    def task(self, title: str, total: int, unit: str = "slide"):  # type: ignore[no-untyped-def]
        if title == self.title:
            raise self.error
        return super().task(title, total)


def test_the_training_is_kept_if_the_false_positives_cannot_be_counted(project: Path) -> None:
    with ExchangeProject(project) as opened:
        summary = train_project(
            opened,
            training(operating_point="fp-per-slide=1"),
            progress=FailsOn(f"validating on {NAMES[1]}", QprdError("The slide is gone.")),
        )
    assert summary.validation.threshold is None
    assert any("were not counted" in note for note in summary.notes)
    assert any("is gone" in note for note in summary.notes)
    chosen_later = predict(project, operating_point="accuracy", images=(NAMES[2],))
    assert chosen_later.threshold is not None
