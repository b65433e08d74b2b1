from __future__ import annotations

from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.qupath.entry_slides import open_slide, recorded_name, select_entries
from qprd.qupath.exchange import ExchangeProject
from qprd.qupath.project import Entry, SlideSource
from tests.helpers.drawn_project import HEIGHT, MPP, NAMES, WIDTH, edit


def entry(path: Path | None, **source: object) -> Entry:
    return Entry("1", "a.tif", SlideSource("file:/gone.tif", path, **source))  # type: ignore[arg-type]


def test_all_images_are_taken_unless_some_are_named(project: Path) -> None:
    with ExchangeProject(project) as opened:
        assert [e.name for e in select_entries(opened, ())] == list(NAMES)
        named = select_entries(opened, (NAMES[2], NAMES[0]))
        assert [e.name for e in named] == [NAMES[0], NAMES[2]]


def test_a_pattern_names_several_images(project: Path) -> None:
    with ExchangeProject(project) as opened:
        assert [e.name for e in select_entries(opened, ("*r*",))] == [n for n in NAMES if "r" in n]
        with pytest.raises(QprdError, match="no image 'x\\*'"):
            select_entries(opened, ("x*",))


def test_what_is_excluded_is_left_out_even_if_it_is_named(project: Path) -> None:
    with ExchangeProject(project) as opened:
        left = select_entries(opened, (), (NAMES[1],))
        assert [e.name for e in left] == [NAMES[0], NAMES[2]]
        left = select_entries(opened, NAMES[:2], ("f*",))
        assert [e.name for e in left] == [NAMES[1]]
        with pytest.raises(QprdError, match="no image 'x\\*'") as caught:
            select_entries(opened, (), ("x*",))
        assert caught.value.where == "--exclude"
        with pytest.raises(QprdError, match="No image is left"):
            select_entries(opened, (NAMES[0],), ("*",))


@pytest.mark.parametrize(("stored", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_the_same_name(
    project: Path, stored: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    name = "Präparat [2].tif"
    edit(project, lambda root: root["images"][0].update(imageName=normalize(stored, name)))
    edit(
        project,
        lambda root: root["images"][1].update(imageName=normalize(stored, "Präparat 2.tif")),
    )
    with ExchangeProject(project) as opened:
        (found,) = select_entries(opened, (normalize(asked, name),))
    assert found.name == normalize(stored, name)


def test_one_of_several_images_of_a_name_is_chosen_by_its_id(project: Path) -> None:
    edit(project, lambda root: root["images"][1].update(imageName=NAMES[0]))
    with ExchangeProject(project) as opened:
        first, second, _ = opened.entries()
        assert select_entries(opened, (NAMES[0],)) == [first, second]
        assert select_entries(opened, (f"id:{second.id}",)) == [second]
        assert select_entries(opened, (), (f"id:{second.id}",))[0] == first


@pytest.mark.parametrize(("name", "told"), [("frist.tif", "first.tif"), ("qq", "second.tif")])
def test_an_image_that_does_not_exist_is_told_with_those_that_do(
    project: Path, name: str, told: str
) -> None:
    with ExchangeProject(project) as opened, pytest.raises(QprdError) as caught:
        select_entries(opened, (name,))
    assert repr(name) in caught.value.problem
    assert told in (caught.value.fix or "")


def test_an_empty_project_is_said(project: Path) -> None:
    edit(project, lambda root: root.update(images=[]))
    with ExchangeProject(project) as opened, pytest.raises(QprdError, match="no images"):
        select_entries(opened, ())


def test_a_slide_opens_in_the_frame_of_the_project(project: Path) -> None:
    with ExchangeProject(project) as opened, open_slide(opened.entries()[0]) as slide:
        assert (slide.width, slide.height) == (WIDTH, HEIGHT)
        assert slide.mpp == pytest.approx(MPP)


def test_a_slide_that_has_moved_is_said_with_the_option_that_helps() -> None:
    with pytest.raises(QprdError, match=r"file:/gone\.tif") as caught:
        open_slide(entry(None))
    assert "--slides" in (caught.value.fix or "")


def test_what_cannot_be_used_says_why() -> None:
    with pytest.raises(QprdError, match="it is a stack") as caught:
        open_slide(entry(None, unsupported="it is a stack"))
    assert "--exclude" in (caught.value.fix or "")


def test_another_image_than_the_annotated_one_is_refused(project: Path) -> None:
    with ExchangeProject(project) as opened:
        path = opened.entries()[0].source.path
    with pytest.raises(QprdError, match=f"{WIDTH} x {HEIGHT} px; the project expects 100 x 200"):
        open_slide(entry(path, width=100, height=200, mpp=MPP))


@pytest.mark.parametrize("crop", [(9, 0, WIDTH, HEIGHT), (0, 0, 2**31 - 1, 2**31 - 1)])
def test_a_crop_that_reaches_out_of_the_slide_is_refused(
    project: Path, crop: tuple[int, int, int, int]
) -> None:
    with ExchangeProject(project) as opened:
        path = opened.entries()[0].source.path
    with pytest.raises(QprdError, match="reaches out of it"):
        open_slide(entry(path, crop=crop, mpp=MPP))
    with open_slide(entry(path, crop=(9, 0, WIDTH - 9, HEIGHT), mpp=MPP)) as slide:
        assert slide.width == WIDTH - 9


def test_a_slide_without_resolution_needs_one(shared_data: Path) -> None:
    path = shared_data / "slides" / "tcga-cr-7395_no-mpp.svs"
    with pytest.raises(QprdError, match="resolution") as caught:
        open_slide(entry(path))
    assert "--assume-mpp" in (caught.value.fix or "")
    with open_slide(entry(path), assume_mpp=0.25) as slide:
        assert slide.mpp == 0.25
    with open_slide(entry(path, mpp=0.4), assume_mpp=0.25) as slide:
        assert slide.mpp == 0.4  # what the project knows is not assumed otherwise


@pytest.mark.parametrize("mpp", [352.8, 0.0005])
def test_a_recorded_resolution_that_cannot_be_is_refused_unless_another_is_given(
    shared_data: Path, mpp: float
) -> None:
    path = shared_data / "slides" / "cmu-1-small-region.svs"
    with pytest.raises(QprdError, match=f"a pixel is {mpp} um wide") as caught:
        open_slide(entry(path, mpp=mpp))
    assert "--assume-mpp" in (caught.value.fix or "")
    with open_slide(entry(path, mpp=mpp), assume_mpp=0.25) as slide:
        assert slide.mpp == 0.25


def test_other_readers_are_trusted_where_they_show_the_same_frame(shared_data: Path) -> None:
    path = shared_data / "slides" / "cmu-1-small-region.svs"
    recorded = {"reader": "BioFormats", "use_bounds": False}
    with open_slide(entry(path, **recorded, file_size=(2220, 2967))) as slide:
        assert slide.uncropped_size == (2220, 2967)
    with pytest.raises(QprdError, match="2220 x 2967 px; the project expects 2220 x 2900"):
        open_slide(entry(path, **recorded, file_size=(2220, 2900)))
    with pytest.raises(QprdError, match="with BioFormats, and the project does not record its"):
        open_slide(entry(path, **recorded))


def test_only_the_reader_that_crops_to_bounds_has_a_cropped_frame(
    scn: tuple[Path, NDArray[np.uint8]],
) -> None:
    pixels = scn[1]
    cropped = entry(scn[0], reader="Openslide", file_size=(512, 768))
    with open_slide(cropped, assume_mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region(0, 0, 512, 768, None), pixels)
    whole = entry(scn[0], reader="BioFormats", use_bounds=False, file_size=(1200, 1600))
    with open_slide(whole, assume_mpp=0.5) as slide:
        np.testing.assert_array_equal(slide.read_region(96, 160, 512, 768, None), pixels)
    with pytest.raises(QprdError, match="512 x 768 px; the project expects 1200 x 1600"):
        open_slide(entry(scn[0], reader="BioFormats", file_size=(1200, 1600)))


def test_what_is_no_slide_is_an_error(shared_data: Path) -> None:
    with pytest.raises(QprdError):
        open_slide(entry(shared_data / "slides" / "broken.svs"))


def test_a_bundle_records_names_of_bounded_length() -> None:
    assert recorded_name("a.tif") == "a.tif"
    assert len(recorded_name("x" * 5000)) == 1000
