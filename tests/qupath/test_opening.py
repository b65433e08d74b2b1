"""Which backend is taken, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from qprd.checked import Backend
from qprd.errors import QprdError
from qprd.qupath import java
from qprd.qupath.java import QuPathInstallation
from qprd.qupath.opening import open_project


@pytest.mark.qupath
@pytest.mark.usefixtures("qupath")
def test_auto_takes_a_qupath_that_is_there(colon_project: Path) -> None:
    project, why = open_project(colon_project)
    assert project.backend == "paquo"
    assert project.version in why


def test_auto_without_a_qupath_takes_exchange(
    colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "find_qupath", lambda: None)
    monkeypatch.setattr(java, "start_qupath", java.start_qupath.__wrapped__)  # none runs yet
    project, why = open_project(colon_project)
    assert project.backend == "exchange"
    assert "finds no QuPath" in why


def test_auto_passes_over_a_qupath_that_is_too_old(
    colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "find_qupath", lambda: QuPathInstallation(Path(), "0.5.1"))
    monkeypatch.setattr(java, "start_qupath", java.start_qupath.__wrapped__)  # none runs yet
    project, why = open_project(colon_project)
    assert project.backend == "exchange"
    assert "0.5.1 is too old" in why


def test_auto_says_why_a_qupath_did_not_start(
    colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise QprdError("QuPath's Java does not start: no memory.")

    monkeypatch.setattr(java, "find_qupath", lambda: QuPathInstallation(Path(), "0.6.0"))
    monkeypatch.setattr(java, "start_qupath", broken)
    project, why = open_project(colon_project)
    assert project.backend == "exchange"
    assert "no memory" in why


def test_given_annotations_mean_exchange(colon_project: Path, shared_data: Path) -> None:
    folder = shared_data / "qupath" / "colon" / "annotations"
    project, why = open_project(colon_project, annotations=folder)
    assert project.backend == "exchange"
    assert "annotations" in why
    assert len(project.annotations(project.entries()[0])) == 3
    with pytest.raises(QprdError, match="paquo takes them from QuPath"):
        open_project(colon_project, backend="paquo", annotations=folder)


def test_exchange_can_be_asked_for(colon_project: Path) -> None:
    project, why = open_project(colon_project, backend="exchange")
    assert project.backend == "exchange"
    assert "asked for" in why


def test_paquo_that_was_asked_for_is_not_replaced(
    colon_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qprd.qupath import paquo_backend

    def absent() -> None:
        raise QprdError("paquo finds no QuPath on this computer.")

    monkeypatch.setattr(paquo_backend, "start_qupath", absent)
    with pytest.raises(QprdError, match="finds no QuPath"):
        open_project(colon_project, backend="paquo")


@pytest.mark.parametrize("backend", ["auto", "paquo"])
def test_faults_of_the_project_are_told_before_java_is_started(
    backend: Backend, colon_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qprd.qupath import paquo_backend

    for module in (java, paquo_backend):
        monkeypatch.setattr(module, "start_qupath", lambda: pytest.fail("Java was started"))
    monkeypatch.setattr(java, "find_qupath", lambda: QuPathInstallation(Path(), "0.6.0"))
    with pytest.raises(QprdError, match="no such folder of slides"):
        open_project(colon_project, backend=backend, slides=[tmp_path / "missing"])
    broken = tmp_path / "project.qpproj"
    broken.write_text("{")
    with pytest.raises(QprdError, match="not valid JSON"):
        open_project(broken, backend=backend)
