"""``qprd predict`` and ``qprd evaluate``."""

from __future__ import annotations

from qprd.cli.app import app
from qprd.cli.options import (
    AnnotationsOption,
    AssumeMppOption,
    BackendOption,
    BatchSizeOption,
    BundleOption,
    ConfigOption,
    DeviceOption,
    EvaluatedSplitOption,
    ExactOption,
    ImageOption,
    JsonOption,
    MinAreaUm2Option,
    OperatingPointOption,
    PrecisionOption,
    ProjectArgument,
    SlideScoreOption,
    SlidesOption,
    StrideOption,
    ThresholdOption,
    ToleranceUmOption,
    UnannotatedNormalOption,
    UncertainOption,
    WeightsOption,
    WriteBackOption,
)
from qprd.cli.session import as_text, exit_for, opened_project, report


@app.command()
def predict(
    project: ProjectArgument = None,
    bundle: BundleOption = None,
    write_back: WriteBackOption = False,
    uncertain: UncertainOption = None,
    backend: BackendOption = "auto",
    threshold: ThresholdOption = None,
    operating_point: OperatingPointOption = None,
    stride: StrideOption = None,
    exact: ExactOption = None,
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
    from qprd.jobs.predict.job import predict_project
    from qprd.progress import TerminalProgress
    from qprd.settings import predict_config

    settings = predict_config(
        {
            "stride": stride,
            "exact": exact,
            "threshold": threshold,
            "operating_point": operating_point,
            "slide_score": slide_score,
            "uncertain": uncertain,
            "min_area_um2": min_area_um2,
            "tolerance_um": tolerance_um,
            "batch_size": batch_size,
            "weights": as_text(weights),
            "device": device,
            "precision": precision,
            "images": image,
            "assume_mpp": assume_mpp,
        },
        config,
    )
    with opened_project(project, backend, slides) as opened:
        summary = predict_project(
            opened, settings, bundle=bundle, write_back=write_back, progress=TerminalProgress()
        )
    report(summary, json)
    exit_for(summary.failed)


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
    from qprd.jobs.evaluate.job import evaluate_project
    from qprd.jobs.reporting import print_summary, write_json_object
    from qprd.progress import TerminalProgress

    with opened_project(project, backend, slides, annotations) as opened:
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
    exit_for(summary.failed)
