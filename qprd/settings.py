"""Settings of training and prediction: defaults, TOML files, and how the two and the flags combine.

A value is taken from the command line, else from the ``--config`` file, else from the bundle that a
training goes on from, else from the recipe's and the teacher's defaults (`RECIPE_DEFAULTS`,
`TEACHER_DEFAULTS`), else from the field's default below.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from qprd.checked import (
    MAX_PATCHES,
    STRICT,
    Count,
    Device,
    Names,
    NotNegative,
    OperatingPoint,
    PatchPx,
    Positive,
    RawScore,
    Share,
)
from qprd.errors import ExitCode, QprdError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Regions to review: each is an annotation that a person is to look at.
MAX_UNCERTAIN = 10_000

Recipe = Literal["paper", "best"]
Similarity = Literal["image", "location"]
Labels = Literal["patch", "mask"]
Precision = Literal["auto", "32", "bf16", "16"]
PatchScore = Literal["mean", "max"]
SlideScore = Literal["max", "p99", "mean"]


#: What suits each teacher where the user says nothing. ``wide_resnet50_2`` has the paper's values
#: (256 px patches at 40x, lr 1e-5, 50 epochs); the ResNets share them, being the same network
#: family. The small student of the other teachers learns at a hundred times the rate, on 128 px
#: patches at 20x; ``benchmarks/colon.py`` prints what comes of it.
TEACHER_DEFAULTS: Mapping[str, Mapping[str, float | int]] = {
    "wide_resnet50_2": {"mpp": 0.25, "patch_px": 256, "epochs": 50, "lr": 1e-5},
    "resnet18": {"mpp": 0.25, "patch_px": 256, "epochs": 50, "lr": 1e-5},
    "resnet34": {"mpp": 0.25, "patch_px": 256, "epochs": 50, "lr": 1e-5},
    "resnet50": {"mpp": 0.25, "patch_px": 256, "epochs": 50, "lr": 1e-5},
    "efficientnet_lite0": {"mpp": 0.5, "patch_px": 128, "epochs": 15, "lr": 1e-3},
}
_OTHER_TEACHER_DEFAULTS = TEACHER_DEFAULTS["efficientnet_lite0"]

#: What a recipe overrides of it: ``best`` has the same student for every teacher.
RECIPE_DEFAULTS: Mapping[str, Mapping[str, float | int | bool]] = {
    "paper": {},
    "best": {"epochs": 10, "lr": 1e-3, "augment": True},
}


class TrainConfig(BaseModel):
    """Everything that decides what a training run does, stored in the bundle as resolved.

    Attributes:
        recipe: How the model is built and trained, see `qprd.training.recipes`.
        teacher: Frozen ImageNet backbone, see `qprd.model.teacher`.
        weights: Teacher weights on disk; None loads the published ones.
        mpp: Resolution of the patches, micrometres per pixel.
        patch_px: Edge of a patch in pixels at ``mpp``.
        normal: Number of normal training patches.
        tumor: Number of tumor training patches; 0 is plain reverse distillation.
        hard_fraction: Largest share of the normal (tumor) training patches that regions rejected
            (accepted) in a review give before other tissue does, 0..1.
        val_patches: Validation patches of each class (1:1); None takes what there is, up to 300.
        operating_point: What the threshold is chosen for on validation data, see
            `qprd.evaluation.operating_point.Rule`.
        epochs: Passes over the training patches.
        batch_size: Patches a step.
        lr: Adam's learning rate.
        alpha: Focal weight of normal patches, 0..1, or ``auto`` = tumor / (tumor + normal).
        gamma: Focal exponent of ``paper``, >= 0.
        similarity: One cosine a patch (published code) or one a location (paper).
        labels: A label a patch, or a label a location from the drawn polygons.
        patch_score: The mean or the maximum of a patch's anomaly map.
        tumor_class: Classes that mean tumor; their derived classes count too.
        normal_class: Classes that mean normal tissue.
        margin_um: Where no normal polygons are drawn, normal tissue keeps this far from tumor.
        unannotated_normal: Take slides without any annotation as wholly normal.
        min_coverage: Least share of a patch inside its label region, 0..1.
        max_overlap: Largest share of a patch that another patch of its label may cover, 0..1.
        min_tissue: Least share of a patch that is tissue, 0..1.
        augment: Random flips and quarter turns of training patches.
        exact: Fit threshold and calibration to scores patch by patch only.
        seed: Seed of splits, sampling, initialization and shuffling.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` is bf16 on CUDA devices that have it, else 32 bit.
        teacher_cache: Most GiB that the teacher's maps may take, see `qprd.training.teacher_cache`;
            they are kept on CPUs only.
        compile: Translate the network with ``torch.compile`` before the training.
        images: Names of the only images to use; empty for all.
        assume_mpp: Resolution of slides that do not state theirs.
    """

    model_config = ConfigDict(**STRICT, frozen=True)

    recipe: Recipe = "best"
    teacher: str = "wide_resnet50_2"
    weights: str | None = None
    mpp: Positive = 0.25
    patch_px: PatchPx = 256
    normal: Annotated[int, Field(ge=1)] = 5000
    tumor: Count = 500
    hard_fraction: Share = 0.5
    val_patches: Annotated[int, Field(ge=1, le=MAX_PATCHES)] | None = None
    operating_point: OperatingPoint = "accuracy"
    epochs: Annotated[int, Field(ge=1)] = 50
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Positive = 1e-5
    alpha: Share | Literal["auto"] = 0.1
    gamma: NotNegative = 2.0
    similarity: Similarity = "image"
    labels: Labels = "patch"
    patch_score: PatchScore = "mean"
    tumor_class: Annotated[Names, Field(min_length=1)] = ("Tumor",)
    normal_class: Annotated[Names, Field(min_length=1)] = ("Normal",)
    margin_um: NotNegative = 100.0
    unannotated_normal: bool = False
    min_coverage: Share = 0.75
    max_overlap: Share = 0.5
    min_tissue: Share = 0.5
    augment: bool = False
    exact: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: Device = "auto"
    precision: Precision = "auto"
    teacher_cache: NotNegative = 4.0
    compile: bool = False
    images: Names = ()
    assume_mpp: Positive | None = None

    @model_validator(mode="after")
    def _masks_are_per_location(self) -> TrainConfig:
        if self.labels == "mask" and self.similarity != "location":
            raise PydanticCustomError("modes", "labels = mask needs similarity = location")
        return self


class PredictConfig(BaseModel):
    """Everything that decides what a prediction does; resolution and patch come from the bundle.

    Attributes:
        stride: Distance of neighboring scores in pixels at the bundle's resolution, and the edge
            of the tiles; even, so that patches are centered on tiles. None is half a patch.
        threshold: Raw score from which tissue counts as tumor, or ``auto``: the one chosen on
            validation data.
        operating_point: What ``auto`` is chosen for; None is what the training chose it for.
        slide_score: How the slide score summarizes the score map.
        uncertain: Number of regions to mark for review, over all slides.
        min_tissue: Least share of tissue in a tile and in the patch around it, 0..1; None is the
            bundle's own, below which it has not learned to judge.
        min_area_um2: Contours (and holes) below this area are dropped.
        tolerance_um: Contours are simplified by at most this distance.
        exact: Score patch by patch instead of from large fields.
        batch_size: Patches a forward pass where it is exact.
        weights: Teacher weights on disk; None loads those the bundle was trained with.
        device: As in `TrainConfig`.
        precision: As in `TrainConfig`.
        images: As in `TrainConfig`.
        assume_mpp: As in `TrainConfig`.
    """

    model_config = ConfigDict(**STRICT, frozen=True)

    stride: Annotated[int, Field(ge=8, multiple_of=2)] | None = None
    threshold: RawScore | Literal["auto"] = "auto"
    operating_point: OperatingPoint | None = None
    slide_score: SlideScore = "max"
    uncertain: Annotated[int, Field(ge=0, le=MAX_UNCERTAIN)] = 0
    min_tissue: Share | None = None
    min_area_um2: NotNegative = 5000.0
    tolerance_um: NotNegative = 4.0
    exact: bool = False
    batch_size: Annotated[int, Field(ge=1)] = 32
    weights: str | None = None
    device: Device = "auto"
    precision: Precision = "auto"
    images: Names = ()
    assume_mpp: Positive | None = None

    @model_validator(mode="after")
    def _one_threshold(self) -> PredictConfig:
        if self.threshold != "auto" and self.operating_point is not None:
            raise PydanticCustomError("both", "give a threshold or an operating-point, not both")
        return self


Config = TypeVar("Config", TrainConfig, PredictConfig)


#: Settings that a bundle does not hand on: they are of a machine, or of one run.
_NOT_HANDED_ON = {"weights", "device", "precision", "images"}


def train_config(
    flags: Mapping[str, Any], file: Path | None = None, parent: TrainConfig | None = None
) -> TrainConfig:
    """Combine flags (None or empty = not given), the ``[train]`` table of a file and defaults.

    Args:
        flags: By field name.
        file: A TOML file.
        parent: Settings of the bundle that the training goes on from: they are the defaults, but
            for teacher weights, device, precision and choice of images.

    Raises:
        QprdError: a value is out of range or a setting unknown, by name.
    """
    handed_on = {} if parent is None else parent.model_dump(exclude=_NOT_HANDED_ON)
    values = {**handed_on, **_table(file, "train", TrainConfig), **_given(flags)}
    teacher, recipe = (
        str(values.get(name, TrainConfig.model_fields[name].default))
        for name in ("teacher", "recipe")
    )
    defaults = {
        **TEACHER_DEFAULTS.get(teacher, _OTHER_TEACHER_DEFAULTS),
        **RECIPE_DEFAULTS.get(recipe, {}),
    }
    return _build(TrainConfig, {**defaults, **values})


def predict_config(flags: Mapping[str, Any], file: Path | None = None) -> PredictConfig:
    """Combine flags (None or empty = not given), the ``[predict]`` table of a file and defaults.

    Raises:
        QprdError: a value is out of range or a setting unknown, by name.
    """
    return _build(PredictConfig, {**_table(file, "predict", PredictConfig), **_given(flags)})


def stored_train_config(values: Mapping[str, Any], where: str) -> TrainConfig:
    """The configuration a bundle was trained with, from its ``bundle.json``.

    Bundles that name no recipe are from before there was a choice.

    Raises:
        QprdError: it is not one; bundles come from strangers.
    """
    try:
        return TrainConfig.model_validate({"recipe": "paper", **values})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise QprdError(
            f"The bundle's configuration is damaged: {first['loc']}: {first['msg'].lower()}.",
            where=where,
        ) from error


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value not in (None, (), [])}


def _table(file: Path | None, name: str, config: type[BaseModel]) -> dict[str, Any]:
    """The keys of one table of a TOML file, as field names of ``config``."""
    if file is None:
        return {}
    try:
        with file.open("rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise QprdError(
            f"The configuration file cannot be read: {error.strerror}.",
            where=str(file),
            fix="Check the path given to --config.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QprdError(f"Not valid TOML: {error}.", where=str(file)) from error
    for key, table in document.items():
        if key not in ("train", "predict") or not isinstance(table, dict):
            raise QprdError(
                f"Unknown table or key {key!r}.",
                where=str(file),
                fix="Put settings under [train] or [predict].",
            )
    values: dict[str, Any] = {}
    for key, value in document.get(name, {}).items():
        field = "images" if key == "image" else key.replace("-", "_")
        if field not in config.model_fields:
            close = difflib.get_close_matches(field, config.model_fields, n=1)
            raise QprdError(
                f"Unknown setting {key!r} in [{name}].",
                where=str(file),
                fix=f"Did you mean {close[0]!r}?"
                if close
                else f"Known: {', '.join(config.model_fields)}.",
            )
        values[field] = value
    return values


def _build(config: type[Config], values: Mapping[str, Any]) -> Config:
    try:
        return config(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        option = "image" if name == "images" else name.replace("_", "-")
        value = f"{option} = {values[name]!r} cannot be used: " if name else ""
        raise QprdError(
            f"{value}{first['msg'].lower()}.",
            where=f"--{option}" if name else None,
            fix="Change the option, or its line in the --config file.",
            exit_code=ExitCode.USAGE,
        ) from error
