"""QuPath's classes: which mean tumor, which normal, and what the others say of their tissue."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qprd.errors import QprdError
from qprd.names import composed
from qprd.predictions import class_parts, is_own_class
from qprd.qupath.project import Annotation
from qprd.settings import TrainConfig

Role = Literal["tumor", "normal", "rejected", "ignored", "pending", "area", "tissue", "other"]


def is_ignored_class(class_name: str | None) -> bool:
    """True for what QuPath ignores: the last component of the name ends in ``*``."""
    return class_name is not None and class_parts(class_name)[-1].endswith("*")


def is_derived(class_name: str | None, bases: Sequence[str]) -> bool:
    """True if a class is one of ``bases`` or derived from one.

    Case matters, as in QuPath; the Unicode form of the names does not.
    """
    if class_name is None:
        return False
    parts = class_parts(composed(class_name))
    wanted = (class_parts(composed(base)) for base in bases)
    return any(parts[: len(base)] == base for base in wanted)


def has_drawn(class_names: Iterable[str | None], bases: Sequence[str]) -> bool:
    """True if a person drew something of one of ``bases`` or of a class derived from one.

    Args:
        class_names: The classes of a slide's annotations.
        bases: Classes that mean something.
    """
    return any(
        is_derived(name, bases) and not is_own_class(name) and not is_ignored_class(name)
        for name in class_names
    )


def check_classes(wanted: Sequence[str], existing: Mapping[str, int]) -> None:
    """Check that one of the wanted classes, or one derived from it, has annotations.

    ``existing`` counts the annotations of each class over all slides.

    Raises:
        QprdError: None of them has an annotation, or QuPath ignores a wanted class.
    """
    for name in wanted:
        if is_ignored_class(name):
            raise QprdError(
                f"QuPath ignores classes whose name ends in '*', so {name!r} cannot be learned.",
                fix="Give these annotations a class without '*' in QuPath.",
            )
    usable = {
        name: count
        for name, count in existing.items()
        if count > 0 and not is_ignored_class(name) and not is_own_class(name)
    }
    if any(is_derived(name, wanted) for name in usable):
        return
    names = " or ".join(repr(name) for name in wanted)
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(existing.items()) if count > 0)
    found = f"Annotations exist of: {listed}." if listed else "No annotations were found."
    close = similar_classes(wanted, usable)
    if close:
        fix = f"Did you mean {' or '.join(repr(name) for name in close)}? Case matters."
    elif usable:
        fix = "Name the class that you drew, or draw that class in QuPath."
    else:
        fix = "Draw and classify annotations in QuPath, and save the project."
    raise QprdError(f"There is no annotation of class {names}. {found}", fix=fix)


def similar_classes(wanted: Sequence[str], existing: Iterable[str]) -> list[str]:
    """Return the existing class names that resemble a wanted one."""
    by_folded = {composed(name).casefold(): name for name in sorted(existing)}
    close: dict[str, None] = {}
    for name in wanted:
        folded = composed(name).casefold()
        for match in difflib.get_close_matches(folded, by_folded, n=3, cutoff=0.6):
            close[by_folded[match]] = None
    return list(close)


@dataclass(frozen=True)
class Classes:
    """Names of classes by what their annotations mean, derived classes included.

    Attributes:
        tissue: The outline of tissue; it labels nothing.

    Raises:
        QprdError: The same class is wanted for two of them.
    """

    tumor: Sequence[str]
    normal: Sequence[str]
    tissue: Sequence[str] = ()

    def __post_init__(self) -> None:
        for one, other in itertools.combinations(("tumor", "normal", "tissue"), 2):
            first, second = getattr(self, one), getattr(self, other)
            both = [name for name in first if is_derived(name, second)]
            both += [name for name in second if is_derived(name, first)]
            if both:
                raise QprdError(
                    f"The class {both[0]!r} cannot be both {one} and {other}.",
                    fix=f"Change --{one}-class or --{other}-class.",
                )

    @classmethod
    def of(cls, config: TrainConfig) -> Classes:
        """The classes of a training."""
        return cls(config.tumor_class, config.normal_class, config.tissue_class)

    @property
    def labels(self) -> list[str]:
        """The names that label something."""
        return [*self.tumor, *self.normal]


def role_of(annotation: Annotation, classes: Classes) -> Role:
    """What an annotation says of its tissue: ``rejected`` is normal that qprd took for tumor.

    ``pending`` is what qprd predicted and nobody judged, ``area`` outlines what a person looked at,
    ``tissue`` outlines where there is tissue, and ``other`` is all that means none of these.
    """
    class_name = annotation.class_name
    if is_own_class(class_name):
        return "pending"
    if is_derived(class_name, classes.tissue):
        return "tissue"
    if is_ignored_class(class_name):
        # QuPath's own ``Region*``.
        is_area = class_parts(class_name or "")[-1].casefold() == "region*"
        return "area" if is_area else "ignored"
    if is_derived(class_name, classes.tumor):
        return "tumor"
    if is_derived(class_name, classes.normal):
        return "rejected" if annotation.predicted else "normal"
    return "other"
