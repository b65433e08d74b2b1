"""The loop: open a project, train on it, load a model, predict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprd.api.arguments import merged, prediction_settings, training_settings
from qprd.checked import Backend
from qprd.errors import ExitCode, QprdError
from qprd.jobs.predict.model import Model, bundle_of
from qprd.progress import Progress, progress_bars
from qprd.ranks import this_rank
from qprd.settings import Precision, PredictConfig, TrainConfig

if TYPE_CHECKING:
    from qprd.jobs.predict.summary import PredictSummary
    from qprd.qupath.project import Project

_LOG = logging.getLogger("qprd")


def open_project(
    path: str | Path = ".",
    *,
    backend: Backend = "auto",
    slides: str | Path | Sequence[str | Path] = (),
    annotations: str | Path | None = None,
) -> Project:
    """Open a QuPath project; ``with`` closes it again.

    Args:
        path: The ``project.qpproj``, or the folder that holds it.
        backend: ``paquo`` (a real QuPath), ``exchange`` (the project file and GeoJSON files, no
            QuPath), or ``auto``: paquo where a QuPath is found.
        slides: Folders to look in for slides that have moved, by file name.
        annotations: A folder of GeoJSON annotations; needs the exchange backend.

    Raises:
        QprdError: there is no project, it cannot be read, or not with this backend.

    Examples:
        >>> with qprd.open_project("demo/project") as project:
        ...     [entry.name for entry in project.entries()]
        ['demo_1.tif', 'demo_2.tif', 'demo_3.tif', 'demo_4.tif', 'demo_5.tif']
    """
    from qprd.files.layout import find_project
    from qprd.qupath import opening

    folders = [slides] if isinstance(slides, (str, Path)) else slides
    project, how = opening.open_project(
        find_project(Path(path)),
        backend=backend,
        slides=[Path(folder) for folder in folders],
        annotations=None if annotations is None else Path(annotations),
    )
    _LOG.info(how)
    return project


def train(
    project: Project,
    config: TrainConfig | str | Path | None = None,
    *,
    parent: Model | str | Path | None = None,
    patches: str | Path | None = None,
    resume: bool | str = False,
    finish: bool = False,
    log_dir: str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> Model:
    """Train a model on the annotations of a project; it is saved as a bundle in the project.

    Args:
        project: Only read, but for the new bundle.
        config: Settings, or a TOML file of them; keyword arguments win.
        parent: A model to continue from: its settings hold where no others are given, and its
            slides keep their splits; under recipe ``paper`` the training starts from its weights.
        patches: A patch table (a bundle's ``patches.csv``) to use instead of sampling.
        resume: Go on with a training that was stopped: with this one, or the newest. It has its
            settings, its parent and its patches; only devices may be others.
        finish: Train no more epochs than the resumed training has.
        log_dir: Gets curves and pictures for TensorBoard; needs ``qprd[log]``.
        progress: False shows no bars.
        settings: Options of ``qprd train``, the fields of `TrainConfig`.

    Returns:
        The model; ``training`` has the patches, the slides, the figures and the notes. Where
        several processes train together it is None in all but the first.

    Raises:
        QprdError: a setting is unknown or out of range, nothing can be learned from the project,
            or slides, annotations or settings are not those of the training to resume.
        KeyboardInterrupt: Ctrl-C; what was computed until then is kept to be resumed.

    Examples:
        >>> model = qprd.train(project, teacher="efficientnet_lite0", normal=30, tumor=8)
        >>> model.training.patches["train"] == {"normal": 30, "tumor": 8}
        True
    """
    from qprd.jobs.train.follow import follow
    from qprd.jobs.train.job import train_project
    from qprd.jobs.train.run import stopped_run

    run, leads = None, this_rank().is_first
    if resume or finish:
        for kept, given in (("parent", parent), ("patches", patches)):
            if given is not None:
                raise QprdError(
                    f"A training that is resumed keeps its {kept}: no other can be given.",
                    where="--resume",
                    fix="Leave it out, or train anew without --resume.",
                    exit_code=ExitCode.USAGE,
                )
        name = resume if isinstance(resume, str) else None
        run = stopped_run(project.path, name, or_running=not leads)
        _LOG.info(f"Resuming {run.name}.")
        resolved = run.config(*merged(config, settings))
    else:
        resolved = training_settings(config, settings, parent)
    if not leads:
        return Model(
            follow(resolved),
            weights=resolved.weights,
            device=resolved.device,
            precision=resolved.precision,
        )
    with ExitStack() as stack:
        if log_dir is not None:
            from qprd.training.tracking import logged_to

            stack.enter_context(logged_to(Path(log_dir)))
        summary = train_project(
            project,
            resolved,
            patches=None if patches is None else Path(patches),
            parent=None if parent is None else bundle_of(parent),
            resumed=run,
            finish=finish,
            progress=progress_bars(progress),
        )
    return Model(
        summary.bundle,
        weights=resolved.weights,
        device=resolved.device,
        precision=resolved.precision,
        training=summary,
    )


def load_model(
    bundle: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Model:
    """Load a trained model. No project is needed, and no code in the bundle can run.

    Args:
        bundle: The folder that the training wrote.
        weights: Teacher weights on disk; None takes the published ones.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        precision: ``auto`` (bf16 on devices that have it, else 32 bits), ``32``, ``bf16``, ``16``.

    Raises:
        QprdError: there is no bundle, it is damaged, its teacher has other weights, or the device
            is not there.

    Examples:
        >>> model = qprd.load_model("demo/project/qprd/bundles/example")
        >>> model.teacher
        'efficientnet_lite0'
    """
    model = Model(bundle, weights=weights, device=device, precision=precision)
    _ = model.network
    return model


def predict(
    project: Project,
    model: Model | str | Path | None = None,
    *,
    write_back: bool = False,
    force: bool = False,
    config: PredictConfig | str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> PredictSummary:
    """Score the slides of a project; the results are files in the project's folder.

    Slides whose results are up to date are not scored again. A slide that cannot be read is
    reported among the ``problems``, and the others go on.

    Args:
        project: Changed only by the write-back.
        model: A model, which keeps its device, precision and weights, or the folder of a bundle;
            None takes the newest of the project.
        write_back: Also put tiles, contours and slide scores into the project.
        force: Score slides again whose results are up to date.
        config: Settings, or a TOML file of them; keyword arguments win.
        progress: False shows no bars.
        settings: Options of ``qprd predict``, the fields of `PredictConfig`.

    Raises:
        QprdError: a setting is unknown or out of range, or nothing could be predicted at all.

    Examples:
        >>> results = qprd.predict(project, model, images="demo_4.tif", stride=128)
        >>> results.slides[0].contours > 0
        True
    """
    from qprd.jobs.predict.job import predict_project

    if isinstance(model, Model):
        model.refuse_other(settings)
    return predict_project(
        project,
        prediction_settings(config, settings),
        bundle=Path(model) if isinstance(model, str) else model,
        write_back=write_back,
        force=force,
        progress=progress_bars(progress),
    )
