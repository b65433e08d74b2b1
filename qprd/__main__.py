"""The command line, as ``qprd`` and as ``python -m qprd``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, even while it starts."""
    try:
        from qprd.cli import app

        app()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
