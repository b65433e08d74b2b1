"""Annotations that cannot be used as drawn, or mean neither tumor nor normal."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import (
    GeometryCollection,
    LineString,
    MultiPoint,
    MultiPolygon,
    Point,
    Polygon,
    box,
)
from shapely.geometry.base import BaseGeometry

from qprd.qupath.project import Annotation
from tests.helpers.labels import ALL_TISSUE, TUMOR, drawn, label, reasons

SCRIBBLE = Polygon(np.random.default_rng(0).random((400, 2)) * 200 + 100)


def test_what_is_not_labeled_is_counted_by_class() -> None:
    result = label(
        TUMOR,
        *(drawn(box(400 + 20 * n, 400, 410 + 20 * n, 410), "tumor", str(n)) for n in range(5)),
        *(drawn(Point(700, 500 + n), None, f"p{n}") for n in range(2)),
    )
    assert (
        "5 annotations of class 'tumor' and 2 without a class are used as neither Tumor nor Normal"
    ) in reasons(result)


@pytest.mark.parametrize("class_name", ["Tissue", None])
def test_an_outline_around_labels_cuts_nothing(class_name: str | None) -> None:
    outline = drawn(box(0, 0, 600, 600), class_name)
    result = label(TUMOR, outline, tissue=ALL_TISSUE)
    assert result.normal_region.equals(label(TUMOR, tissue=ALL_TISSUE).normal_region)
    assert "neither" not in reasons(result)
    assert result.unlabeled.is_empty


def test_a_misspelled_class_around_a_label_is_no_outline() -> None:
    around = drawn(box(0, 0, 600, 600), "tumor")
    result = label(TUMOR, around, tissue=ALL_TISSUE)
    assert result.normal_region.intersection(around.geometry).area == 0
    assert "did you mean 'Tumor'?" in reasons(result)


def test_what_is_drawn_on_another_plane_is_left_out_and_said() -> None:
    deeper = Annotation("z", box(400, 400, 500, 500), "Tumor", plane=(3, 0))
    result = label(TUMOR, deeper, tissue=ALL_TISSUE)
    assert result.tumor_region.equals(TUMOR.geometry)
    assert result.normal_region.distance(deeper.geometry) >= 100.0
    assert "Tumor: An annotation is on the plane z 3, t 0, which is not scored." in reasons(result)


@pytest.mark.parametrize("declared", [False, True])
def test_tumor_marked_by_points_alone_makes_no_normal_tissue(declared: bool) -> None:
    point = drawn(Point(500, 400), "Tumor")
    result = label(point, tissue=ALL_TISSUE, unannotated_normal=declared)
    assert result.normal_region.is_empty
    assert "not taken as normal" in reasons(result)


def test_normal_tissue_keeps_away_from_tumor_marked_by_a_point() -> None:
    result = label(
        drawn(Point(500, 400), "Tumor"), drawn(box(0, 0, 50, 50), "Tumor"), tissue=ALL_TISSUE
    )
    assert result.normal_region.distance(Point(500, 400)) >= 100.0


@pytest.mark.parametrize("place", [Point(math.inf, 5), Polygon([(0, 0), (math.nan, 9), (9, 0)])])
def test_tumor_at_a_place_that_is_not_known_makes_no_normal_tissue(place: BaseGeometry) -> None:
    result = label(TUMOR, drawn(place, "Tumor", "b"), tissue=ALL_TISSUE)
    assert result.normal_region.is_empty
    assert "The place of one is not known" in reasons(result)


@pytest.mark.parametrize("known", [True, False])
def test_an_outline_that_cannot_be_read_is_named_and_no_place_for_normal_tissue(
    known: bool,
) -> None:
    place = MultiPoint([(500, 400), (510, 400)] if known else [])
    bad = Annotation("7", place, "Tumor", name="lesion 3", fault="it has two corners")
    result = label(drawn(box(0, 0, 50, 50), "Tumor"), bad, tissue=ALL_TISSUE)
    assert "Tumor: An annotation is left out, as it has two corners" in reasons(result)
    assert "lesion 3" in reasons(result)
    assert result.tumor_region.area == 2500
    if known:
        assert result.normal_region.distance(place) >= 100.0
    else:
        assert result.normal_region.is_empty
        assert "The place of one is not known" in reasons(result)
    stroma = label(drawn(box(0, 0, 50, 50), "Tumor"), replace(bad, class_name="Stroma"))
    assert "Stroma: An annotation is left out" in reasons(stroma)


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [
        ("Normal", "Normal: No outline of it is usable, so the tissue"),
        ("Region*", "Region*: No outline of what was looked at is usable, so the tissue"),
    ],
)
@pytest.mark.parametrize("fault", ["it has two corners", None])
def test_an_outline_that_limits_normal_tissue_and_is_lost_leaves_none(
    class_name: str, reason: str, fault: str | None
) -> None:
    lost = Annotation("7", Point(500, 400) if fault else SCRIBBLE, class_name, fault=fault)
    result = label(TUMOR, lost, tissue=ALL_TISSUE)
    assert result.normal_region.is_empty
    assert reason in reasons(result)
    another = drawn(box(200, 200, 400, 400), class_name, "b")
    limited = label(TUMOR, lost, another, tissue=ALL_TISSUE).normal_region
    assert limited.area > 0
    assert limited.difference(another.geometry).area == 0


@pytest.mark.parametrize("class_name", ["Tumor: qprd", "Ignore*"])
def test_normal_tissue_keeps_away_from_what_cannot_be_read(class_name: str) -> None:
    lost = Annotation("7", MultiPoint([(500, 400), (510, 400)]), class_name, fault="it is broken")
    result = label(TUMOR, lost, tissue=ALL_TISSUE)
    assert result.normal_region.distance(lost.geometry) >= 100.0
    assert result.normal_region.area > 0


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (Point(5, 5), "An annotation is left out, as a point or a line has no area."),
        (LineString([(0, 0), (50, 50)]), "a point or a line has no area"),
        (Polygon(), "it has no outline"),
        (LineString([(0, 0), (math.inf, 5)]), "its coordinates are not numbers"),
        (Polygon([(0, 0), (10, 10), (0, 0)]), "An outline without an area is left out"),
        (box(2000, 0, 2100, 100), "outside the image"),
    ],
)
def test_what_is_no_area_in_the_image_is_dropped_and_said(
    geometry: BaseGeometry, reason: str
) -> None:
    result = label(drawn(geometry, "Tumor"))
    assert result.tumor_region.is_empty
    assert reason in reasons(result)


def test_a_polygon_across_the_edge_is_clipped_and_said() -> None:
    result = label(drawn(box(-50, 0, 50, 100), "Tumor"))
    assert result.tumor_region.equals(box(0, 0, 50, 100))
    assert "An annotation is clipped at the edge of the image (5,000 px²)." in reasons(result)


def test_a_scribble_is_no_tumor_and_no_normal_tissue_either() -> None:
    other = box(600, 600, 700, 700)
    result = label(drawn(SCRIBBLE, "Tumor"), drawn(other, "Tumor", "b"), tissue=ALL_TISSUE)
    assert "crosses itself more than 500 times" in reasons(result)
    assert result.tumor_region.equals(other)
    assert not result.normal_region.intersects(box(150, 150, 250, 250))


def test_an_invalid_outline_is_repaired_and_said() -> None:
    bow_tie = Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    result = label(drawn(bow_tie, "Tumor"))
    assert result.tumor_region.is_valid
    assert result.tumor_region.area == 5000
    assert "repaired" in reasons(result)


def test_a_polygon_inside_another_of_the_same_annotation_is_a_hole_and_that_is_said() -> None:
    outer, hole, island = box(0, 0, 100, 100), box(10, 10, 90, 90), box(40, 40, 60, 60)
    apart, across = box(200, 0, 210, 10), box(90, 90, 110, 110)
    result = label(drawn(MultiPolygon([hole, apart, outer, across, island]), "Tumor"))
    assert result.tumor_region.area == 100**2 - 80**2 + 20**2 + 10**2 + 20**2 - 10**2
    assert "taken for holes" in reasons(result)
    twice = label(drawn(MultiPolygon([outer, outer]), "Tumor"))
    assert twice.tumor_region.equals(outer)
    # Annotations by themselves are no holes in each other.
    two = label(drawn(outer, "Tumor"), drawn(hole, "Tumor", "b"))
    assert two.tumor_region.equals(outer)
    assert "hole" not in reasons(twice) + reasons(two)


def test_a_thousand_nested_polygons_are_told_apart_in_time() -> None:
    nested = MultiPolygon([box(i, i, 9000 - i, 9000 - i) for i in range(1000)])
    started = time.perf_counter()
    assert label(drawn(nested, "Tumor")).tumor_region.area > 0
    assert time.perf_counter() - started < 30


def test_areas_of_mixed_collections_are_kept() -> None:
    mixed = GeometryCollection(
        [Point(1, 1), MultiPolygon([box(0, 0, 10, 10), box(20, 0, 30, 10)]), box(50, 0, 60, 10)]
    )
    result = label(drawn(mixed, "Tumor"))
    assert result.tumor_region.area == 300
    assert "Points or lines" in reasons(result)
