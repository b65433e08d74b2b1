"""Teachers that other installed packages add, by entry points.

A package that holds a teacher names a function in its ``pyproject.toml``::

    [project.entry-points."qprd.teachers"]
    my-teacher = "my_package.teachers:build"

The function is called as ``build(weights, pretrained, layers)`` and returns a
`qprd.model.backbone.Backbone`. See ``docs/adding-a-teacher.md``. What a bundle names is only looked
up among what the user has installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from qprd.errors import QprdError
from qprd.model.backbone import Backbone

GROUP: Final = "qprd.teachers"

#: From a file of weights or None, whether weights are wanted, and layers or None.
BuildBackbone = Callable[[Path | None, bool, Sequence[int] | None], Backbone]


def installed_teachers() -> dict[str, EntryPoint]:
    """Teachers of other packages by name; none of their code is loaded."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def package_of(entry: EntryPoint) -> str:
    """The package that added an entry point, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def builder_of(entry: EntryPoint) -> BuildBackbone:
    """Load the function behind an entry point.

    Raises:
        QprdError: The package is broken.
    """
    try:
        build: BuildBackbone = entry.load()
    except (ImportError, AttributeError) as error:
        raise QprdError(
            f"The teacher {entry.name} of the package {package_of(entry)} cannot be loaded: "
            f"{str(error).rstrip('.')}.",
            where="--teacher",
            fix="Update or remove that package, or take another teacher.",
        ) from error
    return build
