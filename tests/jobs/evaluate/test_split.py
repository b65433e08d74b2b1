from __future__ import annotations

from datetime import datetime, timezone

import pytest

from qprd.bundle.records import (
    BundleInfo,
    NetworkInfo,
    ScoringInfo,
    TeacherInfo,
    TrainingInfo,
)
from qprd.errors import QprdError
from qprd.jobs.evaluate.split import choose_slides
from qprd.qupath.project import Entry, SlideSource
from qprd.slides.fingerprint import SlideIdentity

TEACHER = TeacherInfo("efficientnet_lite0", "0" * 64, "wheel", (0.5,) * 3, (0.5,) * 3)
INFO = BundleInfo(
    name="bundle",
    network=NetworkInfo(TEACHER, "best", "discriminant", 0.5, 128),
    scoring=ScoringInfo("fields", "mean", 1.0),
    training=TrainingInfo(
        slides=tuple(map(SlideIdentity, ("trained", "both", "x" * 1000))),
        validation_slides=tuple(map(SlideIdentity, ("validated", "both"))),
    ),
    created=datetime(2026, 1, 1, tzinfo=timezone.utc),
)


def entry(name: str, split: str | None = None) -> Entry:
    metadata = {} if split is None else {"split": split}
    return Entry(name[:20], name, SlideSource("file:///x", None), metadata)


EVERY = [entry("trained"), entry("validated"), entry("both"), entry("new")]


def names(split: str | None, *entries: Entry) -> list[str]:
    chosen = choose_slides(entries, (), INFO, split)  # type: ignore[arg-type]
    return [e.name for e in chosen.entries]


def test_the_bundle_says_what_it_used() -> None:
    assert names("test", *EVERY) == ["new"]
    assert names("val", *EVERY) == ["validated"]
    assert names("all", *EVERY) == ["trained", "validated", "both", "new"]
    assert names(None, *EVERY) == ["new"]


@pytest.mark.parametrize("meant", [None, "train", "val", "test", " TEST "])
def test_what_was_trained_on_is_never_test_or_validation(meant: str | None) -> None:
    for name in ("trained", "both", "x" * 1000 + "and so on"):
        slide = entry(name, meant)
        for split in ("test", "val"):
            with pytest.raises(QprdError, match="no annotated"):
                names(split, slide)
        assert name not in names("test", slide, entry("new"))
        chosen = choose_slides([slide, entry("new")], (), INFO, "all")
        assert any("was trained on these" in note for note in chosen.notes)


def test_metadata_decide_where_the_bundle_does_not() -> None:
    slides = [entry("one", "val"), entry("two", "test"), entry("three", "train")]
    assert names("val", *slides) == ["one"]
    assert names("test", *slides) == ["two"]
    assert names("all", *slides) == ["one", "two", "three"]


def test_a_validation_slide_is_not_test_whatever_its_metadata_say() -> None:
    slide = entry("validated", "test")
    with pytest.raises(QprdError, match="no annotated test slides"):
        names("test", slide)
    chosen = choose_slides([slide], (), INFO, "val")
    assert any("its metadata say test, but the model was validated" in n for n in chosen.notes)


def test_validation_figures_are_said_to_be_optimistic() -> None:
    chosen = choose_slides([entry("validated"), entry("one", "val")], (), INFO, "val")
    (note,) = [note for note in chosen.notes if "optimistic" in note]
    assert "validated" in note
    assert "one" not in note


def test_without_test_slides_the_default_is_validation_and_says_so() -> None:
    chosen = choose_slides([entry("validated"), entry("trained")], (), INFO, None)
    assert (chosen.split, [e.name for e in chosen.entries]) == ("val", ["validated"])
    assert any("no annotated test slides" in note for note in chosen.notes)


def test_what_has_no_annotations_is_named() -> None:
    bare = [entry("blank"), entry("blank too", "test"), entry("not meant", "train")]
    chosen = choose_slides([entry("new")], bare, INFO, "test")
    (note,) = [note for note in chosen.notes if note.startswith("left out")]
    assert "blank, blank too" in note
    assert "not meant" not in note


@pytest.mark.parametrize(
    ("annotated", "bare", "asked", "told", "fix"),
    [
        (["trained"], [], None, "train (trained)", "--split all"),
        (["trained"], [], "test", "train (trained)", "--split all"),
        (["trained", "validated"], [], "test", "val (validated)", "--split val"),
        (["new"], [], "val", "test (new)", "--split test"),
        ([], ["blank"], "test", "without annotations (blank)", "Annotate slides"),
        ([], ["blank"], "all", "without annotations (blank)", "Annotate slides"),
        ([], [], None, "none", "Annotate slides"),
    ],
)
def test_an_empty_split_says_what_there_is(
    annotated: list[str], bare: list[str], asked: str | None, told: str, fix: str
) -> None:
    with pytest.raises(QprdError) as caught:
        choose_slides(
            [entry(name) for name in annotated],
            [entry(name) for name in bare],
            INFO,
            asked,  # type: ignore[arg-type]
        )
    assert told in caught.value.problem
    assert fix in (caught.value.fix or "")


def test_an_unknown_split_in_the_metadata_is_an_error() -> None:
    with pytest.raises(QprdError, match="not train, val or test"):
        names("test", entry("new", "tset"))
