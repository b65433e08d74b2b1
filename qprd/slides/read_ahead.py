"""What threads read or make, in order, before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

#: Pieces read before they are asked for; with the threads this bounds the memory of reading.
_AHEAD: Final = 2
_THREADS: Final = 2

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Piece], Result], pieces: Iterable[Piece]
) -> Iterator[tuple[Piece, Result]]:
    """Each piece with what was read of it, in order; at most two are read ahead of the one in use.

    Args:
        read: Reads a piece; called from several threads at once.
        pieces: What is to be read; taken one by one.

    Raises:
        QprdError: whatever ``read`` raised, when that piece is asked for.
    """
    remaining = iter(pieces)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="qprd-read") as readers:
        pending: deque[tuple[Piece, Future[Result]]] = deque(
            (piece, readers.submit(read, piece)) for piece in islice(remaining, _AHEAD)
        )
        while pending:
            piece, future = pending.popleft()
            result = future.result()
            for following in islice(remaining, 1):
                pending.append((following, readers.submit(read, following)))
            yield piece, result
