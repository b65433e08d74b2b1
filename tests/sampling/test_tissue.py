"""Tissue as a person drew it, and what is said where nobody did."""

from __future__ import annotations

from pathlib import Path

import pytest
import shapely
from PIL import Image
from shapely.geometry import Point, box

from qprd.qupath.project import Annotation
from qprd.sampling.tissue import find_tissue_of
from qprd.settings import TrainConfig
from qprd.slides.slide import Slide
from qprd.slides.surface import Surface
from tests.helpers.stained_image import section

CONFIG = TrainConfig(tissue_class=("Tissue",))


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    """A section of 8 um per pixel, its middle at (200, 150)."""
    Image.fromarray(section()[0]).save(tmp_path / "slide.png")
    return Slide(tmp_path / "slide.png", mpp=8.0)


def test_what_is_drawn_as_tissue_is_all_the_tissue(slide: Slide) -> None:
    glass, half = box(0, 0, 20, 30), box(200, 0, 600, 300)
    drawn = [Annotation("a", glass, "Tissue"), Annotation("b", half, "Tissue: by threshold")]
    tissue, notes = find_tissue_of(slide, drawn, CONFIG)
    assert tissue.to_polygons().equals(glass | box(200, 0, 400, 300))
    assert tissue.surface is not None
    assert tissue.surface[150, 150] == Surface.OUTSIDE
    assert notes == []


@pytest.mark.parametrize(
    ("annotations", "hint", "lost"),
    [
        ([], "", []),
        ([Annotation("a", box(0, 0, 20, 30), "tissue")], " (did you mean 'tissue'?)", []),
        ([Annotation("a", Point(5, 5), "Tissue")], "", ["a point or a line has no area"]),
        ([Annotation("a", box(900, 0, 950, 30), "Tissue")], "", []),
    ],
)
def test_without_such_an_area_the_tissue_is_found_by_color_and_that_is_said(
    slide: Slide, annotations: list[Annotation], hint: str, lost: list[str]
) -> None:
    tissue, notes = find_tissue_of(slide, annotations, CONFIG)
    assert tissue.fractions(150, 100, 50) == 1
    assert [any(reason in note for note in notes) for reason in lost] == [True] * len(lost)
    assert notes[len(lost) :] == [
        f"no area of class 'Tissue' is drawn{hint}, so its tissue is found by color",
    ]


def test_drawn_tissue_that_cannot_be_used_is_named(slide: Slide) -> None:
    drawn = [
        Annotation("a", box(0, 0, 20, 30), "Tissue"),
        Annotation("b", Point(5, 5), "Tissue", name="left lobe", fault="it has two corners"),
    ]
    tissue, notes = find_tissue_of(slide, drawn, CONFIG)
    assert tissue.to_polygons().equals(box(0, 0, 20, 30))
    assert notes == [
        "Tissue: An annotation is left out, as it has two corners; draw it again or delete it "
        "(left lobe)."
    ]


def test_areas_of_pieces_and_gaps_are_settings(slide: Slide) -> None:
    whole, _ = find_tissue_of(slide, [], TrainConfig())
    nothing, _ = find_tissue_of(slide, [], TrainConfig(tissue_min_area_um2=1e9))
    filled, _ = find_tissue_of(slide, [], TrainConfig(tissue_max_gap_um2=1e9))
    assert not nothing.mask.any()
    assert 0 < whole.mask.mean() < 1
    assert filled.mask.all()


@pytest.mark.parametrize("backend", ["exchange", pytest.param("paquo", marks=pytest.mark.qupath)])
def test_both_backends_give_the_same_tissue(
    backend: str, colon_project: Path, shared_data: Path
) -> None:
    from qprd.qupath.exchange import ExchangeProject
    from qprd.qupath.paquo_backend import PaquoProject

    folder = shared_data / "qupath" / "colon" / "annotations"
    opened = (
        PaquoProject(colon_project)
        if backend == "paquo"
        else ExchangeProject(colon_project, annotations=folder)
    )
    config = TrainConfig(tumor_class=("Other",), tissue_class=("Tumor",))
    with opened, Slide(shared_data / "slides" / "colon_1.tif") as slide:
        annotations = opened.annotations(opened.entries()[0])
        tissue, _ = find_tissue_of(slide, annotations, config)
    drawn = shapely.union_all([a.geometry for a in annotations if a.class_name == "Tumor"])
    found = tissue.to_polygons()
    assert found.intersection(drawn).area / found.union(drawn).area > 0.98
