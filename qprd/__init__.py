"""Find tumor in whole slides from a handful of QuPath annotations.

Examples:
    >>> import qprd
    >>> project = qprd.open_project("demo/project")
    >>> model = qprd.train(project, teacher="efficientnet_lite0", normal=30, tumor=8, epochs=2)
    >>> results = qprd.predict(project, model, stride=128, write_back=True)
    >>> results.failed
    0
"""

from importlib import import_module
from typing import TYPE_CHECKING

from qprd.version import __version__

__all__ = [
    "Model",
    "PredictConfig",
    "Project",
    "QprdError",
    "SlideScores",
    "TrainConfig",
    "__version__",
    "copy_scripts",
    "doctor",
    "draw_demo",
    "evaluate",
    "export_geojson",
    "export_model",
    "import_asap",
    "list_teachers",
    "load_model",
    "log_events",
    "open_project",
    "predict",
    "remove",
    "run_demo",
    "status",
    "train",
    "undo",
    "versions",
    "view_results",
    "write_back",
]

if TYPE_CHECKING:
    from qprd.api.loop import load_model, open_project, predict, train
    from qprd.errors import QprdError
    from qprd.events import log_events
    from qprd.jobs.demo import draw_demo, run_demo
    from qprd.jobs.doctor.job import doctor
    from qprd.jobs.evaluate.job import evaluate
    from qprd.jobs.export import export_geojson, export_model
    from qprd.jobs.groovy import copy_scripts
    from qprd.jobs.import_asap import import_asap
    from qprd.jobs.predict.model import Model
    from qprd.jobs.predict.slide_scores import SlideScores
    from qprd.jobs.remove import remove
    from qprd.jobs.status import status
    from qprd.jobs.teachers import list_teachers
    from qprd.jobs.undo import undo
    from qprd.jobs.versions import versions
    from qprd.jobs.view import view_results
    from qprd.jobs.write_back import write_back
    from qprd.qupath.project import Project
    from qprd.settings import PredictConfig, TrainConfig

#: Where the public names are.
_MODULES = {
    "qprd.api.loop": ("load_model", "open_project", "predict", "train"),
    "qprd.errors": ("QprdError",),
    "qprd.events": ("log_events",),
    "qprd.jobs.demo": ("draw_demo", "run_demo"),
    "qprd.jobs.doctor.job": ("doctor",),
    "qprd.jobs.evaluate.job": ("evaluate",),
    "qprd.jobs.export": ("export_geojson", "export_model"),
    "qprd.jobs.groovy": ("copy_scripts",),
    "qprd.jobs.import_asap": ("import_asap",),
    "qprd.jobs.predict.model": ("Model",),
    "qprd.jobs.predict.slide_scores": ("SlideScores",),
    "qprd.jobs.remove": ("remove",),
    "qprd.jobs.status": ("status",),
    "qprd.jobs.teachers": ("list_teachers",),
    "qprd.jobs.undo": ("undo",),
    "qprd.jobs.versions": ("versions",),
    "qprd.jobs.view": ("view_results",),
    "qprd.jobs.write_back": ("write_back",),
    "qprd.qupath.project": ("Project",),
    "qprd.settings": ("PredictConfig", "TrainConfig"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: PyTorch and QuPath take seconds to load."""
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
