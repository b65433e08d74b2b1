from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.slides import read_ahead as slides_read_ahead
from qprd.slides.read_ahead import read_ahead


def pixels_of(piece: int) -> NDArray[np.uint8]:
    return np.full((1, 1, 3), piece, np.uint8)


def test_pieces_come_in_order_with_their_pixels() -> None:
    found = [(piece, int(pixels[0, 0, 0])) for piece, pixels in read_ahead(pixels_of, range(20))]
    assert found == [(piece, piece) for piece in range(20)]
    assert list(read_ahead(pixels_of, [])) == []


@pytest.mark.parametrize(
    ("cores", "waiting", "ahead"), [(1, 0, 1), (2, 0, 2), (64, 0, 8), (2, 3, 5)]
)
def test_reading_goes_on_while_a_piece_is_in_use_but_not_far(
    cores: int, waiting: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slides_read_ahead, "cores", lambda: cores)
    taken: list[int] = []
    furthest = threading.Event()

    def pieces() -> Iterator[int]:
        for piece in range(10):
            taken.append(piece)
            yield piece

    def read(piece: int) -> NDArray[np.uint8]:
        if piece == ahead:
            furthest.set()
        return pixels_of(piece)

    reading = read_ahead(read, pieces(), waiting=waiting)
    next(reading)
    assert furthest.wait(10)
    assert taken == list(range(ahead + 1))
    assert isinstance(reading, Generator)
    reading.close()


def test_what_goes_wrong_reaches_the_caller() -> None:
    def damaged(piece: int) -> NDArray[np.uint8]:
        raise QprdError(f"piece {piece} is damaged")

    with pytest.raises(QprdError, match="piece 0"):
        list(read_ahead(damaged, range(3)))
