"""Read pieces in threads ahead of the one in use, and yield them in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from qprd.cores import cores

#: Bounds the memory of reading where there are many cores.
_MAX_THREADS: Final = 8

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Piece], Result], pieces: Iterable[Piece], *, waiting: int = 0
) -> Iterator[tuple[Piece, Result]]:
    """Yield each piece with what was read of it, in order.

    As many pieces are read ahead as there are threads, one per core and at most eight, which bounds
    the memory of reading; so many more can be ``waiting`` for a thread, or for being yielded.
    ``read`` is called from several threads at once.

    Raises:
        QprdError: Whatever ``read`` raised, when that piece is next.
    """
    remaining, threads = iter(pieces), min(cores(), _MAX_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="qprd-read") as readers:
        pending: deque[tuple[Piece, Future[Result]]] = deque(
            (piece, readers.submit(read, piece)) for piece in islice(remaining, threads + waiting)
        )
        while pending:
            piece, future = pending.popleft()
            result = future.result()
            for following in islice(remaining, 1):
                pending.append((following, readers.submit(read, following)))
            yield piece, result
