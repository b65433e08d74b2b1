"""Models and predictions for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qprd.api.arguments import names_of, path_of
from qprd.jobs.predict.model import Model

if TYPE_CHECKING:
    from qprd.jobs.export import ExportSummary, ModelFormat
    from qprd.qupath.project import Project


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
    from qprd.jobs import export

    if isinstance(model, Model):
        place = model.bundle
    else:
        place = Path(model) if isinstance(model, (str, Path)) else model.path
    return export.export_model(place, format, output=path_of(output), weights=path_of(weights))


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
    from qprd.api.loop import open_project
    from qprd.jobs import export

    if isinstance(project, (str, Path)):
        export.refuse_bundle(Path(project))
        # The results are files; no QuPath is needed.
        with open_project(project, backend="exchange") as opened:
            return export_geojson(
                opened, images=images, exclude=exclude, tiles=tiles, output=output
            )
    return export.export_geojson(
        project,
        images=names_of(images),
        exclude=names_of(exclude),
        tiles=tiles,
        output=path_of(output),
    )
