"""Patch folders: ``labels.csv`` (id, label and, if wanted, split) and ``images/<id>.<ext>``."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from qprd.errors import QprdError
from qprd.sampling.splits import SPLITS, Split

LABELS_CSV = "labels.csv"
IMAGES = "images"
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")
_LABELS = {"0": False, "normal": False, "1": True, "tumor": True}
_EXAMPLES = 5
#: Larger images are slides rather than patches.
_MAX_EDGE_PX = 4096
#: Decoded patches kept in memory; beyond that they are read again when needed.
_MAX_CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class PatchFolder:
    """Labeled patches on disk, sorted by id.

    Attributes:
        path: The folder.
        ids: Names of the patches, (N,).
        files: Their images, (N,).
        tumor: bool, (N,).
        splits: What each is for, or None where the folder does not say.
        notes: What the user should know.
    """

    path: Path
    ids: tuple[str, ...]
    files: tuple[Path, ...]
    tumor: NDArray[np.bool_]
    splits: tuple[Split, ...] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class _Row:
    id: str
    tumor: bool
    split: Split | None
    line: int


def read_folder(path: Path) -> PatchFolder:
    """Read the labels of a patch folder and find its images; no pixel is decoded.

    Copies (files of the same bytes) would be in training and test at once, so only the first of
    them by id is used; none of them, if their labels differ.

    Raises:
        QprdError: the folder is not one; the message names the line and what to change.
    """
    csv_path = path / LABELS_CSV
    rows = sorted(_read_labels(csv_path), key=lambda row: row.id)
    files = _list_images(path / IMAGES)
    found = _find_images(files, path / IMAGES, rows)
    rows, notes = _without_copies(rows, found)
    unlabeled = len(files) - len(found)
    if unlabeled:
        notes.append(f"{unlabeled} images have no line in {LABELS_CSV} and are not used")
    tumor = np.array([row.tumor for row in rows])
    if tumor.all() or not tumor.any():
        missing = "normal patches (label 0)" if tumor.all() else "tumor patches (label 1)"
        raise QprdError(f"There are no {missing}.", where=str(csv_path))
    return PatchFolder(
        path,
        tuple(row.id for row in rows),
        tuple(found[row.id] for row in rows),
        tumor,
        _splits(rows, csv_path),
        tuple(notes),
    )


def _read_labels(path: Path) -> list[_Row]:
    try:
        # Spreadsheet programs put a byte order mark before the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse_labels(csv.DictReader(file, strict=True), path)
    except OSError as error:
        raise QprdError(
            f"The labels cannot be read: {error.strerror}.",
            where=str(path),
            fix=f"--data takes a folder with {LABELS_CSV} (id,label) and {IMAGES}/<id>.<ext>.",
        ) from error
    except UnicodeDecodeError as error:
        raise QprdError("The labels are not UTF-8 text.", where=str(path)) from error
    except csv.Error as error:
        raise QprdError(f"Not a CSV file: {error}.", where=str(path)) from error


def _parse_labels(reader: csv.DictReader[str], path: Path) -> list[_Row]:
    columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if "id" not in columns or "label" not in columns:
        raise QprdError(
            f"The columns are {', '.join(columns) or 'missing'}; id and label are needed.",
            where=f"{path}, line 1",
            fix="The first line should be: id,label",
        )
    reader.fieldnames = columns
    rows: dict[str, _Row] = {}
    for values in reader:
        if not any(value for value in values.values()):
            continue
        row = _parse_row(values, path, reader.line_num)
        if row.id in rows:
            raise QprdError(
                f"The id {row.id!r} is there twice, first in line {rows[row.id].line}.",
                where=f"{path}, line {row.line}",
                fix="Remove one of the two lines.",
            )
        rows[row.id] = row
    if not rows:
        raise QprdError("There are no labels after the first line.", where=str(path))
    return list(rows.values())


def _parse_row(values: Mapping[str, str | None], path: Path, line: int) -> _Row:
    where = f"{path}, line {line}"
    name, label = (values["id"] or "").strip(), (values["label"] or "").strip().lower()
    if not name or "/" in name or "\\" in name or "\0" in name:
        raise QprdError(
            f"The id {name!r} cannot be the name of an image.",
            where=where,
            fix=f"Ids are file names in {IMAGES}/, without the ending and without folders.",
        )
    if label not in _LABELS:
        raise QprdError(
            f"The label of {name!r} is {values['label']!r}.",
            where=where,
            fix="Labels are 0 (normal) and 1 (tumor).",
        )
    text = (values.get("split") or "").strip().lower()
    split = next((known for known in SPLITS if known == text), None)
    if text and split is None:
        raise QprdError(
            f"The split of {name!r} is {text!r}.", where=where, fix="Splits are train, val, test."
        )
    return _Row(name, _LABELS[label], split, line)


def _splits(rows: Sequence[_Row], path: Path) -> tuple[Split, ...] | None:
    given = [row.split for row in rows if row.split is not None]
    if not given:
        return None
    if len(given) < len(rows):
        first = next(row for row in rows if row.split is None)
        raise QprdError(
            f"{len(given)} patches have a split, and {len(rows) - len(given)} have none.",
            where=f"{path}, line {first.line}",
            fix="Fill in the column split everywhere, or remove it.",
        )
    kinds = Counter((row.split, row.tumor) for row in rows)
    for split in SPLITS:
        for tumor in (False, True):
            # Normal patches alone can be trained on; held-out ones are of both labels.
            if not kinds[split, tumor] and not (split == "train" and tumor):
                label = "tumor" if tumor else "normal"
                raise QprdError(
                    f"The split {split} has no {label} patches.",
                    where=str(path),
                    fix="Give it some, or remove the column split.",
                )
    return tuple(given)


def _list_images(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise QprdError(
            f"The images cannot be listed: {error.strerror}.",
            where=str(folder),
            fix=f"--data takes a folder with {LABELS_CSV} (id,label) and {IMAGES}/<id>.<ext>.",
        ) from error


def _find_images(files: Sequence[Path], folder: Path, rows: Sequence[_Row]) -> dict[str, Path]:
    """The image of each id, which may carry the ending."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_name[file.stem].append(file)
        by_name[file.name].append(file)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for row in rows:
        own = by_name.get(row.id, [])
        if len(own) > 1:
            names = ", ".join(file.name for file in own)
            raise QprdError(
                f"{row.id!r} could be any of {names}.",
                where=str(folder),
                fix="Keep one of them.",
            )
        if own:
            found[row.id] = own[0]
        else:
            missing.append(row.id)
    if missing:
        some = ", ".join(missing[:_EXAMPLES]) + (", ..." if len(missing) > _EXAMPLES else "")
        raise QprdError(
            f"{len(missing)} of {len(rows)} labeled patches have no image: {some}.",
            where=str(folder),
            fix=f"Add {IMAGES}/<id> ending in {', '.join(SUFFIXES)}; or remove their lines from "
            f"{LABELS_CSV}.",
        )
    if len(set(found.values())) < len(found):
        raise QprdError(
            "Two ids name the same image, one with and one without its ending.",
            where=str(folder.parent / LABELS_CSV),
        )
    return found


def _without_copies(
    rows: Sequence[_Row], found: Mapping[str, Path]
) -> tuple[list[_Row], list[str]]:
    by_size: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_size[_size(found[row.id])].append(row)
    by_content: dict[tuple[int, bytes], list[_Row]] = defaultdict(list)
    for size, same_size in by_size.items():
        for row in same_size:
            digest = _digest(found[row.id]) if len(same_size) > 1 else b""
            by_content[size, digest].append(row)
    kept: list[_Row] = []
    copies = contradictory = 0
    for same in by_content.values():
        if len({row.tumor for row in same}) > 1:
            contradictory += len(same)
        else:
            kept.append(same[0])
            copies += len(same) - 1
    notes = []
    if copies:
        notes.append(f"{copies} images are copies of others and are not used")
    if contradictory:
        notes.append(f"{contradictory} images are there with both labels and are not used")
    return sorted(kept, key=lambda row: row.id), notes


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise QprdError(f"The image cannot be read: {error.strerror}.", where=str(file)) from error


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError as error:
        raise QprdError(f"The image cannot be read: {error.strerror}.", where=str(file)) from error


class PatchImages:
    """Decoded patches of a folder, all of one size, read when first asked for.

    Args:
        folder: Which patches.
        patch_px: Edge P. Images that are not square lose the same from both ends of their longer
            edge; images of another size are resampled.
    """

    def __init__(self, folder: PatchFolder, patch_px: int) -> None:
        self._folder = folder
        self._patch_px = patch_px
        self._kept: dict[int, NDArray[np.uint8]] = {}
        self._most = _MAX_CACHE_BYTES // (3 * patch_px**2)

    def __getitem__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images by their number in the folder: (n, 3, P, P) RGB.

        Raises:
            QprdError: an image cannot be decoded.
        """
        images = np.empty((len(indices), 3, self._patch_px, self._patch_px), np.uint8)
        for place, index in enumerate(indices.tolist()):
            image = self._kept.get(index)
            if image is None:
                image = read_image(self._folder.files[index], self._patch_px)
                if len(self._kept) < self._most:
                    self._kept[index] = image
            images[place] = image
        return images


def read_image(file: Path, patch_px: int) -> NDArray[np.uint8]:
    """Decode an image as RGB of (3, P, P), see `PatchImages`.

    Raises:
        QprdError: it is not an 8-bit image, is damaged, or is no patch but a slide.
    """
    try:
        with Image.open(file) as opened:
            if max(opened.size) > _MAX_EDGE_PX:
                raise QprdError(
                    f"The image has {opened.width} x {opened.height} px; patches have at most "
                    f"{_MAX_EDGE_PX}.",
                    where=str(file),
                    fix="Cut it into patches: benchmarks/export_patches.py does so with a project.",
                )
            if opened.mode[0] in "IF":
                raise QprdError(
                    f"The image is of mode {opened.mode}, not 8 bit.",
                    where=str(file),
                    fix="Convert it to 8-bit RGB.",
                )
            image = opened.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise QprdError("This is not an image.", where=str(file)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise QprdError(f"The image cannot be read: {error}.", where=str(file)) from error
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    image = image.crop((left, top, left + edge, top + edge))
    if edge != patch_px:
        image = image.resize((patch_px, patch_px), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).transpose(2, 0, 1)
