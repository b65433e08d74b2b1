"""The command line, as ``qprd`` and as ``python -m qprd``."""

import signal
import sys
from typing import NoReturn

from qprd.errors import ExitCode, Terminated

#: Signals to stop that have arrived.
_received: list[int] = []


def _stop(number: int, _frame: object) -> NoReturn:
    _received.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it without a traceback, even while it starts."""
    signal.signal(signal.SIGTERM, _stop)
    # A job in the background may have been told to ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        from qprd.cli import app

        app()
    except (Terminated, KeyboardInterrupt) as stop:
        _exit(terminated=isinstance(stop, Terminated))
    except Exception as error:
        # C code may put an error of its own in the place of a signal's, as NumPy's comparisons do.
        if not _received:
            raise
        detail = f" ({type(error).__name__}: {error})"
        _exit(terminated=_received[-1] == signal.SIGTERM, detail=detail)


def _exit(*, terminated: bool, detail: str = "") -> NoReturn:
    print(f"{'Terminated' if terminated else 'Interrupted'}{detail}.", file=sys.stderr)
    sys.exit(ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
