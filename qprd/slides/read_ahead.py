"""What threads read or make, in order, before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from qprd.cores import cores

#: Bounds the memory of reading where there are many cores.
_MOST_THREADS: Final = 8

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Piece], Result], pieces: Iterable[Piece]
) -> Iterator[tuple[Piece, Result]]:
    """Each piece with what was read of it, in order.

    As many are read ahead of the one in use as there are threads, one a core and at most eight:
    this bounds the memory of reading.

    Args:
        read: Reads a piece; called from several threads at once.
        pieces: What is to be read; taken one by one.

    Raises:
        QprdError: whatever ``read`` raised, when that piece is asked for.
    """
    remaining, threads = iter(pieces), min(cores(), _MOST_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="qprd-read") as readers:
        pending: deque[tuple[Piece, Future[Result]]] = deque(
            (piece, readers.submit(read, piece)) for piece in islice(remaining, threads)
        )
        while pending:
            piece, future = pending.popleft()
            result = future.result()
            for following in islice(remaining, 1):
                pending.append((following, readers.submit(read, following)))
            yield piece, result
