"""Run the command line as ``python -m qprd``."""

from qprd.cli import main

if __name__ == "__main__":
    main()
