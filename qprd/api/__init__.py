"""The Python API: a function for each step of the work; `import qprd` gives all of them.

Settings are keyword arguments named like the options of the command line, with underscores:
``--patch-px 128`` is ``patch_px=128``. What they mean is said by ``qprd train --help`` and
``qprd predict --help``. Every function that takes long shows bars unless ``progress=False``, and
every error that a user can mend is a `QprdError`.
"""

from qprd.api.changes import import_asap, remove, undo, write_back
from qprd.api.exports import export_geojson, export_model
from qprd.api.loop import evaluate, load_model, open_project, predict, train
from qprd.api.setup import copy_scripts, doctor, draw_demo, list_teachers, run_demo

__all__ = [
    "copy_scripts",
    "doctor",
    "draw_demo",
    "evaluate",
    "export_geojson",
    "export_model",
    "import_asap",
    "list_teachers",
    "load_model",
    "open_project",
    "predict",
    "remove",
    "run_demo",
    "train",
    "undo",
    "write_back",
]
