"""Checks of a project: its slides, its annotations, and what commands left in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely

from qprd.errors import QprdError
from qprd.files.backups import size_of, undoable
from qprd.files.journal import is_unfinished
from qprd.files.layout import ProjectLayout
from qprd.files.lock import is_locked
from qprd.jobs.doctor.checks import Check, Status, failure, passed, warning
from qprd.predictions import is_own_class
from qprd.qupath.drawn import Drawn, read_drawn
from qprd.qupath.entry_slides import identity_of, name_list, open_slide, select_entries
from qprd.qupath.project import Annotation, Entry, Project
from qprd.sampling.classes import Classes, is_derived
from qprd.sampling.drawn import unlabeled_annotations, unlabeled_note
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import SplitCandidate, same_slides
from qprd.settings import TrainConfig
from qprd.slides.damage import refuse_damage
from qprd.slides.remarks import OVERVIEW_PX, remarks
from qprd.slides.slide import Slide

#: Names shown where a finding concerns many images.
_NAMES_SHOWN = 3
#: Tiles that are read of all annotated slides together, and of one: some milliseconds each. Beside
#: these, a grid of so many rows and columns is read of each slide.
_MOST_READ, _MOST_READ_PER_SLIDE = 2000, 32
_GRID = 3


def check_project(project: Project, config: TrainConfig) -> Iterator[Check]:
    """Check the slides and annotations of a project, and what commands left in it.

    Raises:
        QprdError: No image has the name of one that is chosen.
    """
    if not project.entries():
        yield failure("images", "the project has none", "Add slides in QuPath.")
        return
    entries = select_entries(project, config.images, config.exclude)
    drawn = read_drawn(project, entries)
    usable, failures, doubts = _open_all(project, entries, drawn, config.assume_mpp)
    yield from _grouped(failures)
    for doubt, members in doubts.items():
        yield warning(name_list(members, _NAMES_SHOWN), doubt)
    if usable:
        yield passed(
            "slides",
            f"{len(usable)} of {len(entries)} can be read: {name_list(usable, _NAMES_SHOWN)}",
        )
    else:
        yield failure(
            "slides",
            f"none of {len(entries)} can be read, so nothing can be trained or predicted",
            "--slides DIR names the folder where they are now."
            if any(entry.source.path is None and not entry.source.unsupported for entry in entries)
            else "The reasons are above.",
        )
    yield from _annotations(drawn, entries, usable, config)
    yield from _writes(project.path)


def _writes(project: Path) -> Iterator[Check]:
    """What is being written, was left unfinished, or can be taken back."""
    under_way = is_locked(project)
    if under_way:
        yield passed("writing", "another command of qprd is writing to it now")
    elif is_unfinished(project):
        yield warning(
            "writing",
            "a command was killed while it wrote; each file is whole, but some may be new and "
            "some old",
            "qprd write-back or qprd undo: whichever runs next clears it up first.",
        )
    layout = ProjectLayout(project)
    left = layout.leftovers()
    if left:
        yield warning(
            "leftovers",
            f"{len(left)} of commands that were killed, such as {left[0].name} "
            f"({sum(map(size_of, left)) / 2**20:.1f} MiB in all)",
            "Nothing need be done: the next command that writes to the project removes them.",
        )
    try:
        runs = undoable(project)
    except QprdError as error:
        yield failure("backups", error)
        return
    if runs and runs[0].is_broken_off and not under_way:
        yield warning(
            "writing",
            f"the {runs[0].command} of {runs[0].time} was broken off: some images may be new and "
            "some old",
            "Run it again, or qprd undo.",
        )
    if runs:
        size = size_of(layout.backups) / 2**20
        yield passed(
            "backups",
            f"{len(runs)} in qprd/backups ({size:.1f} MiB); qprd undo takes back {runs[0].command} "
            f"of {runs[0].time}",
        )


def _open_all(
    project: Project, entries: Sequence[Entry], drawn: Drawn, assume_mpp: float | None
) -> tuple[list[Entry], list[tuple[Entry, QprdError]], dict[str, list[Entry]]]:
    """The slides that can be read, why others cannot, and what is doubtful about which."""
    usable: list[Entry] = []
    failures: list[tuple[Entry, QprdError]] = []
    doubts: dict[str, list[Entry]] = {}
    patch_um, mpp = _model_in_use(project)
    for entry in entries:
        try:
            with open_slide(entry, assume_mpp=assume_mpp) as slide:
                annotations = drawn.annotations.get(entry.id, ())
                refuse_damage(slide, _places(slide, annotations, _MOST_READ // len(entries)))
                overview, _ = slide.thumbnail(OVERVIEW_PX)
                for doubt in remarks(slide, overview, patch_um=patch_um, mpp=mpp):
                    doubts.setdefault(doubt, []).append(entry)
            usable.append(entry)
        except QprdError as error:
            failures.append((entry, error))
    return usable, failures, doubts


def _places(
    slide: Slide, annotations: Sequence[Annotation], count: int
) -> Iterator[tuple[float, float]]:
    """Places where the pixels of a slide are tried: a grid, and at random where it is annotated."""
    steps = (np.arange(_GRID) + 0.5) / _GRID
    yield from ((x * slide.width, y * slide.height) for x in steps for y in steps)
    bounds = shapely.bounds([a.geometry for a in annotations if not a.geometry.is_empty])
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


def _grouped(failures: Sequence[tuple[Entry, QprdError]]) -> Iterator[Check]:
    """One check for all images with the same problem; what differs is only their paths."""
    groups: dict[tuple[str, str | None], list[tuple[Entry, QprdError]]] = {}
    for entry, error in failures:
        kind = "missing" if entry.source.path is None else error.problem
        groups.setdefault((kind, error.fix), []).append((entry, error))
    for (_, fix), members in groups.items():
        entry, error = members[0]
        count = f"{len(members)} images" if len(members) > 1 else entry.name
        names = (
            f" [{name_list([member for member, _ in members], _NAMES_SHOWN)}]"
            if len(members) > 1
            else ""
        )
        yield warning(count, f"{error.problem}{names}", fix)


def _annotations(
    drawn: Drawn,
    entries: Sequence[Entry],
    usable: Sequence[Entry],
    config: TrainConfig,
) -> Iterator[Check]:
    classes = Classes.of(config)
    counts: Counter[str] = Counter()
    annotated: list[Entry] = []
    unlabeled: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.id in drawn.unreadable:
            error = drawn.unreadable[entry.id].error
            yield warning(entry.name, f"{error.problem} ({error.where})", error.fix)
            continue
        annotations = drawn.annotations[entry.id]
        yield from _faults(entry, annotations)
        counts.update(_class_name(annotation) for annotation in annotations)
        others = unlabeled_annotations(annotations, classes)
        if others:
            note = unlabeled_note(others, classes)
            unlabeled.setdefault(note, []).append(entry)
        if any(
            is_derived(annotation.class_name, classes.tumor)
            and not is_own_class(annotation.class_name)
            for annotation in annotations
        ):
            annotated.append(entry)
    for note, members in drawn.doubts.items():
        yield warning("annotations", f"{note} [{name_list(members, _NAMES_SHOWN)}]")
    for note, members in unlabeled.items():
        yield warning(
            "annotations",
            f"{note} [{name_list(members, _NAMES_SHOWN)}]",
            "Set their class in QuPath, or name it with --tumor-class or --normal-class.",
        )
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common()) or "none"
    yield Check(Status.PASS if counts else Status.WARN, "annotations", listed)
    ready = [entry for entry in annotated if entry in usable]
    wanted = " or ".join(classes.tumor)
    if not annotated:
        yield failure(
            "training",
            f"no annotation of class {wanted}",
            "Draw tumor in QuPath, set its class, save; or name your class with --tumor-class.",
        )
    elif not ready:
        yield failure("training", f"none of the slides with {wanted} can be read")
    elif len(ready) == 1:
        yield warning(
            "training",
            f"one slide with {wanted}: {ready[0].name}; it would be split by area",
            "Annotate a second slide: validation on another slide is what can be believed.",
        )
    else:
        splits = Counter(metadata_split(entry.metadata, entry.name) or "by seed" for entry in ready)
        told = ", ".join(f"{name}: {count}" for name, count in sorted(splits.items()))
        yield passed("training", f"{len(ready)} slides with {wanted} ({told})")
        yield from _same_slides(ready)


def _same_slides(entries: Sequence[Entry]) -> Iterator[Check]:
    """Images that show one slide, which share a split."""
    candidates = [
        SplitCandidate(
            entry.id,
            identity_of(entry),
            metadata_split(entry.metadata, entry.name),
            has_tumor=True,
            has_normal=False,
        )
        for entry in entries
    ]
    try:
        groups = same_slides(candidates)
    except QprdError as error:
        yield failure("splits", error)
        return
    for group in groups:
        if len(group) > 1:
            names = ", ".join(image.slide.name for image in group[:_NAMES_SHOWN])
            more = ", ..." if len(group) > _NAMES_SHOWN else ""
            finding = f"{len(group)} images show one file and share a split: {names}{more}"
            yield passed("splits", finding)


def _faults(entry: Entry, annotations: Sequence[Annotation]) -> Iterator[Check]:
    faulty = [annotation for annotation in annotations if annotation.fault is not None]
    for annotation in faulty[:_NAMES_SHOWN]:
        what = f"{annotation.class_name or 'annotation'} {annotation.name or annotation.id}"
        more = f" (one of {len(faulty)} such annotations)" if len(faulty) > 1 else ""
        yield warning(
            entry.name,
            f"{what} is left out: {annotation.fault}{more}",
            "Draw it again in QuPath, or delete it.",
        )


def _class_name(annotation: Annotation) -> str:
    if is_own_class(annotation.class_name):
        return f"{annotation.class_name} (by qprd)"
    return annotation.class_name or "unclassified"
