from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import stain
from harness.command import run_command
from qprd.errors import ExitCode
from stain import LITTLE_TUMOR, SHIFTS, VALIDATION, WAYS, Shift, estimated_shift
from tests.helpers.patch_folders import write_folder

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(20, 256, (3, 3, 32, 32), dtype=np.uint8)


def optical_density(images: np.ndarray) -> np.ndarray:
    return -np.log(images / 255)


def test_a_density_multiplies_the_optical_density_and_leaves_glass_white() -> None:
    found = optical_density(Shift(density=0.5)(IMAGES))
    np.testing.assert_allclose(found, 0.5 * optical_density(IMAGES), atol=0.02)
    glass = np.full((1, 3, 32, 32), 255, np.uint8)
    assert all((shift(glass) == 255).all() for shift in SHIFTS)


def test_a_hue_turns_and_turns_back() -> None:
    turned = Shift(hue=20)(IMAGES)
    assert np.abs(turned.astype(int) - IMAGES).max() > 20
    back = Shift(hue=-20)(turned)
    assert np.abs(back.astype(int) - IMAGES).max() <= 3
    assert np.array_equal(Shift()(IMAGES), IMAGES)


@pytest.mark.parametrize("n_tumor", [40, 4])
def test_a_shift_of_scores_is_found_without_their_labels(n_tumor: int) -> None:
    val_tumor = np.arange(80) < 40
    val = RANDOM.normal(val_tumor, 0.2)
    scores = np.concatenate([RANDOM.normal(0, 0.2, 40), RANDOM.normal(1, 0.2, n_tumor)])
    found = [estimated_shift(scores + shift, val_tumor, val) for shift in (-0.1, 0.0, 0.1)]
    assert np.diff(found) == pytest.approx(0.1, abs=0.03)
    assert found[1] == pytest.approx(0, abs=0.08)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"train": (10, 7), "val": (3, 3), "test": (4, 4)}
    splits = [split for label in (0, 1) for split in sizes for _ in range(sizes[split][label])]
    return write_folder(tmp_path_factory.mktemp("data") / "patches", 17, 14, splits=splits)


def test_the_command_has_a_row_for_validation_and_each_stain(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
) -> None:
    sizes = ("--normal", 8, "--tumor", 4, "--val", 3, "--test", 4, "--patch-px", 32, "--seeds", 1)
    arguments = (
        "--data",
        folder,
        *sizes,
        "--methods",
        "best",
        "best-hed",
        "best-standardized",
        "--validated-on",
        *WAYS,
        "--markdown",
        tmp_path / "a.md",
    )
    monkeypatch.setattr(sys, "argv", ["stain.py", *map(str, arguments)])
    stain.main()
    table = (tmp_path / "a.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| best")]
    measured = [VALIDATION, *map(str, SHIFTS), LITTLE_TUMOR]
    expected = [(how, where) for how in WAYS for where in measured]
    assert [tuple(row[1:3]) for row in rows] == 3 * expected
    assert rows[1][3].startswith("1.000")


def test_an_unknown_method_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["stain.py", "--data", str(tmp_path), "--methods", "magic"])
    with pytest.raises(SystemExit) as caught:
        run_command(stain.main)
    assert caught.value.code == ExitCode.USAGE
    assert "magic" in capsys.readouterr().err
