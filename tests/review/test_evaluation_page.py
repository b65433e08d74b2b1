from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from qprd.review.evaluation_page import (
    EvaluationContent,
    FigureRow,
    FigureTable,
    MistakeCard,
    Plot,
    SlideFigures,
    write_evaluation_page,
)
from tests.helpers.html_page import HOSTILE, Page


def content(text: str = "colon_2.tif") -> EvaluationContent:
    card = MistakeCard(text, 1234.4, 567.6, 617.2, 283.8, text, b"jpeg")
    return EvaluationContent(
        split="test",
        facts={text: text},
        warnings=(text,),
        tables=(FigureTable(text, text, (FigureRow(text, "0.971", "0.960-0.980", text),)),),
        plots=(Plot("ROC", b"png"), Plot("FROC", None, text)),
        slides=(SlideFigures(text, "tumor", "val", {text: text}),),
        false_positives=(card,),
        misses=(),
        no_mistakes=text,
    )


def test_the_page_shows_figures_curves_and_where_to_look(tmp_path: Path) -> None:
    page = Page(write_evaluation_page(tmp_path, content()))
    shown = " ".join(" ".join(page.texts).split())
    for text in ("0.971", "0.960-0.980", "x 1234, y 568 px (617, 284 µm)", "FROC: colon_2.tif."):
        assert text in shown
    assert (
        "getCurrentViewer().setDownsampleFactor(1)\n"
        "getCurrentViewer().setCenterPixelLocation(1234, 568)" in page.texts
    )
    pictures = [image["src"] for image in page.all("img")]
    assert pictures == [
        f"data:image/png;base64,{base64.b64encode(b'png').decode()}",
        f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}",
    ]
    assert all(image["alt"] for image in page.all("img"))
    assert {link["href"] for link in page.all("a")} == {"index.html"}
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.html"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_text_and_never_as_markup(tmp_path: Path, text: str) -> None:
    page = Page(write_evaluation_page(tmp_path, content(text)))
    plain = Page(write_evaluation_page(tmp_path, content("plain")))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.texts.count(text.replace("\udcff", "\N{REPLACEMENT CHARACTER}")) >= 8


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    empty = replace(content(), slides=(), false_positives=(), no_mistakes="There are none.")
    page = Page(write_evaluation_page(tmp_path, empty))
    assert page.texts.count("There are none.") == 2
