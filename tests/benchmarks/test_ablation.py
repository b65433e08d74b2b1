"""Each idea on or off: what the rows are, that they differ, and that nothing else does."""

from __future__ import annotations

import csv
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ablation
from harness.command import run_command
from methods.ideas import CONTEXT_IDEAS, IDEAS, Idea, IdeaScores, idea_scores
from methods.interface import MethodOptions
from methods.registry import build_method
from qprd.errors import ExitCode
from qprd.evaluation.metrics import auroc
from tests.helpers.patch_folders import draw_patch, write_folder

OPTIONS = MethodOptions(batch_size=8, device="cpu")


def _patches(normal: int, tumor: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    drawn = [draw_patch(rng, place >= normal) for place in range(normal + tumor)]
    return np.stack(drawn).transpose(0, 3, 1, 2)


TRAIN, TRAIN_TUMOR = _patches(16, 4, 0), np.arange(20) >= 16
VAL, VAL_TUMOR = _patches(6, 6, 1), np.arange(12) >= 6
TEST, TEST_TUMOR = _patches(8, 8, 2), np.arange(16) >= 8


@cache
def _scores() -> dict[str, IdeaScores]:
    return idea_scores((TRAIN, VAL, TEST), TRAIN_TUMOR, OPTIONS)


def test_every_idea_scores_every_held_out_patch_and_none_is_chance() -> None:
    scores = _scores()
    assert list(scores) == list(IDEAS)
    for idea, found in scores.items():
        assert found.val.shape == (12,)
        assert found.test.shape == (16,)
        on_test = auroc(TEST_TUMOR, found.test)
        assert on_test is not None
        assert on_test > 0.7, idea
    assert len({found.test.tobytes() for found in scores.values()}) == len(scores)


def test_the_first_idea_is_the_recipe_itself() -> None:
    method = build_method("frd", "best", OPTIONS)
    method.fit(TRAIN, TRAIN_TUMOR, VAL, VAL_TUMOR, seed=0)
    np.testing.assert_allclose(_scores()["best"].test, method.score(TEST), rtol=1e-6)


def test_what_surrounds_a_patch_changes_only_the_idea_that_looks_at_it() -> None:
    margins = ((0, 0), (0, 0), (16, 16), (16, 16))
    wide = np.pad(TRAIN, margins), np.pad(VAL, margins), np.pad(TEST, margins)
    found = idea_scores(wide, TRAIN_TUMOR, OPTIONS, CONTEXT_IDEAS, surrounded=True)
    alone, around = found.values()
    assert not np.allclose(alone.test, around.test)
    # The stain of an image is drawn from all of its pixels.
    plain = {"best": Idea(stained=False)}
    patch, middle = (
        idea_scores(images, TRAIN_TUMOR, OPTIONS, plain, surrounded=surrounded)["best"].test
        for images, surrounded in (((TRAIN, VAL, TEST), False), (wide, True))
    )
    np.testing.assert_allclose(middle, patch, rtol=1e-6)


def test_ideas_differ_from_best_in_one_thing_each() -> None:
    best = Idea()
    for label, idea in (*IDEAS.items(), *CONTEXT_IDEAS.items()):
        changed = [name for name in vars(best) if getattr(best, name) != getattr(idea, name)]
        assert len(changed) == (label != "best"), label


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "patches", 16, 12)


def test_the_command_writes_a_row_for_each_idea_and_seed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(ablation, "idea_scores", _few_ideas)
    sizes = ("--normal", 8, "--tumor", 2, 4, "--val", 2, "--test", 4, "--patch-px", 32)
    files = ("--csv", tmp_path / "a.csv", "--markdown", tmp_path / "a.md")
    arguments = ("--data", folder, *sizes, "--seeds", 2, *files)
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments)])
    ablation.main()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["idea"], row["tumor"], row["seed"], row["auroc"]) for row in rows] == [
        ("bluer", tumor, seed, "1.0") for tumor in "24" for seed in "01"
    ]
    table = (tmp_path / "a.md").read_text()
    assert "| idea | 2 | 4 | mean |" in table
    assert "| bluer | 1.000 ± .000 |" in table
    assert table in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "replaced"), [("students", "student_scores"), ("normal", "normal_only_scores")]
)
def test_rows_that_learn_otherwise_are_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, rows: str, replaced: str
) -> None:
    monkeypatch.setattr(ablation, replaced, _few_ideas)
    sizes = ("--normal", 8, "--tumor", 2, "--val", 2, "--test", 4, "--patch-px", 32, "--seeds", 1)
    arguments = ("--data", folder, *sizes, "--rows", rows, "--csv", tmp_path / "a.csv")
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments)])
    ablation.main()
    with (tmp_path / "a.csv").open(newline="") as file:
        found = [(row["idea"], row["tumor"]) for row in csv.DictReader(file)]
    assert found == [("bluer", "0" if rows == "normal" else "2")]


def _few_ideas(
    images: tuple[NDArray[np.uint8], ...], *_: object, **__: object
) -> dict[str, IdeaScores]:
    val, test = (-part[:, 0].mean((1, 2)).astype(np.float64) for part in images[1:])
    return {"bluer": IdeaScores(val, test)}


def test_without_tumor_patches_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--data", str(folder), "--tumor", "0"])
    with pytest.raises(SystemExit) as caught:
        run_command(ablation.main)
    assert caught.value.code == ExitCode.USAGE
