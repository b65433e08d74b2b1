"""A large value of each of many slides, of which few are in use at a time."""

from __future__ import annotations

import pickle
import zlib
from functools import lru_cache
from typing import Generic, TypeVar

Value = TypeVar("Value")

#: Values that are kept as they are after they were asked for.
_UNPACKED = 4


class Packed(Generic[Value]):
    """A value that is compressed in memory until it is asked for.

    Masks and outlines become a tenth to a hundredth as large.
    """

    def __init__(self, value: Value) -> None:
        self._data = zlib.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)

    def unpack(self) -> Value:
        """The value, which is not to be changed."""
        value: Value = _unpack(self)
        return value

    def _load(self) -> Value:
        # These bytes were never outside of this process.
        value: Value = pickle.loads(zlib.decompress(self._data))  # noqa: S301
        return value


@lru_cache(_UNPACKED)
def _unpack(packed: Packed[Value]) -> Value:
    return packed._load()
