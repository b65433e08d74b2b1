"""Turn lists of patch centers (lines ``name,x,y``) into patch tables.

    python examples/camelyon16/centers_to_patches.py PROJECT patches.csv --test test_patches.csv
        --tumor train_bad.txt test_bad.txt --normal train_good.txt test_good.txt

``patches.csv`` is for ``qprd train --patches``, ``test_patches.csv`` for ``score_patches.py``. A
patch's split is that of its slide in the project. Validation patches, of which there are no
published lists, are sampled from the project's validation slides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from challenge import listed
from qprd.errors import QprdError
from qprd.files.layout import find_project
from qprd.given_settings import train_config
from qprd.jobs.train.patches import prepare_patches
from qprd.progress import Progress, TerminalProgress, printable
from qprd.qupath.opening import open_project
from qprd.qupath.project import Entry, Project
from qprd.sampling.sampler import patch_rng, stratify
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import SPLITS, Split
from qprd.sampling.table import LABELS, MAX_ROWS, Label, Patch, PatchTable, check_splits_apart
from qprd.settings import TrainConfig

_CONFIG = Path(__file__).with_name("paper.toml")
_MAX_LINE = 1000
_MAX_DIGITS = 9


@dataclass(frozen=True)
class Center:
    """The center of a patch.

    Attributes:
        slide: Name of the slide, lower case, without ending.
        x: Level-0 pixels.
        y: Likewise.
    """

    slide: str
    x: int
    y: int


def read_centers(file: Path) -> list[Center]:
    """Read lines ``name,x,y``; empty ones are skipped.

    Raises:
        QprdError: it cannot be read, or a line is something else; it says which.
    """
    centers: list[Center] = []
    try:
        with file.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(_MAX_LINE):
                number += 1
                if line.strip():
                    centers.append(_center(line, f"{file}, line {number}"))
                if len(centers) > MAX_ROWS:
                    raise QprdError(f"More than {MAX_ROWS:,} centers.", where=str(file))
    except OSError as error:
        raise QprdError(f"This list cannot be read: {error.strerror}.", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise QprdError("This list is not UTF-8 text.", where=str(file)) from error
    if not centers:
        raise QprdError("This list is empty.", where=str(file))
    return centers


def _center(line: str, where: str) -> Center:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 3 or not cells[0] or not all(_is_pixel(cell) for cell in cells[1:]):
        raise QprdError(f"Not a line name,x,y: {line.strip()[:60]!r}.", where=where)
    return Center(Path(cells[0]).stem.lower(), int(cells[1]), int(cells[2]))


def _is_pixel(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def table_of_centers(
    project: Project,
    centers: Mapping[Label, Sequence[Center]],
    config: TrainConfig,
    *,
    progress: Progress,
) -> PatchTable:
    """Choose the training patches, add validation patches where the lists have none, and the rest.

    Training patches are shared out equally over the slides, as in the paper, and drawn by the
    seed; where a slide has too few, the others give more.

    Args:
        project: From ``build_project.py``: every entry has a split.
        centers: By label.
        config: ``normal``, ``tumor``, ``val_patches``, ``mpp``, ``patch_px``, ``seed``; the rules
            by which validation patches are sampled.
        progress: Shows what takes long.

    Raises:
        QprdError: too few centers, a slide without split, or a center outside of its slide.
    """
    entries = {Path(entry.name).stem.lower(): entry for entry in project.entries()}
    splits = {entry.id: _split(entry) for entry in entries.values()}
    chosen: dict[tuple[Split, Label], list[Patch]] = {}
    absent: dict[str, None] = {}
    for label in LABELS:
        for center in dict.fromkeys(centers.get(label, ())):
            entry = entries.get(center.slide)
            if entry is None:
                absent[center.slide] = None
            else:
                patch = _patch(entry, center, label, splits[entry.id], config)
                chosen.setdefault((patch.split, label), []).append(patch)
    for label in LABELS:
        wanted = config.most_training(label)
        listed_patches = chosen.get(("train", label), [])
        if len(listed_patches) < wanted:
            raise QprdError(
                f"The lists have {len(listed_patches)} {label} centers on training slides of the "
                f"project; {wanted} are wanted.",
                where=", ".join(sorted({patch.name for patch in listed_patches})) or None,
                fix=f"Add slides or lists, or ask for fewer with --train-{label}.",
            )
        chosen["train", label] = _share_out(listed_patches, wanted, label, config.seed)
    notes = [f"not in the project: {listed(absent)}"] if absent else []
    if not any(chosen.get(("val", label)) for label in LABELS):
        sampled = _validation(project, list(entries.values()), splits, config, progress)
        for label in LABELS:
            chosen["val", label] = list(sampled.subset("val", label).patches)
        notes += sampled.notes
    patches = [p for split in SPLITS for label in LABELS for p in chosen.get((split, label), [])]
    check_splits_apart(patches)
    return PatchTable(tuple(patches), tuple(notes))


def _split(entry: Entry) -> Split:
    split = metadata_split(entry.metadata, entry.name)
    if split is None:
        raise QprdError(
            "This image has no split.",
            where=entry.name,
            fix="Set its metadata 'split' to train, val or test.",
        )
    return split


def _patch(entry: Entry, center: Center, label: Label, split: Split, config: TrainConfig) -> Patch:
    width, height, mpp = entry.source.width, entry.source.height, entry.source.mpp
    if width is None or height is None or mpp is None:
        raise QprdError("The project does not know size and resolution.", where=entry.name)
    if center.x > width or center.y > height:
        raise QprdError(
            f"The center {center.x},{center.y} is outside of this image, which has {width} x "
            f"{height} px.",
            where=entry.name,
            fix="Check that the list is of this slide, at level 0.",
        )
    size_px = config.patch_px * config.mpp / mpp
    # As all patches of qprd, one at the edge is moved inside.
    x = max(0, min(round(center.x - size_px / 2), int(width - size_px)))
    y = max(0, min(round(center.y - size_px / 2), int(height - size_px)))
    return Patch(entry.id, entry.name, x, y, size_px, config.mpp, label, split)


def _share_out(patches: Sequence[Patch], wanted: int, label: Label, seed: int) -> list[Patch]:
    by_slide: dict[str, list[Patch]] = {}
    for patch in patches:
        by_slide.setdefault(patch.slide, []).append(patch)
    quotas = stratify({slide: len(own) for slide, own in by_slide.items()}, wanted)

    def drawn() -> Iterator[Patch]:
        for slide, own in by_slide.items():
            order = patch_rng(seed, slide, "train", label).random(len(own)).argsort(kind="stable")
            # The lists' own order is kept, which is the order of reading.
            yield from (own[i] for i in sorted(order[: quotas[slide]].tolist()))

    return list(drawn())


def _validation(
    project: Project,
    entries: Sequence[Entry],
    splits: Mapping[str, Split],
    config: TrainConfig,
    progress: Progress,
) -> PatchTable:
    images = tuple(entry.name for entry in entries if splits[entry.id] != "test")
    # One training patch, as only the validation patches are wanted.
    only_val = config.model_copy(update={"images": images, "normal": 1, "tumor": 1})
    prepared = prepare_patches(project, only_val, None, progress)
    return PatchTable(prepared.table.subset("val").patches, prepared.table.notes)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("table", type=Path, help="the CSV file to write")
    parser.add_argument("--test", type=Path, metavar="FILE", help="likewise for test patches")
    parser.add_argument("--tumor", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--normal", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument(
        "--config", type=Path, default=_CONFIG, metavar="FILE.toml", help="that of qprd train"
    )
    parser.add_argument("--train-tumor", type=int, metavar="N", help="default: the config's")
    parser.add_argument("--train-normal", type=int, metavar="N", help="default: the config's")
    parser.add_argument("--seed", type=int, metavar="N", help="which of the listed patches train")
    parser.add_argument("--backend", choices=["auto", "paquo", "exchange"], default="auto")
    arguments = parser.parse_args()
    config = train_config(
        {
            "tumor": arguments.train_tumor,
            "normal": arguments.train_normal,
            "seed": arguments.seed,
        },
        arguments.config,
    )
    centers: dict[Label, list[Center]] = {
        "tumor": [center for file in arguments.tumor for center in read_centers(file)],
        "normal": [center for file in arguments.normal for center in read_centers(file)],
    }
    project, _ = open_project(find_project(arguments.project), backend=arguments.backend)
    with project:
        table = table_of_centers(project, centers, config, progress=TerminalProgress())
    learned = PatchTable(table.subset("train").patches + table.subset("val").patches)
    test = table.subset("test")
    if len(test) and arguments.test is None:
        print(f"note: {len(test)} test patches left out; --test FILE writes them, too")
    for note in table.notes:
        print(printable(f"note: {note}"))
    _write(learned, arguments.table)
    if len(test) and arguments.test is not None:
        _write(test, arguments.test)


def _write(table: PatchTable, path: Path) -> None:
    try:
        table.to_csv(path)
    except OSError as error:
        raise QprdError(
            f"The table cannot be written: {error.strerror}.", where=str(path)
        ) from error
    counts = [f"{split}: {n} {label}" for (split, label), n in table.counts().items() if n]
    print(f"{path}: {', '.join(counts)}")


if __name__ == "__main__":
    try:
        main()
    except QprdError as error:
        sys.exit(printable(f"error: {error}"))
