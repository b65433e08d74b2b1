"""Taking back what was written, and nothing that came after."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import shapely
from typer.testing import CliRunner

import qprd
from qprd.cli import app
from qprd.errors import QprdError
from qprd.files.backups import MANIFEST, Subject, read_runs
from qprd.files.journal import Change, apply
from qprd.files.layout import ProjectLayout
from qprd.files.session import WriteAccess
from qprd.files.transaction import FileTransaction
from qprd.jobs.remove import remove
from qprd.jobs.undo import UndoSummary
from qprd.progress import SilentProgress
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import AnnotationImport, PathClass
from tests.helpers.small_project import files_of, named_project, predictions


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return named_project(tmp_path / "project", "a.svs", "b.svs").path


def write(project: Path, bundle: str) -> dict[str, bytes]:
    """Write both images; the files of the project before that."""
    before = files_of(project.parent)
    with ExchangeProject(project) as opened, opened.writing("write-back"):
        for entry in opened.entries():
            opened.write_predictions(entry, predictions(bundle=bundle))
    return before


def undo(project: Path, *, everything: bool = False, dry_run: bool = False) -> UndoSummary:
    with ExchangeProject(project) as opened:
        return qprd.undo(opened, everything=everything, dry_run=dry_run, progress=SilentProgress())


def import_region(project: Path, *regions: tuple[str, shapely.Geometry]) -> dict[str, bytes]:
    before = files_of(project.parent)
    with ExchangeProject(project) as opened, opened.writing("import-asap"):
        imported = AnnotationImport("a.xml", PathClass("Tumor", (200, 0, 0)), regions)
        opened.import_annotations(opened.entries()[0], imported)
    return before


SQUARE = ("square", shapely.box(0, 0, 100, 100))
OTHER = ("other", shapely.box(200, 200, 300, 350))


def test_one_after_the_other_is_taken_back_the_newest_first(project: Path) -> None:
    states = [write(project, bundle) for bundle in ("first", "second", "third")]
    for left in (2, 1, 0):
        summary = undo(project)
        assert summary.left == left
        assert summary.failed == 0
        assert summary.commands[0].restored == ("a.svs", "b.svs")
        assert files_of(project.parent) == states[left]
    with pytest.raises(QprdError, match="nothing to take back") as caught:
        undo(project)
    assert "qprd remove" in str(caught.value.fix)


def test_all_at_once(project: Path) -> None:
    before = write(project, "first")
    write(project, "second")
    import_region(project, SQUARE)
    summary = undo(project, everything=True)
    assert [command.command for command in summary.commands] == [
        "import-asap",
        "write-back",
        "write-back",
    ]
    assert files_of(project.parent) == before


def write_some(project: Path, bundle: str, *images: int, of: tuple[int, ...] = (0, 1)) -> None:
    """Write these images in a write-back of some, which is broken off if these are fewer."""
    with ExchangeProject(project) as opened, contextlib.suppress(KeyboardInterrupt):
        entries = opened.entries()
        with opened.writing("write-back", [entries[number] for number in of]):
            for number in images:
                opened.write_predictions(entries[number], predictions(bundle=bundle))
            if images != of:
                raise KeyboardInterrupt


@pytest.mark.parametrize("broken_off", [[(0,)], [(1,), (1,)], [(1, 0)], [(0,), (0, 1, 1)]], ids=str)
def test_a_write_back_that_was_broken_off_and_repeated_is_one_command(
    project: Path, broken_off: list[tuple[int, ...]]
) -> None:
    before = write(project, "first")
    between = files_of(project.parent)
    for images in broken_off:
        write_some(project, "second", *images)
    write_some(project, "third", 0, 1)
    assert set(undo(project).commands[0].restored) == {"a.svs", "b.svs"}
    assert files_of(project.parent) == between
    undo(project)
    assert files_of(project.parent) == before


def test_what_is_not_a_repetition_is_a_command_of_its_own(project: Path) -> None:
    write_some(project, "first", 0)
    states = [files_of(project.parent)]
    write_some(project, "second", 1, of=(1,))
    states.append(files_of(project.parent))
    write_some(project, "third", 0, 1)
    states.append(files_of(project.parent))
    write_some(project, "fourth", 0, 1)
    for state in reversed(states):
        undo(project)
        assert files_of(project.parent) == state


def test_what_a_person_did_before_the_repetition_is_not_lost(project: Path) -> None:
    before = files_of(project.parent)
    write_some(project, "first", 0)
    file = ProjectLayout(project).predictions / "1.geojson"
    file.write_text(file.read_text().replace("region 1", "by a person"))
    persons = file.read_bytes()
    write_some(project, "second", 0, 1)
    written = file.read_bytes()
    summary = undo(project)
    assert "changed by another program since" in summary.commands[0].problems[0]
    assert files_of(project.parent) == {**before, "qprd/predictions/1.geojson": written}
    copies = [path.read_bytes() for path in read_runs(project)[-1].folder.rglob("1.geojson")]
    assert persons in copies


def test_what_was_taken_back_in_part_is_not_gone_on_with(project: Path) -> None:
    before = files_of(project.parent)
    write_some(project, "first", 0, 1, 0)
    folder = ProjectLayout(project).predictions
    (folder / "1.geojson").unlink()
    persons = (folder / "2.geojson").read_bytes() + b" "
    (folder / "2.geojson").write_bytes(persons)
    summary = undo(project)
    assert (summary.commands[0].restored, summary.commands[0].files) == (("a.svs",), ())
    write_some(project, "second", 0, 1)
    assert undo(project).commands[0].restored == ("a.svs", "b.svs")
    assert files_of(project.parent) == {**before, "qprd/predictions/2.geojson": persons}


def test_what_a_person_saves_during_an_undo_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, "first")
    written = files_of(project.parent)
    expect = FileTransaction.expect

    def expect_what_is_just_saved(transaction: FileTransaction, path: Path) -> None:
        path.write_text("by a person")
        expect(transaction, path)

    monkeypatch.setattr(FileTransaction, "expect", expect_what_is_just_saved)
    with pytest.raises(QprdError, match="changed while qprd was writing"):
        undo(project)
    assert files_of(project.parent) == {**written, "qprd/predictions/1.geojson": b"by a person"}


def test_a_removal_is_taken_back(project: Path) -> None:
    write(project, "first")
    before = files_of(project.parent)
    with ExchangeProject(project) as opened:
        remove(opened, progress=SilentProgress())
    assert files_of(project.parent) != before
    assert undo(project).commands[0].command == "remove"
    assert files_of(project.parent) == before


@pytest.mark.parametrize("everything", [False, True])
def test_a_dry_run_says_the_same_and_touches_nothing(project: Path, everything: bool) -> None:
    write(project, "first")
    write(project, "second")
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    dry = undo(project, everything=everything, dry_run=True)
    after = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    assert after == before
    real = undo(project, everything=everything)
    assert (dry.left, [(c.time, c.restored) for c in dry.commands]) == (
        real.left,
        [(c.time, c.restored) for c in real.commands],
    )
    assert [set(c.files) for c in dry.commands] == [set(c.files) for c in real.commands]
    assert [c.removed for c in dry.commands] == [c.removed for c in real.commands]
    files = {path for path in before if "backups" not in path.parts}
    gone = {path for path in files if not path.exists()}
    changed = {path for path in files - gone if path.read_bytes() != before[path]}
    assert gone == {path for c in dry.commands for path in c.removed}
    assert changed | gone == {path for c in dry.commands for path in c.files}
    assert "dry run" in dry.lines()[-1]


def test_a_file_that_was_changed_since_stays_and_the_others_go_back(project: Path) -> None:
    before = write(project, "first")
    file = ProjectLayout(project).predictions / "1.geojson"
    changed = file.read_text().replace("region 1", "by a person")
    file.write_text(changed)
    summary = undo(project)
    assert summary.failed == 1
    assert "changed by another program since" in summary.commands[0].problems[0]
    assert summary.commands[0].restored == ("b.svs",)
    assert file.read_text() == changed
    assert files_of(project.parent) == {**before, "qprd/predictions/1.geojson": changed.encode()}
    # Only what is left of it is tried again.
    again = undo(project)
    assert (again.commands[0].restored, again.failed) == ((), 1)


def test_an_import_is_taken_back(project: Path) -> None:
    before = import_region(project, SQUARE)
    between = import_region(project, OTHER)
    undo(project)
    assert files_of(project.parent) == between
    undo(project)
    assert files_of(project.parent) == before


def test_what_was_drawn_after_an_import_stays_when_it_is_taken_back(project: Path) -> None:
    import_region(project, SQUARE)
    import_region(project, OTHER)
    file = ProjectLayout(project).annotations / "1.geojson"
    collection = json.loads(file.read_text())
    drawn = json.loads(json.dumps(collection["features"][0]))
    drawn["id"] = "7d1fa2f4-6a4a-4f43-a7d4-3cf0a8f9b6f0"
    drawn["properties"]["name"] = "by a person"
    collection["features"].append(drawn)
    file.write_text(json.dumps(collection))

    def names() -> list[str | None]:
        with ExchangeProject(project) as opened:
            return [one.name for one in opened.annotations(opened.entries()[0])]

    assert names() == ["other", "by a person"]
    assert undo(project).commands[0].own_only == ("a.svs",)
    assert names() == ["by a person", "square"]
    assert undo(project).commands[0].own_only == ("a.svs",)
    assert names() == ["by a person"]


def test_an_image_that_left_the_project_is_reported(project: Path) -> None:
    write(project, "first")
    (ProjectLayout(project).predictions / "2.geojson").write_text("changed since")
    root = json.loads(project.read_text())
    root["images"].pop()
    project.write_text(json.dumps(root))
    summary = undo(project)
    assert summary.commands[0].restored == ("a.svs",)
    assert "does not have this image" in summary.commands[0].problems[0]


@pytest.mark.parametrize("everything", [False, True])
def test_a_backup_that_is_damaged_is_not_put_back(project: Path, everything: bool) -> None:
    states = [write(project, bundle) for bundle in ("first", "second")]
    (copy,) = read_runs(project)[0].folder.rglob("1.geojson")
    copy.write_text("damaged")
    written = files_of(project.parent)
    summary = undo(project, everything=everything)
    assert "damaged or gone" in summary.commands[0].problems[0]
    name = "qprd/predictions/1.geojson"
    expected = states[0] if everything else states[1]
    assert files_of(project.parent) == {**expected, name: written[name]}


def test_a_damaged_backup_that_names_no_file_stops_no_undo(project: Path) -> None:
    write(project, "first")
    manifest = read_runs(project)[0].steps[0].folder / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": []}))
    summary = undo(project)
    assert (summary.failed, summary.left) == (0, 0)
    assert not (ProjectLayout(project).predictions / "2.geojson").exists()


def test_an_undo_leaves_a_backup_of_its_own_that_is_no_step_to_take_back(project: Path) -> None:
    write(project, "first")
    undo(project)
    assert [run.command for run in read_runs(project)] == ["undo"]


def test_the_command_says_what_it_did(project: Path) -> None:
    before = write(project, "first")

    def run(*words: str) -> tuple[int, str]:
        outcome = CliRunner().invoke(app, ["undo", str(project), "--backend", "exchange", *words])
        return outcome.exit_code, outcome.output

    code, printed = run("--dry-run")
    assert code == 0
    assert "Would take back write-back of" in printed
    assert printed.splitlines()[-4:] == [
        "a.svs: becomes what it was before",
        "b.svs: becomes what it was before",
        "removes qprd/predictions/1.geojson, qprd/predictions/2.geojson",
        "This was a dry run: nothing was touched.",
    ]
    code, printed = run()
    assert code == 0
    assert "Took back write-back of" in printed
    assert files_of(project.parent) == before
    code, printed = run()
    assert code == 3
    assert "nothing to take back" in printed


def test_doctor_tells_of_backups_and_of_what_was_left_unfinished(project: Path) -> None:
    def told() -> str:
        summary = qprd.doctor(project, backend="exchange")
        return "\n".join(summary.lines())

    assert "PASS  backups" not in told()
    write(project, "first")
    assert "PASS  backups: 1 in qprd/backups" in told()
    assert "WARN  writing" not in told()
    write_some(project, "second", 0)
    assert "WARN  writing: the write-back of 20" in told()
    assert "was broken off: some images may be new and some old" in told()
    step = read_runs(project)[0].steps[0].folder
    (step / MANIFEST).rename(ProjectLayout(project).journal)
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    assert "WARN  writing: a command was killed while it wrote" in told()
    after = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(("before", "after"), [(5, 90), (90, 5), (None, 5)])
def test_the_summary_never_claims_more_objects_than_there_are(
    project: Path, monkeypatch: pytest.MonkeyPatch, before: int | None, after: int
) -> None:
    """Whichever file goes back first: a crash between the two must not look like loss."""
    folder = project.parent / "data" / "1"
    folder.mkdir(parents=True)

    def fill(objects: int | None, transaction: FileTransaction | None = None) -> None:
        for name in ("data.qpdata", "summary.json") if objects is not None else ():
            text = json.dumps({"hierarchy": {"nObjects": objects}})
            if transaction is None:
                (folder / name).write_text(text)
            else:
                transaction.stage_text(folder / name, text)

    fill(before)
    with WriteAccess(project, "paquo").transaction(Subject("1", "a.svs"), "write-back") as writing:
        fill(after, writing)
        writing.commit()
    states = []

    def recording(change: Change) -> None:
        apply(change)
        found = [folder / name for name in ("data.qpdata", "summary.json")]
        states.append([_objects(path) for path in found])

    monkeypatch.setattr("qprd.files.transaction.apply", recording)
    undo(project)
    assert states[-1] == [before or 0] * 2
    assert len(states) == 2
    assert all(in_data >= in_summary for in_data, in_summary in states)


def _objects(path: Path) -> int:
    return int(json.loads(path.read_text())["hierarchy"]["nObjects"]) if path.exists() else 0
