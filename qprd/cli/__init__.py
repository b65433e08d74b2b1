"""The command line: parse, call one job, print. Heavy imports happen inside the commands.

Importing the modules of the commands adds these to ``app``, in the order of ``qprd --help``.
"""

from qprd.cli import training, prediction, writing, export, setup  # noqa: F401, I001
from qprd.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``qprd`` command."""
    app()
