"""Reports of what a job did: lines for people, JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from qprd.files.atomic import replacing, write_errors


class Summary(Protocol):
    """What a job returns: a dataclass, whose fields `write_json_object` writes."""

    def lines(self) -> Sequence[str]:
        """Lines for people, which may hold control characters of a stranger's names."""
        ...


def write_json_object(path: Path | None, content: object) -> None:
    """Write anything made of dataclasses, mappings, sequences and plain values as JSON.

    A file is written whole or not at all. NaN and infinities become null: JSON has no such numbers.

    Raises:
        QprdError: the file cannot be written.
    """
    if path is None:
        return
    fix = "Give --json a file in an existing, writable folder."
    text = json.dumps(plain(content), indent=2) + "\n"
    # A terminal or a pipe cannot be replaced, nor can what /dev/stdout leads to.
    is_file = not path.is_symlink() and (path.is_file() or not path.exists())
    with (
        write_errors("The report", path, fix=fix),
        replacing(path) if is_file else nullcontext(path) as new,
    ):
        new.write_text(text, encoding="utf-8")


def plain(value: object) -> object:
    """Turn dataclasses, paths, enums and sequences into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Path, Enum)):
        return str(value.value if isinstance(value, Enum) else value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines of columns, those in ``right`` aligned to the right."""
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
