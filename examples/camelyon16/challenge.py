"""Facts of Camelyon16 that the protocol needs: file names, splits, what its README warns of."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qprd.errors import QprdError

#: The slides whose patches the authors of FRD published.
TRAIN = tuple(f"tumor_{n:03d}" for n in (1, 11, 22, 34, 45, 57, 70, 82, 95, 108))
#: The authors do not say which two slides they validated on. These are exhaustively annotated, of
#: either hospital, and have about 10 mm² of tumor.
VAL = ("tumor_016", "tumor_090")
#: A duplicate, and one that is not exhaustively annotated.
LEFT_OUT = frozenset({"test_049", "test_114"})
TEST_SLIDES = 128

#: What the official evaluation takes as the resolution of every slide, um per level-0 pixel.
MPP = 0.243

#: Training slides that hold tumor which is not annotated, says the README of the data.
PARTLY_ANNOTATED = frozenset(
    f"tumor_{n:03d}"
    for n in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
)

_NAME = re.compile(r"(normal|tumor|test)_\d{3}")
_MOST_NAMED = 10


@dataclass(frozen=True)
class Challenge:
    """The files of a copy of Camelyon16, by lower-case name without ending.

    Attributes:
        root: Its folder.
        slides: ``tumor_001`` and so on.
        annotations: ASAP files.
        reference: What the organizers say of test slides: True means tumor.
    """

    root: Path
    slides: Mapping[str, Path]
    annotations: Mapping[str, Path]
    reference: Mapping[str, bool]

    @property
    def test(self) -> tuple[str, ...]:
        """The test slides that are evaluated."""
        found = (name for name in self.slides if name.startswith("test_"))
        return tuple(sorted(name for name in found if name not in LEFT_OUT))


def find_challenge(root: Path) -> Challenge:
    """Find slides and annotations in any folder below ``root``: copies are laid out differently.

    Raises:
        QprdError: there is no such folder, no slide in it, or two files of one name.
    """
    if not root.is_dir():
        raise QprdError("There is no such folder.", where=str(root))
    slides = _by_name(root.rglob("*.tif"))
    if not slides:
        raise QprdError(
            "No slide of Camelyon16 (tumor_001.tif, normal_001.tif, test_001.tif) is here.",
            where=str(root),
            fix="Name the folder that holds training/ and testing/.",
        )
    reference: dict[str, bool] = {}
    for file in sorted(root.rglob("reference.csv")):
        reference.update(_read_reference(file))
    return Challenge(root, slides, _by_name(root.rglob("*.xml")), reference)


def check_truth(challenge: Challenge, names: Iterable[str]) -> None:
    """Check that a slide without annotations is one without tumor.

    A lost file would turn a slide with tumor into a normal one, and all of its detections into
    false positives.

    Raises:
        QprdError: a tumor slide has no annotations, or they contradict ``reference.csv``.
    """
    missing, unexpected = [], []
    for name in names:
        has_file = name in challenge.annotations
        has_tumor = challenge.reference.get(name, name.startswith("tumor_") or has_file)
        if has_tumor and not has_file:
            missing.append(name)
        elif has_file and not has_tumor:
            unexpected.append(name)
    if missing:
        raise QprdError(
            f"There are no annotations of {listed(missing)}, which have tumor.",
            where=str(challenge.root),
            fix="Unpack both lesion_annotations.zip below this folder.",
        )
    if unexpected:
        raise QprdError(
            f"There are annotations of {listed(unexpected)}, which have no tumor.",
            where=str(challenge.root),
        )


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _by_name(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(files):
        name = file.stem.lower()
        if not _NAME.fullmatch(name):
            continue
        if name in found:
            raise QprdError(
                f"There are two files of {name}.",
                where=f"{found[name]}, {file}",
                fix="Leave one of them below the folder.",
            )
        found[name] = file
    return dict(sorted(found.items()))


def _read_reference(file: Path) -> dict[str, bool]:
    """Slide and whether it has tumor; lines that say neither are headings."""
    # Copies of the file differ in their words.
    verdicts = {"tumor": True, "positive": True, "normal": False, "negative": False}
    found: dict[str, bool] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.reader(lines):
                cells = [cell.strip().lower() for cell in row]
                name = Path(cells[0]).stem if cells else ""
                said = [verdicts[cell] for cell in cells[1:] if cell in verdicts]
                if _NAME.fullmatch(name) and said:
                    found[name] = said[0]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QprdError(f"This file cannot be read: {error}.", where=str(file)) from error
    return found
