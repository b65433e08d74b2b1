"""``qprd export``: a bundle or the predictions of a slide, as files that other programs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from qprd.bundle.names import is_bundle
from qprd.errors import ExitCode, QprdError
from qprd.files.atomic import write_errors
from qprd.files.layout import ProjectLayout, find_project
from qprd.files.transaction import FileTransaction
from qprd.jobs.predict.model import Model
from qprd.jobs.predict.predictor import no_probability
from qprd.names import counted
from qprd.qupath.entry_slides import (
    identity_of,
    name_list,
    require_same_image,
    require_same_slide,
    select_entries,
)
from qprd.qupath.opening import open_project
from qprd.qupath.predictions_geojson import predictions_to_text
from qprd.qupath.project import Entry, Project
from qprd.results.folder import PREDICTIONS, load_predictions, load_slide_result

if TYPE_CHECKING:
    from qprd.bundle.records import BundleInfo

Format = Literal["wsinfer", "onnx", "geojson"]
ModelFormat = Literal["wsinfer", "onnx"]

_USE: Final[Mapping[Format, str]] = {
    "wsinfer": "In QuPath's WSInfer extension: put the folder into 'user' in its model directory.\n"
    "Elsewhere: wsinfer run --config config.json --model-path torchscript_model.pt",
    "onnx": "Patches in (N, 3, P, P), RGB, 0..1; size and resolution are in its metadata.",
    "geojson": "Drop it on the image in QuPath.",
}


@dataclass(frozen=True)
class ExportSummary:
    """What was exported.

    Attributes:
        exported: Name of the bundle or of the image.
        output: The file, or the folder of the files.
        objects: Number of objects in a GeoJSON file; None for a model.
    """

    format: Format
    exported: str
    output: Path
    files: tuple[str, ...]
    objects: int | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The summary for people."""
        count = "" if self.objects is None else f" ({counted(self.objects, 'object')})"
        return [
            f"Exported {self.exported}{count}: {self.output}",
            *(f"note: {note}" for note in self.notes),
            *_USE[self.format].splitlines(),
        ]


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

    Examples:
        >>> qprd.export_model(model, "wsinfer", output="exported").files
        ('torchscript_model.pt', 'config.json', 'README.md')
    """
    from qprd.bundle.reading import load_bundle, newest_bundle, read_bundle_info
    from qprd.export.onnx import onnx_model, require_onnx
    from qprd.export.scorer import ProbabilityAndScore, Score, TwoLogits
    from qprd.export.wsinfer import MODEL_FILE, wsinfer_files

    if isinstance(model, Model):
        bundle = model.bundle
    else:
        bundle = Path(model) if isinstance(model, (str, Path)) else model.path
    folder = Path()
    if not is_bundle(bundle):
        layout = ProjectLayout(find_project(bundle))
        layout.refuse_links()
        bundle = newest_bundle(layout.bundles)
        folder = _own_folder(layout) if output is None else folder
    info = read_bundle_info(bundle)
    if format == "onnx":
        require_onnx()
    elif info.scoring.calibration is None:
        raise QprdError(
            "WSInfer shows probabilities, and " + "".join(no_probability(info)) + ".",
            where=info.name,
            fix="Train with a validation slide (entry metadata split = val), or use --format onnx.",
        )
    network, info = load_bundle(bundle, weights=None if weights is None else Path(weights))
    score = Score(network, info.network.patch_px, info.scoring.patch_score)
    if format == "onnx":
        file = folder / f"{info.name}.onnx" if output is None else Path(output)
        calibration = info.scoring.calibration
        exported = score if calibration is None else ProbabilityAndScore(score, calibration)
        _write(file.parent, {file.name: onnx_model(exported, info)})
        notes = (*no_probability(info), *_scores_patches(info))
        return ExportSummary("onnx", info.name, file, (file.name,), notes=notes)
    assert info.scoring.calibration is not None
    target = folder / f"{info.name}-wsinfer" if output is None else Path(output)
    if target.is_dir() and any(target.iterdir()) and not (target / MODEL_FILE).is_file():
        raise QprdError(
            "The folder holds other files, some of which the export might replace.",
            where=str(target),
            fix="Name a new folder: --output DIR.",
        )
    files = wsinfer_files(TwoLogits(score, info.scoring.calibration), info)
    _write(target, files)
    return ExportSummary("wsinfer", info.name, target, tuple(files), notes=_scores_patches(info))


def export_geojson(
    project: Project | str | Path,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    tiles: bool = False,
    output: str | Path | None = None,
) -> ExportSummary:
    """Write the predicted contours of one slide as GeoJSON.

    Args:
        project: Only read; open, or its place.
        images: The slide's name; not needed where only one has results.
        exclude: Names of images to leave out, which outweighs ``images``.
        tiles: With the scored tiles.
        output: The file; None takes the project's ``qprd/exports``.

    Raises:
        QprdError: it is the folder of a bundle, there are no results or those of several slides, or
            the file cannot be written.

    Examples:
        >>> qprd.export_geojson(project, images="demo_4.tif", output="demo_4.geojson").output.name
        'demo_4.geojson'
    """
    if isinstance(project, (str, Path)):
        if is_bundle(Path(project)):
            raise QprdError(
                "This is a trained model, and GeoJSON has the contours predicted on a slide.",
                where=str(project),
                fix="Give the project in which the model predicted, or export the model with "
                "--format wsinfer or onnx.",
                exit_code=ExitCode.USAGE,
            )
        # The results are files; no QuPath is needed.
        with open_project(find_project(Path(project)), backend="exchange")[0] as opened:
            return export_geojson(
                opened, images=images, exclude=exclude, tiles=tiles, output=output
            )
    layout = ProjectLayout(project.path)
    entry = _the_entry(layout, select_entries(project, images, exclude), bool(images))
    folder = layout.result(entry.id)
    predictions, result = load_predictions(folder), load_slide_result(folder)
    if entry.source.path is None:
        require_same_slide(entry, identity_of(entry), result.slide)
    else:
        require_same_image(entry, result.slide, result.frame)
    text = predictions_to_text(predictions if tiles else replace(predictions, tiles=()))
    file = _own_folder(layout) / f"{entry.id}.geojson" if output is None else Path(output)
    _write(file.parent, {file.name: text.encode()})
    return ExportSummary(
        "geojson",
        entry.name,
        file,
        (file.name,),
        objects=len(predictions.annotations) + tiles * len(predictions.tiles),
    )


def _the_entry(layout: ProjectLayout, entries: Sequence[Entry], are_named: bool) -> Entry:
    if not are_named:
        entries = [e for e in entries if (layout.result(e.id) / PREDICTIONS).is_file()]
    if not entries:
        raise QprdError(
            "No slide has results.", where=str(layout.results), fix="Run qprd predict first."
        )
    if len(entries) > 1:
        raise QprdError(
            f"A GeoJSON file is for one slide, and these are {len(entries)}: {name_list(entries)}.",
            where="--format geojson",
            fix=f"Name one: --image NAME, or --image id:{entries[0].id}.",
            exit_code=ExitCode.USAGE,
        )
    return entries[0]


def _own_folder(layout: ProjectLayout) -> Path:
    layout.require_writable()
    return layout.exports


def _scores_patches(info: BundleInfo) -> tuple[str, ...]:
    """What differs where other programs score each patch by itself."""
    if info.scoring.by == "patches":
        return ()
    return (
        "the exported network scores each patch by itself, while threshold and probability were "
        "chosen for scores from large fields, so that they are approximate; train with --scoring "
        "patches for an export of which they are exact",
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if need be; none if not all can be written."""
    with (
        write_errors("The export", folder, fix="Free disk space, or choose another --output."),
        FileTransaction(folder) as transaction,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            transaction.stage_bytes(folder / name, content)
        transaction.commit()
