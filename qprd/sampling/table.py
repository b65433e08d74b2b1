"""The patch table: the patches that a model is trained on, as a file to save and share."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from qprd.errors import QprdError
from qprd.files.atomic import replacing
from qprd.sampling.splits import SPLITS, Split
from qprd.slides.fingerprint import Fingerprint

Label = Literal["tumor", "normal"]
LABELS: tuple[Label, ...] = get_args(Label)

#: Largest number of rows of a table. At 128 px, so many patches take hundreds of GiB.
MAX_ROWS = 5_000_000

_MAX_PATCH_PX = 100_000.0
_MAX_MPP = 1_000.0
_Pixel = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Patch:
    """One labeled square of a slide.

    Attributes:
        slide: Entry id of the slide.
        x: Left edge in level-0 pixels of the entry's frame.
        y: Top edge in level-0 pixels of the entry's frame.
        size_px: Edge length in level-0 pixels.
        mpp: Micrometers per pixel at which it is read.
        reviewed: Whether it lies in a region that a person accepted or rejected in a review, by
            the smallest share of a patch that has to lie in its label's region.
        fingerprint: Of the slide's file; None where it is not known.
    """

    slide: Annotated[str, Field(min_length=1)]
    name: str
    x: _Pixel
    y: _Pixel
    size_px: Annotated[float, Field(ge=1, le=_MAX_PATCH_PX)]
    mpp: Annotated[float, Field(gt=0, le=_MAX_MPP)]
    label: Label
    split: Split
    reviewed: bool = False
    fingerprint: Annotated[Fingerprint | None, BeforeValidator(lambda text: text or None)] = None


_PATCHES = TypeAdapter(Patch)
_COLUMNS = tuple(f.name for f in fields(Patch))
#: Columns that every table has; those of others, or of an earlier qprd, may lack the rest.
_LEAST_COLUMNS = _COLUMNS[: _COLUMNS.index("reviewed")]


@dataclass(frozen=True)
class PatchTable:
    """Patches in a fixed order.

    Attributes:
        notes: Notes for the user on how the patches were chosen; not saved.
    """

    patches: tuple[Patch, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def is_tumor(self) -> NDArray[np.bool_]:
        """Labels of the patches, (n,), True for tumor."""
        return np.array([patch.label == "tumor" for patch in self.patches], np.bool_)

    def counts(self) -> dict[tuple[Split, Label], int]:
        """Return the number of patches for each split and label, zeros included."""
        found = Counter((p.split, p.label) for p in self.patches)
        return {(split, label): found[split, label] for split in SPLITS for label in LABELS}

    def subset(self, split: Split, label: Label | None = None) -> PatchTable:
        """Return the patches of a split, and of a label if one is given, in the same order."""
        chosen = (p for p in self.patches if p.split == split and label in (None, p.label))
        return PatchTable(tuple(chosen), self.notes)

    def to_csv(self, path: Path) -> None:
        """Write a UTF-8 CSV file with a header line, whole or not at all."""
        # Names from a project can hold half of a surrogate pair, which UTF-8 cannot.
        with (
            replacing(path) as new,
            new.open("w", encoding="utf-8", errors="replace", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(
                [getattr(p, column) for column in _LEAST_COLUMNS]
                + ["yes" if p.reviewed else "no", p.fingerprint or ""]
                for p in self.patches
            )

    @classmethod
    def from_csv(cls, path: Path) -> PatchTable:
        """Read a table that `to_csv` or another program wrote.

        Raises:
            QprdError: The file is no patch table (the error names the line), or something is in
                two splits.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = cls(tuple(_read_rows(file, path)))
        except UnicodeDecodeError as error:
            raise QprdError(
                "The patch table is not UTF-8 text.",
                where=str(path),
                fix="Save it as CSV in UTF-8.",
            ) from error
        check_splits_apart(table.patches, where=str(path))
        return table


def check_splits_apart(patches: Sequence[Patch], where: str | None = None) -> None:
    """Check that nothing is in two splits.

    Raises:
        QprdError: One of several slides is in two splits, or two patches of an only slide that
            are in different splits overlap.
    """
    by_slide: dict[str, list[Patch]] = defaultdict(list)
    for patch in patches:
        by_slide[patch.slide].append(patch)
    for slide, own in by_slide.items():
        if len({p.split for p in own}) < 2:
            continue
        if len(by_slide) > 1:
            raise QprdError(
                f"The slide {own[0].name!r} (entry {slide}) is in more than one split.",
                where=where,
                fix="Keep all patches of a slide in one split.",
            )
        boxes = [shapely.box(p.x, p.y, p.x + p.size_px, p.y + p.size_px) for p in own]
        for i, j in shapely.STRtree(boxes).query(boxes).T:
            if own[i].split != own[j].split and boxes[i].intersection(boxes[j]).area > 0:
                raise QprdError(
                    f"Two patches of the slide {own[i].name!r}, at {own[i].x}, {own[i].y} and "
                    f"{own[j].x}, {own[j].y}, overlap but are in different splits.",
                    where=where,
                    fix="Put both into one split, or leave one out.",
                )


def _read_rows(lines: Iterable[str], path: Path) -> Iterable[Patch]:
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        columns = tuple(header or ())
        if len(columns) < len(_LEAST_COLUMNS) or columns != _COLUMNS[: len(columns)]:
            raise QprdError(
                "This is not a patch table.",
                where=f"{path}, line 1",
                fix=f"Give it the first line {','.join(_COLUMNS)}.",
            )
        for count, row in enumerate(reader):
            if count >= MAX_ROWS:
                raise QprdError(
                    f"The table has more than {MAX_ROWS:,} patches.",
                    where=str(path),
                    fix="Leave some patches out.",
                )
            try:
                yield _parse_row(row, columns)
            except ValueError as error:
                raise QprdError(
                    f"The row cannot be read: {error}.",
                    where=f"{path}, line {reader.line_num}",
                    fix="Correct the row, or remove it.",
                ) from error
    except csv.Error as error:
        raise QprdError(
            f"This is not a CSV file: {error}.",
            where=f"{path}, line {reader.line_num}",
            fix="Save the table as CSV again.",
        ) from error


def _parse_row(row: Sequence[str], columns: Sequence[str]) -> Patch:
    if len(row) != len(columns):
        raise ValueError(f"it has {len(row)} values instead of {len(columns)}")
    text = dict(zip(columns, row, strict=True))
    try:
        return _PATCHES.validate_python(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        column = str(first["loc"][0])
        raise ValueError(f"{column} is {text[column][:40]!r} ({first['msg']})") from error
