"""Bundles that are damaged, or made by somebody who means harm."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qprd.bundle.names import INFO_FILE, MODEL_FILE
from qprd.bundle.reading import MAX_INFO_BYTES, load_bundle, read_bundle_info
from qprd.errors import QprdError
from qprd.model.frd import FRD
from tests.helpers.runs_code import RunsCode


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / INFO_FILE).read_text())
    change(document)
    (bundle / INFO_FILE).write_text(json.dumps(document))


def rewrite_weights(bundle: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(bundle / MODEL_FILE)
    change(state)
    (bundle / MODEL_FILE).unlink()
    save_file(state, bundle / MODEL_FILE)


@pytest.mark.parametrize(
    "write", [torch.save, lambda o, p: Path(p).write_bytes(pickle.dumps(o, protocol=2))]
)
def test_pickle_under_the_name_of_the_weights_runs_no_code(
    bundle: Path, tmp_path: Path, write: Callable[[object, Path], None]
) -> None:
    (bundle / MODEL_FILE).unlink()
    write({"student": RunsCode(tmp_path / "code ran")}, bundle / MODEL_FILE)
    with pytest.raises(QprdError, match="not a safetensors file"):
        load_bundle(bundle)
    assert not (tmp_path / "code ran").exists()


def test_newer_format_says_upgrade_whatever_else_is_in_it(bundle: Path) -> None:
    (bundle / INFO_FILE).write_text('{"format": 99, "novelty": {}}')
    with pytest.raises(QprdError, match="newer qprd") as caught:
        load_bundle(bundle)
    assert "pip install --upgrade qprd" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"format": "1"}',
        '{"format": true}',
        '{"format": 1.5}',
        '{"format": 0}',
        '{"format": 1}',
        "[" * 100_000,
        '{"format": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "1" * 10_000,
    ],
)
def test_json_that_is_no_bundle_is_a_clear_error(bundle: Path, text: str) -> None:
    (bundle / INFO_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(QprdError):
        read_bundle_info(bundle)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("network.mpp", "0.5"),
        ("network.mpp", 0),
        ("network.mpp", True),
        ("network.mpp", 0.04),
        ("network.mpp", 1e300),
        ("network.patch_px", 100),
        ("network.patch_px", 2**40),
        ("network.teacher", "resnet18"),
        ("scoring.by", "pixels"),
        ("scoring.threshold", "1"),
        ("scoring.threshold", 1e308),
        ("scoring.patch_score", "median"),
        ("scoring", None),
        ("name", "../../etc"),
        ("name", ".hidden"),
        ("name", "a\nb"),
        ("name", ""),
        ("created", "yesterday"),
        ("created", "2024-01-01T00:00:00"),
        ("training.classes", {"tumor": "Tumor"}),
        ("training.slides", [1]),
        ("training.surprise", 1),
        ("surprise", 1),
    ],
)
def test_field_of_the_wrong_kind_is_named(bundle: Path, field: str, value: object) -> None:
    def change(document: dict[str, Any]) -> None:
        *records, key = field.split(".")
        for record in records:
            document = document[record]
        document[key] = value

    edit(bundle, change)
    with pytest.raises(QprdError, match="damaged") as caught:
        load_bundle(bundle)
    assert field in caught.value.problem


@pytest.mark.parametrize(
    "change",
    [
        {"method": "spline"},
        {"method": ["isotonic"]},
        {"probabilities": [0.1, 0.5]},
        {"probabilities": [0.1, 0.5, 0.4]},
        {"probabilities": [-0.1, 0.5, 0.9]},
        {"probabilities": [0.1, 0.5, 1.5]},
        {"probabilities": [0.1, "0.5", 0.9]},
        {"probabilities": [], "scores": []},
        {"probabilities": [n / 99_999 for n in range(1, 99_998)], "scores": list(range(99_997))},
        {"scores": [1, 0, 2]},
        {"scores": [-1e300, 0, 1]},
        {"slope": -1},
        {"intercept": None},
        {"tail": 1.0},
        {"reliability": {"reason": "it fits"}},
        {"reliability": "good"},
    ],
)
def test_a_calibration_that_is_none_is_refused(bundle: Path, change: dict[str, object]) -> None:
    edit(bundle, lambda document: document["scoring"]["calibration"].update(change))
    with pytest.raises(QprdError, match=r"damaged: 'scoring\.calibration"):
        read_bundle_info(bundle)


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        {"slope": 1.0},
        {"slope": "1", "intercept": 0.0},
        {"slope": True, "intercept": 0.0},
        {"slope": -0.5, "intercept": 0.0},
    ],
)
def test_a_platt_calibration_that_is_none_is_refused(bundle: Path, values: object) -> None:
    edit(bundle, lambda document: document["scoring"].update(calibration=values))
    with pytest.raises(QprdError, match=r"damaged: 'scoring\.calibration"):
        read_bundle_info(bundle)


@pytest.mark.parametrize(
    ("record", "field"),
    [("network", "teacher"), ("network", "mpp"), ("scoring", "by"), ("scoring", "threshold")],
)
def test_missing_field_is_named(bundle: Path, record: str, field: str) -> None:
    edit(bundle, lambda document: document[record].pop(field))
    with pytest.raises(QprdError, match=f"'{record}.{field}'"):
        read_bundle_info(bundle)


def test_numbers_that_json_does_not_have_are_refused(bundle: Path) -> None:
    text = (bundle / INFO_FILE).read_text()
    (bundle / INFO_FILE).write_text(text.replace('"threshold": 1.25', '"threshold": NaN'))
    with pytest.raises(QprdError, match="NaN"):
        read_bundle_info(bundle)


def test_huge_json_is_not_read(bundle: Path) -> None:
    with (bundle / INFO_FILE).open("ab") as stream:
        stream.truncate(MAX_INFO_BYTES * 1000)  # sparse
    with pytest.raises(QprdError, match="too large to be"):
        read_bundle_info(bundle)


def test_device_in_place_of_a_file_is_not_read(bundle: Path) -> None:
    for name in (INFO_FILE, MODEL_FILE):
        (bundle / name).unlink()
        (bundle / name).symlink_to("/dev/zero")
        with pytest.raises(QprdError, match="missing"):
            load_bundle(bundle)
        (bundle / name).unlink()
        os.mkfifo(bundle / name)
        with pytest.raises(QprdError, match="missing"):
            load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.popitem(), "1 tensors are missing and 0 are unknown"),
        (lambda s: s.update(evil=torch.zeros(1)), "0 tensors are missing and 1 are unknown"),
        (
            lambda s: s.update({"student.stage_1.0.branch.0.weight": torch.zeros(3)}),
            r"shape \(3,\), not \(128, 64, 2, 2\)",
        ),
        (
            lambda s: s.update(
                {k: v.half() for k, v in s.items() if k == "bottleneck.fuse_2.0.weight"}
            ),
            "is torch.float16, not torch.float32",
        ),
        (lambda s: s["bottleneck.fuse_2.0.weight"].fill_(torch.inf), "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    bundle: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    rewrite_weights(bundle, change)
    with pytest.raises(QprdError, match=message):
        load_bundle(bundle)


def test_weights_file_cut_short_or_too_large_is_refused(bundle: Path) -> None:
    raw = (bundle / MODEL_FILE).read_bytes()
    (bundle / MODEL_FILE).unlink()
    (bundle / MODEL_FILE).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(QprdError, match="not a safetensors file"):
        load_bundle(bundle)
    with (bundle / MODEL_FILE).open("ab") as stream:
        stream.truncate(2**40)  # sparse
    with pytest.raises(QprdError, match="too large"):
        load_bundle(bundle)


def test_missing_weights_and_missing_bundle_are_clear_errors(bundle: Path) -> None:
    (bundle / MODEL_FILE).unlink()
    with pytest.raises(QprdError, match=r"model\.safetensors is missing"):
        load_bundle(bundle)
    with pytest.raises(QprdError, match="no bundle here"):
        load_bundle(bundle / "nowhere")


def test_other_teacher_weights_are_refused_with_both_hashes(bundle: Path, model: FRD) -> None:
    edit(bundle, lambda document: document["network"]["teacher"].update(sha256="0" * 64))
    with pytest.raises(QprdError) as caught:
        load_bundle(bundle)
    assert "0" * 64 in caught.value.problem
    assert model.teacher.weights_sha256 in caught.value.problem


def test_other_normalization_is_refused(bundle: Path) -> None:
    edit(bundle, lambda document: document["network"]["teacher"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(QprdError, match="normalization"):
        load_bundle(bundle)


def test_bundle_cannot_make_timm_fetch_a_stranger_s_repository(bundle: Path) -> None:
    pytest.importorskip("timm")
    name = "timm:hf-hub:stranger/model"
    edit(bundle, lambda document: document["network"]["teacher"].update(name=name))
    with pytest.raises(QprdError, match="timm has no model"):
        load_bundle(bundle)


@pytest.mark.parametrize("kind", ["discriminant", "standardized_frd", "unheard-of"])
def test_a_bundle_that_lies_about_its_model_is_damaged(bundle: Path, kind: str) -> None:
    edit(bundle, lambda document: document["network"].update(model=kind))
    with pytest.raises(QprdError, match="damaged"):
        load_bundle(bundle)
