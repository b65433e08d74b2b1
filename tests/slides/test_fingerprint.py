from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qprd.demo.slides import write_pyramidal_tiff
from qprd.errors import QprdError
from qprd.slides import fingerprint as module
from qprd.slides.fingerprint import KnownSlides, SlideIdentity, fingerprint
from tests.helpers.drawn_project import MPP, painted

ONE, OTHER = "1" * 32, "2" * 32


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    write_pyramidal_tiff(painted(0), path, MPP)
    return path


def test_a_copy_has_the_fingerprint_whatever_its_name_and_time(slide: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other folder" / "b.TIFF"
    copy.parent.mkdir()
    shutil.copyfile(slide, copy)
    assert fingerprint(copy) == fingerprint(slide)


def test_it_is_the_same_on_every_computer(shared_data: Path) -> None:
    """A value that was computed elsewhere: bundles and results move between computers."""
    assert fingerprint(shared_data / "slides" / "colon_1.tif") == "0d9d48821882bb77466d8cbfad2506dd"


@pytest.mark.parametrize("share", [5 / 9, 8 / 9, 1])
def test_other_bytes_are_another_slide(slide: Path, share: float) -> None:
    with slide.open("r+b") as file:
        size = 2**22
        file.truncate(size)  # TIFF readers pass over what is behind
    before = fingerprint(slide)
    with slide.open("r+b") as file:
        file.seek(min(int(share * size) + 1, size - 1))
        file.write(b"1")
    module._fingerprint.cache_clear()
    assert fingerprint(slide) != before


def test_other_pixels_at_a_corner_are_another_slide(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_bytes_at", lambda *_: b"")
    monkeypatch.setattr(module, "_file", lambda path: (path, 1, 1))
    pixels = painted(0)
    pixels[-200:, -200:] = 90
    write_pyramidal_tiff(pixels, tmp_path / "b.tif", MPP)
    assert fingerprint(tmp_path / "b.tif") != fingerprint(slide)
    write_pyramidal_tiff(np.pad(painted(0), ((0, 1), (0, 0), (0, 0))), tmp_path / "c.tif", MPP)
    assert fingerprint(tmp_path / "c.tif") != fingerprint(slide)


def test_little_is_read_and_only_once(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with slide.open("ab") as file:
        file.truncate(2**30)
    read: list[int] = []
    bytes_at = module._bytes_at

    def counted(*arguments: object) -> bytes:
        found = bytes_at(*arguments)  # type: ignore[arg-type]
        read.append(len(found))
        return found

    monkeypatch.setattr(module, "_bytes_at", counted)
    assert fingerprint(slide) == fingerprint(slide)
    assert sum(read) == 192 * 2**10


def test_a_mirax_slide_is_known_by_its_folder(slide: Path, tmp_path: Path) -> None:
    def mirax(name: str, pixels: bytes) -> Path:
        shutil.copyfile(slide, tmp_path / f"{name}.mrxs")
        (tmp_path / name).mkdir()
        (tmp_path / name / "Data0000.dat").write_bytes(pixels)
        (tmp_path / name / "Slidedat.ini").write_text("[GENERAL]")
        return tmp_path / f"{name}.mrxs"

    first, copy = mirax("a", b"1" * 10**6), mirax("b", b"1" * 10**6)
    other = mirax("c", b"2" * 10**6)
    for stray in (".DS_Store", "._Data0000.dat", "desktop.ini", "Thumbs.db"):
        (tmp_path / "b" / stray).write_bytes(b"1" * 9)
    assert fingerprint(first) == fingerprint(copy) != fingerprint(other)


@pytest.mark.parametrize("content", [None, b"no slide"])
def test_what_is_no_slide_has_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(QprdError):
        fingerprint(tmp_path / "a.svs")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (SlideIdentity("a", ONE), SlideIdentity("b", ONE), True),
        (SlideIdentity("a", ONE), SlideIdentity("a", OTHER), False),
        (SlideIdentity("a", ONE), SlideIdentity("a"), True),
        (SlideIdentity("a", ONE), SlideIdentity("b"), False),
        (SlideIdentity("u\u0308"), SlideIdentity("\u00fc"), True),
        (SlideIdentity("a", ONE, (0, 0, 9, 9)), SlideIdentity("b", ONE, (8, 8, 9, 9)), True),
        (SlideIdentity("a", ONE, (0, 0, 9, 9)), SlideIdentity("b", ONE, (9, 0, 9, 9)), False),
        (SlideIdentity("a", ONE, (0, 0, 9, 9)), SlideIdentity("b", ONE), True),
    ],
)
def test_names_count_only_without_fingerprints(
    one: SlideIdentity, other: SlideIdentity, same: bool
) -> None:
    assert one.is_same_as(other) == other.is_same_as(one) == same
    assert (one in KnownSlides([other])) == (other in KnownSlides([one])) == same


def test_parts_of_one_file_are_known_as_such() -> None:
    known = KnownSlides([SlideIdentity("a", ONE, (0, 0, 9, 9)), SlideIdentity("b")])
    assert known.has_file_of(SlideIdentity("c", ONE, (9, 0, 9, 9)))
    assert not known.has_file_of(SlideIdentity("c", OTHER))
    assert not known.has_file_of(SlideIdentity("c"))
