from __future__ import annotations

import re
from pathlib import Path

from tests.helpers.drawn_project import NAMES, predict, result, train


def page_of(project: Path) -> str:
    return (project.parent / "qprd" / "results" / "index.html").read_text(encoding="utf-8")


def test_the_page_shows_every_slide_also_those_predicted_earlier(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:1])
    assert NAMES[1] not in page_of(trained_project)
    summary = predict(trained_project, images=NAMES[1:])
    page = summary.index.read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)
    pictures = re.findall(r'<img[^>]+src="([^"]+)"', page)
    assert {"1/overview.png", "2/overview.png", "3/overview.png"} <= set(pictures)
    assert all((summary.index.parent / picture).is_file() for picture in pictures)
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_slides_the_model_was_trained_on_are_marked(trained_project: Path) -> None:
    predict(trained_project)
    page = page_of(trained_project)
    assert page.count("The model was trained on this slide.") == 1


def test_slides_of_an_earlier_bundle_are_marked(trained_project: Path) -> None:
    earlier = predict(trained_project, images=NAMES[:1]).bundle
    train(trained_project, seed=1)
    predict(trained_project, images=NAMES[1:2])
    assert f"Predicted earlier, with {earlier.name}." in page_of(trained_project)


def test_an_earlier_result_that_is_damaged_does_not_stop_a_prediction(
    trained_project: Path,
) -> None:
    predict(trained_project, images=NAMES[:1])
    (result(trained_project, 1) / "slide.json").write_text("{")
    summary = predict(trained_project, images=NAMES[1:2], write_back=True)
    assert summary.write_back is not None
    assert NAMES[1] in page_of(trained_project)
    assert "damaged" in page_of(trained_project)


def test_what_a_broken_off_write_left_is_not_shown(trained_project: Path) -> None:
    predict(trained_project, images=NAMES[:1])
    left = trained_project.parent / "qprd" / "results" / ".2.00000000-1-00000000.tmp"
    left.mkdir()
    (left / "slide.json").write_text("{")
    predict(trained_project, images=NAMES[:1])
    assert ".tmp" not in page_of(trained_project)
