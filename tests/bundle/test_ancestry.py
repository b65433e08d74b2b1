"""What a bundle records of annotations, and what changed between two of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from shapely.affinity import translate
from shapely.geometry import Polygon, box

from qprd.bundle.ancestry import (
    AnnotationChanges,
    SlideAnnotations,
    annotation_changes,
    annotation_sha256,
    without_long_lists,
)

DIGESTS = [annotation_sha256("Tumor", box(0, 0, edge, 9)) for edge in (1, 2, 3)]

digests_by_id = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(DIGESTS))


def slide(drawn: dict[str, str], entry_id: str = "1") -> SlideAnnotations:
    return SlideAnnotations.of(entry_id, "a.svs", drawn.items())


def test_a_digest_is_of_class_and_outline_not_of_how_it_was_drawn() -> None:
    ring = [(0, 0), (4, 0), (4, 4), (0, 4)]
    same = [Polygon(ring), Polygon(ring[2:] + ring[:2]), Polygon(ring[::-1])]
    assert len({annotation_sha256("Tumor", outline) for outline in same}) == 1
    others = [
        annotation_sha256("Tumor", translate(same[0], 0.01)),
        annotation_sha256("Normal", same[0]),
        annotation_sha256(None, same[0]),
    ]
    assert len({annotation_sha256("Tumor", same[0]), *others}) == 4


@given(digests_by_id, digests_by_id)
def test_changes_add_up(before: dict[str, str], now: dict[str, str]) -> None:
    changes = annotation_changes([slide(before)], [slide(now)])
    assert changes == AnnotationChanges(
        new=len(now.keys() - before.keys()),
        changed=sum(before[key] != now[key] for key in before.keys() & now.keys()),
        gone=len(before.keys() - now.keys()),
    )
    assert (slide(before).sha256 == slide(now).sha256) == (before == now)


def test_the_same_id_on_another_slide_is_another_annotation() -> None:
    drawn = {"feature 1": DIGESTS[0]}
    changes = annotation_changes([slide(drawn, "1")], [slide(drawn, "1"), slide(drawn, "2")])
    assert changes == AnnotationChanges(new=1, changed=0, gone=0)


def test_ids_that_repeat_are_counted_each() -> None:
    twice = SlideAnnotations.of("1", "a.svs", [("x", DIGESTS[0]), ("x", DIGESTS[1])])
    once = SlideAnnotations.of("1", "a.svs", [("x", DIGESTS[0])])
    assert annotation_changes([twice], [once]) == AnnotationChanges(0, 0, 1)
    assert annotation_changes([once], [twice]) == AnnotationChanges(1, 0, 0)


def test_long_lists_become_digests_that_nothing_is_compared_with() -> None:
    slides = [slide(dict.fromkeys("abc", DIGESTS[0]), entry_id) for entry_id in "12"]
    assert without_long_lists(slides, limit=6) == tuple(slides)
    short = without_long_lists(slides, limit=5)
    assert [(s.count, s.sha256, s.annotations) for s in short] == [
        (s.count, s.sha256, ()) for s in slides
    ]
    assert annotation_changes(short, slides) is None
