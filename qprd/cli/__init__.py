"""The command line: parse, call the library, print. Heavy imports happen inside the commands.

Importing the modules of the commands adds them to ``app``, in the order of ``qprd --help``.
"""

from qprd.cli import (  # noqa: F401, I001
    train,
    predict,
    evaluate,
    view,
    write_back,
    remove,
    undo,
    status,
    import_asap,
    export,
    teachers,
    doctor,
    demo,
    groovy,
)
from qprd.cli.app import app

__all__ = ["app"]
