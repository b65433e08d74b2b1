"""From the name of a method to the method."""

from __future__ import annotations

from collections.abc import Callable

from methods.best import Best
from methods.classifier import Classifier, RankingClassifier
from methods.forest import Forest
from methods.frd import ReverseDistillation
from methods.interface import Method, MethodOptions
from methods.linear import LinearProbe, TunedLinearProbe
from methods.memory import NormalMemory
from qprd.errors import ExitCode, QprdError
from qprd.settings import Recipe

#: Methods that learn from normal patches alone.
ONE_CLASS = ("rd", "memory")
#: Methods that cannot do without tumor patches.
TWO_CLASS = ("linear", "linear-tuned", "classifier", "ranking", "forest")
METHODS = ("frd", *ONE_CLASS, *TWO_CLASS)

_TEACHER = ("teacher", "teacher_weights")
_TRAINING = ("epochs", "batch_size", "lr", "augment")
_NETWORK = ("network", "network_weights", *_TRAINING)
#: Options that decide the result of each method.
RELEVANT_OPTIONS = {
    "frd": (*_TEACHER, *_TRAINING, "similarity", "alpha", "gamma"),
    "rd": (*_TEACHER, *_TRAINING, "similarity"),
    "memory": (*_TEACHER, "coreset", "memory_vectors", "memory_score"),
    "linear": _TEACHER,
    "linear-tuned": _TEACHER,
    "classifier": _NETWORK,
    "ranking": _NETWORK,
    "forest": (),
}


def build_method(name: str, recipe: Recipe, options: MethodOptions) -> Method:
    """A method, not yet fitted.

    Args:
        name: One of `METHODS`.
        recipe: For frd.
        options: Settings.

    Raises:
        QprdError: there is no such method, or its network cannot be had.
    """
    builders: dict[str, Callable[[], Method]] = {
        "frd": lambda: (
            Best(options) if recipe == "best" else ReverseDistillation(options, recipe, focal=True)
        ),
        "rd": lambda: ReverseDistillation(options, "paper", focal=False),
        "linear": lambda: LinearProbe(options),
        "linear-tuned": lambda: TunedLinearProbe(options),
        "memory": lambda: NormalMemory(options),
        "classifier": lambda: Classifier(options),
        "ranking": lambda: RankingClassifier(options),
        "forest": lambda: Forest(options),
    }
    if name in builders:
        return builders[name]()
    raise QprdError(
        f"There is no method {name!r}.",
        where="--method",
        fix=f"Known: {', '.join(METHODS)}.",
        exit_code=ExitCode.USAGE,
    )


def undefined_reason(name: str, tumor: int) -> str | None:
    """Why a method has no result with so many tumor patches; None if it has one."""
    if name in TWO_CLASS and tumor == 0:
        return f"{name} learns from patches of both labels, and there are no tumor patches"
    return None
