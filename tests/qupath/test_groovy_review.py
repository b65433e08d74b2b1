"""The scripts that show and change results in QuPath, run one after the other by a real one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from shapely.geometry import box

from qprd.names import counted
from qprd.predictions import (
    AREA_UM2,
    MAX_SCORE,
    MEAN_PROBABILITY,
    MEAN_SCORE,
    NUMBER,
    OWN_ID,
    SCORE,
    TILE_COLOR,
    Predictions,
    ScoreMap,
    object_id,
)
from qprd.qupath.scripts import script_folder
from tests.helpers.scored_project import (
    BUNDLE,
    CELL_PX,
    MIN_AREA_UM2,
    THRESHOLD,
    predicted,
    probability_of,
    score_project,
)
from tests.helpers.script_session import (
    SETUP,
    in_a_viewer,
    launcher,
    lead_to_slides,
    run_in_turn,
    with_setting,
)

VIEWS = ("show_heatmap", "overlay_heatmap", "review_next")
CHANGES = ("rethreshold", "remove_qprd_objects")
ACCEPTED = object_id(BUNDLE, "1", "contour", 0)
DOWNSAMPLE, FAR = 8, 32
OPACITY = 0.6

#: What a person does: takes out drawn tumor; accepts a contour of ours, rejects one, draws in one.
PERSON = """
def own = getAnnotationObjects().findAll { it.getMeasurements().containsKey('qprd: mean score') }
removeObjects(getAnnotationObjects().findAll { it.getName() == 'tumor region' }, true)
def number = { n -> own.find { it.getMeasurements().get('qprd: number') == n } }
number(2).setPathClass(PathClass.fromString('Tumor'))
number(3).setPathClass(PathClass.fromString('Normal'))
def roi = number(1).getROI()
def square = { x, y, size -> ROIs.createRectangleROI(x, y, size, size, roi.getImagePlane()) }
def mine = PathObjects.createAnnotationObject(square(900, 2500, 9))
mine.setName('below a contour')
number(1).addChildObject(mine)
def asked = PathClass.fromString('Review: qprd')
def region = PathObjects.createAnnotationObject(square(50, 60, 100), asked)
region.setName('1')
region.measurements.put('qprd: mean score', 0d)
region.measurements.put('qprd: review rank', 1d)
def later = PathObjects.createAnnotationObject(square(500, 60, 100), asked)
later.setName('an earlier name, a later rank')
later.measurements.put('qprd: mean score', 0d)
later.measurements.put('qprd: review rank', 12d)
if (getProjectEntry().getID() == '2') addObject(later)
addObject(region)
"""

#: Accepts the first, which is a region to review, and undoes that as QuPath does; then accepts both
#: it and the second, a piece of a large contour, and goes back and rejects that.
ANSWERS = """
def viewer_ = getCurrentViewer()
def tellWhere = { println Label.current.text.replace('\\n', ' | ') }
tellWhere()
def before = new ByteArrayOutputStream()
new ObjectOutputStream(before).writeObject(getCurrentHierarchy())
Button.press('_Accept')
def stored = new ObjectInputStream(new ByteArrayInputStream(before.toByteArray()))
getCurrentHierarchy().setHierarchy(stored.readObject())
Button.press('_Back')
tellWhere()
Button.press('_Accept')
tellWhere()
println viewer_.centered == viewer_.selected.getROI()
Button.press('_Accept')
Button.press('_Back')
tellWhere()
Button.press('_Reject')
StandIn.current.imageData = null
Button.press('_Back')
Button.press('_Accept')
tellWhere()
"""


def script(name: str) -> str:
    return (script_folder() / f"{name}.groovy").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VIEWS + CHANGES)
def test_scripts_say_what_they_do(name: str) -> None:
    text = script(name)
    header = text[: text.index("*/")]
    assert header.startswith("/*\n * qprd: ")
    for said in ("0.5.1, 0.6 and 0.7", "Run > Run  ", "Run > Run for project", f"{name}.groovy"):
        assert said in header
    assert ("--save" in header) == (name in CHANGES)
    # It deletes what is selected; and it nests our objects below a user's.
    assert "clearSelectedObjects" not in text
    assert "insertObjects" not in text


def length_of(item: Mapping[str, Any]) -> tuple[float, float]:
    left, top, right, bottom = shapely.from_wkt(item["roi"]).bounds
    return right - left, bottom - top


@dataclass(frozen=True)
class Session:
    """What QuPath had after each of the scripts that ran in turn."""

    made: Mapping[str, tuple[ScoreMap, Predictions]]
    after: Mapping[str, Mapping[str, Mapping[str, Any]]]
    folder: Path

    def printed(self, step: str, entry: str = "1") -> str:
        return str(self.after[step][entry]["printed"])

    def objects(self, step: str, entry: str = "1") -> dict[str, dict[str, Any]]:
        return {item["id"]: item for item in self.after[step][entry]["objects"]}

    def contours(self, step: str, entry: str = "1") -> list[dict[str, Any]]:
        found = [item for item in self.objects(step, entry).values() if is_contour(item)]
        return sorted(found, key=lambda item: float(item["measurements"][NUMBER]))

    def users(self, step: str, entry: str = "1") -> dict[str, dict[str, Any]]:
        found = self.objects(step, entry)
        return {
            key: item for key, item in found.items() if not is_contour(item) and not is_tile(item)
        }

    def picture(self, name: str, entry: str = "1") -> NDArray[np.float64]:
        with Image.open(self.folder / f"{name}_{entry}.png") as image:
            return np.asarray(image.convert("RGB"), np.float64)


def is_tile(item: Mapping[str, Any]) -> bool:
    named = item["type"] == "PathTileObject" and item["name"] in (None, "qprd tile")
    return named and SCORE in item["measurements"]


def is_contour(item: Mapping[str, Any]) -> bool:
    parts = (item["class"] or "").split(": ")
    ours = item["type"] == "PathAnnotationObject" and MEAN_SCORE in item["measurements"]
    return ours and "qprd" in parts and "Review" not in parts


@pytest.fixture(scope="module")
def session(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    launcher()
    root = tmp_path_factory.mktemp("review")
    shutil.copytree(shared_data / "qupath" / "colon" / "project", root / "project")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    project = lead_to_slides(root / "project" / "project.qpproj", shared_data)
    made = score_project(project, shared_data)

    def painted(name: str, downsample: int = DOWNSAMPLE) -> str:
        return f"paint('{root}/{name}_ENTRY.png', {downsample})"

    tiles, overlay, again = script("show_heatmap"), script("overlay_heatmap"), script("rethreshold")
    above = with_setting(tiles, "THRESHOLD", "0.5")
    bare = "StandIn.current.overlay = null\nStandIn.current.options.setOpacity(1f)"
    steps = {
        "setup": SETUP.replace("ACCEPTED", ACCEPTED),
        "import": script("import_predictions"),
        "tiles": in_a_viewer(tiles, painted("tiles")),
        "above": in_a_viewer(above, f"{painted('above')}\n{painted('far', FAR)}"),
        "overlay": in_a_viewer(overlay, painted("overlay")),
        "bare": in_a_viewer(overlay, f"{bare}\n{painted('bare')}\n{painted('bare far', FAR)}"),
        "same": again,
        "person": PERSON,
        "order": script("review_next"),
        "other": with_setting(again, "THRESHOLD", "0.7"),
        "repeated": with_setting(again, "THRESHOLD", "0.7"),
        "answered": in_a_viewer(script("review_next"), ANSWERS),
        "none": with_setting(again, "THRESHOLD", "1.1"),
        "removed": script("remove_qprd_objects"),
        "empty": again,
    }
    found = run_in_turn(list(steps.values()), project, root / "steps")
    after = dict(zip(steps, found, strict=True))
    for step, entries in after.items():
        for entry, seen in entries.items():
            assert "ERROR" not in seen["printed"], (step, entry, seen["printed"])
    return Session(made, after, root)


def colors(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(mpl.colormaps["magma"](probabilities), np.float64)[..., :3] * 255


def cell_centers(
    score_map: ScoreMap, shape: tuple[int, ...], downsample: int = DOWNSAMPLE
) -> tuple[NDArray[np.intp], ...]:
    """Pixels of a picture, (rows, columns) of the map, at the centers of its cells."""
    axes = (
        np.minimum((np.arange(cells) * CELL_PX + CELL_PX // 2) // downsample, pixels - 1)
        for cells, pixels in zip(score_map.scores.shape, shape, strict=False)
    )
    return tuple(np.meshgrid(*axes, indexing="ij"))


def off_and_bare(session: Session, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How far cells' centers are from magma over the slide, and which show the slide alone."""
    score_map, _ = session.made["1"]
    slide, seen = session.picture("bare"), session.picture(name)
    at = cell_centers(score_map, slide.shape)
    slide, seen = slide[at], seen[at]
    expected = slide * (1 - OPACITY) + colors(probability_of(score_map.scores)) * OPACITY
    return np.abs(seen - expected).max(axis=-1), np.abs(seen - slide).max(axis=-1) < 3


def surrounded(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells whose neighbors are all among them."""
    return np.asarray(ndimage.binary_erosion(cells, np.ones((3, 3))))


@pytest.mark.qupath
@pytest.mark.slow
def test_tiles_are_painted_in_magma_from_0_to_1(session: Session) -> None:
    scored = ~np.isnan(session.made["1"][0].scores)
    off, bare = off_and_bare(session, "tiles")
    # Lines of annotations run over some centers.
    assert (off[scored] < 8).mean() > 0.97
    assert bare[~scored].mean() > 0.9
    assert f"{scored.sum()} of {scored.sum()} tiles of colon_1.tif" in session.printed("tiles")


@pytest.mark.qupath
@pytest.mark.slow
@pytest.mark.parametrize("entry", ["1", "2"])
def test_what_only_looks_does_not_make_qupath_ask_whether_to_save(
    session: Session, entry: str
) -> None:
    changed = {step: seen[entry]["changed"] for step, seen in session.after.items()}
    assert {step for step, was in changed.items() if not was} == {
        "tiles",
        "above",
        "overlay",
        "bare",
    }


@pytest.mark.qupath
@pytest.mark.slow
def test_tiles_below_the_threshold_are_not_painted_near_or_far(session: Session) -> None:
    score_map, _ = session.made["2"]
    probabilities = probability_of(score_map.scores)
    # From afar a tile is a few pixels wide, and other code of QuPath paints it.
    for name, slide, downsample in (("above", "bare", DOWNSAMPLE), ("far", "bare far", FAR)):
        seen = session.picture(name, "2")
        at = cell_centers(score_map, seen.shape, downsample)
        same = np.abs(seen - session.picture(slide, "2"))[at].max(axis=-1) < 4
        # Contours are wide lines there.
        assert same[probabilities < 0.45].mean() > 0.8
        assert same[probabilities > 0.55].mean() < 0.05


@pytest.mark.qupath
@pytest.mark.slow
def test_the_overlay_is_smooth_and_clear_where_nothing_was_scored(session: Session) -> None:
    score_map, _ = session.made["1"]
    scored = ~np.isnan(score_map.scores)
    off, bare = off_and_bare(session, "overlay")
    assert (off[surrounded(scored)] < 25).mean() > 0.95
    assert bare[surrounded(~scored)].mean() > 0.9
    assert f"{scored.sum()} cells of 64.0 px, probability" in session.printed("overlay")

    def steps(name: str) -> float:
        """The mean step of color at the edges of cells, beyond the slide's own."""
        over = session.picture(name) - (1 - OPACITY) * session.picture("bare")
        edge = CELL_PX // DOWNSAMPLE
        pairs = over[:, edge - 1 : -1 : edge], over[:, edge::edge]
        return float(np.abs(pairs[0] - pairs[1]).mean())

    assert steps("overlay") < 0.5 * steps("tiles")


@pytest.mark.qupath
@pytest.mark.slow
@pytest.mark.parametrize(("step", "probability"), [("same", 0.5), ("other", 0.7)])
@pytest.mark.parametrize("entry", ["1", "2"])
def test_contours_at_another_threshold_are_those_that_predict_would_draw(
    session: Session, entry: str, step: str, probability: float
) -> None:
    score_map, _ = session.made[entry]
    threshold = THRESHOLD + float(np.log(probability / (1 - probability))) / 4
    size = {"1": (3584, 8448), "2": (2048, 8448)}[entry]
    # The two simplify differently, by up to 4 um: one close to the least area may be in one alone.
    least_um2 = 1.1 * MIN_AREA_UM2
    meant = [
        contour
        for contour in predicted(score_map, entry, threshold, size).contours
        if contour.measurements[AREA_UM2] > least_um2
    ]
    found = session.contours(step, entry)
    assert [item["measurements"][NUMBER] for item in found] == list(range(1, len(found) + 1))
    found = [item for item in found if item["measurements"][AREA_UM2] > least_um2]
    assert [item["measurements"][NUMBER] for item in found] == [
        contour.measurements[NUMBER] for contour in meant
    ]
    assert {item["name"] for item in found} == {None}
    assert {item["class"] for item in found} == {"Tumor: qprd"}
    assert {item["parent"] for item in found} == {"root"}
    users = session.users(step, entry)
    for index, (item, contour) in enumerate(zip(found, meant, strict=True)):
        drawn = shapely.from_wkt(item["roi"])
        assert drawn.is_valid
        assert box(0, 0, *size).covers(drawn)
        both = drawn.intersection(contour.polygon).area / drawn.union(contour.polygon).area
        assert both > 0.96
        assert item["measurements"][AREA_UM2] == pytest.approx(
            drawn.area * score_map.mpp**2, rel=1e-4
        )
        for name in (MEAN_SCORE, MAX_SCORE, MEAN_PROBABILITY):
            assert item["measurements"][name] == pytest.approx(contour.measurements[name], abs=0.02)
        free = contour.id not in users
        assert item["id"] == (
            contour.id if free else object_id(BUNDLE, entry, f"contour/{index}", 1)
        )


@pytest.mark.qupath
@pytest.mark.slow
def test_tiles_get_the_class_of_the_contours_at_or_above_the_threshold(session: Session) -> None:
    for step, threshold in (("same", 0.5), ("other", 0.7), ("none", 1.1)):
        tiles = [item for item in session.objects(step).values() if is_tile(item)]
        for tile in tiles:
            above = tile["measurements"]["qprd: probability"] >= threshold
            assert tile["class"] == ("Tumor: qprd" if above else None)
            assert tile["color"] == TILE_COLOR
        above_all = sum(tile["class"] is not None for tile in tiles)
        assert f"{above_all} of {len(tiles)} tiles" in session.printed(step)
    assert session.contours("none") == []


@pytest.mark.qupath
@pytest.mark.slow
def test_the_threshold_of_an_image_stays_a_raw_score(session: Session) -> None:
    for step, probability in (("same", 0.5), ("other", 0.7), ("none", 1.1)):
        metadata = session.after[step]["1"]["metadata"]
        threshold = float(metadata["qprd: threshold"])
        assert float(metadata["qprd: probability threshold"]) == probability
        assert metadata["qprd: threshold set in"] == "QuPath"
        tiles = [item for item in session.after[step]["1"]["objects"] if is_tile(item)]
        for tile in tiles:
            above = tile["measurements"]["qprd: score"] >= threshold - 1e-4
            assert above == (tile["measurements"]["qprd: probability"] >= probability)


@pytest.mark.qupath
@pytest.mark.slow
def test_the_same_threshold_again_changes_nothing(session: Session) -> None:
    assert session.objects("repeated") == session.objects("other")
    count = len(session.contours("other"))
    earlier = "1 earlier one" if count == 1 else f"{count} earlier ones"
    told = f"{counted(count, 'contour')}, {earlier} replaced"
    assert told in session.printed("repeated")


@pytest.mark.qupath
@pytest.mark.slow
def test_what_a_person_did_stays_through_every_script(session: Session) -> None:
    before = session.users("import")
    assert ACCEPTED in before
    for step in ("tiles", "above", "overlay", "same"):
        assert session.users(step) == before
    person = session.users("person")
    assert len(person) == len(before) + 3
    (nested,) = (key for key, item in person.items() if item["name"] == "below a contour")
    assert person[nested]["parent"] != "root"
    for step in ("order", "other", "repeated"):
        if step != "order":
            person[nested]["parent"] = "root"
        assert session.users(step) == person
    answered = session.users("answered")
    for step in ("none", "removed", "empty"):
        assert session.users(step) == answered


@pytest.mark.qupath
@pytest.mark.slow
def test_an_answer_changes_the_class_of_what_is_shown_and_nothing_else(session: Session) -> None:
    before, after = session.objects("repeated"), session.objects("answered")
    (changed,) = (key for key in before if before[key] != after[key])
    assert after[changed] == {**before[changed], "class": "Tumor"}
    assert after[changed]["name"] == "1"
    (added,) = (item for key, item in after.items() if key not in before)
    assert (added["class"], added["parent"]) == ("Normal", "root")
    assert added["id"].startswith(OWN_ID)
    piece, contour = shapely.from_wkt(added["roi"]), session.contours("repeated")[0]
    assert shapely.from_wkt(contour["roi"]).buffer(1).contains(piece)
    mpp = session.made["1"][0].mpp
    assert max(piece.bounds[2] - piece.bounds[0], piece.bounds[3] - piece.bounds[1]) * mpp < 501

    mean = added["measurements"][MEAN_PROBABILITY]
    head, first, undone, second, centered, again, last = session.printed("answered").splitlines()
    count = int(head.split()[-4]) + 1
    assert head.endswith(f" to review; 1 is large: {count - 1} pieces of it")
    assert first == (
        f"1 of {count}, {count} without an answer | Region 1 | "
        "Accept gives it the class Tumor, Reject Normal."
    )
    assert undone == first
    told = f"Piece of contour 1, mean probability {mean:.3f}"
    assert second == (
        f"2 of {count}, {count - 1} without an answer | {told} | "
        "Accept gives it the class Tumor, Reject Normal."
    )
    assert centered == "true"
    assert again == (
        f"2 of {count}, {count - 2} without an answer | {told} | Its class is Tumor now."
    )
    assert last.startswith(f"3 of {count}, {count - 2} without an answer | Piece of contour 1")


@pytest.mark.qupath
@pytest.mark.slow
def test_removing_leaves_what_was_there_before(session: Session) -> None:
    for entry in ("1", "2"):
        assert not any(is_tile(item) for item in session.objects("removed", entry).values())
        assert session.contours("removed", entry) == []
        metadata = session.after["removed"][entry]["metadata"]
        assert metadata == {
            "split": "train" if entry == "1" else "val",
            "stain": "H&E",
            "qprd-review by Anna": "done",
        }
    assert "has no tiles of qprd" in session.printed("empty")


@pytest.mark.qupath
@pytest.mark.slow
def test_review_regions_come_first_and_then_the_least_certain_contours(session: Session) -> None:
    head, *lines = session.printed("order", "2").strip().splitlines()
    contours = session.contours("person", "2")
    assert head.startswith(
        f"qprd: colon_2.tif has 2 regions and {counted(len(contours), 'contour')} to review; "
    )
    assert lines[0].startswith("1. Region 1")
    assert lines[0].endswith("at (100, 110)")
    assert lines[1].startswith("2. Region 12")
    means = [float(line.split(" at (")[0].split()[-1]) for line in lines[2:]]
    assert means == sorted(means)
    # A contour that is long is asked about in pieces, the least certain first.
    mpp = session.made["2"][0].mpp
    small = {
        int(item["measurements"][NUMBER]) for item in contours if max(length_of(item)) * mpp <= 1000
    }
    told = [line.split(". ", 1)[1].split(", ")[0] for line in lines[2:]]
    assert {text for text in told if text.startswith("Contour")} == {f"Contour {n}" for n in small}
    pieces = [text for text in told if text.startswith("Piece of contour ")]
    assert len(pieces) + len(small) == len(told)
    assert 1 < len(pieces) <= 20
