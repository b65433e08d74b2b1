"""Packages that add something to qprd, as if they were installed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENTED = Path(__file__).parents[2] / "docs" / "adding-a-teacher.md"


@contextmanager
def installed_package(
    folder: Path, name: str, files: Mapping[str, str], entry_points: str
) -> Iterator[None]:
    """Make a package importable, with its entry points, and forget it afterwards.

    Args:
        folder: Where its files go.
        name: Of the package; version 1.2.
        files: Texts of its modules by path.
        entry_points: Text of ``entry_points.txt``.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    described = folder / f"{name}-1.2.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Name: {name}\nVersion: 1.2\n", encoding="utf-8")
    (described / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    for module in [m for m in sys.modules if m.partition(".")[0] == name.replace("-", "_")]:
        del sys.modules[module]


@contextmanager
def documented_package(folder: Path) -> Iterator[None]:
    """Install the package that ``docs/adding-a-teacher.md`` shows."""
    text = DOCUMENTED.read_text(encoding="utf-8")
    files = dict(re.findall(r"```python\n# (my_package/\w+\.py)\n(.*?)```", text, re.DOTALL))
    (described,) = re.findall(r"```toml\n# pyproject.toml\n(.*?)```", text, re.DOTALL)
    project = tomllib.loads(described)["project"]
    # What a build makes of it.
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in named.items())
        for group, named in project["entry-points"].items()
    )
    assert project["version"]
    with installed_package(folder, project["name"], files, points):
        yield
