from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

import qprd
from qprd.bundle.formats import info_from_json, info_to_json
from qprd.bundle.names import INFO_FILE, MODEL_FILE, reserve_bundle
from qprd.bundle.reading import load_bundle, newest_bundle, next_number, read_bundle_info
from qprd.bundle.records import BundleInfo
from qprd.bundle.writing import new_bundle_folder, save_bundle
from qprd.errors import QprdError
from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.teacher import build_teacher
from qprd.settings import ModelKind
from qprd.slides.fingerprint import SlideIdentity
from tests.helpers.small_models import random_model


def with_threshold(info: BundleInfo, threshold: float) -> BundleInfo:
    return replace(info, scoring=replace(info.scoring, threshold=threshold))


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


@pytest.mark.parametrize("kind", ["discriminant", "standardized_frd"])
@pytest.mark.parametrize("format", [4, 5])
def test_a_model_of_best_comes_back_with_its_head(
    kind: ModelKind, format: int, tmp_path: Path, info: BundleInfo
) -> None:
    model = random_model(kind)
    best = replace(info, network=replace(info.network, recipe="best", model=kind))
    save_bundle(tmp_path / "best", model, best)
    if format == 4:
        # A student was all there was then.
        _make_it_of_format_4(tmp_path / "best" / INFO_FILE)
        if kind == "discriminant":
            with pytest.raises(QprdError, match="damaged"):
                load_bundle(tmp_path / "best")
            return
    loaded, read = load_bundle(tmp_path / "best")
    assert read == best
    assert type(loaded) is type(model)
    for name, tensor in model.trainable_state().items():
        assert torch.equal(tensor, loaded.trainable_state()[name]), name


def _make_it_of_format_4(file: Path) -> None:
    document = json.loads(file.read_text())
    del document["network"]["model"]
    file.write_text(json.dumps({**document, "format": 4}))


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
    weights = (bundle / MODEL_FILE).read_bytes()
    (bundle / MODEL_FILE).unlink()  # the name it shares with other tests
    (bundle / MODEL_FILE).write_bytes(weights)
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
    save_bundle(folder, model, with_threshold(info, 2.0))
    assert read_bundle_info(folder).scoring.threshold == 2.0
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
        save_bundle(bundle, model, with_threshold(info, 3.0))
    assert (bundle / INFO_FILE).read_bytes() == before
    load_bundle(bundle)
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_a_write_that_is_broken_off_leaves_the_earlier_bundle_alone(
    bundle: Path,
    model: FRD,
    info: BundleInfo,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def broken_off(self: Path, target: Path) -> Path:
        raise error

    monkeypatch.setattr(Path, "rename", broken_off)
    with pytest.raises((KeyboardInterrupt, QprdError)):
        save_bundle(bundle, model, with_threshold(info, 3.0))
    assert read_bundle_info(bundle).scoring.threshold == info.scoring.threshold
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_diverged_model_is_not_saved(info: BundleInfo, tmp_path: Path) -> None:
    broken = build_network(FRD, build_teacher("resnet18", pretrained=False), seed=0)
    with torch.no_grad():
        next(broken.student.parameters())[0] = torch.nan
    with pytest.raises(QprdError, match="not finite"):
        save_bundle(tmp_path / "bundle", broken, info)
    assert not list(tmp_path.iterdir())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)  # fmt: skip


identities = st.builds(
    SlideIdentity,
    name=st.text(max_size=20),
    fingerprint=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    area=st.none() | st.tuples(*[st.integers(-5, 2**31)] * 4),
)


@settings(max_examples=60)
@given(
    metrics=st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    slides=st.lists(identities, max_size=3),
    threshold=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_info_survives_json(
    info: BundleInfo, metrics: dict[str, Any], slides: list[SlideIdentity], threshold: float
) -> None:
    training = replace(info.training, metrics=metrics, slides=tuple(slides))
    changed = replace(with_threshold(info, threshold), training=training)
    assert info_from_json(info_to_json(changed), "here") == changed


def test_info_is_checked_when_it_is_made(info: BundleInfo) -> None:
    for record, change in (
        (info, {"name": "a/b"}),
        (info.network, {"mpp": -1.0}),
        (info.network, {"patch_px": 33}),
        (info.scoring, {"threshold": float("nan")}),
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(record, **change)


def test_newest_bundle_goes_by_number_then_by_a_believable_date(
    info: BundleInfo, tmp_path: Path
) -> None:
    start = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=9)))

    def add(name: str, number: int, days: int) -> None:
        (tmp_path / name).mkdir()
        dated = replace(info, number=number, created=start + timedelta(days=days))
        (tmp_path / name / INFO_FILE).write_text(info_to_json(dated), encoding="utf-8")

    (tmp_path / "not a bundle").mkdir()
    for name, days in (("a", 2), ("b", 3), ("c", 1), (".b.00000000-1-00000000.tmp", 9)):
        add(name, 0, days)
    assert newest_bundle(tmp_path) == tmp_path / "b"
    assert next_number(tmp_path) == 1
    # A date in the future is not believed, and a training counts whatever the clock said.
    add("dated 2099", 0, 75 * 365)
    assert newest_bundle(tmp_path) == tmp_path / "b"
    add("dated 1970", 1, -54 * 365)
    assert newest_bundle(tmp_path) == tmp_path / "dated 1970"
    add("numbered, dated 2099", 1, 75 * 365)
    assert newest_bundle(tmp_path) == tmp_path / "dated 1970"
    assert next_number(tmp_path) == 2


def test_a_reserved_folder_is_nobody_elses(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    bundles = tmp_path / "bundles"

    def reserve(_: int) -> Path:
        return reserve_bundle(bundles, now, "timm:a")

    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(reserve, range(16)))
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)
    assert {"20260101-000000-timm-a", "20260101-000000-timm-a-2"} <= {f.name for f in folders}
    with new_bundle_folder(bundles, now, "timm:a") as unused:
        assert unused.name == "20260101-000000-timm-a-17"
    assert not unused.exists()


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
    code = "import sys, qprd.bundle.reading; print(sorted({'torch', 'timm'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(qprd.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
