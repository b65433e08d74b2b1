"""The command line: parse, call one job, print. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from qprd import __version__
from qprd.cli_options import (
    AlphaOption,
    AnnotationsOption,
    AssumeMppOption,
    AugmentOption,
    Backend,
    BackendOption,
    BatchSizeOption,
    BundleOption,
    ConfigOption,
    DeviceOption,
    DryRunOption,
    EpochsOption,
    EvaluatedSplitOption,
    GammaOption,
    ImageOption,
    JsonOption,
    LabelsOption,
    LrOption,
    MarginUmOption,
    MaxOverlapOption,
    MinAreaUm2Option,
    MinCoverageOption,
    MinTissueOption,
    MppOption,
    NormalClassOption,
    NormalOption,
    OperatingPointOption,
    PatchesOption,
    PatchPxOption,
    PatchScoreOption,
    PrecisionOption,
    ProjectArgument,
    RecipeOption,
    SeedOption,
    SimilarityOption,
    SlideScoreOption,
    SlidesOption,
    StrideOption,
    TeacherOption,
    ThresholdOption,
    ToleranceUmOption,
    TumorClassOption,
    TumorOption,
    UnannotatedNormalOption,
    ValPatchesOption,
    WeightsOption,
    WriteBackOption,
)
from qprd.errors import ExitCode, QprdError

if TYPE_CHECKING:
    from qprd.jobs.reporting import Summary
    from qprd.qupath.project import Project


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
    recipe: RecipeOption = None,
    teacher: TeacherOption = None,
    weights: WeightsOption = None,
    mpp: MppOption = None,
    patch_px: PatchPxOption = None,
    normal: NormalOption = None,
    tumor: TumorOption = None,
    val_patches: ValPatchesOption = None,
    operating_point: OperatingPointOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    alpha: AlphaOption = None,
    gamma: GammaOption = None,
    similarity: SimilarityOption = None,
    labels: LabelsOption = None,
    patch_score: PatchScoreOption = None,
    tumor_class: TumorClassOption = None,
    normal_class: NormalClassOption = None,
    margin_um: MarginUmOption = None,
    unannotated_normal: UnannotatedNormalOption = None,
    min_coverage: MinCoverageOption = None,
    max_overlap: MaxOverlapOption = None,
    min_tissue: MinTissueOption = None,
    augment: AugmentOption = None,
    patches: PatchesOption = None,
    seed: SeedOption = None,
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
    from qprd.jobs.train import train_project
    from qprd.progress import TerminalProgress

    settings = train_config(
        {
            "recipe": recipe,
            "teacher": teacher,
            "weights": _text(weights),
            "mpp": mpp,
            "patch_px": patch_px,
            "normal": normal,
            "tumor": tumor,
            "val_patches": val_patches,
            "operating_point": operating_point,
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
    with _opened(project, backend, slides, annotations) as opened:
        summary = train_project(opened, settings, patches=patches, progress=TerminalProgress())
    _report(summary, json)
    if summary.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)


@app.command()
def predict(
    project: ProjectArgument = None,
    bundle: BundleOption = None,
    write_back: WriteBackOption = False,
    backend: BackendOption = "auto",
    threshold: ThresholdOption = None,
    operating_point: OperatingPointOption = None,
    stride: StrideOption = None,
    slide_score: SlideScoreOption = None,
    min_area_um2: MinAreaUm2Option = None,
    tolerance_um: ToleranceUmOption = None,
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
    from qprd.progress import TerminalProgress

    settings = predict_config(
        {
            "stride": stride,
            "threshold": threshold,
            "operating_point": operating_point,
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
    with _opened(project, backend, slides) as opened:
        summary = predict_project(
            opened, settings, bundle=bundle, write_back=write_back, progress=TerminalProgress()
        )
    _report(summary, json)
    _exit_for(summary.failed)


@app.command()
def evaluate(
    project: ProjectArgument = None,
    split: EvaluatedSplitOption = None,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    unannotated_normal: UnannotatedNormalOption = None,
    image: ImageOption = None,
    slides: SlidesOption = None,
    annotations: AnnotationsOption = None,
    assume_mpp: AssumeMppOption = None,
    json: JsonOption = None,
) -> None:
    """Compare results with annotations; writes PROJECT/qprd/results/evaluation.html.

    Example: qprd evaluate --split test --json figures.json
    """
    from qprd.jobs.evaluate import evaluate_project
    from qprd.jobs.reporting import print_summary, write_json_object
    from qprd.progress import TerminalProgress

    with _opened(project, backend, slides, annotations) as opened:
        summary = evaluate_project(
            opened,
            split=split,
            bundle=bundle,
            images=image or (),
            unannotated_normal=bool(unannotated_normal),
            assume_mpp=assume_mpp,
            progress=TerminalProgress(),
        )
    print_summary(summary)
    write_json_object(json, summary.report())
    _exit_for(summary.failed)


@app.command("write-back")
def write_back_command(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Put results that are already in PROJECT/qprd/results into the project, without predicting.

    Example: qprd write-back project.qpproj --backend paquo
    """
    from qprd.jobs.write_back import write_back_project
    from qprd.progress import TerminalProgress

    with _opened(project, backend, slides) as opened:
        summary = write_back_project(
            opened, images=image or (), dry_run=dry_run, progress=TerminalProgress()
        )
    _report(summary, json)
    _exit_for(summary.failed)


@app.command()
def remove(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    image: ImageOption = None,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Take everything that qprd wrote out of the project again; result files stay.

    Example: qprd remove project.qpproj --image colon_2.tif
    """
    from qprd.jobs.write_back import remove_from_project
    from qprd.progress import TerminalProgress

    with _opened(project, backend, slides) as opened:
        summary = remove_from_project(
            opened, images=image or (), dry_run=dry_run, progress=TerminalProgress()
        )
    _report(summary, json)
    _exit_for(summary.failed)


@app.command()
def undo(
    project: ProjectArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Take back every write whose backup is kept.")
    ] = False,
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Take back the last write-back, removal or import: files become what they were.

    Where you have worked on an image since, only what is qprd's goes back.
    Backups are in PROJECT/qprd/backups: the last 10 commands, up to 2 GiB.

    Example: qprd undo project.qpproj --dry-run
    """
    from qprd.jobs.undo import undo_project
    from qprd.progress import TerminalProgress

    with _opened(project, backend, slides) as opened:
        summary = undo_project(
            opened, everything=everything, dry_run=dry_run, progress=TerminalProgress()
        )
    _report(summary, json)
    _exit_for(summary.failed)


@app.command("import-asap")
def import_asap_command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="ASAP's .xml, or a .json of Camelyon16 annotations."),
    ],
    project: ProjectArgument = None,
    *,
    image: Annotated[
        str, typer.Option("--image", metavar="NAME", help="The image that was annotated.")
    ],
    tumor_class: Annotated[
        str, typer.Option(metavar="NAME", help="Class that the annotations get.")
    ] = "Tumor",
    backend: BackendOption = "auto",
    dry_run: DryRunOption = False,
    slides: SlidesOption = None,
    json: JsonOption = None,
) -> None:
    """Turn tumor drawn in ASAP into annotations of a project.

    Groups mean what they do in Camelyon16. Tumor: _0, _1, Tumor, metastasis.
    Holes in it: _2, Exclusion, negative. What else there is, is reported.
    Importing a file again replaces what it gave before, unless you changed it.

    Example: qprd import-asap tumor_076.xml project.qpproj --image tumor_076.tif
    """
    from qprd.jobs.import_asap import import_asap

    with _opened(project, backend, slides) as opened:
        summary = import_asap(opened, file, image=image, tumor_class=tumor_class, dry_run=dry_run)
    _report(summary, json)


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

    summary = examine(
        project,
        backend=backend,
        slides=slides or (),
        annotations=annotations,
        tumor_classes=tuple(tumor_class or ("Tumor",)),
    )
    _report(summary, json)
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
    from qprd.progress import TerminalProgress

    summary = run_demo(folder, backend=backend, seed=seed, progress=TerminalProgress())
    _report(summary, json)


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


def _opened(
    project: Path | None,
    backend: Backend,
    slides: list[Path] | None,
    annotations: Path | None = None,
) -> Project:
    """Open the project and say which backend was taken."""
    from qprd.layout import find_project
    from qprd.qupath.opening import open_project

    opened, how = open_project(
        find_project(project), backend=backend, slides=slides or (), annotations=annotations
    )
    typer.echo(how, err=True)
    return opened


def _report(summary: Summary, json: Path | None) -> None:
    from qprd.jobs.reporting import print_summary, write_json

    # What took long to find is shown, even if the file cannot be written.
    print_summary(summary)
    write_json(json, summary)


def _exit_for(failed: int) -> None:
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def main() -> None:
    """Entry point of the ``qprd`` command."""
    app()
