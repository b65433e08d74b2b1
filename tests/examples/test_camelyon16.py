"""The Camelyon16 protocol on an imitation with outlines of real lesions: splits, truth, lists."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch

import challenge
import rates as rates_module
from build_project import build_project
from centers_to_patches import Center, read_centers, table_of_centers
from imitation import MPP, imitate
from qprd.errors import QprdError
from qprd.given_settings import predict_config, train_config
from qprd.jobs.train.job import train_project
from qprd.progress import SilentProgress
from qprd.qupath.asap import read_asap
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import Entry
from qprd.review import training_plot
from qprd.sampling.table import Patch, PatchTable
from qprd.settings import TrainConfig
from rates import Rates, measure, protocol_steps
from score_patches import PatchMetrics, score_test_patches

EXAMPLE = Path(challenge.__file__).parent
TRAIN, VAL = ("tumor_001", "tumor_034"), ("tumor_016",)
TEST = ("test_001", "test_002", "test_049", "test_114")


@pytest.fixture(scope="session")
def data(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camelyon16") / "data"
    xml = sorted((shared_data / "camelyon16").glob("*.xml"))
    imitate(folder, xml, training=(*TRAIN, *VAL), test=TEST)
    return folder


def built(data: Path, folder: Path, **options: object) -> tuple[Path, list[str]]:
    settings: dict[str, object] = {"train": TRAIN, "val": VAL, "mpp": MPP, "backend": "exchange"}
    notes = build_project(data, folder, **(settings | options), progress=SilentProgress())  # type: ignore[arg-type]
    return folder / "project.qpproj", notes


@pytest.fixture(scope="session")
def project(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return built(data, tmp_path_factory.mktemp("built") / "project")


def copied(data: Path, folder: Path) -> Path:
    """A copy whose files can be changed; slides are linked."""
    shutil.copytree(data, folder, copy_function=os.link)
    return folder


def entries(project: Path) -> Mapping[str, Entry]:
    with ExchangeProject(project) as opened:
        return {entry.name: entry for entry in opened.entries()}


def test_slides_have_their_splits_and_the_test_set_lacks_049_and_114(
    project: tuple[Path, list[str]],
) -> None:
    found = {name: entry.metadata["split"] for name, entry in entries(project[0]).items()}
    assert found == {
        "tumor_001.tif": "train",
        "tumor_034.tif": "train",
        "tumor_016.tif": "val",
        "test_001.tif": "test",
        "test_002.tif": "test",
    }


def test_annotations_are_those_of_the_slides_own_file(
    project: tuple[Path, list[str]], data: Path
) -> None:
    with ExchangeProject(project[0]) as opened:
        for entry in opened.entries():
            drawn = list(opened.annotations(entry))
            assert opened.annotation_note(entry) is None
            (*file,) = data.rglob(f"{Path(entry.name).stem}.xml")
            if not file:
                assert (entry.name, drawn) == ("test_002.tif", [])
                continue
            expected = shapely.union_all([r.geometry for r in read_asap(file[0]).tumor])
            found = shapely.union_all([annotation.geometry for annotation in drawn])
            assert {annotation.class_name for annotation in drawn} == {"Tumor"}
            differing = shapely.symmetric_difference(found, expected).area
            assert differing < 0.01 * expected.area


def test_what_figures_depend_on_is_said(project: tuple[Path, list[str]]) -> None:
    notes = "\n".join(project[1])
    assert "not all tumor of these is annotated, says the README of the data: tumor_034;" in notes
    assert "2 of the 128 test slides are here" in notes
    assert "for want of an annotation file" not in notes


def test_the_resolution_of_all_slides_is_what_was_asked_for(data: Path, tmp_path: Path) -> None:
    as_evaluated, _ = built(data, tmp_path / "nominal", mpp=challenge.MPP, train=TRAIN[:1])
    assert {e.source.mpp for e in entries(as_evaluated).values()} == {0.243}
    own, _ = built(data, tmp_path / "own", mpp=None, train=TRAIN[:1])
    assert [e.source.mpp for e in entries(own).values()] == pytest.approx([MPP] * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": ("tumor_001", "tumor_003")}, "not here: tumor_003"),
        ({"val": ("tumor_001",)}, "tumor_001 cannot be used twice"),
        ({"train": ("tumor_001", "test_001")}, "Nothing is learned from test slides: test_001"),
    ],
)
def test_a_choice_of_slides_that_cannot_be_is_refused(
    data: Path, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(QprdError, match=said):
        built(data, tmp_path / "project", **options)
    assert not (tmp_path / "project").exists()


def test_a_lost_annotation_file_makes_no_slide_normal(data: Path, tmp_path: Path) -> None:
    copy = copied(data, tmp_path / "data")
    (copy / "testing" / "lesion_annotations" / "test_001.xml").unlink()
    with pytest.raises(QprdError, match="no annotations of test_001, which have tumor"):
        built(copy, tmp_path / "project")
    # Without the organizers' word nobody can know.
    (copy / "testing" / "reference.csv").unlink()
    _, notes = built(copy, tmp_path / "project")
    assert any("for want of an annotation file" in n and "test_001" in n for n in notes)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None", {"test_001": 1, "test_002": 0}),
        ("image,class,type\r\ntest_001.tif,negative,None\r\n", {"test_001": 0}),
        ("\ufefftest_001.tif , positive\n\ntest_002\n", {"test_001": 1}),
    ],
)
def test_the_organizers_word_is_read_in_any_of_its_spellings(
    data: Path, tmp_path: Path, lines: str, expected: dict[str, int]
) -> None:
    copy = copied(data, tmp_path / "data")
    (copy / "testing" / "reference.csv").unlink()
    (copy / "testing" / "reference.csv").write_bytes(lines.encode())
    assert challenge.find_challenge(copy).reference == expected


def test_annotations_of_a_slide_without_tumor_are_refused(data: Path, tmp_path: Path) -> None:
    copy = copied(data, tmp_path / "data")
    drawn = copy / "testing" / "lesion_annotations"
    shutil.copyfile(drawn / "test_001.xml", drawn / "test_002.xml")
    with pytest.raises(QprdError, match="annotations of test_002, which have no tumor"):
        built(copy, tmp_path / "project")


def test_a_failure_leaves_no_half_annotated_project(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, image: str) -> None:
        raise QprdError("broken", where=image)

    monkeypatch.setattr("build_project.import_asap", fails)
    with pytest.raises(QprdError, match="broken"):
        built(data, tmp_path / "project")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(QprdError, match="not empty"):
        built(data, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def config(**settings: object) -> TrainConfig:
    return train_config({"seed": 1, **settings}, EXAMPLE / "imitation.toml")


def table(project: Path, centers: Mapping[str, list[Center]], **settings: object) -> PatchTable:
    with ExchangeProject(project) as opened:
        return table_of_centers(
            opened,
            centers,  # type: ignore[arg-type]
            config(**settings),
            progress=SilentProgress(),
        )


def lists(data: Path) -> dict[str, list[Center]]:
    kinds = {"tumor": "bad", "normal": "good"}
    return {
        label: [
            center
            for split in ("train", "test")
            for center in read_centers(data / "coords" / f"{split}_{kind}.txt")
        ]
        for label, kind in kinds.items()
    }


def test_listed_centers_become_patches_of_their_slides_split(
    project: tuple[Path, list[str]], data: Path
) -> None:
    centers = lists(data)
    made = table(project[0], centers, tumor=11, normal=30, val_patches=4)
    counts = made.counts()
    n_test = {
        label: sum(center.slide in ("test_001", "test_002") for center in own)
        for label, own in centers.items()
    }
    assert counts == {
        ("train", "tumor"): 11,
        ("train", "normal"): 30,
        ("val", "tumor"): 4,
        ("val", "normal"): 4,
        ("test", "tumor"): n_test["tumor"],
        ("test", "normal"): n_test["normal"],
    }
    assert made.notes[0] == "not in the project: test_049, test_114"
    given = {(label, c.slide, c.x, c.y) for label, own in centers.items() for c in own}
    for patch in made.patches:
        assert patch.split == entries(project[0])[patch.name].metadata["split"]
        middle = round(patch.x + patch.size_px / 2), round(patch.y + patch.size_px / 2)
        if patch.split != "val":
            assert (patch.label, Path(patch.name).stem, *middle) in given


def test_training_patches_are_shared_out_over_the_slides_and_drawn_by_the_seed(
    project: tuple[Path, list[str]], data: Path
) -> None:
    def training(seed: int) -> list[Patch]:
        made = table(project[0], lists(data), tumor=4, normal=31, val_patches=1, seed=seed)
        return list(made.subset("train").patches)

    first = training(1)
    names = [p.name for p in first if p.label == "normal"]
    assert sorted(names.count(f"{name}.tif") for name in TRAIN) == [15, 16]
    assert first == training(1)
    assert first != training(2)


def test_a_center_at_the_edge_gives_a_patch_inside(project: tuple[Path, list[str]]) -> None:
    slide = entries(project[0])["tumor_001.tif"].source
    assert slide.width is not None
    assert slide.height is not None
    corners = [(x, y) for x in (0, slide.width) for y in (0, slide.height)]
    centers = {"normal": [Center("tumor_001", x, y) for x, y in corners]}
    made = table(project[0], centers, tumor=0, normal=4, val_patches=1).subset("train")
    assert {(p.x, p.y) for p in made.patches} == {
        (x, y) for x in (0, slide.width - 64) for y in (0, slide.height - 64)
    }
    centers["normal"][0] = Center("tumor_001", slide.width + 1, 0)
    with pytest.raises(QprdError, match="outside of this image"):
        table(project[0], centers, tumor=0, normal=4, val_patches=1)


def test_too_few_centers_are_not_made_up(project: tuple[Path, list[str]], data: Path) -> None:
    with pytest.raises(QprdError, match=r"\d+ tumor centers on training slides.*100 are wanted"):
        table(project[0], lists(data), tumor=100, normal=10, val_patches=1)


@pytest.mark.parametrize(
    "line",
    ["tumor_001,12", "tumor_001,12,-3", "tumor_001,1e3,4", ",1,2", "tumor_001,1,2,3", "x" * 5000],
)
def test_a_line_that_is_no_center_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"tumor_001,1,2\r\n\r\n{line}\n")
    with pytest.raises(QprdError, match="name,x,y") as raised:
        read_centers(file)
    assert raised.value.where == f"{file}, line 3"


def test_names_are_read_with_and_without_ending_and_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("Tumor_001,1,2\ntumor_001.tif , 3, 4")
    assert read_centers(file) == [Center("tumor_001", 1, 2), Center("tumor_001", 3, 4)]


def test_the_papers_settings_are_the_papers() -> None:
    settings = train_config({}, EXAMPLE / "paper.toml")
    assert (settings.teacher, settings.patch_px, settings.mpp) == (
        "wide_resnet50_2",
        256,
        challenge.MPP,
    )
    assert (settings.normal, settings.tumor, settings.epochs) == (5000, 500, 50)
    assert (settings.alpha, settings.gamma, settings.lr) == (0.1, 2.0, 1e-5)
    # Once there are recipes, the paper's has to be named.
    assert getattr(settings, "recipe", "paper") == "paper"
    assert predict_config({}, EXAMPLE / "paper.toml").stride == 64


@pytest.fixture(scope="session")
def trained(
    project: tuple[Path, list[str]], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, PatchTable]:
    """A copy of the project with a bundle, the bundle, and the patches of the lists."""
    pytest.importorskip("timm")
    copy = tmp_path_factory.mktemp("trained") / "project"
    shutil.copytree(project[0].parent, copy)
    made = table(copy / "project.qpproj", lists(data), tumor=4, normal=8, val_patches=4)
    learned = PatchTable(made.subset("train").patches + made.subset("val").patches)
    learned.to_csv(copy / "patches.csv")
    with (
        ExchangeProject(copy / "project.qpproj") as opened,
        pytest.MonkeyPatch.context() as mp,
    ):
        # The picture of the training is tested in tests/review.
        mp.setattr(training_plot, "figure_png", lambda *_, **_options: b"\x89PNG")
        summary = train_project(
            opened,
            config(epochs=1, batch_size=4, device="cpu"),
            patches=copy / "patches.csv",
            progress=SilentProgress(),
        )
    return copy / "project.qpproj", summary.bundle, made


def scored(trained: tuple[Path, Path, PatchTable], patches: list[Patch]) -> PatchMetrics:
    with ExchangeProject(trained[0]) as opened:
        return score_test_patches(
            opened,
            PatchTable(tuple(patches)),
            trained[1],
            device="cpu",
            progress=SilentProgress(),
        )


def test_listed_test_patches_are_scored_at_the_threshold_of_validation_patches(
    trained: tuple[Path, Path, PatchTable],
) -> None:
    test = trained[2].subset("test")
    normal, tumor = test.subset("test", "normal").patches, test.subset("test", "tumor").patches
    some = [*normal[:6], *normal[-6:], *tumor[:8]]
    found = scored(trained, some)
    info = json.loads((trained[1] / "bundle.json").read_text(encoding="utf-8"))
    assert (found.n_tumor, found.n_normal, found.n_slides) == (8, 12, 2)
    assert found.threshold == info["scoring"]["threshold"]
    # Of the same scores with every label turned around.
    other = {"tumor": "normal", "normal": "tumor"}
    turned = scored(trained, [replace(p, label=other[p.label]) for p in some])  # type: ignore[arg-type]
    for name in ("auroc", "accuracy"):
        value, opposite = found.metrics[name], turned.metrics[name]
        assert value is not None
        assert opposite is not None
        assert value + opposite == pytest.approx(1)
    assert found.metrics["sensitivity"] == pytest.approx(1 - (turned.metrics["specificity"] or 0))
    assert found.accuracy_at_2 is not None


def test_test_patches_that_a_model_must_not_be_measured_on_are_refused(
    trained: tuple[Path, Path, PatchTable],
) -> None:
    seen = [replace(p, split="test") for p in trained[2].patches if p.split != "test"]
    with pytest.raises(QprdError, match="has seen these test slides"):
        scored(trained, seen)
    with pytest.raises(QprdError, match="no test patches"):
        scored(trained, list(trained[2].subset("train").patches))
    coarser = [replace(p, mpp=2 * p.mpp) for p in trained[2].subset("test").patches]
    with pytest.raises(QprdError, match="works at 1"):
        scored(trained, coarser)


def test_rates_and_operations_are_measured(data: Path) -> None:
    pytest.importorskip("timm")
    slide = challenge.find_challenge(data).slides["tumor_001"]
    found = measure(config(batch_size=2), slide, patches=2, device="cpu")
    assert min(found.train, found.score, found.read) > 0
    # Forward through teacher and student, and backward through the student alone.
    assert found.score_flops < found.train_flops < 3 * found.score_flops
    with pytest.raises(QprdError, match=r"Only \d+ of 5000 patches"):
        measure(config(batch_size=2), slide, patches=5000, device="cpu")


def test_time_that_others_had_does_not_count_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(wall=0.0, cpu=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.wall)
    monkeypatch.setattr(time, "process_time", lambda: clock.cpu)
    processor = rates_module.Stopwatch(torch.device("cpu"), threads=2)
    gpu = rates_module.Stopwatch(torch.device("cuda"), threads=2)
    clock.wall, clock.cpu = 10.0, 5.0
    assert (processor.share, processor.seconds) == (0.25, 2.5)
    assert (gpu.share, gpu.seconds) == (1.0, 10.0)


def test_hours_follow_from_patches_operations_and_rates() -> None:
    rates = Rates("cpu", train=2.0, score=4.0, read=100.0, train_flops=3e9, score_flops=1e9)
    steps = protocol_steps(rates, train_config({}, EXAMPLE / "paper.toml"), tissue_mm2=50.0)
    training = steps[0]
    assert training.patches == 50 * 5500
    assert training.hours_here == pytest.approx(50 * 5500 / 2 / 3600)
    assert training.hours_at(10) == pytest.approx(50 * 5500 * 3e9 / 1e13 / 3600)
    finer, coarser = steps[-2:]
    assert finer.patches == pytest.approx(4 * coarser.patches)
    assert coarser.patches == pytest.approx(140 * 50e6 / (128 * 0.243) ** 2)


def test_every_command_of_the_readme_and_of_run_exists() -> None:
    text = (EXAMPLE / "README.md").read_text() + (EXAMPLE / "run.sh").read_text()
    scripts = {word.strip('"`()').rpartition("/")[2] for word in text.split() if ".py" in word}
    assert scripts
    assert all((EXAMPLE / name).is_file() for name in scripts if name.endswith(".py"))
    subprocess.run(["bash", "-n", EXAMPLE / "run.sh"], check=True)


def test_reference_and_annotations_agree_in_the_imitation(data: Path) -> None:
    found = challenge.find_challenge(data)
    assert found.reference == {
        "test_001": True,
        "test_002": False,
        "test_049": True,
        "test_114": False,
    }
    assert found.test == ("test_001", "test_002")
    assert json.dumps(sorted(found.annotations)) == json.dumps(
        sorted([*TRAIN, *VAL, "test_001", "test_049"])
    )


def test_imitated_lists_lie_on_what_they_say(data: Path) -> None:
    for name in TRAIN:
        (file,) = data.rglob(f"{name}.xml")
        tumor = shapely.union_all([region.geometry for region in read_asap(file).tumor])
        for label, own in lists(data).items():
            xy = np.array([(c.x, c.y) for c in own if c.slide == name])
            assert len(xy)
            inside = float(shapely.contains_xy(tumor, xy).mean())
            assert inside == pytest.approx(float(label == "tumor"), abs=0.1)
