"""The command line, as ``qprd`` and as ``python -m qprd``."""

import signal
import sys
from typing import NoReturn

from qprd.errors import ExitCode, Terminated


def _terminate(*_: object) -> NoReturn:
    raise Terminated


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it without a traceback, even while it starts."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from qprd.cli import app

        app()
    except Terminated:
        print("Terminated.", file=sys.stderr)
        sys.exit(ExitCode.TERMINATED)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
