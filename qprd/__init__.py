"""Find tumor in whole slides from a handful of QuPath annotations.

Example:
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
    "open_project",
    "predict",
    "remove",
    "run_demo",
    "train",
    "undo",
    "write_back",
]

if TYPE_CHECKING:
    from qprd.api import (
        copy_scripts,
        doctor,
        draw_demo,
        evaluate,
        export_geojson,
        export_model,
        import_asap,
        list_teachers,
        load_model,
        open_project,
        predict,
        remove,
        run_demo,
        train,
        undo,
        write_back,
    )
    from qprd.errors import QprdError
    from qprd.jobs.predict.model import Model
    from qprd.jobs.predict.slide_scores import SlideScores
    from qprd.qupath.project import Project
    from qprd.settings import PredictConfig, TrainConfig

#: Modules of the names that are no functions of `qprd.api`.
_CLASSES = {
    "Model": "qprd.jobs.predict.model",
    "PredictConfig": "qprd.settings",
    "Project": "qprd.qupath.project",
    "QprdError": "qprd.errors",
    "SlideScores": "qprd.jobs.predict.slide_scores",
    "TrainConfig": "qprd.settings",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: PyTorch and QuPath take seconds to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_CLASSES.get(name, "qprd.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
