"""The Python API: a function for each step of the work; `import qprd` gives all of them.

Settings are keyword arguments named like the options of the command line, with underscores:
``--patch-px 128`` is ``patch_px=128``. What they mean is said by ``qprd train --help`` and
``qprd predict --help``. Every function that takes long shows bars unless ``progress=False``, and
every error that a user can mend is a `QprdError`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from qprd.checked import Backend
from qprd.jobs.predict.model import Model
from qprd.progress import Progress, progress_bars
from qprd.settings import Precision, PredictConfig, TrainConfig, predict_config, train_config

if TYPE_CHECKING:
    from qprd.jobs.demo import DemoSummary
    from qprd.jobs.doctor import Examination
    from qprd.jobs.evaluate.split import EvaluatedSplit
    from qprd.jobs.evaluate.summary import EvaluateSummary
    from qprd.jobs.export import ExportSummary, ModelFormat
    from qprd.jobs.import_asap import ImportSummary
    from qprd.jobs.predict.job import PredictSummary
    from qprd.jobs.remove import RemoveSummary
    from qprd.jobs.undo import UndoSummary
    from qprd.jobs.write_back import WriteBackSummary
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

    Example:
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
        annotations=_path(annotations),
    )
    _LOG.info(how)
    return project


def train(
    project: Project,
    config: TrainConfig | str | Path | None = None,
    *,
    parent: Model | str | Path | None = None,
    patches: str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> Model:
    """Train a model on the annotations of a project; it is saved as a bundle in the project.

    Args:
        project: Only read, but for the new bundle.
        config: Settings, or a TOML file of them; keyword arguments win.
        parent: A model to continue from: its weights are where the training starts, its settings
            hold where no others are given, and its slides keep their splits.
        patches: A patch table (a bundle's ``patches.csv``) to use instead of sampling.
        progress: False shows no bars.
        settings: Options of ``qprd train``, the fields of `TrainConfig`.

    Returns:
        The model; ``training`` has the patches, the slides, the figures and the notes. Ctrl-C ends
        the training early, and the model is what was learned until then.

    Raises:
        QprdError: a setting is unknown or out of range, or nothing can be learned from the project.

    Example:
        >>> model = qprd.train(
        ...     project, teacher="efficientnet_lite0", normal=30, tumor=8, epochs=2
        ... )
        >>> model.training.patches["train"] == {"normal": 30, "tumor": 8}
        True
    """
    from qprd.jobs.train.job import train_project
    from qprd.jobs.train.parent import parent_settings

    folder = None if parent is None else _bundle(parent)
    values, file = _merged(config, settings)
    resolved = train_config(values, file, None if folder is None else parent_settings(folder))
    summary = train_project(
        project,
        resolved,
        patches=_path(patches),
        parent=folder,
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

    Example:
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
    config: PredictConfig | str | Path | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> PredictSummary:
    """Score the slides of a project; the results are files in the project's folder.

    A slide that cannot be read is reported among the ``problems``, and the others go on.

    Args:
        project: Changed only by the write-back.
        model: A model or the folder of a bundle; None takes the newest of the project.
        write_back: Also put tiles, contours and slide scores into the project.
        config: Settings, or a TOML file of them; keyword arguments win.
        progress: False shows no bars.
        settings: Options of ``qprd predict``, the fields of `PredictConfig`.

    Raises:
        QprdError: a setting is unknown or out of range, or nothing could be predicted at all.

    Example:
        >>> results = qprd.predict(project, model, images="demo_4.tif", stride=128)
        >>> results.slides[0].contours > 0
        True
    """
    from qprd.jobs.predict.job import predict_project

    values, file = _merged(config, settings)
    return predict_project(
        project,
        predict_config(values, file),
        bundle=Path(model) if isinstance(model, str) else model,
        write_back=write_back,
        progress=progress_bars(progress),
    )


def evaluate(
    project: Project,
    model: Model | str | Path | None = None,
    *,
    split: EvaluatedSplit | None = None,
    images: Sequence[str] = (),
    unannotated_normal: bool = False,
    assume_mpp: float | None = None,
    progress: bool | Progress = True,
) -> EvaluateSummary:
    """Compare the results of a project with its annotations; also writes a page.

    Args:
        project: Only read.
        model: Whose predictions; None takes the newest bundle of the project.
        split: ``test``, ``val`` or ``all``; None takes the test slides, or without any the
            validation slides.
        images: Names of the only images to use; empty for all.
        unannotated_normal: Slides without annotations have no tumor.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.
        progress: False shows no bars.

    Raises:
        QprdError: there is nothing to evaluate.

    Example:
        >>> qprd.evaluate(project, split="val").patch.auroc > 0.5
        True
    """
    from qprd.jobs.evaluate.job import evaluate_project

    return evaluate_project(
        project,
        split=split,
        bundle=None if model is None else _bundle(model),
        images=_names(images),
        unannotated_normal=unannotated_normal,
        assume_mpp=assume_mpp,
        progress=progress_bars(progress),
    )


def write_back(
    project: Project,
    *,
    images: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> WriteBackSummary:
    """Put results that were predicted before into the project; `undo` takes that back.

    An image that cannot be written stays as it was and is reported, and the others go on.

    Args:
        project: Gets tiles, contours and slide scores; nothing else in it changes.
        images: Names of the only images to write; empty for all that have results.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there are no results, or another command is writing.

    Example:
        >>> len(qprd.write_back(project).written)
        5
    """
    from qprd.jobs.write_back import write_back_project

    return write_back_project(
        project, images=_names(images), dry_run=dry_run, progress=progress_bars(progress)
    )


def remove(
    project: Project,
    *,
    images: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> RemoveSummary:
    """Take everything that qprd wrote out of the project again; result files stay.

    Args:
        project: Loses our tiles, contours and slide scores, and nothing of yours.
        images: Names of the only images to clear; empty for all.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there is no such image, or another command is writing.

    Example:
        >>> qprd.remove(project, dry_run=True).removed
        {}
    """
    from qprd.jobs.remove import remove_from_project

    return remove_from_project(
        project, images=_names(images), dry_run=dry_run, progress=progress_bars(progress)
    )


def undo(
    project: Project,
    *,
    everything: bool = False,
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> UndoSummary:
    """Take back the last write-back, removal or import: files become what they were.

    Where you have worked on an image since, only what is qprd's goes back.

    Args:
        project: The project.
        everything: Take back every command whose backup is kept.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there is nothing to take back, or another command is writing.

    Example:
        >>> written = qprd.write_back(project, images="demo_4.tif")
        >>> undone = qprd.undo(project)
        >>> [command.command for command in undone.commands]
        ['write-back']
    """
    from qprd.jobs.undo import undo_project

    return undo_project(
        project, everything=everything, dry_run=dry_run, progress=progress_bars(progress)
    )


def import_asap(
    project: Project,
    file: str | Path,
    *,
    image: str,
    tumor_class: str = "Tumor",
    dry_run: bool = False,
) -> ImportSummary:
    """Turn tumor drawn in ASAP into annotations of a project.

    Args:
        project: The project.
        file: ASAP's ``.xml``, or a ``.json`` of Camelyon16 annotations.
        image: Name of the image that was annotated.
        tumor_class: The class that the annotations get.
        dry_run: Say what would change, and touch nothing.

    Raises:
        QprdError: the file has no tumor or cannot be read, there is no such image, or nothing can
            be written.
    """
    from qprd.jobs import import_asap as job

    return job.import_asap(
        project, Path(file), image=image, tumor_class=tumor_class, dry_run=dry_run
    )


def export_model(
    model: Model | Project | str | Path,
    format: ModelFormat,
    *,
    output: str | Path | None = None,
    weights: str | Path | None = None,
) -> ExportSummary:
    """Write a model in the form that other programs take.

    Args:
        model: A model, the folder of a bundle, or a project (open, or its place), whose newest
            bundle is taken.
        format: ``wsinfer`` (QuPath's WSInfer extension, ``wsinfer run``) or ``onnx``.
        output: The folder (WSInfer) or the file (ONNX); None takes the project's ``qprd/exports``,
            or the current folder if no project is given.
        weights: Teacher weights on disk; None takes the published ones.

    Raises:
        QprdError: the bundle cannot be used, WSInfer's format needs probabilities and there are
            none, or the files cannot be written.

    Example:
        >>> qprd.export_model(model, "wsinfer", output="exported").files
        ('torchscript_model.pt', 'config.json', 'README.md')
    """
    from qprd.files.layout import find_project
    from qprd.jobs.export import export_bundle, export_newest, is_bundle

    target, teacher = _path(output), _path(weights)
    if isinstance(model, Model):
        return export_bundle(model.bundle, format, output=target, weights=teacher)
    place = Path(model) if isinstance(model, (str, Path)) else model.path
    if is_bundle(place):
        return export_bundle(place, format, output=target, weights=teacher)
    return export_newest(find_project(place), format, output=target, weights=teacher)


def export_geojson(
    project: Project,
    *,
    images: Sequence[str] = (),
    tiles: bool = False,
    output: str | Path | None = None,
) -> ExportSummary:
    """Write the predicted contours of one slide as GeoJSON.

    Args:
        project: Only read.
        images: The slide's name; not needed where only one has results.
        tiles: With the scored tiles.
        output: The file; None takes the project's ``qprd/exports``.

    Raises:
        QprdError: there are no results or those of several slides, or the file cannot be written.

    Example:
        >>> qprd.export_geojson(project, images="demo_4.tif", output="demo_4.geojson").output.name
        'demo_4.geojson'
    """
    from qprd.jobs import export

    return export.export_geojson(project, images=_names(images), tiles=tiles, output=_path(output))


def doctor(
    project: Project | str | Path | None = None,
    *,
    backend: Backend = "auto",
    slides: str | Path | Sequence[str | Path] = (),
    annotations: str | Path | None = None,
    images: Sequence[str] = (),
    assume_mpp: float | None = None,
    tumor_class: Sequence[str] = ("Tumor",),
    normal_class: Sequence[str] = ("Normal",),
) -> Examination:
    """Check this installation, and a project if one is given: findings and what to do about them.

    Args:
        project: An open project, or a place as for `open_project`; None takes the project of the
            current folder, if there is one.
        backend: As for `open_project`, as are the next two.
        slides: Folders of slides that have moved.
        annotations: A folder of GeoJSON annotations.
        images: Names of the only images to check; empty for all.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.
        tumor_class: Classes that mean tumor.
        normal_class: Classes that mean normal tissue.

    Example:
        >>> qprd.doctor("demo/project").failed
        0
    """
    from qprd.jobs.doctor import examine

    folders = [slides] if isinstance(slides, (str, Path)) else slides
    return examine(
        Path(project) if isinstance(project, str) else project,
        backend=backend,
        slides=[Path(folder) for folder in folders],
        annotations=_path(annotations),
        images=_names(images),
        assume_mpp=assume_mpp,
        tumor_class=_names(tumor_class),
        normal_class=_names(normal_class),
    )


def draw_demo(
    folder: str | Path,
    *,
    size_px: tuple[int, int] = (2000, 2500),
    seed: int = 0,
    progress: bool | Progress = True,
) -> Path:
    """Draw five synthetic slides, and make a QuPath project of them, annotated on three.

    Args:
        folder: New or empty.
        size_px: Width and height of a slide, at 0.5 um/px.
        seed: Draws other slides.
        progress: False shows no bars.

    Returns:
        The project file.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[demo]`` is not installed.

    Example:
        >>> path = qprd.draw_demo("another demo", size_px=(500, 500))
        >>> path.name
        'project.qpproj'
    """
    from qprd.jobs.demo import draw_project

    return draw_project(
        Path(folder), size_px=size_px, seed=seed, progress=progress_bars(progress)
    ).file


def run_demo(
    folder: str | Path,
    *,
    backend: Backend = "auto",
    seed: int = 0,
    progress: bool | Progress = True,
) -> DemoSummary:
    """Draw the demo's project, train on it, predict and write back, as ``qprd demo`` does.

    Args:
        folder: New or empty.
        backend: As for `open_project`.
        seed: Draws other slides.
        progress: False shows no bars.

    Raises:
        QprdError: the folder is not empty or cannot be written, or ``qprd[demo]`` is not installed.
    """
    from qprd.jobs import demo

    return demo.run_demo(Path(folder), backend=backend, seed=seed, progress=progress_bars(progress))


def copy_scripts(folder: str | Path) -> list[Path]:
    """Copy the Groovy scripts that run inside QuPath into a folder.

    Args:
        folder: Made if need be; earlier copies are replaced.

    Raises:
        QprdError: the folder cannot be written.

    Example:
        >>> [path.name for path in qprd.copy_scripts("scripts")][0]
        'export_annotations.groovy'
    """
    from qprd.jobs import groovy

    return list(groovy.copy_scripts(Path(folder)).scripts)


def _merged(
    config: BaseModel | str | Path | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], Path | None]:
    """Settings by name, and the file to take others from."""
    if isinstance(config, BaseModel):
        return {**config.model_dump(), **settings}, None
    return dict(settings), _path(config)


def _bundle(model: Model | str | Path) -> Path:
    return model.bundle if isinstance(model, Model) else Path(model)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _names(names: str | Sequence[str]) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names
