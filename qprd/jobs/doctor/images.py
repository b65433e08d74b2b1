"""A look at all images of a project: their slides, their annotations, and what is doubtful."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.doctor.checks import Check, warning
from qprd.predictions import is_own_class
from qprd.progress import Progress
from qprd.qupath.entry_slides import open_slide
from qprd.qupath.project import Annotation, Entry, Project
from qprd.sampling.classes import Classes, is_derived
from qprd.sampling.drawn import unlabeled_annotations, unlabeled_note
from qprd.settings import TrainConfig
from qprd.slides.damage import refuse_damage
from qprd.slides.read_ahead import read_ahead
from qprd.slides.remarks import overview_of, remarks
from qprd.slides.slide import Slide

#: Faults of annotations that are shown of one image.
_FAULTS_SHOWN = 3
#: Tiles that are read of all annotated slides together, and of one: some milliseconds each. Beside
#: these, a grid of so many rows and columns is read of each slide.
_MOST_READ, _MOST_READ_PER_SLIDE = 2000, 32
_GRID = 3
#: Slides that wait for a thread, so that none waits for the annotations of the next.
_WAITING = 8

#: Left, top, right and bottom edges of annotations, (n, 4).
_Bounds = NDArray[np.float64]


@dataclass
class Images:
    """What was seen of the images; of their annotations only what is told is kept.

    Attributes:
        usable: Those whose slides can be read.
        failures: The others, and why.
        doubts: What is doubtful of which slides.
        annotated: Those on which a person has drawn tumor.
        classes: Number of annotations by the class that is shown.
        faults: Annotations that cannot be read, and images of which none can.
        missing: Why annotations may be missing, and of which images.
        unlabeled: Annotations that mean nothing to a training, and of which images.
    """

    usable: list[Entry] = field(default_factory=list)
    failures: list[tuple[Entry, QprdError]] = field(default_factory=list)
    doubts: dict[str, list[Entry]] = field(default_factory=dict)
    annotated: list[Entry] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    faults: list[Check] = field(default_factory=list)
    missing: dict[str, list[Entry]] = field(default_factory=dict)
    unlabeled: dict[str, list[Entry]] = field(default_factory=dict)


def look_at_images(
    project: Project, entries: Sequence[Entry], config: TrainConfig, progress: Progress
) -> Images:
    """Read the annotations of all images and open their slides, several of these at once."""
    images, classes = Images(), Classes.of(config)
    patch_um, mpp = _model_in_use(project)
    look = partial(
        _look_at_slide,
        assume_mpp=config.assume_mpp,
        places=_MOST_READ // max(len(entries), 1),
        patch_um=patch_um,
        mpp=mpp,
    )
    pieces = ((entry, _look_at_annotations(project, entry, classes, images)) for entry in entries)
    with progress.task("looking at slides", len(entries)) as task:
        for (entry, _), seen in read_ahead(look, pieces, waiting=_WAITING):
            if isinstance(seen, QprdError):
                images.failures.append((entry, seen))
            else:
                images.usable.append(entry)
                for doubt in seen:
                    images.doubts.setdefault(doubt, []).append(entry)
            task.advance()
    return images


def _look_at_annotations(
    project: Project, entry: Entry, classes: Classes, images: Images
) -> _Bounds:
    """Add what there is to tell of the annotations of an image, and return their bounds."""
    try:
        note = project.annotation_note(entry)
        annotations = project.annotations(entry)
    except QprdError as error:
        told = f"{error.problem} ({error.where})"
        images.faults.append(warning(entry.name, told, error.fix, [entry.name]))
        return np.empty((0, 4))
    if note is not None:
        images.missing.setdefault(note, []).append(entry)
    images.faults += _faults(entry, annotations)
    images.classes.update(map(_shown_class, annotations))
    others = unlabeled_annotations(annotations, classes)
    if others:
        images.unlabeled.setdefault(unlabeled_note(others, classes), []).append(entry)
    if any(
        is_derived(annotation.class_name, classes.tumor) and not is_own_class(annotation.class_name)
        for annotation in annotations
    ):
        images.annotated.append(entry)
    drawn = [a.geometry for a in annotations if not a.geometry.is_empty]
    return np.asarray(shapely.bounds(drawn)).reshape(-1, 4)


def _faults(entry: Entry, annotations: Sequence[Annotation]) -> Iterator[Check]:
    faulty = [annotation for annotation in annotations if annotation.fault is not None]
    for annotation in faulty[:_FAULTS_SHOWN]:
        what = f"{annotation.class_name or 'annotation'} {annotation.name or annotation.id}"
        more = f" (one of {len(faulty)} such annotations)" if len(faulty) > 1 else ""
        yield warning(
            entry.name,
            f"{what} is left out: {annotation.fault}{more}",
            "Draw it again in QuPath, or delete it.",
            [entry.name],
        )


def _shown_class(annotation: Annotation) -> str:
    if is_own_class(annotation.class_name):
        return f"{annotation.class_name} (by qprd)"
    return annotation.class_name or "unclassified"


def _look_at_slide(
    piece: tuple[Entry, _Bounds],
    *,
    assume_mpp: float | None,
    places: int,
    patch_um: float,
    mpp: float | None,
) -> list[str] | QprdError:
    """Return what is doubtful of a slide, or why it cannot be read."""
    entry, bounds = piece
    try:
        with open_slide(entry, assume_mpp=assume_mpp) as slide:
            refuse_damage(slide, _places(slide, bounds, places))
            return remarks(slide, overview_of(slide), patch_um=patch_um, mpp=mpp)
    except QprdError as error:
        return error


def _places(slide: Slide, bounds: _Bounds, count: int) -> Iterator[tuple[float, float]]:
    """Places where the pixels of a slide are tried: a grid, and at random where it is annotated."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    yield from ((x * slide.width, y * slide.height) for x in steps for y in steps)
    bounds = np.clip(bounds, 0, np.array([slide.width, slide.height] * 2) - 1)
    # The largest annotations first, each at least once.
    order = np.argsort(-np.prod(bounds[:, 2:] - bounds[:, :2], axis=1))
    random = np.random.default_rng(0)
    for index in np.resize(order, min(count, _MOST_READ_PER_SLIDE) if len(order) else 0):
        low, high = bounds[index, :2], bounds[index, 2:]
        x, y = low + random.random(2) * (high - low)
        yield float(x), float(y)


def _model_in_use(project: Project) -> tuple[float, float | None]:
    """Edge of a patch in um and resolution of the newest model, or of patches until there is one.

    Which resolution a first model will have depends on its teacher; its patch does not.
    """
    from qprd.bundle.reading import newest_bundle, read_bundle_info

    try:
        network = read_bundle_info(newest_bundle(ProjectLayout(project.path).bundles)).network
    except QprdError:
        config = TrainConfig()
        return config.patch_px * config.mpp, None
    return network.patch_um, network.mpp
