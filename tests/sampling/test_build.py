from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, box

from qprd.errors import QprdError
from qprd.sampling.build import SlideRegions, build_patch_table
from qprd.sampling.splits import Split
from qprd.sampling.table import PatchTable, check_splits_apart
from qprd.settings import TrainConfig
from qprd.slides.fingerprint import SlideIdentity
from tests.helpers.colon import regions


def slide(
    entry_id: str,
    *,
    tumor: float = 400,
    normal: float = 400,
    split: Split | None = None,
    mpp: float = 0.5,
) -> SlideRegions:
    """A 1000 px slide with a square of tumor and one of normal."""
    own = regions(
        MultiPolygon([box(0, 0, tumor, tumor)] if tumor else []),
        MultiPolygon([box(500, 500, 500 + normal, 500 + normal)] if normal else []),
    )
    identity = SlideIdentity(f"{entry_id}.svs")
    return SlideRegions.of(entry_id, identity, (1000, 1000, mpp), regions=own, metadata_split=split)


def build(slides: Sequence[SlideRegions], **options: Any) -> PatchTable:
    defaults: dict[str, Any] = {"normal": 20, "tumor": 5, "patch_px": 64, "mpp": 0.5, "seed": 0}
    return build_patch_table(slides, TrainConfig(**{**defaults, **options}))


def test_counts_are_met_and_validation_is_balanced() -> None:
    table = build([slide("1"), slide("2"), slide("3")], val_patches=15)
    counts = table.counts()
    assert (counts["train", "normal"], counts["train", "tumor"]) == (20, 5)
    assert (counts["val", "normal"], counts["val", "tumor"]) == (15, 15)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 90, 300]), st.sampled_from([0, 90, 300])),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 20),
    st.randoms(),
)
@settings(max_examples=25)
def test_splits_never_leak_and_order_does_not_matter(
    edges: list[tuple[int, int]], seed: int, random: Random
) -> None:
    slides = [slide(str(i), tumor=t, normal=n) for i, (t, n) in enumerate(edges)]
    try:
        table = build(slides, normal=3, tumor=1, seed=seed)
    except QprdError:
        return
    check_splits_apart(table.patches)
    for patch in table.patches:
        own = slides[int(patch.slide)].region(patch.label)
        square = box(patch.x, patch.y, patch.x + patch.size_px, patch.y + patch.size_px)
        assert own.intersection(square).area >= 0.75 * patch.size_px**2 - 1e-6
    random.shuffle(slides)
    assert build(slides, normal=3, tumor=1, seed=seed) == table


def test_one_big_slide_does_not_drown_the_others() -> None:
    small, big = slide("1", normal=150, split="train"), slide("2", normal=490, split="train")
    table = build([small, big, slide("3", split="val")], normal=30)
    own = Counter(p.slide for p in table.subset("train", "normal").patches)
    assert own["1"] == 15 or own["1"] < own["2"]
    assert own["1"] >= 5
    assert sum(own.values()) == 30


def reviewed_slide(
    entry_id: str, *, rejected: float = 100, split: Split | None = None
) -> SlideRegions:
    """`slide` with a part of its normal region rejected, and a part of its tumor accepted."""
    plain = slide(entry_id, split=split)
    own = dataclasses.replace(
        plain.regions,
        rejected=MultiPolygon([box(500, 500, 500 + rejected, 500 + rejected)]),
        accepted=MultiPolygon([box(0, 0, 200, 400)]),
    )
    frame = (plain.width, plain.height, plain.mpp)
    return SlideRegions.of(entry_id, plain.identity, frame, regions=own, metadata_split=split)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_rejected_regions_give_hard_normal_patches_up_to_their_share(fraction: float) -> None:
    slides = [reviewed_slide("1", split="train"), slide("2", split="val")]
    table = build(slides, normal=20, hard_fraction=fraction)
    plain = build(slides, normal=20)
    own = table.subset("train", "normal").patches
    assert len(own) == 20
    # A hundredth of the normal region is rejected: 1 patch in 16 may fall there by chance.
    hard = [p for p in own[: round(20 * fraction)] if p.reviewed]
    assert len(hard) >= min(round(20 * fraction), 4)
    assert sum(p.reviewed for p in own) <= round(20 * fraction) + 3
    for patch in own:
        square = box(patch.x, patch.y, patch.x + patch.size_px, patch.y + patch.size_px)
        covered = slides[0].regions.rejected.intersection(square).area / square.area
        assert patch.reviewed == (covered >= 0.75)
    for label in ("tumor", "normal"):
        assert table.subset("val", label) == plain.subset("val", label)


def test_without_reviewed_regions_the_share_changes_nothing() -> None:
    slides = [slide("1", split="train"), slide("2", split="val")]
    assert build(slides, hard_fraction=1.0) == build(slides)


def test_tumor_patches_in_accepted_regions_come_from_the_review() -> None:
    slides = [reviewed_slide("1", split="train"), slide("2", split="val")]
    first = build(slides, tumor=20, hard_fraction=0.5).subset("train", "tumor").patches[:10]
    assert all(patch.reviewed for patch in first)
    table = build(slides, tumor=20)
    tumor = table.subset("train", "tumor").patches
    assert {patch.reviewed for patch in tumor} == {True, False}
    assert all(patch.x < 200 for patch in tumor if patch.reviewed)
    assert not any(patch.reviewed for patch in table.subset("val").patches)


def test_plain_rd_still_validates_on_tumor() -> None:
    counts = build([slide("1"), slide("2")], tumor=0).counts()
    assert counts["train", "tumor"] == 0
    assert counts["val", "tumor"] == counts["val", "normal"] > 0


def test_too_few_patches_say_how_many_there_are_and_what_helps() -> None:
    with pytest.raises(QprdError) as caught:
        build([slide("1", tumor=100, split="train"), slide("2", split="val")], tumor=500)
    assert "of 500 tumor patches for train" in caught.value.problem
    assert (caught.value.where or "").startswith("1.svs: ")
    for option in ("--max-overlap", "--min-coverage", "--min-tissue", "--patch-px"):
        assert option in (caught.value.fix or "")


def test_without_a_number_all_patches_are_taken_and_their_number_is_said() -> None:
    slides = [slide("1", tumor=130, split="train"), slide("2", split="val")]
    table = build(slides, tumor=None)
    n_tumor = table.counts()["train", "tumor"]
    assert 4 <= n_tumor <= 20
    assert any(f"train has {n_tumor} tumor patches" in note for note in table.notes)
    assert build(slides, tumor=n_tumor).patches == table.patches
    with pytest.raises(QprdError, match=f"only {n_tumor} of {n_tumor + 1} tumor"):
        build(slides, tumor=n_tumor + 1)


def test_without_a_number_there_is_at_least_one_patch() -> None:
    slides = [slide("1", tumor=50, split="train"), slide("2", split="val")]
    with pytest.raises(QprdError, match="no tumor patches for train; 1 of the tumor areas"):
        build(slides, tumor=None)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 1.0])
def test_where_there_are_few_patches_reviewed_regions_keep_their_share(fraction: float) -> None:
    slides = [reviewed_slide("1", rejected=300, split="train"), slide("2", split="val")]
    table = build(slides, normal=None, hard_fraction=fraction)
    n_normal = table.counts()["train", "normal"]
    n_plain = build(slides, normal=None, hard_fraction=0.0).counts()["train", "normal"]
    assert n_normal - n_plain <= fraction * n_normal + 0.5
    assert (n_normal > n_plain) == (fraction > 0)


def test_regions_too_small_for_a_patch_are_named() -> None:
    with pytest.raises(QprdError, match="1 of the tumor areas are too small"):
        build([slide("1", tumor=20, split="train"), slide("2", split="val")])


def test_validation_without_tumor_is_said() -> None:
    table = build([slide("1", split="train"), slide("2", tumor=0, split="val")])
    assert any("no tumor patch for val" in note for note in table.notes)
    assert table.counts()["val", "normal"] > 0


def test_no_annotated_slide_is_an_error() -> None:
    with pytest.raises(QprdError, match="No slide has"):
        build([slide("1", tumor=0, normal=0)])


def test_a_single_slide_is_split_by_area_with_a_warning() -> None:
    own = regions(MultiPolygon([box(0, 0, 1000, 450)]), MultiPolygon([box(0, 550, 1000, 1000)]))
    only = SlideRegions.of("7", SlideIdentity("only.svs"), (1000, 1000, 0.5), regions=own)
    table = build([only, slide("8", tumor=0, normal=0)])
    assert any("only annotated slide" in note for note in table.notes)
    assert {p.split for p in table.patches} == {"train", "val"}
    check_splits_apart(table.patches)


def test_patches_are_as_large_as_the_resolution_asks() -> None:
    table = build([slide("1", mpp=0.25, split="train"), slide("2", split="val")])
    sizes = {p.slide: p.size_px for p in table.patches}
    assert sizes == {"1": 128.0, "2": 64.0}


def test_the_real_project_gives_the_patches_that_are_asked_for(
    colon_slides: list[SlideRegions], tmp_path: Path
) -> None:
    table = build(colon_slides, normal=300, tumor=30, patch_px=128, val_patches=300)
    counts = table.counts()
    assert (counts["train", "normal"], counts["train", "tumor"]) == (300, 30)
    assert (counts["val", "normal"], counts["val", "tumor"]) == (300, 300)
    assert {(p.slide, p.split) for p in table.patches} == {("1", "train"), ("2", "val")}
    table.to_csv(tmp_path / "patches.csv")
    assert PatchTable.from_csv(tmp_path / "patches.csv") == table


def test_the_real_project_with_a_single_slide(colon_slides: list[SlideRegions]) -> None:
    only = dataclasses.replace(colon_slides[1], metadata_split=None)
    table = build([only], normal=200, tumor=30, patch_px=128)
    check_splits_apart(table.patches)
    assert table.counts()["val", "tumor"] == table.counts()["val", "normal"] > 50


def test_a_test_slide_without_room_for_a_patch_does_not_stop_the_training() -> None:
    slides = [slide("1", split="train"), slide("2", split="val")]
    cramped = slide("3", tumor=20, normal=20, split="test")
    table = build([*slides, cramped])
    assert table.patches == build(slides).patches
    assert "There are no patches for test." in table.notes
