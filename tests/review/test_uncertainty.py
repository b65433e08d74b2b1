"""Which regions are marked for review, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from qprd.predictions import ScoreMap
from qprd.review.uncertainty import UncertainSquare, in_order_of_review, uncertain_regions

CELL_PX, PATCH_PX = 64.0, 128.0
#: A region has three cells a side: 1.5 patches.
EDGE_PX = 192.0


def map_of(scores: NDArray[np.floating]) -> ScoreMap:
    return ScoreMap(scores.astype(np.float32), 0.0, 0.0, CELL_PX, 0.5)


def regions_of(scores: NDArray[np.floating], **options: object) -> list[UncertainSquare]:
    rows, columns = scores.shape
    settings_: dict[str, object] = {
        "patch_px": PATCH_PX,
        "width": int(columns * CELL_PX),
        "height": int(rows * CELL_PX),
        "limit": 100,
    }
    return uncertain_regions(map_of(scores), 0.5, **{**settings_, **options})  # type: ignore[arg-type]


scores_with_holes = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.one_of(st.floats(0, 1, width=32), st.just(np.nan)),
)


@settings(max_examples=60)
@given(scores_with_holes, st.integers(0, 5))
def test_regions_are_disjoint_inside_the_image_and_the_closest_comes_first(
    scores: NDArray[np.float32], most: int
) -> None:
    width, height = int(scores.shape[1] * CELL_PX) - 10, int(scores.shape[0] * CELL_PX) - 10
    found = regions_of(scores, limit=most, width=width, height=height)
    assert len(found) <= most
    distances = [region.distance for region in found]
    assert distances == sorted(distances)
    for number, region in enumerate(found):
        assert box(0, 0, width, height).covers(region.polygon)
        assert region.polygon.bounds[2] - region.polygon.bounds[0] <= EDGE_PX
        assert not any(region.polygon.intersects(other.polygon) for other in found[:number])
        assert found[:number] == regions_of(scores, limit=number, width=width, height=height)


def test_what_is_uniformly_uncertain_comes_before_the_border_of_tumor() -> None:
    scores = np.zeros((12, 24))
    scores[:, 8:] = 1.0  # a border that nobody doubts, and which crosses the threshold
    scores[4:9, 14:19] = 0.6
    (first,) = regions_of(scores, limit=1)
    assert box(14 * CELL_PX, 4 * CELL_PX, 19 * CELL_PX, 9 * CELL_PX).covers(first.polygon)
    assert first.polygon.area == EDGE_PX**2
    assert first.distance == pytest.approx(0.1)


def test_labeled_tissue_and_glass_are_not_asked_about() -> None:
    scores = np.full((12, 24), 0.9)
    scores[:, :6] = np.nan
    scores[2:7, 8:13] = 0.5
    scores[2:7, 16:21] = 0.55
    known = box(8 * CELL_PX, 2 * CELL_PX, 13 * CELL_PX, 7 * CELL_PX)
    free = regions_of(scores)
    assert known.contains(free[0].polygon)
    found = regions_of(scores, known=known)
    assert box(16 * CELL_PX, 2 * CELL_PX, 21 * CELL_PX, 7 * CELL_PX).covers(found[0].polygon)
    glass = box(0, 0, 6 * CELL_PX, 12 * CELL_PX)
    for region in found:
        assert not region.polygon.overlaps(known)
        assert region.polygon.intersection(glass).area <= 0.25 * region.polygon.area


def test_with_a_calibration_distances_are_those_of_probabilities() -> None:
    # In raw scores the second patch of tissue is closer to .5, in probability the first.
    scores = np.full((8, 24), 0.9)
    scores[2:6, 2:7] = 0.3
    scores[2:6, 14:19] = 0.65

    def probability_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
        bent = np.where(values < 0.5, 0.5 - (0.5 - values) / 10, values)
        return np.asarray(bent, np.float64)

    assert regions_of(scores)[0].polygon.bounds[0] > 10 * CELL_PX
    first = regions_of(scores, probability_of=probability_of)[0]
    assert first.polygon.bounds[2] < 10 * CELL_PX
    assert first.distance == pytest.approx(0.02, abs=1e-6)


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.floats(0, 1), max_size=6).map(sorted),
        max_size=4,
    ),
    st.integers(0, 20),
)
def test_the_order_takes_slides_in_turns(of_slides: dict[str, list[float]], most: int) -> None:
    given_ = {
        slide: [UncertainSquare(Polygon(), distance) for distance in distances]
        for slide, distances in of_slides.items()
    }
    ordered = in_order_of_review(given_, most)
    assert len(ordered) == min(most, sum(map(len, given_.values())))
    for slide, found in given_.items():
        own = [region for name, region in ordered if name == slide]
        assert own == found[: len(own)]
    counts = {slide: [name for name, _ in ordered].count(slide) for slide in given_}
    for slide, found in given_.items():
        # A slide with regions left has had as many turns as any other, but for the last round.
        if counts[slide] < len(found):
            assert counts[slide] >= max(counts.values()) - 1
