from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from qprd.errors import ExitCode, QprdError
from qprd.model.backbone import Backbone
from qprd.model.registry import TEACHERS, Registry, head_named, loss_named, package_of
from qprd.model.teacher import build_teacher
from tests.helpers.extensions import installed_package

PACKAGE = """
from torch import nn
from qprd.model.backbone import Backbone

class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)

    def forward(self, images):
        return [self.conv(images)]

def build(weights, pretrained, layers):
    return Backbone(Trunk(), (8,), (4,), (0.5,) * 3, (0.2,) * 3, "a package")
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[None]:
    """An installed package that adds two teachers, one of them broken."""
    points = "[qprd.teachers]\ntheirs = their_teachers:build\nbroken = their_teachers:nothing\n"
    files = {"their_teachers.py": PACKAGE}
    with installed_package(tmp_path, "their-teachers", files, points):
        yield


@pytest.mark.usefixtures("package")
def test_a_package_adds_a_teacher_by_an_entry_point() -> None:
    installed = TEACHERS.installed()
    assert package_of(installed["theirs"]) == "their-teachers 1.2"
    assert "their_teachers" not in sys.modules  # named, not loaded
    teacher = build_teacher("theirs")
    assert (teacher.channels, teacher.strides, teacher.multiple_px) == ((8,), (4,), 4)
    (found,) = teacher(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert found.shape == (1, 8, 16, 16)


@pytest.mark.usefixtures("package")
def test_a_broken_package_is_named() -> None:
    with pytest.raises(QprdError, match=r"package their-teachers 1\.2 cannot be loaded"):
        build_teacher("broken")


@pytest.mark.parametrize(
    ("kind", "named"),
    [("teacher", build_teacher), ("head", head_named), ("loss", loss_named)],
)
def test_what_is_not_installed_is_unknown_and_runs_nothing(
    kind: str, named: Callable[[str], object]
) -> None:
    with pytest.raises(QprdError, match=f"There is no {kind} 'theirs'") as caught:
        named("theirs")
    assert (caught.value.exit_code, caught.value.where) == (ExitCode.USAGE, f"--{kind}")
    assert f"qprd.{kind}" in str(caught.value)


def test_layers_reach_the_function_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_weights: Path | None, _pretrained: bool, layers: Sequence[int] | None) -> Backbone:
        trunk = nn.Conv2d(3, 1, 1)
        chosen = tuple(layers or ())
        return Backbone(trunk, (1,), (1,), (0.0,) * 3, (1.0,) * 3, "here", layers=chosen)

    monkeypatch.setattr(Registry, "load", lambda _self, _name: build)
    assert build_teacher("theirs", layers=(2, 4)).layers == (2, 4)
