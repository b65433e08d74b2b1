from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType

import pytest

import qprd
from qprd import known_teachers
from qprd.errors import ExitCode, QprdError
from qprd.jobs import teachers
from qprd.known_teachers import KNOWN_TEACHERS
from qprd.model import hub, registry
from qprd.settings import TrainConfig


@pytest.fixture(autouse=True)
def _no_outside_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.Registry, "installed", lambda _self: {})


def test_all_teachers_are_listed_with_license_gate_and_patch() -> None:
    listed = {row.name: row for row in qprd.list_teachers().teachers}
    assert set(KNOWN_TEACHERS) < set(listed)
    assert {"resnet18", "efficientnet_lite0"} < set(listed)
    uni = listed["uni"]
    assert (uni.license, uni.gated, uni.millions) == ("CC-BY-NC-ND-4.0", True, 303.4)
    assert None not in {row.license for row in listed.values()}
    assert (listed["resnet50"].mpp, listed["resnet50"].patch_px) == (0.25, 256)
    printed = "\n".join(qprd.list_teachers(["uni"]).lines())
    assert "CC-BY-NC-ND-4.0, access on request" in printed


@pytest.mark.parametrize("name", KNOWN_TEACHERS)
def test_a_known_teacher_is_shown_patches_of_the_size_it_was_trained_on(name: str) -> None:
    config = TrainConfig(teacher=name)
    known = KNOWN_TEACHERS[name]
    assert (config.mpp, config.patch_px) == (known.mpp, known.patch_px)
    assert TrainConfig(teacher=name, mpp=0.25, patch_px=64).patch_px == 64


def test_what_is_in_the_cache_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = KNOWN_TEACHERS["virchow2"].repository
    monkeypatch.setattr(
        hub, "_cached", lambda repository, _file: Path("x") if repository == cached else None
    )
    listed = qprd.list_teachers(["virchow", "virchow2"]).teachers
    assert [row.at_hand for row in listed] == [False, True]


def test_a_teacher_of_another_package_is_listed_without_loading_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = EntryPoint("theirs", "no_such_module:build", registry.TEACHERS.group)
    monkeypatch.setattr(registry.Registry, "installed", lambda _self: {"theirs": entry})
    (row,) = qprd.list_teachers(["theirs"]).teachers
    assert (row.at_hand, row.millions, row.license) == (True, None, None)


def test_an_unknown_name_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(QprdError, match="no teacher 'unny'") as caught:
        qprd.list_teachers(["unny"])
    assert "uni2-h" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_speed_is_measured_of_those_named_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(teachers, "_PASSES", 1)
    monkeypatch.setattr(teachers, "_BATCH", 1)
    listed = qprd.list_teachers(["resnet18"], measure=True, device="cpu")
    (row,) = listed.teachers
    assert row.patches_per_s is not None
    assert row.patches_per_s > 0
    assert listed.device == "cpu"
    assert "patches/s" in listed.lines()[0]


def test_the_list_needs_neither_timm_nor_the_hub() -> None:
    code = (
        "import sys\n"
        "sys.modules['timm'] = sys.modules['huggingface_hub'] = None\n"
        "import qprd\n"
        "rows = qprd.list_teachers().teachers\n"
        "assert 'uni' in [row.name for row in rows]\n"
        "assert not any(row.at_hand for row in rows if row.trained_on == 'pathology')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_repository_is_found_by_its_name_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    found = known_teachers.known_teacher("hf-hub:owkin/Phikon-v2")
    assert found is not None
    assert found.name == "phikon-v2"
    monkeypatch.setattr(known_teachers, "KNOWN_TEACHERS", MappingProxyType({}))
    assert known_teachers.known_teacher("phikon-v2") is None
