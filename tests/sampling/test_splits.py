from __future__ import annotations

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, box

from qprd.errors import QprdError
from qprd.sampling.build import SlideRegions
from qprd.sampling.splits import (
    SPLITS,
    Split,
    SplitCandidate,
    apart_notes,
    assign_splits,
    cut_slide,
    splits_without,
)
from qprd.slides.fingerprint import SlideIdentity
from tests.helpers.colon import regions


def slide(
    entry_id: str, split: Split | None = None, *, tumor: bool = True, normal: bool = True
) -> SplitCandidate:
    return SplitCandidate(
        entry_id, SlideIdentity(f"{entry_id}.svs"), split, has_tumor=tumor, has_normal=normal
    )


slides = st.lists(
    st.builds(
        SplitCandidate,
        entry_id=st.text("0123456789", min_size=1, max_size=3),
        slide=st.just(SlideIdentity("slide")),
        metadata_split=st.none(),
        has_tumor=st.booleans(),
        has_normal=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda s: s.entry_id,
)


@given(slides, st.integers(0, 99), st.randoms())
def test_splits_do_not_depend_on_the_order_of_slides(
    found: list[SplitCandidate], seed: int, random: Random
) -> None:
    before = assign_splits(found, seed)
    random.shuffle(found)
    assert assign_splits(found, seed) == before


@given(slides, st.integers(0, 99), st.data())
def test_a_slide_that_cannot_be_read_moves_no_other_unless_a_split_would_be_empty(
    found: list[SplitCandidate], seed: int, data: st.DataObject
) -> None:
    left_out = [s for s in found if data.draw(st.booleans())]
    readable = [s for s in found if s not in left_out]
    whole = assign_splits(found, seed)
    splits, notes = splits_without(readable, left_out, seed)
    assert splits.keys() == {s.entry_id for s in readable if s.usable}
    moved = {s for s in splits if splits[s] != whole[s]}
    assert bool(moved) == bool(notes)
    if moved:
        assert splits == assign_splits(readable, seed)
        kept = {whole[s] for s in splits}
        trains_on_tumor = any(
            s.has_tumor and whole[s.entry_id] == "train" for s in readable if s.usable
        )
        assert not {"train", "val"} <= kept or not trains_on_tumor
    if len(splits) > 1:
        assert set(splits.values()) == {"train", "val"}


@given(slides, st.integers(0, 99))
def test_training_has_tumor_and_validation_has_a_slide(
    found: list[SplitCandidate], seed: int
) -> None:
    usable = [s for s in found if s.usable]
    assume(len(usable) >= 2)
    splits = assign_splits(found, seed)
    assert set(splits) == {s.entry_id for s in usable}
    train = [s for s in usable if splits[s.entry_id] == "train"]
    val = [s for s in usable if splits[s.entry_id] == "val"]
    assert train
    assert val
    if any(s.has_tumor for s in usable):
        assert any(s.has_tumor for s in train)
    if sum(s.has_tumor and s.has_normal for s in usable) >= 2:
        assert any(s.has_tumor and s.has_normal for s in val)
    if len(usable) >= 3 and sum(s.has_normal for s in usable) >= 2:
        assert any(s.has_normal for s in train)


@given(slides, st.integers(0, 9), st.data())
def test_metadata_wins(found: list[SplitCandidate], seed: int, data: st.DataObject) -> None:
    fixed: list[SplitCandidate] = []
    for s in found:
        split = data.draw(st.sampled_from([None, *SPLITS]))
        fixed.append(SplitCandidate(s.entry_id, s.slide, split, s.has_tumor, s.has_normal))
    usable = [s for s in fixed if s.usable]
    given = {s.entry_id: s.metadata_split for s in usable if s.metadata_split}
    free = [s for s in usable if s.entry_id not in given]
    has_tumor = any(s.has_tumor for s in usable if given.get(s.entry_id) == "train")
    wants_tumor = len(usable) > 1 and not has_tumor and any(s.has_tumor for s in free)
    needed = int("train" not in given.values() or wants_tumor)
    needed += len(usable) > 1 and "val" not in given.values()
    if usable and needed > len(free):
        with pytest.raises(QprdError, match="metadata 'split' leaves no slide"):
            assign_splits(fixed, seed)
        return
    splits = assign_splits(fixed, seed)
    for s in fixed:
        if s.usable and s.metadata_split:
            assert splits[s.entry_id] == s.metadata_split


def test_of_the_rest_four_fifths_train_and_one_validates() -> None:
    found = [slide(str(i), tumor=i < 20) for i in range(40)]
    splits = list(assign_splits(found, 0).values())
    assert abs(splits.count("train") - 32) <= 2
    assert abs(splits.count("val") - 8) <= 2


def test_another_seed_gives_other_splits() -> None:
    found = [slide(str(i)) for i in range(20)]
    assert len({tuple(assign_splits(found, seed).values()) for seed in range(10)}) > 1


def test_the_only_complete_slide_validates_if_another_has_tumor() -> None:
    found = [slide("1", normal=False), slide("2"), slide("3", tumor=False)]
    for seed in range(5):
        assert assign_splits(found, seed) == {"1": "train", "2": "val", "3": "train"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_metadata_without_training_or_validation_is_an_error(split: Split) -> None:
    with pytest.raises(QprdError, match="metadata 'split' leaves no slide for"):
        assign_splits([slide("1", split), slide("2", split)], 0)


def test_a_single_slide_is_cut_so_that_both_parts_have_both_labels() -> None:
    cut = cut_slide(
        regions(MultiPolygon([box(0, 0, 1000, 300)]), MultiPolygon([box(0, 600, 1000, 1000)])),
        1000,
        1000,
        size_px=50,
        val_fraction=0.25,
    )
    assert sorted(cut) == ["train", "val"]
    train, val = box(*cut["train"]), box(*cut["val"])
    assert train.intersection(val).area == 0
    assert val.area / (train.area + val.area) == pytest.approx(0.25, abs=0.02)


def test_a_slide_that_cannot_be_cut_is_an_error() -> None:
    with pytest.raises(QprdError, match="only one annotated slide"):
        cut_slide(
            regions(MultiPolygon([box(0, 0, 50, 50)]), MultiPolygon([box(900, 900, 999, 999)])),
            1000,
            1000,
            size_px=50,
        )


def test_the_real_slides_can_be_cut(colon_slides: list[SlideRegions]) -> None:
    for own in colon_slides:
        cut = cut_slide(own.regions, own.width, own.height, size_px=128)
        for region in (own.regions.tumor_region, own.regions.normal_region):
            share = region.intersection(box(*cut["val"])).area / region.area
            assert 0.05 < share < 0.5


def image(
    entry_id: str,
    fingerprint: str,
    split: Split | None = None,
    *,
    area: tuple[int, int, int, int] | None = None,
    labeled: bool = True,
) -> SplitCandidate:
    """An image of a slide; fingerprints are told apart by their first letter."""
    slide = SlideIdentity(f"{entry_id}.svs", fingerprint * 32, area)
    return SplitCandidate(entry_id, slide, split, has_tumor=labeled, has_normal=labeled)


LEFT, MIDDLE, RIGHT = (0, 0, 10, 10), (9, 0, 10, 10), (18, 0, 10, 10)


@pytest.mark.parametrize("seed", range(8))
def test_images_of_one_slide_are_in_one_split(seed: int) -> None:
    others = [image(str(number), letter) for number, letter in enumerate("bcdef", start=3)]
    duplicates = [image("1", "a"), image("2", "a")]
    splits = assign_splits([*duplicates, *others], seed)
    assert len(splits) == 7
    assert splits["1"] == splits["2"]
    # Parts of one file stay together as well, but where metadata say otherwise.
    crops = [image("1", "a", area=LEFT), image("2", "a", area=RIGHT)]
    splits = assign_splits([*crops, *others], seed)
    assert splits["1"] == splits["2"]
    assert apart_notes([*crops, *others], splits) == []


@pytest.mark.parametrize("labeled", [True, False])
def test_the_split_of_one_image_holds_for_all_of_its_slide(labeled: bool) -> None:
    found = [image("1", "a"), image("2", "a", "test", labeled=labeled), image("3", "b")]
    splits = assign_splits([*found, image("4", "c")], 0)
    assert splits["1"] == "test"
    assert ("2" in splits) == labeled


@pytest.mark.parametrize("labeled", [True, False])
def test_images_of_one_slide_in_different_splits_are_refused(labeled: bool) -> None:
    found = [image("1", "a", "train"), image("2", "a", "test", labeled=labeled)]
    with pytest.raises(QprdError, match=r"1\.svs \(id 1\) in train and 2\.svs \(id 2\) in test"):
        assign_splits([*found, image("3", "b", "val")], 0)
    # Crops that overlap through another one.
    crops = [
        image("1", "a", "train", area=LEFT),
        image("2", "a", "val", area=RIGHT),
        image("3", "a", area=MIDDLE),
    ]
    with pytest.raises(QprdError, match="different splits"):
        assign_splits([*crops, image("4", "b")], 0)


def test_crops_that_do_not_overlap_can_be_set_apart_and_that_is_said() -> None:
    crops = [image("1", "a", "train", area=LEFT), image("2", "a", "val", area=RIGHT)]
    undecided = image("3", "a", area=(40, 0, 10, 10))
    found = [*crops, undecided, image("4", "b"), image("5", "c")]
    splits = assign_splits(found, 0)
    assert (splits["1"], splits["2"], splits["3"]) == ("train", "val", "train")
    (note,) = apart_notes(found, splits)
    assert "1.svs (id 1) in train, 2.svs (id 2) in val" in note
    # Of an only file, the crops are all there is.
    only = [image("1", "a", area=LEFT), image("2", "a", area=RIGHT)]
    assert set(assign_splits(only, 0).values()) == {"train", "val"}


def test_an_only_slide_in_two_images_is_refused() -> None:
    with pytest.raises(QprdError, match=r"show one slide: 1\.svs \(id 1\), 2\.svs"):
        assign_splits([image("1", "a"), image("2", "a")], 0)
