"""The tumor and the normal region of a slide."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Point, Polygon, box

from qprd.qupath.project import Annotation
from qprd.sampling.build import SlideRegions
from qprd.sampling.regions import label_regions
from tests.helpers.labels import ALL_TISSUE, HEIGHT, TUMOR, WIDTH, drawn, label, reasons


def test_overlapping_tumor_polygons_and_derived_classes_become_one_region() -> None:
    result = label(
        drawn(box(0, 0, 100, 100), "Tumor"),
        drawn(box(50, 0, 150, 100), "Tumor: sub"),
        drawn(box(300, 300, 310, 310), None),
        drawn(box(400, 300, 410, 310), "Stroma"),
    )
    assert result.tumor_region.equals(box(0, 0, 150, 100))
    assert result.summary() == [
        "1 annotation without a class and 1 of class 'Stroma' are used as neither Tumor nor Normal "
        "(200 px²).",
        "Normal: None is drawn, and there is no tissue mask to take it from.",
    ]


def test_a_pending_prediction_is_neither_tumor_nor_normal() -> None:
    tumor = drawn(box(0, 0, 100, 100), "Tumor")
    pending = drawn(box(200, 200, 600, 600), "Tumor: qprd")
    without = label(tumor, tissue=ALL_TISSUE)
    result = label(tumor, pending, tissue=ALL_TISSUE)
    assert result.tumor_region.equals(without.tumor_region)
    assert result.normal_region.intersection(pending.geometry).area == 0
    assert without.normal_region.difference(pending.geometry).equals(result.normal_region)
    assert label(pending, tissue=ALL_TISSUE).normal_region.is_empty
    drawn_over = label(tumor, pending, drawn(box(300, 300, 400, 400), "Normal"), tissue=ALL_TISSUE)
    assert drawn_over.normal_region.equals(box(300, 300, 400, 400))


def test_a_rejected_contour_adds_to_the_normal_tissue_and_does_not_replace_it() -> None:
    tumor = drawn(box(0, 0, 100, 100), "Tumor")
    rejected = Annotation("r", box(120, 120, 180, 180), "Normal", predicted=True)
    without = label(tumor, tissue=ALL_TISSUE, margin_um=100)
    result = label(tumor, rejected, tissue=ALL_TISSUE, margin_um=100)
    assert result.normal_source == "tissue"
    assert result.normal_region.equals(without.normal_region.union(rejected.geometry))
    assert result.rejected.equals(rejected.geometry)
    assert result.accepted.is_empty
    alone = label(rejected, tissue=ALL_TISSUE)
    assert alone.normal_region.equals(rejected.geometry)
    over_tumor = Annotation("r", box(50, 0, 180, 100), "Normal", predicted=True)
    assert label(tumor, over_tumor).rejected.equals(box(100, 0, 180, 100))
    ignored = drawn(box(120, 120, 150, 180), "Ignore*")
    assert label(rejected, ignored).rejected.equals(box(150, 120, 180, 180))


def test_an_accepted_contour_is_tumor_as_drawn() -> None:
    accepted = Annotation("a", box(120, 120, 180, 180), "Tumor", predicted=True)
    result = label(accepted, drawn(box(0, 0, 50, 50), "Tumor"), tissue=ALL_TISSUE)
    assert result.tumor_region.equals(shapely.union(accepted.geometry, box(0, 0, 50, 50)))
    assert result.accepted.equals(accepted.geometry)


def test_ignored_regions_are_cut_out_of_both_and_said() -> None:
    result = label(
        drawn(box(0, 0, 100, 100), "Tumor"),
        drawn(box(200, 0, 300, 100), "Normal"),
        drawn(box(50, 0, 250, 100), "Ignore*"),
    )
    assert result.tumor_region.equals(box(0, 0, 50, 100))
    assert result.normal_region.equals(box(250, 0, 300, 100))
    assert reasons(result).count("An ignored class cuts out 50% of it (5,000 px²).") == 2


@pytest.mark.parametrize("class_name", ["tumor", "Tumour", None, "Stroma"])
def test_tissue_with_another_class_or_none_is_not_normal(class_name: str | None) -> None:
    other = drawn(box(400, 400, 500, 500), class_name)
    result = label(TUMOR, other, tissue=ALL_TISSUE, margin_um=30)
    assert result.normal_region.distance(other.geometry) >= 30
    assert result.tumor_region.equals(TUMOR.geometry)
    assert result.unlabeled.equals(other.geometry)
    told = f"of class {class_name!r}" if class_name else "without a class"
    assert f"1 annotation {told}" in reasons(result).replace("1 without", "1 annotation without")
    assert "used as neither Tumor nor Normal" in reasons(result)
    assert "(10,000 px²)" in reasons(result)
    assert ("did you mean 'Tumor'?" in reasons(result)) == (class_name in ("tumor", "Tumour"))


def test_drawn_normal_tissue_does_not_care_for_other_classes() -> None:
    normal = drawn(box(300, 300, 400, 400), "Normal")
    other = drawn(box(350, 300, 450, 400), "Stroma")
    result = label(TUMOR, normal, other, tissue=ALL_TISSUE)
    assert result.normal_region.equals(normal.geometry)


def test_labels_inside_an_area_that_was_looked_at_count() -> None:
    area = drawn(box(0, 0, 400, 400), "Region*")
    beside = drawn(box(600, 600, 700, 700), "Tumor", "b")
    result = label(TUMOR, beside, area, tissue=ALL_TISSUE, margin_um=50)
    assert result.tumor_region.equals(shapely.union(TUMOR.geometry, beside.geometry))
    assert result.normal_region.difference(area.geometry).area == 0
    assert result.normal_region.area > 0.7 * area.geometry.area
    with_normal = label(TUMOR, area, drawn(box(200, 200, 300, 300), "Normal"), tissue=ALL_TISSUE)
    assert with_normal.normal_region.equals(box(200, 200, 300, 300))


def test_tumor_wins_where_normal_overlaps_it_and_that_is_said() -> None:
    result = label(drawn(box(0, 0, 100, 100), "Tumor"), drawn(box(50, 0, 150, 100), "Normal"))
    assert result.tumor_region.equals(box(0, 0, 100, 100))
    assert result.normal_region.equals(box(100, 0, 150, 100))
    assert result.normal_source == "annotations"
    assert "Normal: What overlaps Tumor counts as Tumor (5,000 px²)." in reasons(result)


def test_holes_stay_holes() -> None:
    ring = Polygon(box(0, 0, 100, 100).exterior.coords, [box(40, 40, 60, 60).exterior.coords])
    assert label(drawn(ring, "Tumor")).tumor_region.equals(ring)


def test_undrawn_normal_is_tissue_outside_tumor_by_the_margin() -> None:
    tumor = box(0, 0, 200, 200)
    result = label(drawn(tumor, "Tumor"), tissue=ALL_TISSUE, mpp=2.0, margin_um=100.0)
    assert result.normal_source == "tissue"
    assert result.normal_region.distance(tumor) >= 50.0
    assert result.normal_region.contains(Point(210 + 60, 100))


@given(
    st.lists(
        st.tuples(st.floats(0, 900), st.floats(0, 700), st.floats(1, 90), st.integers(3, 40)),
        min_size=1,
        max_size=8,
    )
)
@example(circles=[(0.0, 9.0, 29.0, 9)])
@settings(max_examples=40)
def test_undrawn_normal_never_comes_closer_than_the_margin(
    circles: list[tuple[float, float, float, int]],
) -> None:
    polygons = [Point(x, y).buffer(r, quad_segs=q) for x, y, r, q in circles]
    result = label(*(drawn(p, "Tumor") for p in polygons), tissue=ALL_TISSUE, margin_um=30.0)
    if not result.normal_region.is_empty:
        assert result.normal_region.distance(result.tumor_region) >= 30.0 - 1e-6
    far = shapely.difference(box(0, 0, WIDTH, HEIGHT), shapely.union_all(polygons).buffer(40))
    assert far.difference(result.normal_region).area < 1e-6


@given(
    st.lists(
        st.tuples(st.floats(0.0, 2 * math.pi), st.floats(5, 90)),
        min_size=3,
        max_size=40,
        unique_by=lambda vertex: vertex[0],
    )
)
@settings(max_examples=100)
@example([(0.0, 5.0), (5.0, 5.0), (3.5, 5.0), (0.5, 5.0), (0.0625, 8.0)])
def test_the_margin_is_kept_around_jagged_outlines(vertices: list[tuple[float, float]]) -> None:
    star = Polygon(
        [(500 + r * math.cos(angle), 400 + r * math.sin(angle)) for angle, r in sorted(vertices)]
    )
    result = label(drawn(star, "Tumor"), tissue=ALL_TISSUE, margin_um=30.0)
    if result.normal_source == "tissue":
        assert result.normal_region.distance(result.tumor_region) >= 30.0 - 1e-6


def test_tissue_of_an_unannotated_slide_is_not_normal_unless_declared() -> None:
    assert label(tissue=ALL_TISSUE).normal_region.is_empty
    assert "probably not annotated yet" in reasons(label(tissue=ALL_TISSUE))
    declared = label(tissue=ALL_TISSUE, unannotated_normal=True)
    assert declared.normal_region.area == WIDTH * HEIGHT
    assert declared.normal_source == "tissue"


rings = st.lists(
    st.tuples(st.integers(-100, 1100), st.integers(-100, 900)), min_size=3, max_size=8
).map(Polygon)


classes = st.sampled_from(["Tumor", "Normal", "Ignore*", "Tumor: a", "Tumor: qprd", None])


@given(st.lists(st.tuples(rings, classes), max_size=8), st.randoms())
@settings(max_examples=60)
def test_regions_are_valid_apart_inside_and_independent_of_order(
    shapes: list[tuple[Polygon, str | None]], random: Random
) -> None:
    annotations = [drawn(g, c, str(i)) for i, (g, c) in enumerate(shapes)]
    result = label(*annotations, tissue=ALL_TISSUE, margin_um=20.0)
    image = box(0, 0, WIDTH, HEIGHT)
    for region in (result.tumor_region, result.normal_region):
        assert isinstance(region, MultiPolygon)
        assert region.is_valid
        assert region.difference(image).area < 1e-6
    assert overlap(result.tumor_region, result.normal_region) < 1e-6
    random.shuffle(annotations)
    other = label(*annotations, tissue=ALL_TISSUE, margin_um=20.0)
    assert result.tumor_region.symmetric_difference(other.tumor_region).area < 1e-6
    assert result.normal_region.symmetric_difference(other.normal_region).area < 1e-6


def overlap(one: MultiPolygon, other: MultiPolygon) -> float:
    """Area of two regions' overlap, as far as points of it lie in both.

    GEOS 3.14.1 reports an overlap of some regions that are apart; whether a point is in a region,
    it tells exactly.
    """
    reported = shapely.constrained_delaunay_triangles(one.intersection(other))
    triangles = shapely.get_parts(reported)
    centers = shapely.get_coordinates(shapely.centroid(triangles))
    is_in_both = shapely.contains_xy(one, centers) & shapely.contains_xy(other, centers)
    return float(shapely.area(triangles[is_in_both]).sum())


def test_an_overlap_is_seen_however_thin() -> None:
    one, other = MultiPolygon([box(0, 0, 10, 1000)]), MultiPolygon([box(9.999, 0, 20, 1000)])
    assert overlap(one, other) == pytest.approx(1)
    assert overlap(one, MultiPolygon([box(10, 0, 20, 10)])) == 0


def test_twenty_thousand_polygons_become_regions() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (99_900, 79_900), size=(20_000, 2))
    annotations = [
        drawn(box(x, y, x + 40, y + 40), "Tumor" if i % 2 else "Normal", str(i))
        for i, (x, y) in enumerate(corners.tolist())
    ]
    result = label_regions(annotations, 100_000, 80_000, mpp=0.25)
    tumor = shapely.union_all([a.geometry for a in annotations if a.class_name == "Tumor"])
    assert result.tumor_region.area == pytest.approx(tumor.area)
    assert result.normal_region.area > 0


def test_real_colon_annotations_lose_only_what_is_ignored(colon_slides: list[SlideRegions]) -> None:
    first, second = (slide.regions for slide in colon_slides)
    assert first.summary() == ["Tumor: An ignored class cuts out 1% of it (250,000 px²)."]
    assert first.tumor_region.area == pytest.approx(26_589_810 - 250_000, abs=1)
    assert first.normal_region.area == pytest.approx(2_576_106, abs=1)
    assert second.dropped == ()
    assert first.normal_source == second.normal_source == "annotations"


def test_tissue_of_the_real_slides_stands_in_for_the_drawn_normal(
    colon_slides: list[SlideRegions], colon_annotations: dict[str, list[Annotation]]
) -> None:
    for slide in colon_slides:
        tumor_only = [a for a in colon_annotations[slide.entry_id] if a.class_name != "Normal"]
        found = label_regions(
            tumor_only, slide.width, slide.height, mpp=slide.mpp, tissue=slide.tissue
        )
        overlap = found.normal_region.intersection(slide.regions.normal_region).area
        assert overlap / found.normal_region.union(slide.regions.normal_region).area > 0.75


@pytest.mark.parametrize("name", ["Tissue", "Tissue: by threshold", "Region*", "Ignore*"])
def test_the_outline_of_tissue_labels_nothing_and_keeps_nothing_away(name: str) -> None:
    tumor = drawn(box(100, 100, 300, 300), "Tumor")
    outline = drawn(box(500, 0, 1000, 800), name, "b")
    plain = label(tumor, tissue=ALL_TISSUE)
    classes = [name.split(":", maxsplit=1)[0]]
    found = label(tumor, outline, tissue=ALL_TISSUE, tissue_class=classes)
    assert (found.normal_region, found.tumor_region) == (plain.normal_region, plain.tumor_region)
    others = [found.unlabeled, found.areas, found.ignored]
    assert all(region.is_empty for region in others)
    assert found.summary() == plain.summary()
