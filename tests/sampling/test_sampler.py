from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon, box

from qprd.errors import QprdError
from qprd.sampling import sampler
from qprd.sampling.build import SlideRegions
from qprd.sampling.sampler import (
    iter_patches,
    patch_rng,
    sample_stratified,
    stratify,
)
from qprd.slides.tissue import TissueMask

BOUNDS = (0.0, 0.0, 2000.0, 2000.0)


def sample(
    region: MultiPolygon,
    tissue: TissueMask | None = None,
    *,
    n: int = 200,
    size_px: float = 50.0,
    seed: int = 0,
    **options: Any,
) -> NDArray[np.int64]:
    bounds = options.pop("bounds", BOUNDS)
    shares = {"min_coverage": 0.75, "max_overlap": 0.5, "min_tissue": 0.5, **options}
    rng = patch_rng(seed, "entry", "tumor")
    drawn = iter_patches(region, tissue, size_px=size_px, bounds=bounds, rng=rng, **shares)
    return np.array(list(itertools.islice(drawn, n)), dtype=np.int64).reshape(-1, 2)


def holed(x: float, y: float, radius: float) -> Polygon:
    disk = shapely.Point(x, y).buffer(radius)
    return disk.difference(shapely.Point(x + radius / 4, y).buffer(radius / 3))


random_regions = st.lists(
    st.builds(holed, st.floats(0, 2000), st.floats(0, 2000), st.floats(5, 400)),
    min_size=1,
    max_size=5,
).map(lambda parts: MultiPolygon(list(shapely.get_parts(shapely.union_all(parts)))))


@given(
    random_regions,
    st.floats(10, 90),
    st.sampled_from([0.3, 0.75, 1.0]),
    st.sampled_from([0.0, 0.25, 0.6]),
    st.integers(0, 50),
)
@settings(max_examples=40)
def test_patches_have_the_coverage_and_overlap_asked_for(
    region: MultiPolygon, size: float, coverage: float, overlap: float, seed: int
) -> None:
    xy = sample(region, n=60, size_px=size, seed=seed, min_coverage=coverage, max_overlap=overlap)
    assert xy.dtype == np.int64
    boxes = [box(x, y, x + size, y + size) for x, y in xy]
    for i, patch in enumerate(boxes):
        assert region.intersection(patch).area >= (coverage - 1e-6) * size**2
        assert box(*BOUNDS).covers(patch)
        for other in boxes[:i]:
            assert patch.intersection(other).area <= (overlap + 1e-6) * size**2


def test_patches_have_the_tissue_asked_for() -> None:
    mask = TissueMask(np.arange(200)[None, :].repeat(200, 0) < 100, 10.0, 1.0)
    xy = sample(MultiPolygon([box(*BOUNDS)]), mask, min_tissue=0.8)
    assert len(xy) == 200
    fractions = mask.fractions(xy[:, 0], xy[:, 1], 50.0)
    assert fractions.min() >= 0.8
    assert xy[:, 0].max() > 950


def test_a_seed_gives_the_same_patches_on_every_machine() -> None:
    region = MultiPolygon([holed(900, 900, 600), box(1600, 1600, 1900, 1900)])
    expected = [[976, 325], [547, 1187], [1325, 628], [685, 1106], [1188, 616], [736, 1399]]
    assert sample(region, n=6).tolist() == expected
    assert sample(region, n=6, seed=1).tolist() != expected


def test_fewer_patches_are_the_first_of_more() -> None:
    region = MultiPolygon([holed(900, 900, 600)])
    assert sample(region, n=40).tolist() == sample(region, n=120)[:40].tolist()


def test_patches_do_not_depend_on_the_order_of_polygons_and_vertices() -> None:
    one, two = holed(500, 500, 300), holed(1400, 1200, 400)
    rolled = Polygon(
        np.roll(np.array(one.exterior.coords)[:-1], 7, axis=0)[::-1],
        [np.array(ring.coords)[::-1] for ring in one.interiors],
    )
    here = sample(MultiPolygon([one, two]), n=500)
    there = sample(MultiPolygon([two, rolled]), n=500)
    assert here.tolist() == there.tolist()


def test_tiny_regions_in_a_huge_slide_are_found() -> None:
    parts = [box(x, x, x + 60, x + 60) for x in range(1000, 99_000, 7000)]
    xy = sample(MultiPolygon(parts), n=100, max_overlap=0.0, bounds=(0.0, 0.0, 1e5, 1e5))
    assert len(xy) == len(parts)


def test_a_full_region_gives_what_it_has() -> None:
    region = MultiPolygon([box(0, 0, 100, 100)])
    xy = sample(region, n=1000, max_overlap=0.0, min_coverage=1.0)
    assert 1 <= len(xy) <= 4


def test_a_region_smaller_than_the_coverage_gives_nothing() -> None:
    assert sample(MultiPolygon([box(100, 100, 110, 110)])).shape == (0, 2)
    assert sample(MultiPolygon()).shape == (0, 2)
    assert sample(MultiPolygon([box(*BOUNDS)]), bounds=(0.0, 0.0, 40.0, 40.0)).shape == (0, 2)


def test_a_patch_smaller_than_a_pixel_is_refused() -> None:
    with pytest.raises(QprdError, match="less than one"):
        sample(MultiPolygon([box(*BOUNDS)]), size_px=0.0)


def test_five_thousand_patches_from_twenty_thousand_polygons() -> None:
    rng = np.random.default_rng(1)
    corner = rng.integers(0, 1000, size=(20_000, 2)) + 1000 * np.array(
        [(i % 141, i // 141) for i in range(20_000)]
    )
    region = MultiPolygon([box(x, y, x + 300, y + 200) for x, y in corner if (x + y) % 3])
    region = MultiPolygon(list(shapely.get_parts(shapely.union_all(region.geoms))))
    xy = sample(region, n=5000, size_px=256.0, min_coverage=0.5, bounds=(0.0, 0.0, 2e5, 2e5))
    assert len(xy) == 5000


def test_the_narrow_band_of_the_real_slide_holds_three_hundred_patches(
    colon_slides: list[SlideRegions],
) -> None:
    slide = colon_slides[0]
    size = 128 * 0.5 / slide.mpp
    bounds = (0.0, 0.0, float(slide.width), float(slide.height))
    xy = sample(slide.regions.normal_region, slide.tissue, n=300, size_px=size, bounds=bounds)
    assert len(xy) == 300


counts = st.dictionaries(st.text(max_size=3), st.integers(0, 200), max_size=8)


@given(counts, st.integers(0, 900))
def test_shares_add_up_and_are_as_equal_as_can_be(available: dict[str, int], wanted: int) -> None:
    quotas = stratify(available, wanted)
    assert sum(quotas.values()) == min(wanted, sum(available.values()))
    assert all(0 <= quotas[s] <= available[s] for s in available)
    most = max(quotas.values(), default=0)
    assert all(quotas[s] >= most - 1 for s in available if quotas[s] < available[s])


@given(counts, st.integers(0, 900))
def test_drawing_from_slides_follows_their_shares(available: dict[str, int], wanted: int) -> None:
    begun = Counter[str]()

    def source(slide: str) -> Iterator[tuple[int, int]]:
        begun[slide] += 1
        return iter([(i, i) for i in range(available[slide])])

    sources = {slide: partial(source, slide) for slide in available}
    few, again = 100, 0
    for most in (few, again):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "_MOST_BEGUN", most)
            taken = sample_stratified(sources, wanted)
        assert {s: len(xy) for s, xy in taken.items()} == stratify(available, wanted)
        assert all(xy == [(i, i) for i in range(len(xy))] for xy in taken.values())
        if most == few:
            assert set(begun.values()) <= {1}
