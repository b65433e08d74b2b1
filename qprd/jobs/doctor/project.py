"""Checks of a project: its slides, its annotations, and what commands left in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from qprd.errors import QprdError
from qprd.jobs.doctor.checks import Check, Status, failure, passed, warning
from qprd.jobs.doctor.images import Images, look_at_images
from qprd.jobs.status import status
from qprd.progress import Progress
from qprd.qupath.entry_slides import file_size, identity_of, name_list, select_entries
from qprd.qupath.project import Entry, Project
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import SplitCandidate, same_slides
from qprd.settings import TrainConfig

#: Names shown where a finding concerns many images.
_NAMES_SHOWN = 3


def check_project(project: Project, config: TrainConfig, progress: Progress) -> Iterator[Check]:
    """Check the slides and annotations of a project, and what commands left in it.

    Raises:
        QprdError: No image has the name of one that is chosen.
    """
    if not project.entries():
        yield failure("images", "the project has none", "Add slides in QuPath.")
        return
    entries = select_entries(project, config.images, config.exclude)
    images = look_at_images(project, entries, config, progress)
    usable = images.usable
    yield from _grouped(images.failures)
    for doubt, members in images.doubts.items():
        yield warning(name_list(members, _NAMES_SHOWN), doubt, images=_names(members))
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
    yield from _annotations(images)
    yield from _training(images, config)
    yield from status(project, progress=progress).checks()


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
        images = _names(member for member, _ in members)
        yield warning(count, f"{error.problem}{names}", fix, images)


def _names(entries: Iterable[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def _annotations(images: Images) -> Iterator[Check]:
    yield from images.faults
    for note, members in images.missing.items():
        finding = f"{note} [{name_list(members, _NAMES_SHOWN)}]"
        yield warning("annotations", finding, images=_names(members))
    for note, members in images.unlabeled.items():
        yield warning(
            "annotations",
            f"{note} [{name_list(members, _NAMES_SHOWN)}]",
            "Set their class in QuPath, or name it with --tumor-class or --normal-class.",
            _names(members),
        )
    classes = images.classes
    listed = ", ".join(f"{name} ({count})" for name, count in classes.most_common()) or "none"
    yield Check(Status.PASS if classes else Status.WARN, "annotations", listed)


def _training(images: Images, config: TrainConfig) -> Iterator[Check]:
    usable = {entry.id for entry in images.usable}
    ready = [entry for entry in images.annotated if entry.id in usable]
    wanted = " or ".join(config.tumor_class)
    if not images.annotated:
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
            _names(ready),
        )
    else:
        splits = Counter(metadata_split(entry.metadata, entry.name) or "by seed" for entry in ready)
        told = ", ".join(f"{name}: {count}" for name, count in sorted(splits.items()))
        yield passed("training", f"{len(ready)} slides with {wanted} ({told})")
        yield from _same_slides(ready)


def _same_slides(entries: Sequence[Entry]) -> Iterator[Check]:
    """Images that show one slide, which share a split; only files of one size can be the same."""
    sizes = Counter(map(file_size, entries))
    candidates = [
        SplitCandidate(
            entry.id,
            identity_of(entry),
            metadata_split(entry.metadata, entry.name),
            has_tumor=True,
            has_normal=False,
        )
        for entry in entries
        if sizes[file_size(entry)] > 1
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
