"""Make a QuPath project of Camelyon16 as the paper used it: 10 + 2 slides, and the test set.

    python examples/camelyon16/build_project.py CAMELYON16 PROJECT

CAMELYON16 is the folder of the data, its annotations unpacked; PROJECT a new folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from challenge import (
    MPP,
    PARTLY_ANNOTATED,
    TEST_SLIDES,
    TRAIN,
    VAL,
    Challenge,
    check_truth,
    find_challenge,
    listed,
)
from qprd.checked import Backend
from qprd.demo.creation import NewSlide, create_project
from qprd.errors import QprdError
from qprd.jobs.import_asap import import_asap
from qprd.progress import Progress, TerminalProgress, printable
from qprd.qupath.asap import read_asap
from qprd.qupath.opening import open_project
from qprd.slides.slide import Slide

_NOTHING_DRAWN = {"type": "FeatureCollection", "features": []}


def build_project(
    root: Path,
    folder: Path,
    *,
    train: Sequence[str] = TRAIN,
    val: Sequence[str] = VAL,
    mpp: float | None = MPP,
    backend: Backend = "auto",
    progress: Progress,
) -> list[str]:
    """Write a project whose entries have their split as metadata and their tumor as annotations.

    Args:
        root: A copy of Camelyon16.
        folder: New or empty.
        train: Names such as ``tumor_001`` or ``normal_001``.
        val: Likewise.
        mpp: Micrometres per level-0 pixel to record for all slides; None for what each one says.
        backend: Where annotations go: into QuPath's own data, or into exchange files.
        progress: Shows what takes long.

    Returns:
        What the user should know.

    Raises:
        QprdError: something is missing or contradicts itself; nothing is left behind.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QprdError("The folder is not empty.", where=str(folder), fix="Name a new folder.")
    challenge = find_challenge(root)
    splits = _splits(challenge, train, val)
    check_truth(challenge, splits)
    drawn = {name: challenge.annotations[name] for name in splits if name in challenge.annotations}
    for file in drawn.values():
        if not read_asap(file).tumor:
            raise QprdError("This file has no tumor.", where=str(file))
    new = [
        NewSlide(
            path=challenge.slides[name],
            mpp=mpp or _own_mpp(challenge.slides[name]),
            metadata={"split": split},
            annotations=_NOTHING_DRAWN,
        )
        for name, split in splits.items()
    ]
    existed = folder.exists()
    try:
        file = create_project(folder, new)
        images = {challenge.slides[name].name: xml for name, xml in drawn.items()}
        notes = _import(file, images, backend, progress)
    except BaseException:
        # Half of the annotations would make normal slides of the rest.
        shutil.rmtree(folder, ignore_errors=True)
        if existed:
            folder.mkdir(parents=True, exist_ok=True)
        raise
    return [*_warnings(challenge, splits), *notes]


def _splits(challenge: Challenge, train: Sequence[str], val: Sequence[str]) -> dict[str, str]:
    chosen = [*train, *val]
    twice = sorted({name for name in chosen if chosen.count(name) > 1})
    if twice:
        raise QprdError(f"{listed(twice)} cannot be used twice.", where="--train, --val")
    test = [name for name in chosen if name.startswith("test_")]
    if test:
        raise QprdError(f"Nothing is learned from test slides: {listed(test)}.", where="--train")
    missing = [name for name in chosen if name not in challenge.slides]
    if missing:
        raise QprdError(
            f"These slides are not here: {listed(missing)}.",
            where=str(challenge.root),
            fix="Download them, or name others with --train and --val.",
        )
    return {
        **dict.fromkeys(train, "train"),
        **dict.fromkeys(val, "val"),
        **dict.fromkeys(challenge.test, "test"),
    }


def _import(
    file: Path, drawn: Mapping[str, Path], backend: Backend, progress: Progress
) -> list[str]:
    """Give images the tumor of ASAP files."""
    noted: dict[str, list[str]] = {}
    opened, _ = open_project(file, backend=backend)
    with opened, progress.task("importing annotations", len(drawn)) as task:
        for image, xml in drawn.items():
            summary = import_asap(opened, xml, image=image)
            for note in summary.notes:
                noted.setdefault(note, []).append(image)
            task.advance()
    return [f"{note} ({listed(images)})" for note, images in noted.items()]


def _own_mpp(path: Path) -> float:
    with Slide(path) as slide:
        if slide.mpp is None:
            raise QprdError(
                "The slide does not state its resolution.", where=str(path), fix="Give --mpp UM."
            )
        return slide.mpp


def _warnings(challenge: Challenge, splits: dict[str, str]) -> list[str]:
    notes = []
    partly = [n for n, split in splits.items() if n in PARTLY_ANNOTATED and split != "test"]
    if partly:
        notes.append(
            f"not all tumor of these is annotated, says the README of the data: {listed(partly)}; "
            "some of their normal patches may be tumor"
        )
    test = challenge.test
    if len(test) != TEST_SLIDES:
        notes.append(
            f"{len(test)} of the {TEST_SLIDES} test slides are here: figures on them cannot be "
            "compared with published ones"
        )
    unknown = [n for n in test if n not in challenge.reference and n not in challenge.annotations]
    if unknown:
        notes.append(
            f"taken as free of tumor for want of an annotation file, as no reference.csv says so: "
            f"{listed(unknown)}"
        )
    return notes


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("camelyon16", type=Path, help="folder with training/ and testing/")
    parser.add_argument("project", type=Path, help="a new folder")
    parser.add_argument("--train", nargs="+", default=TRAIN, metavar="NAME", help="default: paper")
    parser.add_argument("--val", nargs="+", default=VAL, metavar="NAME", help=f"default: {VAL}")
    parser.add_argument(
        "--mpp",
        default=str(MPP),
        metavar="UM|slide",
        help="resolution to record for all slides (default: %(default)s, as the official "
        "evaluation does), or slide: what each one says",
    )
    parser.add_argument("--backend", choices=["auto", "paquo", "exchange"], default="auto")
    arguments = parser.parse_args()
    try:
        mpp = None if arguments.mpp == "slide" else float(arguments.mpp)
    except ValueError:
        parser.error(f"--mpp {arguments.mpp}: neither a number nor 'slide'")
    if mpp is not None and not 0 < mpp < 100:
        parser.error(f"--mpp {arguments.mpp}: not a resolution in um")
    notes = build_project(
        arguments.camelyon16,
        arguments.project,
        train=arguments.train,
        val=arguments.val,
        mpp=mpp,
        backend=arguments.backend,
        progress=TerminalProgress(),
    )
    for note in notes:
        print(printable(f"note: {note}"))
    print(f"Project: {arguments.project / 'project.qpproj'}")


if __name__ == "__main__":
    try:
        main()
    except QprdError as error:
        sys.exit(printable(f"error: {error}"))
