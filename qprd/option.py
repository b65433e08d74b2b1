"""The look of a setting on the command line and in the docs: its panel, placeholder and default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic.fields import FieldInfo

from qprd.known_teachers import known_teacher

MODEL: Final = "Model and loss"
ANNOTATIONS: Final = "Annotations"
PATCHES: Final = "Patches"
TRAINING: Final = "Training"
SCORES: Final = "Scores and contours"
COMPUTING: Final = "Computing"
PROJECT: Final = "Project and slides"

_RESNETS: Final = {"wide_resnet50_2", "resnet18", "resnet34", "resnet50"}


@dataclass(frozen=True)
class Option:
    """How a setting appears on the command line, beside its type and description.

    Attributes:
        panel: Heading in ``--help``.
        metavar: Placeholder of the value; None shows the type or the choices.
        default: The default in words, where the value itself does not say it.
        name: The name of the option without dashes, where it is not that of the setting.
        example: A value to show in a file, where there is no default.
    """

    panel: str
    metavar: str | None = None
    default: str | None = None
    name: str | None = None
    example: object = None


@dataclass(frozen=True)
class ByTeacher:
    """A default that depends on the teacher, unless the recipe ``best`` has its own.

    The ResNets share the values of the paper's network. The small student of the other teachers
    learns at a hundred times the rate, on smaller patches at half the resolution. Known pathology
    networks have their own resolution and patch size.

    Attributes:
        resnet: For a ResNet.
        other: For any other teacher.
        best: For the recipe ``best``, whatever the teacher.
        known: The attribute of `qprd.known_teachers.KnownTeacher` that a known one goes by.
    """

    resnet: float
    other: float
    best: float | None = None
    known: str | None = None

    def __call__(self, chosen: Mapping[str, Any]) -> Any:
        """The default beside the recipe and the teacher that were chosen."""
        if self.best is not None and chosen.get("recipe") == "best":
            return self.best
        known = known_teacher(str(chosen.get("teacher"))) if self.known else None
        if known is not None:
            return getattr(known, str(self.known))
        return self.resnet if chosen.get("teacher") in _RESNETS else self.other

    def __str__(self) -> str:
        words = _words(self.resnet)
        if self.resnet != self.other:
            words += f" for a ResNet teacher, else {_words(self.other)}"
        if self.known:
            words += "; what a pathology network was trained at (qprd teachers)"
        return words if self.best is None else f"{_words(self.best)}; with recipe paper {words}"


def option_of(field: FieldInfo) -> Option:
    """How a setting appears on the command line."""
    return next(item for item in field.metadata if isinstance(item, Option))


def option_name(name: str, field: FieldInfo) -> str:
    """The name of a setting's option, with underscores for dashes."""
    return option_of(field).name or name


def help_text(field: FieldInfo) -> str:
    """The description of a setting, with its default in words."""
    default = option_of(field).default or _words(field.default_factory or field.default)
    text = " ".join(str(field.description).split())
    return f"{text} Default: {default}." if default else text


def _words(value: object) -> str:
    """A default as people write it; empty for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    if isinstance(value, tuple):
        return ", ".join(value)
    return "" if value is None else str(value)
