from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from qprd.errors import QprdError
from qprd.review.index_page import SlideRow, write_index
from tests.helpers.html_page import HOSTILE, Page

SUMMARY: dict[str, Any] = {
    "bundle": "colon-frd",
    "threshold": 1.5,
    "facts": {"Teacher": "efficientnet_lite0", "Date": "2026-11-22", "AUROC": "0.957"},
    "warnings": ("There are no validation slides.",),
}


def row(name: str, score: float | None = None) -> SlideRow:
    return SlideRow(name, slide_score=score)


def test_page_shows_the_run_and_every_slide(tmp_path: Path) -> None:
    slide = SlideRow(
        "colon_2.tif",
        PurePosixPath("2/heatmap.png"),
        slide_score=2.5,
        contours=3,
        tumor_area_mm2=0.5,
        tissue_area_mm2=2.0,
        split="val",
        warnings=("The resolution was assumed.",),
        slide_probability=0.984,
    )
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
    assert image["src"] == "2/heatmap.png"
    assert "colon_2.tif" in (image["alt"] or "")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_text_and_never_as_markup(tmp_path: Path, name: str) -> None:
    def tag_names(text: str) -> list[str]:
        slide = SlideRow(
            text,
            PurePosixPath("a.png"),
            split=text,
            warnings=(text,),
            files={text: PurePosixPath("a.geojson")},
        )
        page = Page(
            write_index(
                tmp_path,
                [slide],
                bundle=text,
                threshold=1.0,
                facts={text: text},
                warnings=[text],
                evaluation=(PurePosixPath("evaluation.html"), text),
            )
        )
        assert page.texts.count(text.replace("\udcff", "\N{REPLACEMENT CHARACTER}")) >= 5
        assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
        return [tag for tag, _ in page.tags]

    assert tag_names(name) == tag_names("plain")


@pytest.mark.parametrize("name", [name for name in HOSTILE if "/" not in name])
def test_links_lead_to_the_files_whatever_their_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "1").mkdir()
    files = [tmp_path / "1" / f"{name}{suffix}" for suffix in (".png", ".geojson")]
    for file in files:
        file.write_bytes(b"")
    relative = [PurePosixPath("1") / file.name for file in files]
    slide = SlideRow(name, relative[0], files={"contours": relative[1]})
    page = Page(write_index(tmp_path, [slide], **SUMMARY))
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


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "a/../../b.png", "."])
def test_files_outside_the_results_are_refused(tmp_path: Path, path: str) -> None:
    for slide in (
        SlideRow("a", PurePosixPath(path)),
        SlideRow("a", files={"contours": PurePosixPath(path)}),
    ):
        if path == "." and slide.picture is None:
            continue
        with pytest.raises(QprdError, match="inside the results folder"):
            write_index(tmp_path, [slide], **SUMMARY)
    assert list(tmp_path.iterdir()) == []


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
    assert SlideRow("a").tumor_percent is None
    assert SlideRow("a", tumor_area_mm2=1, tissue_area_mm2=4).tumor_percent == 25
    page = Page(write_index(tmp_path, [row("a")], **SUMMARY))
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
