"""The records in ``bundle.json``: everything in a bundle but its weights.

They are checked when they are made and when they are read, and need no torch.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AwareDatetime, Field, JsonValue
from pydantic.dataclasses import dataclass

from qprd.bundle.ancestry import MAX_ANCESTORS, Ancestor, ReviewCounts, SlideAnnotations
from qprd.bundle.names import BundleName
from qprd.checked import STRICT, Mpp, PatchPx, Positive, RawScore, Sha256, StoredLayers, Text
from qprd.evaluation.calibration import Calibration
from qprd.evaluation.operating_point import ValidationScores
from qprd.settings import ModelKind, PatchScore, Recipe, Scoring
from qprd.slides.fingerprint import KnownSlides, SlideIdentity

if TYPE_CHECKING:
    from qprd.model.teacher import Teacher

#: What a model has used a slide for.
Use = Literal["train", "val"]
#: Most trainings that are counted.
MAX_NUMBER = 10**9


@dataclass(frozen=True, config=STRICT)
class TeacherInfo:
    """The frozen network that a bundle was trained with; its weights are not in the bundle.

    Attributes:
        name: As `qprd.model.teacher.build_teacher` takes it.
        source: Where they came from, in words.
        mean: Subtracted from RGB in 0..1.
        std: Divided by after that.
        pretrained: False for random weights (tests).
        layers: Blocks that its maps come from, counted from 1; empty where there is no choice.
    """

    name: Annotated[str, Field(max_length=200)]
    sha256: Sha256
    source: Text
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    pretrained: bool = True
    layers: StoredLayers = ()

    @classmethod
    def of(cls, teacher: Teacher) -> TeacherInfo:
        """The description of a teacher."""
        return cls(
            name=teacher.name,
            sha256=teacher.weights_sha256,
            source=teacher.weights_source,
            mean=teacher.mean,
            std=teacher.std,
            pretrained=teacher.pretrained,
            layers=teacher.layers,
        )


@dataclass(frozen=True, config=STRICT)
class NetworkInfo:
    """The network, and the patches that it takes.

    Attributes:
        recipe: How the rest is trained; see `qprd.training.recipes`.
        model: What the rest is; see `qprd.model.assembly`.
        mpp: Resolution of the patches, micrometers per pixel.
        patch_px: Edge of a patch in pixels at ``mpp``.
    """

    teacher: TeacherInfo
    recipe: Recipe
    model: ModelKind
    mpp: Mpp
    patch_px: PatchPx

    @property
    def patch_um(self) -> float:
        """Edge of a patch in micrometers."""
        return self.patch_px * self.mpp


@dataclass(frozen=True, config=STRICT)
class ScoringInfo:
    """The way of scoring slides, with what the validation of such scores decided.

    Attributes:
        by: From large fields of a slide, or patch by patch.
        patch_score: How the score map of a patch becomes its score.
        threshold: Raw score from which tissue counts as tumor; None without validation.
        calibration: Turns a raw score into a probability, with its figures; None without one.
        validation: Scores of the validation patches, from which another threshold can be chosen;
            None without validation and for bundles of format 1.
    """

    by: Scoring
    patch_score: PatchScore
    threshold: RawScore | None
    calibration: Calibration | None = None
    validation: ValidationScores | None = None

    @property
    def probability_of(self) -> Callable[[ArrayLike], NDArray[np.float64]] | None:
        """The calibration as a function of raw scores; None without one."""
        return None if self.calibration is None else self.calibration.probability


@dataclass(frozen=True, config=STRICT)
class TrainingInfo:
    """The training: its settings, its data and its figures.

    Attributes:
        classes: QuPath classes of the labels, such as ``{"tumor": ("Tumor",)}``.
        patches: Number of patches by split and label, such as ``{"train_tumor": 30}``.
        slides: The slides that this bundle or an ancestor was trained on.
        validation_slides: The other slides that chose an epoch, a threshold or a calibration of
            this bundle or of an ancestor.
        ancestors: The earlier bundles that the weights come from, the nearest first.
    """

    config: Mapping[str, JsonValue] = Field(default_factory=dict)
    classes: Mapping[str, tuple[Text, ...]] = Field(default_factory=dict)
    patches: Mapping[str, int] = Field(default_factory=dict)
    slides: tuple[SlideIdentity, ...] = ()
    validation_slides: tuple[SlideIdentity, ...] = ()
    metrics: Mapping[str, JsonValue] = Field(default_factory=dict)
    ancestors: Annotated[tuple[Ancestor, ...], Field(max_length=MAX_ANCESTORS)] = ()
    annotations: tuple[SlideAnnotations, ...] = ()
    review: ReviewCounts = ReviewCounts()

    def use_of(self, slide: SlideIdentity) -> Use | None:
        """What a slide was used for; None if it was not used."""
        if slide in self._slides:
            return "train"
        return "val" if slide in self._validation_slides else None

    def uses_file_of(self, slide: SlideIdentity) -> bool:
        """Whether it is known that this slide's file, or a part of it, was used."""
        return any(known.has_file_of(slide) for known in (self._slides, self._validation_slides))

    @cached_property
    def _slides(self) -> KnownSlides:
        return KnownSlides(self.slides)

    @cached_property
    def _validation_slides(self) -> KnownSlides:
        return KnownSlides(self.validation_slides)


def installed_versions() -> dict[str, str]:
    """Versions of the installed packages that the numbers depend on."""
    versions = {}
    for package in ("qprd", "torch", "torchvision", "timm", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


@dataclass(frozen=True, config=STRICT)
class BundleInfo:
    """Everything in a bundle but the weights.

    Attributes:
        number: Its place among the trainings of its project, from 1; 0 where it is not known.
        created: When it was made, with time zone, by the clock of that computer.
    """

    name: BundleName
    network: NetworkInfo
    scoring: ScoringInfo
    training: TrainingInfo = Field(default_factory=TrainingInfo)
    number: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    versions: Mapping[str, Text] = Field(default_factory=installed_versions)


def by_name_note(info: BundleInfo) -> tuple[str, ...]:
    """What the user should know of a bundle that records slides by name alone; else nothing."""
    recorded = (*info.training.slides, *info.training.validation_slides)
    if all(slide.fingerprint is not None for slide in recorded):
        return ()
    return (
        f"{info.name} was trained by an earlier qprd and knows its slides by their names alone: a "
        "slide that was renamed since is not recognized, and another slide of the same name counts "
        "as used",
    )
