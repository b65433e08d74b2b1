from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from qprd.errors import QprdError
from qprd.results.folder import OVERVIEW, PREDICTIONS, SLIDE, SlideResult
from qprd.review.index_page import SlideRow, write_index
from qprd.slides.frame import Frame
from tests.helpers.html_page import HOSTILE, Page

SUMMARY: dict[str, Any] = {
    "bundle": "colon-frd",
    "threshold": 1.5,
    "facts": {"Teacher": "efficientnet_lite0", "Date": "2026-11-22", "AUROC": "0.957"},
    "warnings": ("There are no validation slides.",),
}


RESULT = SlideResult(
    entry_id="2",
    image="colon_2.tif",
    bundle="colon-frd",
    created="",
    slide_score=2.5,
    slide_probability=0.984,
    threshold=1.5,
    tissue_um2=2e6,
    tumor_um2=5e5,
    tiles=9,
    contours=3,
    mpp=0.5,
    seconds=1.0,
    frame=Frame(0, 0, 1000, 1000),
)


def row(name: str, score: float | None = None, folder: str = "2") -> SlideRow:
    return SlideRow(folder, replace(RESULT, image=name, slide_score=score))


def test_page_shows_the_run_and_every_slide(tmp_path: Path) -> None:
    slide = SlideRow("2", RESULT, "val", ("The resolution was assumed.",))
    path = write_index(tmp_path, [slide], **SUMMARY)
    assert path == tmp_path / "index.html"
    page = Page(path)
    shown = " ".join(" ".join(page.texts).split())
    for text in (
        "efficientnet_lite0",
        "2026-11-22",
        "0.957",
        "There are no validation slides.",
        "The resolution was assumed.",
        "slide score 2.500 (probability 0.984) · threshold 1.500 · 3 contours, 0.500 mm²",
    ):
        assert text in shown
    [image] = page.all("img")
    assert image["src"] == "2/overview.png"
    assert "colon_2.tif" in (image["alt"] or "")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_text_and_never_as_markup(tmp_path: Path, name: str) -> None:
    def tag_names(text: str) -> list[str]:
        slide = SlideRow("2", replace(RESULT, image=text), text, (text,))
        page = Page(
            write_index(
                tmp_path,
                [slide],
                bundle=text,
                threshold=1.0,
                facts={text: text},
                warnings=[text],
                evaluation=("evaluation.html", text),
            )
        )
        assert page.texts.count(text.replace("\udcff", "\N{REPLACEMENT CHARACTER}")) >= 5
        assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
        return [tag for tag, _ in page.tags]

    assert tag_names(name) == tag_names("plain")


@pytest.mark.parametrize("folder", [name for name in HOSTILE if "/" not in name])
def test_links_lead_to_the_files_whatever_the_name_of_their_folder(
    tmp_path: Path, folder: str
) -> None:
    (tmp_path / folder).mkdir()
    files = [tmp_path / folder / name for name in (OVERVIEW, PREDICTIONS, SLIDE)]
    for file in files:
        file.write_bytes(b"")
    page = Page(write_index(tmp_path, [row("a", folder=folder)], **SUMMARY))
    reached = set()
    for link in page.links():
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query) == ("", "", "")
        if parts.path:
            target = tmp_path / unquote(parts.path, errors="surrogateescape")
            assert target.exists()
            reached.add(target)
        else:
            assert parts.fragment in {attributes.get("id") for _, attributes in page.tags}
    # The viewer, which shows the page below its own address and else hides the link.
    assert reached == {*files, tmp_path / ".."}


def test_page_refers_to_nothing_outside_its_folder(tmp_path: Path) -> None:
    path = write_index(tmp_path, [row("a", 1.0)], **SUMMARY)
    text = path.read_text()
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not Page(path).all("link")


def test_slides_come_by_descending_score_the_unscored_last(tmp_path: Path) -> None:
    rows = [row("none"), row("low", 0.5), row("high", 3.0), row("same b", 1.0), row("same a", 1.0)]
    page = Page(write_index(tmp_path, rows, **SUMMARY))
    names = [a["data-value"] for a in page.all("td") if "data-value" in a]
    assert [name for name in names if name] == ["high", "same a", "same b", "low", "none"]


def test_every_column_can_be_sorted_by_keyboard(tmp_path: Path) -> None:
    page = Page(write_index(tmp_path, [row("a", 1.0)], **SUMMARY))
    columns = len(page.all("th"))
    assert len(page.all("button")) == columns
    assert len([a for a in page.all("td") if {"data-value", "data-number"} & set(a)]) == columns


def test_scores_at_the_threshold_stand_out(tmp_path: Path) -> None:
    page = Page(write_index(tmp_path, [row("a", 1.5), row("b", 1.49)], **SUMMARY))
    marked = [a["data-number"] for a in page.all("td") if a.get("class") == "above"]
    assert marked == ["1.5"]


def test_tumor_fraction_without_tissue_is_unknown(tmp_path: Path) -> None:
    assert SlideRow("2", RESULT).tumor_percent == 25
    slide = SlideRow("2", replace(RESULT, tissue_um2=0.0))
    assert slide.tumor_percent is None
    page = Page(write_index(tmp_path, [slide], **SUMMARY))
    assert "\N{EN DASH}" in page.texts
    assert "nan" not in " ".join(page.texts).lower()


def test_no_slides_give_a_page_that_says_so(tmp_path: Path) -> None:
    assert "There are no slides." in Page(write_index(tmp_path, [], **SUMMARY)).texts


def test_an_older_page_is_replaced_and_nothing_left_behind(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("old")
    write_index(tmp_path, [row("a", 1.0)], **SUMMARY)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert "old" not in Page(tmp_path / "index.html").texts


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="cannot be written") as error:
        write_index(tmp_path / "missing", [], **SUMMARY)
    assert error.value.fix
