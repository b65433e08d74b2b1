"""The paquo backend on a real QuPath: reading, writing, and losing nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qupath_work import (
    edit_in_qupath,
    file_bytes,
    make_predictions,
    project_json,
    snapshot,
)

from qprd.errors import QprdError
from qprd.qupath import entrydata, paquo_backend
from qprd.qupath.entrydata import EntryData
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.java import QuPath
from qprd.qupath.paquo_backend import PaquoProject
from qprd.results import (
    MEAN_SCORE,
    SCORE,
    TILE_NAME,
    PredictedContour,
    PredictedTile,
    Predictions,
    is_own_class,
)

pytestmark = pytest.mark.qupath

Objects = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _needs_qupath(qupath: QuPath) -> None:
    """Every test here runs on a real QuPath."""


def is_own(item: dict[str, Any]) -> bool:
    if item["kind"] == "PathTileObject":
        return item["name"] == TILE_NAME and SCORE in item["measurements"]
    return (
        item["kind"] == "PathAnnotationObject"
        and is_own_class(item["class"])
        and MEAN_SCORE in item["measurements"]
    )


def of_others(objects: Objects) -> Objects:
    return {key: item for key, item in objects.items() if not is_own(item)}


def of_ours(objects: Objects) -> Objects:
    return {key: item for key, item in objects.items() if is_own(item)}


def write(project: Path, entry_number: int, predictions: Predictions) -> PaquoProject:
    with PaquoProject(project) as opened:
        opened.write_predictions(opened.entries()[entry_number], predictions)
    return opened


# --- reading


@pytest.mark.parametrize("number", [0, 1])
def test_annotations_are_those_of_qupaths_own_export(
    colon_project: Path, shared_data: Path, number: int
) -> None:
    exported = shared_data / "qupath" / "colon" / "annotations"
    with PaquoProject(colon_project) as ours:
        found = ours.annotations(ours.entries()[number])
    with ExchangeProject(colon_project, annotations=exported) as theirs:
        expected = theirs.annotations(theirs.entries()[number])
    assert len(found) == (3, 2)[number]
    assert sorted(found, key=lambda item: item.id) == sorted(expected, key=lambda item: item.id)


def test_both_backends_give_the_same_entries_and_classes(
    colon_project: Path, shared_data: Path
) -> None:
    exported = shared_data / "qupath" / "colon" / "annotations"
    with (
        PaquoProject(colon_project) as ours,
        ExchangeProject(colon_project, annotations=exported) as theirs,
    ):
        assert ours.entries() == theirs.entries()
        assert list(ours.classes()) == list(theirs.classes())
        assert [entry.source.path for entry in ours.entries()] == [
            colon_project.parents[1] / "slides" / name for name in ("colon_1.tif", "colon_2.tif")
        ]


def test_slides_elsewhere_are_found_in_given_folders(
    colon_project: Path, shared_data: Path
) -> None:
    (colon_project.parents[1] / "slides").unlink()
    with PaquoProject(colon_project, slides=[shared_data / "slides"]) as project:
        assert all(entry.source.path is not None for entry in project.entries())


def test_a_foreign_project_lists_its_entries_and_their_annotations(shared_data: Path) -> None:
    project = shared_data / "qupath" / "foreign" / "v0.6.0_cells" / "project.qpproj"
    with PaquoProject(project) as opened:
        (entry,) = opened.entries()
        annotations = opened.annotations(entry)
    assert len(annotations) == 10
    assert sorted({item.class_name for item in annotations if item.class_name}) == [
        "circles",
        "class_1",
        "two_circles",
    ]


@pytest.mark.parametrize(
    "name", ["v0.3.0_104-images", "v0.4.0_foci", "v0.5.1_4-images", "v0.5.1_no-data"]
)
def test_foreign_projects_are_read_or_refused_in_plain_words(
    shared_data: Path, name: str, tmp_path: Path
) -> None:
    shutil.copytree(shared_data / "qupath" / "foreign" / name, tmp_path / name)
    project = tmp_path / name / "project.qpproj"
    before = file_bytes(project)
    refused = []
    with PaquoProject(project) as opened:
        for entry in opened.entries():
            try:
                assert list(opened.annotations(entry)) == []
            except QprdError as error:
                refused.append((entry.id, str(error)))
    assert file_bytes(project) == before
    if name == "v0.5.1_4-images":
        ((entry_id, message),) = refused
        assert entry_id == "117"
        assert "data.qpdata is missing" in message
    else:
        assert refused == []


# --- what must not be believed


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_half_a_data_file_is_refused_and_left_alone(worked_project: Path, kept: float) -> None:
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    whole = data.read_bytes()
    data.write_bytes(whole[: int(len(whole) * kept)])
    before = file_bytes(worked_project)
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        for attempt in (
            lambda: project.annotations(entry),
            lambda: project.read_predictions(entry),
            lambda: project.write_predictions(entry, make_predictions("2")),
        ):
            with pytest.raises(QprdError, match=r"data\.qpdata cannot be read"):
                attempt()
    assert file_bytes(worked_project) == before


def test_fewer_objects_than_qupath_saved_are_refused(worked_project: Path) -> None:
    folder = worked_project.parent / "data"
    shutil.copyfile(folder / "1" / "data.qpdata", folder / "2" / "data.qpdata")
    with (
        PaquoProject(worked_project) as project,
        pytest.raises(QprdError, match="holds 3 objects, but QuPath had saved 2007"),
    ):
        project.annotations(project.entries()[1])


def test_a_save_that_qupath_did_not_finish_is_refused(worked_project: Path) -> None:
    data = worked_project.parent / "data" / "2" / "data.qpdata"
    data.rename(data.with_name("data.qpdata.bkp"))
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match=r"bkp"):
        project.write_predictions(project.entries()[1], make_predictions("2"))


# --- writing


def test_writing_leaves_everything_of_the_user_as_it_was(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    assert len(before) == 2007
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    assert set(of_ours(after)) == {item.id for item in (*predictions.tiles, *predictions.contours)}


def test_what_is_stored_is_what_was_meant(worked_project: Path) -> None:
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    stored = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as reopened:
        read = reopened.read_predictions(reopened.entries()[1])
    assert (read.contour_class, read.contour_color) == ("Tumor: qprd", (255, 140, 0))
    assert read.metadata == predictions.metadata
    for tile, expected in zip(read.tiles, predictions.tiles, strict=True):
        assert tile.id == expected.id
        assert np.allclose((tile.x, tile.y), (expected.x, expected.y), atol=0.0051, rtol=0)
        assert tile.size_px == expected.size_px
        assert tile.measurements == pytest.approx(expected.measurements, rel=1e-6)
        assert stored[tile.id]["parent"] is None
        assert stored[tile.id]["class"] is None
    for contour, meant in zip(read.contours, predictions.contours, strict=True):
        assert (contour.id, contour.name) == (meant.id, meant.name)
        assert contour.polygon.symmetric_difference(meant.polygon).area < 0.01 * 1000
        assert len(contour.polygon.interiors) == len(meant.polygon.interiors)
        assert contour.measurements == pytest.approx(meant.measurements, rel=1e-6)
        assert stored[contour.id]["parent"] is None


def test_a_new_process_finds_what_was_written(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import json, pathlib, qupath_work as w\n"
        "from qprd.qupath.java import start_qupath\n"
        "start_qupath()\n"
        "print(json.dumps(w.snapshot(pathlib.Path(sys.argv[1]), '2')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, worked_project, Path(__file__).parent],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    after = json.loads(done.stdout)
    assert of_others(after) == before
    assert len(of_ours(after)) == 52
    assert "WARN" not in done.stderr


def test_only_the_entrys_files_and_the_projects_change(worked_project: Path) -> None:
    before = file_bytes(worked_project)
    write(worked_project, 1, make_predictions("2"))
    after = file_bytes(worked_project)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.startswith("qprd/backups/")} == {
        "data/2/data.qpdata",
        "data/2/summary.json",
        "project.qpproj",
        "classifiers/classes.json",
    }


def test_the_project_file_gains_our_metadata_and_nothing_else(worked_project: Path) -> None:
    expected = project_json(worked_project)
    expected["images"][1]["metadata"] |= {"qprd: bundle": "bundle-1", "qprd: slide score": "3.25"}
    write(worked_project, 1, make_predictions("2"))
    assert project_json(worked_project) == expected


def test_workflow_image_type_stains_and_server_stay(worked_project: Path) -> None:
    from paquo._logging import redirect
    from paquo.java import GsonTools, JClass, PathIO

    path = JClass("java.io.File")(
        str(worked_project.parent / "data" / "2" / "data.qpdata")
    ).toPath()

    def state() -> list[str]:
        with redirect():
            server = PathIO.extractServerBuilder(path)
            data = PathIO.readImageData(path, server)
            return [
                str(GsonTools.getInstance().toJson(server)),
                str(data.getHistoryWorkflow().createScript()),
                str(data.getImageType()),
                str(data.getColorDeconvolutionStains()),
                str(data.getProperties()),
            ]

    before = state()
    write(worked_project, 1, make_predictions("2"))
    write(worked_project, 1, make_predictions("2", seed=1))
    assert state() == before
    assert "file:///data/colon/slides/colon_2.tif" in before[0]
    assert "setImageType" in before[1]


def test_a_second_run_replaces_the_first(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        first = project.write_predictions(entry, make_predictions("2", 80))
        second = project.write_predictions(entry, make_predictions("2", 30, bundle="b2", seed=5))
    assert (first.replaced, second.replaced) == (0, 82)
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    assert len(of_ours(after)) == 32
    assert project_json(worked_project)["images"][1]["metadata"]["qprd: bundle"] == "b2"


def test_the_same_predictions_again_change_no_object(worked_project: Path) -> None:
    write(worked_project, 1, make_predictions("2"))
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    assert snapshot(worked_project, "2") == before


def test_empty_predictions_remove_ours(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    write(worked_project, 1, make_predictions("2"))
    write(worked_project, 1, Predictions(tiles=(), contours=()))
    assert snapshot(worked_project, "2") == before
    assert project_json(worked_project)["images"][1]["metadata"] == {"split": "val"}


def test_an_accepted_contour_survives_with_its_id(worked_project: Path) -> None:
    predictions = make_predictions("2")
    write(worked_project, 1, predictions)
    accepted = predictions.contours[0].id

    def accept(hierarchy: Any) -> None:
        from paquo.java import PathClass

        (contour,) = [
            item for item in hierarchy.getAnnotationObjects() if str(item.getID()) == accepted
        ]
        contour.setPathClass(PathClass.fromString("Tumor"))

    edit_in_qupath(worked_project, "2", accept)
    before = snapshot(worked_project, "2")
    assert not is_own(before[accepted])
    write(worked_project, 1, predictions)
    after = snapshot(worked_project, "2")
    assert of_others(after) == of_others(before)
    assert after[accepted]["class"] == "Tumor"
    assert len(of_ours(after)) == 52
    write(worked_project, 1, predictions)
    assert snapshot(worked_project, "2") == after


def test_what_a_person_put_inside_our_contour_moves_to_its_next_ancestor(
    worked_project: Path,
) -> None:
    write(worked_project, 1, make_predictions("2"))

    def nest(hierarchy: Any) -> None:
        """As "Resolve hierarchy" does: outer > our contour > (inner, a tile of ours)."""
        annotations = {str(item.getName()): item for item in hierarchy.getAnnotationObjects()}
        contour = annotations["qprd lesion 0"]
        annotations["outer"].addChildObject(contour)
        contour.addChildObject(annotations["inner \u00b5 \u2620 'quoted'"])
        scored = [
            item for item in hierarchy.getTileObjects() if item.getMeasurementList().size() == 2
        ]
        contour.addChildObject(scored[0])

    edit_in_qupath(worked_project, "2", nest)
    nested = snapshot(worked_project, "2")
    inner = next(key for key, item in nested.items() if str(item["name"]).startswith("inner"))
    outer = next(key for key, item in nested.items() if item["name"] == "outer")
    assert nested[inner]["parent"] not in (None, outer)
    write(worked_project, 1, make_predictions("2", seed=3))
    after = snapshot(worked_project, "2")
    nested[inner]["parent"] = outer
    assert of_others(after) == of_others(nested)
    assert len(of_ours(after)) == 52


def test_a_slide_that_is_nowhere_does_not_stop_the_writing(worked_project: Path) -> None:
    (worked_project.parents[1] / "slides").unlink()
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        assert entry.source.path is None
        project.write_predictions(entry, make_predictions("2"))
    assert len(of_ours(snapshot(worked_project, "2"))) == 52


def test_an_image_that_was_never_saved_gets_predictions(colon_project: Path) -> None:
    shutil.rmtree(colon_project.parent / "data" / "2")
    write(colon_project, 1, make_predictions("2"))
    assert len(of_ours(snapshot(colon_project, "2"))) == 52
    summary = json.loads((colon_project.parent / "data" / "2" / "summary.json").read_text())
    assert summary["hierarchy"]["nObjects"] == 53
    assert summary["server"]["width"] == 2048


def test_summary_is_what_qupath_itself_would_write(worked_project: Path) -> None:
    path = worked_project.parent / "data" / "2" / "summary.json"
    write(worked_project, 1, make_predictions("2"))
    ours = json.loads(path.read_text(encoding="utf-8"))
    edit_in_qupath(worked_project, "2", lambda hierarchy: None)
    qupaths = json.loads(path.read_text(encoding="utf-8"))
    ours.pop("timestamp"), qupaths.pop("timestamp")
    assert ours == qupaths


def test_our_class_joins_the_projects_and_keeps_a_color_the_user_gave_it(
    worked_project: Path,
) -> None:
    with PaquoProject(worked_project) as project:
        before = [item for item in project.classes() if item.name != "Tumor: qprd"]
        project.write_predictions(project.entries()[1], make_predictions("2"))
    path = worked_project.parent / "classifiers" / "classes.json"
    classes = json.loads(path.read_text(encoding="utf-8"))
    names = [item["name"] for item in classes["pathClasses"]]
    assert names == ["Tumor", "Normal", "Ignore*", "Stroma", "Tumor: qprd"]
    classes["pathClasses"][-1]["color"] = -16711936
    path.write_text(json.dumps(classes), encoding="utf-8")
    with PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2", seed=2))
        found = {item.name: item.color for item in project.classes()}
    assert found["Tumor: qprd"] == (0, 255, 0)
    assert {item.name for item in before} <= set(found)


def test_far_away_coordinates_are_compared_as_precisely_as_qupath_stores_them(
    worked_project: Path,
) -> None:
    from shapely.affinity import translate

    near = make_predictions("2", 3)
    far = replace(
        near,
        contours=tuple(
            replace(item, polygon=translate(item.polygon, 190_000.37, 210_000.41))
            for item in near.contours
        ),
    )
    with PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], far)


@pytest.mark.slow
def test_a_hundred_thousand_tiles(worked_project: Path) -> None:
    before = snapshot(worked_project, "2")
    predictions = make_predictions("2", 100_000)
    with PaquoProject(worked_project) as project:
        report = project.write_predictions(project.entries()[1], predictions)
        assert report.tiles == 100_000
        again = project.write_predictions(project.entries()[1], make_predictions("2", 10))
    assert again.replaced == 100_002
    assert of_others(snapshot(worked_project, "2")) == before


# --- refusing and failing


@pytest.mark.parametrize(
    "bad",
    [
        replace(make_predictions("2"), contour_class="Tumor"),
        replace(make_predictions("2"), metadata={"split": "train"}),
        replace(make_predictions("2"), metadata={"qprd-review by Anna": "done"}),
        replace(
            make_predictions("2"),
            contours=(replace(make_predictions("2").contours[0], measurements={}),),
        ),
        Predictions((PredictedTile("no uuid", 0, 0, 5, {SCORE: 1.0}),), ()),
        Predictions((PredictedTile(make_predictions("2").tiles[0].id, 0, 0, 5, {}),), ()),
        Predictions(
            (PredictedTile(make_predictions("2").tiles[0].id, 0, 0, 5, {SCORE: np.nan}),), ()
        ),
    ],
    ids=[
        "a person's class",
        "a person's metadata",
        "nearly our metadata",
        "no mean score",
        "no UUID",
        "no score",
        "NaN",
    ],
)
def test_predictions_that_could_not_be_told_apart_or_stored_are_refused(
    worked_project: Path, bad: Predictions
) -> None:
    before = file_bytes(worked_project)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError):
        project.write_predictions(project.entries()[1], bad)
    assert file_bytes(worked_project) == before


def test_an_entry_of_another_project_is_refused(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        stranger = replace(project.entries()[0], id="../../elsewhere")
        with pytest.raises(QprdError, match="no image with id"):
            project.write_predictions(stranger, make_predictions("2"))
        with pytest.raises(QprdError, match="no image with id"):
            project.annotations(stranger)


def _delete_the_annotations(hierarchy: Any) -> None:
    hierarchy.removeObjects(hierarchy.getAnnotationObjects(), True)


def test_what_qupath_saved_since_opening_is_kept(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        edit_in_qupath(worked_project, "2", _delete_the_annotations)
        changed = project_json(worked_project)
        changed["images"][0]["metadata"]["split"] = "test"
        worked_project.write_text(json.dumps(changed), encoding="utf-8")
        before = snapshot(worked_project, "2")
        project.write_predictions(entry, make_predictions("2"))
    after = snapshot(worked_project, "2")
    assert of_others(after) == before
    assert len(of_ours(after)) == 52
    changed["images"][1]["metadata"] |= make_predictions("2").metadata
    assert project_json(worked_project) == changed


@pytest.mark.parametrize("what", ["objects", "project file"])
def test_a_save_in_qupath_during_the_writing_is_not_overwritten(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    original = EntryData.write
    before: dict[str, bytes] = {}

    def interrupted_by_a_save(self: EntryData, path: Path) -> None:
        original(self, path)
        if what == "objects":
            edit_in_qupath(worked_project, "2", _delete_the_annotations)
        else:
            worked_project.write_text(worked_project.read_text() + "\n")
        before.update(file_bytes(worked_project))
        del before[str(path.relative_to(worked_project.parent))]
        del before["qprd/journal.json"]

    monkeypatch.setattr(EntryData, "write", interrupted_by_a_save)
    with (
        PaquoProject(worked_project) as project,
        pytest.raises(QprdError, match="changed while qprd was writing") as caught,
    ):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("Close the project in QuPath, then run it again")
    assert file_bytes(worked_project) == before


def test_an_image_turned_since_opening_gets_no_predictions(worked_project: Path) -> None:
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        changed = project_json(worked_project)
        changed["images"][1]["serverBuilder"] = {
            "builderType": "rotated",
            "builder": changed["images"][1]["serverBuilder"],
            "rotation": "ROTATE_90",
        }
        worked_project.write_text(json.dumps(changed), encoding="utf-8")
        before = file_bytes(worked_project)
        with pytest.raises(QprdError, match="is turned, cropped or another file"):
            project.write_predictions(entry, make_predictions("2"))
    assert file_bytes(worked_project) == before


@pytest.mark.parametrize("link", ["data/2", "data/2/summary.json", "classifiers/classes.json"])
def test_links_out_of_the_project_are_not_written_through(
    worked_project: Path, tmp_path: Path, link: str
) -> None:
    place = worked_project.parent / link
    outside = tmp_path / "outside"
    outside.mkdir()
    place.rename(outside / place.name)
    place.symlink_to(outside / place.name)
    before = file_bytes(worked_project), file_bytes(outside / "any")
    with (
        PaquoProject(worked_project) as project,
        pytest.raises(QprdError, match="outside the project; nothing was written"),
    ):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert (file_bytes(worked_project), file_bytes(outside / "any")) == before


def test_a_project_without_classes_keeps_qupaths_default_ones(worked_project: Path) -> None:
    classes = worked_project.parent / "classifiers" / "classes.json"
    classes.unlink()
    write(worked_project, 1, make_predictions("2"))
    assert not classes.exists()


def test_what_a_person_drew_with_our_class_stays(worked_project: Path) -> None:
    def draw(hierarchy: Any) -> None:
        from paquo.java import PathClass

        for item in hierarchy.getAnnotationObjects():
            if str(item.getName()) == "outer":
                item.setPathClass(PathClass.fromString("Tumor: qprd"))

    edit_in_qupath(worked_project, "2", draw)
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        for seed in (1, 2):
            project.write_predictions(entry, make_predictions("2", seed=seed))
        assert len(project.read_predictions(entry).contours) == 2
        assert sum(item.predicted for item in project.annotations(entry)) == 2
    assert of_others(snapshot(worked_project, "2")) == before


def test_metadata_whose_keys_only_resemble_ours_stay(worked_project: Path) -> None:
    changed = project_json(worked_project)
    changed["images"][1]["metadata"]["qprd-review by Anna"] = "half \ud83d"
    worked_project.write_text(json.dumps(changed), encoding="utf-8")
    write(worked_project, 1, make_predictions("2"))
    changed["images"][1]["metadata"] |= make_predictions("2").metadata
    assert project_json(worked_project) == changed


def _fail(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (EntryData, "replace_own"),
        (EntryData, "write"),
        (EntryData, "summary"),
        (paquo_backend, "compare"),
        (paquo_backend, "with_own_metadata"),
        (paquo_backend, "with_class"),
        (entrydata, "same_outline"),
    ],
)
def test_an_interruption_anywhere_leaves_every_byte(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    write(worked_project, 1, make_predictions("2"))
    before = file_bytes(worked_project)
    monkeypatch.setattr(owner, name, _fail)
    with pytest.raises(KeyboardInterrupt), PaquoProject(worked_project) as project:
        project.write_predictions(project.entries()[1], make_predictions("2", bundle="other"))
    assert file_bytes(worked_project) == before


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_replacement_that_fails_takes_the_others_back(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    before = file_bytes(worked_project)
    original = Path.replace
    staged_moves = []

    def failing(self: Path, target: Path) -> Path:
        if self.name == f".{target.name}.{self.name[-36:]}":
            staged_moves.append(target)
            if len(staged_moves) == fails_at:
                raise PermissionError(13, "Permission denied")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match="as it was"):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert file_bytes(worked_project) == before


def _lose_a_cell(data: EntryData) -> None:
    hierarchy = data._file.hierarchy
    hierarchy.removeObject(next(iter(hierarchy.getCellObjects())), True)


def _rename_an_annotation(data: EntryData) -> None:
    next(iter(data._file.hierarchy.getAnnotationObjects())).setName("another name")


def _change_a_measurement(data: EntryData) -> None:
    next(iter(data._file.hierarchy.getCellObjects())).getMeasurementList().put("Cell: Area", 7.0)


def _unlock(data: EntryData) -> None:
    for item in data._file.hierarchy.getAnnotationObjects():
        item.setLocked(False)


def _lose_a_tile(data: EntryData) -> None:
    hierarchy = data._file.hierarchy
    hierarchy.removeObject(next(iter(data._own_tiles())), True)


def _move_a_contour(data: EntryData) -> None:
    for item in data._own_contours():
        item.setROI(item.getROI().translate(0.5, 0.0))


@pytest.mark.parametrize(
    "spoil",
    [
        _lose_a_cell,
        _rename_an_annotation,
        _change_a_measurement,
        _unlock,
        _lose_a_tile,
        _move_a_contour,
    ],
)
def test_any_difference_after_saving_is_noticed(
    worked_project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[EntryData], None]
) -> None:
    before = file_bytes(worked_project)
    original = EntryData.write

    def spoiled(self: EntryData, path: Path) -> None:
        spoil(self)
        original(self, path)

    monkeypatch.setattr(EntryData, "write", spoiled)
    with PaquoProject(worked_project) as project, pytest.raises(QprdError, match="differs"):
        project.write_predictions(project.entries()[1], make_predictions("2"))
    assert file_bytes(worked_project) == before


def test_a_full_disk_leaves_every_byte(worked_project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        shutil.copytree(worked_project.parent, small / "project")
        project_path = small / "project" / "project.qpproj"
        before = file_bytes(project_path)
        with PaquoProject(project_path) as project, pytest.raises(QprdError) as raised:
            project.write_predictions(project.entries()[1], make_predictions("2", 20_000))
        assert raised.value.fix == "Free some space and run it again."
        assert file_bytes(project_path) == before
        assert list(small.rglob("*.tmp")) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_leaving_after_an_exception_saves_nothing(worked_project: Path) -> None:
    before = file_bytes(worked_project)
    project = PaquoProject(worked_project)
    project.annotations(project.entries()[1])
    with pytest.raises(RuntimeError), project:
        raise RuntimeError
    assert file_bytes(worked_project) == before


def _split_a_contour(hierarchy: Any) -> None:
    from paquo.java import GeometryTools, WKBReader
    from shapely.geometry import MultiPolygon, box

    two = MultiPolygon([box(0, 0, 10, 10), box(20, 0, 30, 10)])
    geometry = WKBReader().read(WKBReader.hexToBytes(two.wkb_hex))
    for item in hierarchy.getAnnotationObjects():
        if str(item.getName()) == "qprd lesion 0":
            item.setROI(GeometryTools.geometryToROI(geometry))


def test_a_contour_that_a_person_redrew_is_theirs(worked_project: Path) -> None:
    """QuPath drops the measurements of an object whose outline changes."""
    write(worked_project, 1, make_predictions("2"))
    edit_in_qupath(worked_project, "2", _split_a_contour)
    before = snapshot(worked_project, "2")
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        assert len(project.read_predictions(entry).contours) == 1
        assert project.write_predictions(entry, make_predictions("2")).replaced == 51
        assert len(project.read_predictions(entry).contours) == 2
    assert of_others(snapshot(worked_project, "2")) == of_others(before)


def test_a_contour_made_into_two_parts_is_reported_when_read_and_replaced_when_written(
    worked_project: Path,
) -> None:
    write(worked_project, 1, make_predictions("2"))

    def split_and_measure(hierarchy: Any) -> None:
        from paquo.java import String

        _split_a_contour(hierarchy)
        for item in hierarchy.getAnnotationObjects():
            if str(item.getName()) == "qprd lesion 0":
                item.getMeasurementList().put(String(MEAN_SCORE), 1.0)

    edit_in_qupath(worked_project, "2", split_and_measure)
    with PaquoProject(worked_project) as project:
        entry = project.entries()[1]
        with pytest.raises(QprdError, match="MultiPolygon, not a polygon"):
            project.read_predictions(entry)
        assert project.write_predictions(entry, make_predictions("2")).replaced == 52
        contours: tuple[PredictedContour, ...] = project.read_predictions(entry).contours
    assert len(contours) == 2
