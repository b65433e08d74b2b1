from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import qprd
from qprd.errors import QprdError
from qprd.evaluation.calibration import Isotonic, Platt, Reliability, ReliabilityBin
from qprd.model import bundle as bundle_module
from qprd.model.bundle import (
    INFO_FILE,
    MAX_INFO_BYTES,
    MODEL_FILE,
    BundleInfo,
    TeacherInfo,
    load_bundle,
    newest_bundle,
    read_bundle_info,
    save_bundle,
)
from qprd.model.frd import FRD, build_frd
from qprd.model.teacher import build_teacher

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


@pytest.fixture(scope="module")
def model() -> FRD:
    frd = build_frd(build_teacher("resnet18", pretrained=False), seed=0)
    frd.train()
    frd(torch.rand(2, 3, 64, 64))  # so that the batch statistics are not the initial ones
    return frd.eval()


@pytest.fixture(scope="module")
def info(model: FRD) -> BundleInfo:
    return BundleInfo(
        name="colon 1",
        teacher=TeacherInfo.of(model.teacher),
        mpp=0.5,
        patch_px=128,
        threshold=1.25,
        classes={"tumor": ("Tumor",), "normal": ("Normal", "Stroma: Ünder")},
        calibration=ISOTONIC,
        config={"teacher": "resnet18", "alpha": "auto", "images": [], "weights": None},
        metrics={"auroc": 0.9, "history": [1, 2.5, None]},
        patches={"normal": 300, "tumor": 30},
        training_slides=("colon_1.tif",),
        validation_slides=("colon_2.tif",),
    )


@pytest.fixture(scope="module")
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


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / INFO_FILE).read_text())
    change(document)
    (bundle / INFO_FILE).write_text(json.dumps(document))


def rewrite_weights(bundle: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(bundle / MODEL_FILE)
    change(state)
    (bundle / MODEL_FILE).unlink()
    save_file(state, bundle / MODEL_FILE)


def test_round_trip_gives_the_same_maps_and_the_same_info(
    saved: Path, model: FRD, info: BundleInfo
) -> None:
    loaded, read = load_bundle(saved)
    assert read == info
    assert not any(module.training for module in loaded.modules())
    images = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    with torch.no_grad():
        for expected, found in zip(model(images), loaded(images), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_fused_model_comes_back_with_its_head(tmp_path: Path, info: BundleInfo) -> None:
    fused = build_frd(build_teacher("resnet18", pretrained=False), seed=0, recipe="best").eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in fused.trainable_state().items():
        if name.startswith("head."):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    save_bundle(tmp_path / "fused", fused, replace(info, recipe="best"))
    loaded, read = load_bundle(tmp_path / "fused")
    assert read.recipe == "best"
    assert type(loaded) is type(fused)
    for name, tensor in fused.trainable_state().items():
        assert torch.equal(tensor, loaded.trainable_state()[name]), name


def test_a_bundle_that_lies_about_its_recipe_is_damaged(bundle: Path) -> None:
    edit(bundle, lambda document: document.update(recipe="best"))
    with pytest.raises(QprdError, match="damaged"):
        load_bundle(bundle)


def test_bundle_holds_two_files_and_no_teacher_weights(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [INFO_FILE, MODEL_FILE]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    with safe_open(saved / MODEL_FILE, framework="pt") as file:
        assert {name.split(".")[0] for name in file.keys()} == {"bottleneck", "student"}  # noqa: SIM118
    assert (saved / INFO_FILE).stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert saved.stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_loaded_weights_do_not_change_with_the_file(bundle: Path) -> None:
    (bundle / MODEL_FILE).write_bytes((bundle / MODEL_FILE).read_bytes())
    rewrite_weights(bundle, lambda state: None)
    loaded, _ = load_bundle(bundle)
    before = {k: v.clone() for k, v in loaded.trainable_state().items()}
    with (bundle / MODEL_FILE).open("r+b") as stream:
        stream.seek(-4000, os.SEEK_END)
        stream.write(b"\xff" * 4000)
    assert all(torch.equal(before[k], v) for k, v in loaded.trainable_state().items())


def test_saving_again_replaces_the_bundle_and_keeps_what_lies_beside_it(
    model: FRD, info: BundleInfo, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "bundle"
    save_bundle(folder, model, info)
    (folder / "history.csv").write_text("epoch,loss\n")
    save_bundle(folder, model, replace(info, threshold=2.0))
    assert read_bundle_info(folder).threshold == 2.0
    assert (folder / "history.csv").read_text() == "epoch,loss\n"
    assert [p.name for p in folder.parent.iterdir()] == ["bundle"]


def test_folder_that_is_not_a_bundle_is_left_alone(
    model: FRD, info: BundleInfo, tmp_path: Path
) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(QprdError, match="not a bundle"):
        save_bundle(tmp_path, model, info)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(QprdError):
        save_bundle(tmp_path / "precious.txt", model, info)
    with pytest.raises(QprdError, match="cannot be written"):
        save_bundle(tmp_path / "precious.txt" / "bundle", model, info)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond ``size`` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@pytest.mark.parametrize("size", [2**20, 100])
def test_full_disk_leaves_the_earlier_bundle_whole(
    bundle: Path, model: FRD, info: BundleInfo, size: int
) -> None:
    before = (bundle / INFO_FILE).read_bytes()
    with largest_file(size), pytest.raises(QprdError, match="cannot be written"):
        save_bundle(bundle, model, replace(info, threshold=3.0))
    assert (bundle / INFO_FILE).read_bytes() == before
    load_bundle(bundle)
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_interrupt_while_writing_leaves_nothing_behind(
    bundle: Path, model: FRD, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, "_flush", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(bundle, model, replace(info, threshold=3.0))
    assert read_bundle_info(bundle).threshold == info.threshold
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_failed_swap_brings_the_earlier_bundle_back(
    bundle: Path, model: FRD, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(QprdError, match="Permission denied"):
        save_bundle(bundle, model, replace(info, threshold=3.0))
    assert read_bundle_info(bundle).threshold == info.threshold
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_diverged_model_is_not_saved(info: BundleInfo, tmp_path: Path) -> None:
    broken = build_frd(build_teacher("resnet18", pretrained=False), seed=0)
    with torch.no_grad():
        broken.student.stage_1[0].branch[0].weight[0] = torch.nan
    with pytest.raises(QprdError, match="not finite"):
        save_bundle(tmp_path / "bundle", broken, info)
    assert not list(tmp_path.iterdir())


# --- hostile and damaged bundles ------------------------------------------------------------


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


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
        ("mpp", "0.5"),
        ("mpp", 0),
        ("mpp", True),
        ("patch_px", 100),
        ("patch_px", 2**40),
        ("threshold", "1"),
        ("threshold", 1e308),
        ("patch_score", "median"),
        ("name", "../../etc"),
        ("name", ".hidden"),
        ("name", "a\nb"),
        ("name", ""),
        ("classes", {"tumor": "Tumor"}),
        ("created", "yesterday"),
        ("created", "2024-01-01T00:00:00"),
        ("training_slides", [1]),
        ("teacher", "resnet18"),
        ("surprise", 1),
    ],
)
def test_field_of_the_wrong_kind_is_named(bundle: Path, field: str, value: object) -> None:
    edit(bundle, lambda document: document.update({field: value}))
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
    edit(bundle, lambda document: document["calibration"].update(change))
    with pytest.raises(QprdError, match="damaged: 'calibration"):
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
    edit(bundle, lambda document: document.update(calibration=values))
    with pytest.raises(QprdError, match="damaged: 'calibration"):
        read_bundle_info(bundle)


def test_a_bundle_of_format_1_is_read(bundle: Path) -> None:
    old = {"slope": 2.0, "intercept": -1.0}
    edit(bundle, lambda document: document.update(format=1, calibration=old))
    assert read_bundle_info(bundle).calibration == Platt(2.0, -1.0)


@pytest.mark.parametrize("field", ["name", "teacher", "mpp", "patch_px", "threshold"])
def test_missing_field_is_named(bundle: Path, field: str) -> None:
    edit(bundle, lambda document: document.pop(field))
    with pytest.raises(QprdError, match=f"'{field}'"):
        read_bundle_info(bundle)


def test_numbers_that_json_does_not_have_are_refused(bundle: Path) -> None:
    text = (bundle / INFO_FILE).read_text()
    (bundle / INFO_FILE).write_text(text.replace('"threshold": 1.25', '"threshold": NaN'))
    with pytest.raises(QprdError, match="NaN"):
        read_bundle_info(bundle)


def test_huge_json_is_not_read(bundle: Path) -> None:
    with (bundle / INFO_FILE).open("ab") as stream:
        stream.truncate(MAX_INFO_BYTES * 1000)  # sparse
    with pytest.raises(QprdError, match="is over"):
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
    edit(bundle, lambda document: document["teacher"].update(sha256="0" * 64))
    with pytest.raises(QprdError) as caught:
        load_bundle(bundle)
    assert "0" * 64 in caught.value.problem
    assert model.teacher.weights_sha256 in caught.value.problem


def test_other_normalization_is_refused(bundle: Path) -> None:
    edit(bundle, lambda document: document["teacher"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(QprdError, match="normalization"):
        load_bundle(bundle)


def test_bundle_cannot_make_timm_fetch_a_stranger_s_repository(bundle: Path) -> None:
    pytest.importorskip("timm")
    edit(bundle, lambda document: document["teacher"].update(name="timm:hf-hub:stranger/model"))
    with pytest.raises(QprdError, match="timm has no model"):
        load_bundle(bundle)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60)
@given(
    metrics=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    slides=st.lists(st.text(max_size=20), max_size=3),
    threshold=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_info_survives_json(
    info: BundleInfo, metrics: dict[str, Any], slides: list[str], threshold: float
) -> None:
    changed = replace(info, metrics=metrics, training_slides=tuple(slides), threshold=threshold)
    assert BundleInfo.from_json(changed.to_json(), "here") == changed


def test_info_is_checked_when_it_is_made(info: BundleInfo) -> None:
    for change in ({"mpp": -1.0}, {"name": "a/b"}, {"threshold": float("nan")}, {"patch_px": 33}):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(info, **change)  # type: ignore[arg-type]


# --- the newest bundle ----------------------------------------------------------------------


def test_newest_bundle_goes_by_creation_not_by_name_or_file_time(
    saved: Path, info: BundleInfo, tmp_path: Path
) -> None:
    start = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=9)))
    for name, days in (("a", 2), ("b", 3), ("c", 1)):
        (tmp_path / name).mkdir()
        dated = replace(info, created=start + timedelta(days=days))
        (tmp_path / name / INFO_FILE).write_text(dated.to_json(), encoding="utf-8")
    (tmp_path / "not a bundle").mkdir()
    (tmp_path / ".b.1234.partial").mkdir()
    late = replace(info, created=start + timedelta(days=9))
    (tmp_path / ".b.1234.partial" / INFO_FILE).write_text(late.to_json(), encoding="utf-8")
    assert newest_bundle(tmp_path) == tmp_path / "b"


def test_damaged_bundle_is_passed_over_with_a_warning(bundle: Path) -> None:
    (bundle.parent / "damaged").mkdir()
    (bundle.parent / "damaged" / INFO_FILE).write_text("{")
    with pytest.warns(UserWarning, match="damaged is passed over"):
        assert newest_bundle(bundle.parent) == bundle


def test_no_bundle_yet_says_how_to_get_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(QprdError, match="no bundle yet") as caught:
            newest_bundle(folder)
        assert "qprd train" in str(caught.value)


def test_what_a_bundle_says_of_itself_is_read_without_torch() -> None:
    code = "import sys, qprd.model.bundle; print(sorted({'torch', 'timm'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(qprd.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
