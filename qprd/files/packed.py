"""Large values by name, kept in a temporary file: few of them are in use at a time."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from typing_extensions import override

from qprd.files.atomic import write_errors

Value = TypeVar("Value")

#: Values that stay in memory after they were asked for.
_IN_USE = 4


class PackedValues(Mapping[str, Value]):
    """Values by name, which are not to be changed, compressed in a file that goes with the object.

    Masks and outlines become a tenth to a hundredth as large. The file is in the folder of
    temporary files, which the environment variable ``TMPDIR`` names.
    """

    def __init__(self) -> None:
        with write_errors("What is kept of slides", Path(tempfile.gettempdir())):
            file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self._file = file
        weakref.finalize(self, file.close)
        self._read = lru_cache(_IN_USE)(partial(_read, file))
        self._places: dict[str, tuple[int, int]] = {}

    def __setitem__(self, name: str, value: Value) -> None:
        """Add a value.

        Raises:
            QprdError: The disk is full.
        """
        data = zlib.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)
        with write_errors("What is kept of a slide", Path(tempfile.gettempdir())):
            self._places[name] = self._file.seek(0, os.SEEK_END), len(data)
            self._file.write(data)
            self._file.flush()

    @override
    def __getitem__(self, name: str) -> Value:
        value: Value = self._read(*self._places[name])
        return value

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @override
    def __len__(self) -> int:
        return len(self._places)


def _read(file: BinaryIO, offset: int, size: int) -> Any:
    file.seek(offset)
    # These bytes are of this process, and no other can open the file.
    return pickle.loads(zlib.decompress(file.read(size)))  # noqa: S301
