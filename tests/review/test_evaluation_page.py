from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qprd.review.pages import write_page
from tests.helpers.html_page import HOSTILE, Page


def evaluation_page(folder: Path, text: str = "colon_2.tif", **changes: Any) -> Page:
    card = SimpleNamespace(
        entry_id="2", slide=text, x=1234.4, y=567.6, mpp=0.5, score=text, jpeg=b"jpeg"
    )
    content: dict[str, Any] = {
        "split": "test",
        "facts": {text: text},
        "warnings": [text],
        "tables": [
            SimpleNamespace(title=text, basis=text, rows=[(text, "0.971", "0.960-0.980", text)])
        ],
        "plots": {"ROC": b"png", "FROC": text},
        "slide_table": [("slide", text), (text, "tumor")],
        "false_positives": [card],
        "misses": [],
        "has_threshold": False,
    }
    page = folder / "evaluation.html"
    return Page(write_page(page, "evaluation.html", **content | changes))


def test_the_page_shows_figures_curves_and_where_to_look(tmp_path: Path) -> None:
    page = evaluation_page(tmp_path)
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
    there = "../#slide=2&x=1234&y=568&downsample=1"
    assert [(link["href"], link.get("class")) for link in page.all("a")] == [
        ("index.html", None),
        (there, "served"),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.html"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_text_and_never_as_markup(tmp_path: Path, text: str) -> None:
    page = evaluation_page(tmp_path, text)
    plain = evaluation_page(tmp_path, "plain")
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert page.texts.count(text.replace("\udcff", "\N{REPLACEMENT CHARACTER}")) >= 7


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    without_threshold = evaluation_page(tmp_path, false_positives=[])
    reason = "Without a threshold nothing is called tumor or normal."
    assert without_threshold.texts.count(reason) == 2
    page = evaluation_page(tmp_path, false_positives=[], has_threshold=True)
    assert page.texts.count("There are none.") == 2
