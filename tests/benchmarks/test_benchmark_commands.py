"""The commands as they are run: figures in the JSON, tables, reuse, and no peeking at the test."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import comparison
import fewshot
import paper_tables
from harness.command import run_command
from harness.folder import read_folder
from harness.splits import draw_split
from methods.interface import MethodOptions
from qprd.errors import QprdError
from tests.helpers.patch_folders import write_folder

SPLITS = (
    *["train"] * 14,
    *["val"] * 4,
    *["test"] * 6,
    *["train"] * 6,
    *["val"] * 4,
    *["test"] * 6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "patches", 24, 16, splits=SPLITS)


def _run(
    monkeypatch: pytest.MonkeyPatch, module: object, *arguments: object, code: int | None = None
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    if code is None:
        module.main()  # type: ignore[attr-defined]
        return
    with pytest.raises(SystemExit) as caught:
        run_command(module.main)  # type: ignore[attr-defined]
    assert caught.value.code == code


def _fewshot(
    monkeypatch: pytest.MonkeyPatch, data: Path, file: Path, *arguments: object
) -> dict[str, object]:
    settings = ("--seeds", 2, "--patch-px", 32, "--epochs", 1, "--json", file)
    _run(monkeypatch, fewshot, "--data", data, *settings, *arguments)
    report = json.loads(file.read_text())
    assert isinstance(report, dict)
    return report


def test_the_report_has_mean_sd_and_each_seed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    report = _fewshot(
        monkeypatch, folder, tmp_path / "a.json", "--method", "linear", "--tumor", 3, "--normal", 9
    )
    for name in ("auroc", "accuracy"):
        figures = report[name]
        assert isinstance(figures, dict)
        assert len(figures["seeds"]) == 2
        assert figures["mean"] == pytest.approx(np.mean(figures["seeds"]))
        assert figures["sd"] == pytest.approx(np.std(figures["seeds"], ddof=1))
        assert figures["mean"] > 0.8
    assert report["sizes"] == {
        "train_normal": 9,
        "train_tumor": 3,
        "val_per_label": 4,
        "test_per_label": 6,
    }
    assert report["reason"] is None
    assert {"python", "torch", "qprd"} <= set(report["versions"])  # type: ignore[call-overload]
    assert report["settings"]["patch_px"] == 32  # type: ignore[index]


@pytest.mark.parametrize("method", ["linear", "classifier", "ranking", "forest"])
def test_two_classes_without_tumor_are_undefined_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, method: str
) -> None:
    report = _fewshot(
        monkeypatch, folder, tmp_path / "a.json", "--method", method, "--tumor", 0, "--normal", 9
    )
    assert report["auroc"] == {"mean": None, "sd": None, "seeds": []}
    assert "no tumor patches" in str(report["reason"])


def test_the_seed_decides_everything(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    asked = ("--method", "frd", "--tumor", 3, "--normal", 9, "--seeds", 1)
    first = _fewshot(monkeypatch, folder, tmp_path / "a.json", *asked)
    again = _fewshot(monkeypatch, folder, tmp_path / "b.json", *asked)
    assert first["auroc"] == again["auroc"]
    assert first["accuracy"] == again["accuracy"]


@pytest.mark.parametrize("method", ["frd", "linear", "memory", "classifier"])
def test_test_labels_change_nothing_but_the_figures(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, method: str
) -> None:
    scrambled = tmp_path / "scrambled"
    scrambled.mkdir()
    (scrambled / "images").symlink_to(folder / "images")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["split"] == "test":
            row["label"] = str(1 - int(row["label"]))
    with (scrambled / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    asked = ("--method", method, "--tumor", 4, "--normal", 12, "--seeds", 1)
    honest = _fewshot(monkeypatch, folder, tmp_path / "a.json", *asked)
    lied_to = _fewshot(monkeypatch, scrambled, tmp_path / "b.json", *asked)
    runs = [report["runs"][0] for report in (honest, lied_to)]  # type: ignore[index]
    for name in ("threshold", "val_auroc", "val_accuracy"):
        assert runs[0][name] == runs[1][name]
    # all labels of the test are the wrong way round, and so are its figures
    assert runs[1]["auroc"] == pytest.approx(1 - runs[0]["auroc"])
    assert runs[1]["accuracy"] == pytest.approx(1 - runs[0]["accuracy"])


def test_a_comparison_is_a_table_whose_runs_can_be_reused(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("--data", folder, "--patch-px", 32, "--epochs", 1, "--normal", 9, "--seeds", 1)
    files = ("--csv", tmp_path / "runs.csv", "--markdown", tmp_path / "table.md")
    methods = ("--methods", "frd-paper", "rd", "linear", "--tumor", 0, 3)
    _run(monkeypatch, comparison, *asked, *files, *methods)
    first = capsys.readouterr()
    assert (tmp_path / "table.md").read_text() == first.out
    assert "| linear | - | " in first.out
    assert "| rd | +.000 | " in first.out  # without tumor patches the same training
    assert "Versions" in first.out or "torch " in first.out
    assert first.err.count("seed 0") == 3  # frd at 0 and 3, linear at 3; rd is frd at 0
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["variant"] for row in rows} == {"frd-paper", "rd", "linear"}
    _run(monkeypatch, comparison, *asked, *methods, "--reuse", tmp_path / "runs.csv")
    second = capsys.readouterr()
    assert "seed 0" not in second.err
    assert _figures(second.out) == _figures(first.out)


def test_a_table_of_the_paper_is_printed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(
        monkeypatch, paper_tables, "--data", folder, "--table", "tumor-patches", "--seeds", 1,
        "--patch-px", 32, "--epochs", 1, "--normal", 9,
    )  # fmt: skip
    rows = _figures(capsys.readouterr().out)
    assert [row[1:4] for row in rows[2:]] == [
        ["0 tumor patches", "9", "0"],
        ["5 tumor patches", "9", "5"],
    ]
    assert [row[6] for row in rows[2:]] == [".646", ".759"]


@pytest.mark.parametrize(
    ("table", "own_splits", "expected"),
    [
        ("weighting", True, [(9, 6, 4, 6, 0.1, 2), (9, 6, 4, 6, "auto", 2), (9, 6, 4, 6, 0.5, 0)]),
        ("supervision", True, [(9, 6, 4, 6, 0.1, 2), (6, 6, 4, 6, 0.5, 2), (14, 6, 4, 6, 0.5, 2)]),
        (
            "supervision",
            False,
            [(9, 4, 1, 4, 0.1, 2), (4, 4, 1, 4, 0.5, 2), (19, 11, 1, 4, 0.5, 2)],
        ),
    ],
)
def test_a_table_of_the_paper_has_the_rows_it_should(
    folder: Path, table: str, own_splits: bool, expected: list[tuple[object, ...]]
) -> None:
    data = read_folder(folder)
    arguments = argparse.Namespace(normal=9, tumor=None, val=None, test=None, recipe="paper")
    rows = paper_tables.PLANS[table](
        data if own_splits else replace(data, splits=None), arguments, MethodOptions()
    )
    assert [
        (
            row.sizes.normal,
            row.sizes.tumor,
            row.sizes.val,
            row.sizes.test,
            row.variant.options.alpha,
            row.variant.options.gamma,
        )
        for row in rows
    ] == expected
    for row in rows:  # and they can be drawn
        draw_split(data if own_splits else replace(data, splits=None), row.sizes, 0)


def _figures(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if "|" in line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--patch-px", 40), "multiple of 32"),
        (("--normal", 1000), "at most --normal 14"),
        (("--alpha", "much"), "--alpha"),
        (("--seeds", 0), "--seeds"),
        (("--json", "/nowhere/a.json"), "report cannot be written"),
        (("--weights", "/nowhere/w.pth", "--method", "classifier"), "no such weights file"),
    ],
)
def test_mistakes_end_with_a_sentence_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    asked = ("--data", folder, "--seeds", 1, "--method", "linear", *arguments)
    monkeypatch.setattr(sys, "argv", ["fewshot.py", *map(str, asked)])
    with pytest.raises(SystemExit) as caught:
        run_command(fewshot.main)
    assert caught.value.code not in (0, None)
    assert message in capsys.readouterr().err


def test_reused_runs_must_be_runs(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(QprdError, match="no line of runs"):
        _run(
            monkeypatch, comparison, "--data", folder, "--tumor", 0, "--patch-px", 32,
            "--reuse", tmp_path / "other.csv",
        )  # fmt: skip
