"""The end of a benchmark command: user errors without a traceback, exit code not 0."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from qprd.errors import ExitCode, QprdError
from qprd.progress import printable


def run_command(command: Callable[[], None]) -> None:
    """Run a command and exit with its code."""
    try:
        command()
    except QprdError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the table has read enough; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
