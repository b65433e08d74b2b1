from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from typer.testing import CliRunner

import qprd
from qprd.cli import app
from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.files.atomic import temporary_name
from qprd.files.claims import Claims
from qprd.jobs.doctor import installation
from qprd.jobs.doctor.checks import Examination, Status
from qprd.jobs.train.job import train_project
from qprd.predictions import DATE, Predictions
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import Annotation, Entry
from tests.helpers.drawn_project import (
    MPP,
    NAMES,
    WIDTH,
    add_image,
    add_slide,
    draw_no_tumor_on,
    edit,
    outlines,
    painted,
    training,
)

FOREIGN = ("v0.3.0_104-images", "v0.4.0_foci", "v0.5.1_4-images", "v0.5.1_no-data", "v0.6.0_cells")


def look_at(project: Path | None, **options: Any) -> Examination:
    return qprd.doctor(project, **{"backend": "exchange", **options})


def found(examination: Examination, subject: str) -> list[tuple[Status, str]]:
    return [(c.status, c.finding) for c in examination.checks if c.subject == subject]


def test_without_a_project_the_installation_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examination = look_at(None)
    assert {check.subject for check in examination.checks} == {
        "qprd",
        "PyTorch",
        "OpenSlide",
        "QuPath",
        "teachers",
    }
    assert examination.failed == 0


def test_a_folder_that_holds_no_qupath_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_qupath", lambda: None)
    monkeypatch.setenv("PAQUO_QUPATH_DIR", "/nowhere")
    (said,) = [c.finding for c in installation.check_installation() if c.subject == "QuPath"]
    assert said.startswith("none found in the folder that PAQUO_QUPATH_DIR names (/nowhere)")


def test_what_is_doubtful_of_a_slide_is_said_before_there_is_a_model(
    project: Path, tmp_path: Path
) -> None:
    gray = np.stack([painted(7)[:100, :, 1]] * 3, axis=-1)
    write_pyramidal_tiff(gray, tmp_path / "gray.tif", MPP)
    add_slide(project, tmp_path / "gray.tif", WIDTH, 100)
    examination = look_at(project)
    said = [finding for status, finding in found(examination, "gray.tif")]
    assert [finding.partition(" is ")[0] for finding in said] == ["320 x 50 um", "it"]
    assert "smaller than a patch of 64 um" in said[0]
    assert "gray" in said[1]
    assert not found(examination, NAMES[0])
    assert not found(look_at(project, exclude=("gray.tif",)), "gray.tif")


def test_a_good_project_passes(project: Path) -> None:
    examination = look_at(project)
    assert examination.failed == 0
    ((status, finding),) = found(examination, "slides")
    assert status is Status.PASS
    assert finding.startswith("3 of 3")
    ((status, finding),) = found(examination, "annotations")[-1:]
    assert "Tumor (2)" in finding
    assert "Normal (2)" in finding
    assert found(examination, "training")[0][0] is Status.PASS


def test_a_folder_that_is_no_project_fails(tmp_path: Path) -> None:
    assert look_at(tmp_path).failed == 1
    assert look_at(tmp_path / "none").failed == 1


def test_one_slide_with_tumor_is_a_warning(project: Path) -> None:
    draw_no_tumor_on(project, 2)
    ((status, finding),) = found(look_at(project), "training")
    assert status is Status.WARN
    assert NAMES[0] in finding


def test_a_class_that_nobody_drew_fails_and_the_drawn_ones_are_listed(project: Path) -> None:
    examination = look_at(project, tumor_class=("Lesion",))
    assert examination.failed == 1
    assert "Lesion" in found(examination, "training")[0][1]
    assert "Tumor (2)" in found(examination, "annotations")[-1][1]


def test_slides_that_have_moved_are_one_finding_with_the_option_that_helps(
    project: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    slides = Path(
        json.loads(project.read_text())["images"][0]["serverBuilder"]["uri"].removeprefix("file://")
    ).parent
    shutil.copytree(slides, moved)

    def lose(root):  # type: ignore[no-untyped-def]
        for image in root["images"]:
            image["serverBuilder"]["uri"] = f"file:/gone/{image['imageName']}"

    edit(project, lose)
    examination = look_at(project)
    assert examination.failed
    (missing,) = [check for check in examination.checks if check.subject == "3 images"]
    assert missing.status is Status.WARN
    assert "--slides" in (missing.fix or "")
    assert look_at(project, slides=(moved,)).failed == 0


def test_annotations_that_nobody_exported_point_to_the_script(colon_project: Path) -> None:
    examination = look_at(colon_project)
    assert any("export_annotations.groovy" in line for line in examination.lines())
    assert examination.failed


def test_the_real_project_is_ready_with_its_exported_annotations(
    colon_project: Path, shared_data: Path
) -> None:
    drawn = shared_data / "qupath" / "colon" / "annotations"
    examination = look_at(colon_project, annotations=drawn)
    assert examination.failed == 0
    assert found(examination, "training") == [
        (Status.PASS, "2 slides with Tumor (train: 1, val: 1)")
    ]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_strangers_project_gets_a_clear_account(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    source = shared_data / "qupath" / "foreign" / name
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    report = tmp_path / "report.json"
    outcome = CliRunner().invoke(
        app, ["doctor", str(source), "--backend", "exchange", "--json", str(report)]
    )
    assert isinstance(outcome.exception, SystemExit)
    assert outcome.exit_code == 1
    assert "Traceback" not in outcome.output
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    checks = json.loads(report.read_text())["checks"]
    assert {check["status"] for check in checks} <= {"PASS", "WARN", "FAIL"}
    told = {check["subject"]: check for check in checks}
    assert told["slides"]["status"] == "FAIL"
    assert told["training"]["status"] == "FAIL"
    assert all(check["fix"] for check in checks if check["subject"].endswith("images"))
    moved = "not where the project says" in outcome.output
    assert ("--slides" in told["slides"]["fix"]) == moved
    assert len(outcome.output) < 6000  # an account, not a list of a hundred images


@pytest.mark.parametrize("name", FOREIGN)
def test_training_on_a_strangers_project_ends_with_a_clear_error(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    project = tmp_path / "project"
    shutil.copytree(shared_data / "qupath" / "foreign" / name, project)
    for path in [project, *project.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (file,) = project.glob("*.qpproj")
    with ExchangeProject(file) as opened, pytest.raises(QprdError) as caught:
        train_project(opened, training(), progress=SilentProgress())
    assert caught.value.fix
    assert len(str(caught.value)) < 4000


@pytest.mark.qupath
@pytest.mark.parametrize("name", FOREIGN)
def test_a_real_qupath_gives_an_account_of_them_too(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    project = tmp_path / "project"
    shutil.copytree(shared_data / "qupath" / "foreign" / name, project)
    examination = look_at(project, backend="paquo")
    assert found(examination, "slides")[0][0] is Status.FAIL


def test_a_broken_slide_and_one_without_resolution_are_told(
    project: Path, shared_data: Path
) -> None:
    def swap(root):  # type: ignore[no-untyped-def]
        for image, name in zip(
            root["images"], ("broken.svs", "tcga-cr-7395_no-mpp.svs"), strict=False
        ):
            image["imageName"] = name
            image["serverBuilder"]["uri"] = (shared_data / "slides" / name).as_uri()
            image["serverBuilder"].pop("metadata")

    edit(project, swap)
    for recorded in (project.parent / "data").rglob("server.json"):
        recorded.unlink()
    examination = look_at(project)
    told = "\n".join(examination.lines())
    assert "broken.svs" in told
    assert "--assume-mpp" in told
    assert found(examination, "slides")[0][1].startswith("1 of 3")


def test_several_projects_in_the_current_folder_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.qpproj", "b.qpproj"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    ((status, finding),) = found(look_at(None), "project")
    assert status is Status.FAIL
    assert "a.qpproj, b.qpproj" in finding


def test_what_a_killed_command_left_behind_is_told(project: Path) -> None:
    assert found(look_at(project), "leftovers") == []
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    living = temporary_name(project.parent / "qprd" / "results" / "1")
    left = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{child.pid}-"))
    for folder in (living, left):
        folder.mkdir(parents=True)
    ((status, finding),) = found(look_at(project), "leftovers")
    assert status is Status.WARN
    assert finding.startswith("1 of commands that were killed")
    assert left.name in finding


def test_annotations_that_mean_neither_are_told_with_their_slide(project: Path) -> None:
    file = project.parent / "qprd" / "annotations" / "2.geojson"
    file.write_text(json.dumps(outlines("tumor")), encoding="utf-8")
    warned = [text for status, text in found(look_at(project), "annotations") if status == "WARN"]
    [text] = [line for line in warned if "neither" in line]
    assert "1 annotation of class 'tumor' is used as neither Tumor nor Normal" in text
    assert "did you mean 'Tumor'?" in text
    assert NAMES[1] in text


def test_images_of_one_slide_are_told_and_must_share_a_split(project: Path) -> None:
    add_image(project, 4, 1, {})
    shared = [(Status.PASS, f"2 images show one file and share a split: {NAMES[0]}, copy 4")]
    assert found(look_at(project), "splits") == shared
    edit(project, lambda root: root["images"][3].update(metadata={"split": "test"}))
    ((status, finding),) = found(look_at(project), "splits")
    assert status is Status.FAIL
    assert f"{NAMES[0]} (id 1) in train and copy 4 (id 4) in test" in finding


def test_what_is_drawn_on_all_images_is_not_held_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4, 14):
        add_image(project, number, 1, {})
    held: weakref.WeakSet[Annotation] = weakref.WeakSet()
    most = 0
    annotations = ExchangeProject.annotations

    def noted(opened: ExchangeProject, entry: Entry) -> Sequence[Annotation]:
        nonlocal most
        most = max(most, len(held))
        found = annotations(opened, entry)
        held.update(found)
        return found

    monkeypatch.setattr(ExchangeProject, "annotations", noted)
    assert look_at(project).failed == 0
    assert most <= 2 * len(NAMES)


def test_each_slide_is_opened_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()

    def noted(opening: Any) -> Any:
        def open_it(*arguments: Any, **options: Any) -> Any:
            opened[f"{Path(arguments[-1]).name} by {opening.__qualname__}"] += 1
            return opening(*arguments, **options)

        return open_it

    monkeypatch.setattr(openslide.OpenSlide, "__init__", noted(openslide.OpenSlide.__init__))
    monkeypatch.setattr(tifffile.TiffFile, "__init__", noted(tifffile.TiffFile.__init__))
    assert look_at(project).failed == 0
    assert len(opened) == 2 * len(NAMES)
    assert set(opened.values()) == {1}


def test_the_write_back_of_a_running_prediction_is_not_called_broken_off(project: Path) -> None:
    with ExchangeProject(project) as opened:
        entries = opened.entries()
        with opened.writing("write-back", entries, will_continue=True):
            opened.write_predictions(entries[0], Predictions((), (), metadata={DATE: "now"}))
        with Claims(project):
            assert found(look_at(project), "writing") == []
        ((status, text),) = found(look_at(project), "writing")
        assert status is Status.WARN
        assert "was broken off" in text


def test_slides_are_looked_at_with_a_bar(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look_at(project)
    assert "looking at slides: 3/3" in capsys.readouterr().err
    look_at(project, progress=False)
    assert capsys.readouterr().err == ""


def test_a_damaged_journal_fails_as_no_command_clears_it_up(project: Path) -> None:
    journal = project.parent / "qprd" / "journal.json"
    journal.write_text("{")
    (check,) = [check for check in look_at(project).checks if check.subject == "writing"]
    assert check.status is Status.FAIL
    assert str(journal) in check.finding
    assert "delete the journal" in (check.fix or "")
