"""``qprd train``."""

from __future__ import annotations

import typer

from qprd.cli.app import app
from qprd.cli.options import (
    AlphaOption,
    AnnotationsOption,
    AssumeMppOption,
    AugmentOption,
    BackendOption,
    BatchSizeOption,
    CompileOption,
    ConfigOption,
    DeviceOption,
    EpochsOption,
    ExactOption,
    FromOption,
    GammaOption,
    HardFractionOption,
    ImageOption,
    JsonOption,
    LabelsOption,
    LrOption,
    MarginUmOption,
    MaxOverlapOption,
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
    SlidesOption,
    TeacherCacheOption,
    TeacherOption,
    TumorClassOption,
    TumorOption,
    UnannotatedNormalOption,
    ValPatchesOption,
    WeightsOption,
)
from qprd.cli.session import as_text, opened_project, report
from qprd.errors import ExitCode


@app.command()
def train(
    project: ProjectArgument = None,
    backend: BackendOption = "auto",
    from_bundle: FromOption = None,
    recipe: RecipeOption = None,
    teacher: TeacherOption = None,
    weights: WeightsOption = None,
    mpp: MppOption = None,
    patch_px: PatchPxOption = None,
    normal: NormalOption = None,
    tumor: TumorOption = None,
    hard_fraction: HardFractionOption = None,
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
    exact: ExactOption = None,
    patches: PatchesOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    teacher_cache: TeacherCacheOption = None,
    compile_network: CompileOption = None,
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
    from qprd.jobs.train.job import train_project
    from qprd.jobs.train.parent import parent_settings
    from qprd.progress import TerminalProgress
    from qprd.settings import train_config

    settings = train_config(
        {
            "recipe": recipe,
            "teacher": teacher,
            "weights": as_text(weights),
            "mpp": mpp,
            "patch_px": patch_px,
            "normal": normal,
            "tumor": tumor,
            "hard_fraction": hard_fraction,
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
            "exact": exact,
            "seed": seed,
            "device": device,
            "precision": precision,
            "teacher_cache": teacher_cache,
            "compile": compile_network,
            "images": image,
            "assume_mpp": assume_mpp,
        },
        config,
        None if from_bundle is None else parent_settings(from_bundle),
    )
    with opened_project(project, backend, slides, annotations) as opened:
        summary = train_project(
            opened, settings, patches=patches, parent=from_bundle, progress=TerminalProgress()
        )
    report(summary, json)
    if summary.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
