from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import qprd.cli
from qprd.__main__ import main
from qprd.errors import ExitCode, Terminated


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "exit_code", "told"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED, "Interrupted"),
        (signal.SIGTERM, ExitCode.TERMINATED, "Terminated"),
    ],
)
def test_a_signal_ends_it_even_where_a_library_raises_an_error_of_its_own_instead(
    number: signal.Signals,
    exit_code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        try:
            signal.raise_signal(number)
        except (KeyboardInterrupt, Terminated):
            msg = "Cannot compare"
            raise TypeError(msg) from None

    monkeypatch.setattr("qprd.__main__._received", [])
    monkeypatch.setattr(qprd.cli, "app", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == exit_code
    assert capsys.readouterr().err == f"{told} (TypeError: Cannot compare).\n"


def test_an_error_without_a_signal_shows_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def command() -> None:
        raise TypeError

    monkeypatch.setattr("qprd.__main__._received", [])
    monkeypatch.setattr(qprd.cli, "app", command)
    with pytest.raises(TypeError):
        main()
