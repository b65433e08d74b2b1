"""Teachers, heads and losses that other installed packages add, by entry points.

A package names a function or a class in its ``pyproject.toml``::

    [project.entry-points."qprd.teachers"]
    my-teacher = "my_package.teachers:build"

``docs/adding-a-teacher.md`` has an example of each. What a bundle names is only looked up among
what the user has installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, Generic, TypeVar

from qprd.errors import ExitCode, QprdError
from qprd.model.backbone import Backbone
from qprd.model.fisher import ClassStatistics, Head
from qprd.model.lite0_backbone import EFFICIENTNET_LITE0
from qprd.model.loss import Loss
from qprd.model.torchvision_backbone import RESNETS

_Added = TypeVar("_Added")


@dataclass(frozen=True)
class Registry(Generic[_Added]):
    """What packages add of one kind.

    Attributes:
        kind: In words; the option that takes a name is called so.
        group: The group of entry points.
        known: Names that need no package, in words.
    """

    kind: str
    group: str
    known: str

    def installed(self) -> dict[str, EntryPoint]:
        """What is installed, by name; no code of a package is loaded."""
        return {entry.name: entry for entry in entry_points(group=self.group)}

    def load(self, name: str) -> _Added:
        """Load what a package adds under a name.

        Raises:
            QprdError: No package adds it, or the package is broken.
        """
        installed = self.installed()
        if name not in installed:
            others = "".join(f", {other}" for other in installed)
            raise QprdError(
                f"There is no {self.kind} {name!r}.",
                where=f"--{self.kind}",
                fix=f"Take one of these: {self.known}{others}. A package adds more by the entry "
                f"points {self.group}.",
                exit_code=ExitCode.USAGE,
            )
        entry = installed[name]
        try:
            added: _Added = entry.load()
        except (ImportError, AttributeError) as error:
            raise QprdError(
                f"The {self.kind} {name} of the package {package_of(entry)} cannot be loaded: "
                f"{str(error).rstrip('.')}.",
                where=f"--{self.kind}",
                fix=f"Update or remove that package, or take another {self.kind}.",
            ) from error
        return added


def package_of(entry: EntryPoint) -> str:
    """The package that added an entry point, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


#: From a file of weights or None, whether weights are wanted, and layers or None.
BuildBackbone = Callable[[Path | None, bool, Sequence[int] | None], Backbone]

_DISCRIMINANT: Final = "discriminant"
_FOCAL: Final = "focal"

TEACHERS: Final = Registry[BuildBackbone](
    "teacher",
    "qprd.teachers",
    f"{', '.join(RESNETS)}, {EFFICIENTNET_LITE0}, what qprd teachers lists, timm:NAME",
)
HEADS: Final = Registry[Callable[[], Head]]("head", "qprd.heads", _DISCRIMINANT)
LOSSES: Final = Registry[Loss]("loss", "qprd.losses", _FOCAL)


def head_named(name: str) -> Callable[[], Head]:
    """What makes the head of a ``--head``, not fitted.

    Raises:
        QprdError: There is no such head, or its package is broken.
    """
    return ClassStatistics if name == _DISCRIMINANT else HEADS.load(name)


def loss_named(name: str) -> Loss | None:
    """The loss of a ``--loss``; None for the focal one, which has settings of its own.

    Raises:
        QprdError: There is no such loss, or its package is broken.
    """
    return None if name == _FOCAL else LOSSES.load(name)


def require_added(head: str, loss: str) -> None:
    """Refuse a ``--head`` or ``--loss`` that no package adds, before anything takes long.

    Raises:
        QprdError: There is no such head or loss, or its package is broken.
    """
    head_named(head)
    loss_named(loss)
