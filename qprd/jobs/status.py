"""``qprd status``: which bundles and results a project has, and what commands left in it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qprd.bundle.names import is_bundle
from qprd.errors import QprdError
from qprd.files.claims import WorkInProgress, work_in_progress
from qprd.files.layout import ProjectLayout
from qprd.given_settings import train_config
from qprd.jobs.doctor.checks import Check, Status, passed, warning
from qprd.jobs.doctor.writes import check_writes
from qprd.names import counted
from qprd.predictions import BUNDLE, DATE
from qprd.progress import Progress, progress_bars
from qprd.qupath.entry_slides import name_list
from qprd.qupath.project import Entry, Project
from qprd.results.folder import SLIDE, load_slide_result
from qprd.results.freshness import Freshness
from qprd.sampling.classes import Classes, role_of
from qprd.sampling.split_metadata import metadata_split
from qprd.sampling.splits import Split
from qprd.settings import PredictConfig

if TYPE_CHECKING:
    from qprd.jobs.predict.inputs import Inputs


@dataclass(frozen=True)
class RunStatus:
    """A training that has made no bundle yet.

    Attributes:
        name: For ``qprd train --resume``.
        epochs: Finished epochs.
        is_running: Whether a process is working on it now.
    """

    name: str
    epochs: int
    is_running: bool


@dataclass(frozen=True)
class BundleStatus:
    """A trained model of a project.

    Attributes:
        teacher: Name of the teacher; None if the bundle is damaged.
        created: ISO 8601, UTC; None if the bundle is damaged.
        is_newest: Whether it is used where none is named.
        problem: What is damaged; None if it can be read.
    """

    name: str
    teacher: str | None
    created: str | None
    is_newest: bool
    problem: str | None = None


@dataclass(frozen=True)
class ResultStatus:
    """The result of one image, if there is one.

    Attributes:
        state: ``fresh`` if its bundle, the newest one, its slide and this qprd would give the same
            with the settings that it was made with, ``stale``, or ``missing``.
        reason: Why it is stale, else empty.
        by_default: Whether it was made with the settings of ``qprd predict`` without options.
        written: Whether the result is in QuPath's project; ``waiting`` if it is in a file that
            ``import_predictions.groovy`` has not read yet.
        split: By the image's metadata; None where qprd chooses.
        tumor: Number of annotations that label tumor, judged predictions included; None if they
            were not to be counted, or cannot be read.
        normal: Number of annotations that label normal tissue, or None.
    """

    image: str
    entry_id: str
    state: Literal["fresh", "stale", "missing"]
    reason: str
    written: Literal["yes", "waiting", "no"]
    by_default: bool = True
    slide_score: float | None = None
    split: Split | None = None
    tumor: int | None = None
    normal: int | None = None


@dataclass(frozen=True)
class ProjectStatus:
    """What a project has of qprd.

    Attributes:
        runs: Trainings that are under way or were stopped.
        bundles: The trained models, damaged ones included.
        results: A row for each image, in the order of the project.
        work: What processes are scoring, or were when they died.
        orphans: Ids of results whose images are not in the project any more.
        left: What is being written, was broken off, or left behind; and what can be undone.
    """

    project: Path
    runs: tuple[RunStatus, ...]
    bundles: tuple[BundleStatus, ...]
    results: tuple[ResultStatus, ...]
    work: tuple[WorkInProgress, ...]
    orphans: tuple[str, ...]
    left: tuple[Check, ...]

    def checks(self) -> Iterator[Check]:
        """The status as findings of the doctor."""
        for run in self.runs:
            if run.is_running:
                yield passed("training", f"{run.name} is under way, {run.epochs} epochs finished")
            else:
                yield warning(
                    "training",
                    f"{run.name} was stopped, {run.epochs} epochs finished",
                    f"qprd train --resume {run.name} goes on with it.",
                )
        readable = [bundle for bundle in self.bundles if bundle.problem is None]
        for bundle in self.bundles:
            if bundle.problem is not None:
                yield warning("bundles", f"{bundle.name} is damaged: {bundle.problem}")
        newest = [f"; the newest is {bundle.name}" for bundle in readable if bundle.is_newest]
        yield passed("bundles", f"{len(readable)}{''.join(newest)}")
        yield from self._work()
        yield from self._results()
        yield from self.left

    def _work(self) -> Iterator[Check]:
        names = {result.entry_id: result.image for result in self.results}
        busy = {(w.host, w.process) for w in self.work if w.name and w.state == "running"}
        for work in self.work:
            who = f"process {work.process} on {work.host}"
            at = "no slide" if work.name is None else names.get(work.name, f"image {work.name}")
            since = f" since {work.since}" if work.since else ""
            if work.state == "failed":
                yield warning("predicting", f"{who} could not score {at}: {work.problem}")
            elif work.state == "dead" and work.name is not None:
                yield warning(
                    "predicting",
                    f"{who} died while it scored {at}{since}",
                    "qprd predict scores it; so does a process that is still predicting.",
                )
            elif work.state == "running" and (work.name or (work.host, work.process) not in busy):
                yield passed("predicting", f"{who} is at {at}{since}")

    def _results(self) -> Iterator[Check]:
        counts = Counter(result.state for result in self.results)
        listed = ", ".join(f"{counts[state]} {state}" for state in ("fresh", "stale", "missing"))
        yield passed("results", f"{listed}, of {counted(len(self.results), 'image')}")
        others = [result for result in self.results if not result.by_default]
        if others:
            yield passed(
                "results",
                f"{len(others)} were made with other settings than the defaults: {_names(others)}; "
                "qprd predict with the same options skips them if they are fresh",
            )
        for reason in dict.fromkeys(r.reason for r in self.results if r.state == "stale"):
            found = [r for r in self.results if r.reason == reason and r.state == "stale"]
            yield warning(
                "results",
                f"{len(found)} stale ({reason}): {_names(found)}",
                "qprd predict scores them again, and the missing ones.",
            )
        if self.orphans:
            yield warning(
                "results",
                f"{len(self.orphans)} are of images that are not in the project any more, such as "
                f"{self.orphans[0]}",
                "Delete their folders in qprd/results, if you do not need them.",
            )
        there = [result for result in self.results if result.state != "missing"]
        if not there:
            return
        written = Counter(result.written for result in there)
        yield passed("written back", f"{written['yes']} of {len(there)} results are in QuPath")
        for state, what, fix in (
            (
                "waiting",
                "wait in qprd/predictions",
                "In QuPath, run import_predictions.groovy for the project.",
            ),
            ("no", "are not written back", "qprd write-back puts them into the project."),
        ):
            left = [result for result in there if result.written == state]
            if left:
                yield warning("written back", f"{len(left)} {what}: {_names(left)}", fix)

    def lines(self) -> list[str]:
        """The status for people."""
        lines = []
        for check in self.checks():
            mark = "" if check.status is Status.PASS else "! "
            lines.append(f"{mark}{check.subject}: {check.finding}")
            if check.fix:
                lines.append(f"    {check.fix}")
        return lines


def status(
    project: Project,
    *,
    drawn: bool = False,
    tumor_class: Sequence[str] = (),
    normal_class: Sequence[str] = (),
    progress: bool | Progress = True,
) -> ProjectStatus:
    """Find out which bundles and results a project has, and what commands left in it.

    A slide is opened only if its file has changed since it was predicted.

    Args:
        project: Only read.
        drawn: Also count what is drawn on each image, which reads all annotations.
        tumor_class: Classes that mean tumor; empty for those of `TrainConfig`.
        normal_class: Classes that mean normal tissue; empty for those of `TrainConfig`.
        progress: False shows no bars.

    Examples:
        >>> qprd.status(project).results[0].image
        'demo_1.tif'
    """
    from qprd.jobs.train.run import runs_of

    given = {"tumor_class": tumor_class, "normal_class": normal_class}
    classes = Classes.of(train_config(given)) if drawn else None
    layout, entries = ProjectLayout(project.path), project.entries()
    bundles, inputs = _bundles(layout.bundles)
    results = []
    with progress_bars(progress).task("looking at results", len(entries)) as task:
        for entry in entries:
            tumor, normal = (None, None) if classes is None else _drawn(project, entry, classes)
            result = _result(project, entry, inputs)
            results.append(replace(result, split=_split(entry), tumor=tumor, normal=normal))
            task.advance()
    known = {entry.id for entry in entries}
    kept = sorted(path.parent.name for path in layout.results.glob(f"[!.]*/{SLIDE}"))
    return ProjectStatus(
        project.path,
        tuple(RunStatus(run.name, run.epochs, run.is_running) for run in runs_of(project.path)),
        bundles,
        tuple(results),
        tuple(work_in_progress(project.path)),
        tuple(name for name in kept if name not in known),
        tuple(check_writes(project.path)),
    )


def _bundles(folder: Path) -> tuple[tuple[BundleStatus, ...], Inputs | None]:
    """The bundles, and what a prediction by the newest depends on."""
    from qprd.bundle.reading import newest_bundle, read_bundle_info
    from qprd.jobs.predict.inputs import Inputs

    newest, inputs = None, None
    try:
        with warnings.catch_warnings():
            # Damaged bundles are listed below.
            warnings.simplefilter("ignore")
            newest = newest_bundle(folder)
        inputs = Inputs(newest, read_bundle_info(newest), PredictConfig())
    except QprdError:
        pass
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not is_bundle(path):
            continue
        try:
            info = read_bundle_info(path)
        except QprdError as error:
            found.append(BundleStatus(path.name, None, None, False, error.problem))
        else:
            created = info.created.isoformat(timespec="seconds")
            teacher = info.network.teacher.name
            found.append(BundleStatus(path.name, teacher, created, path == newest))
    return tuple(found), inputs


def _result(project: Project, entry: Entry, inputs: Inputs | None) -> ResultStatus:
    layout = ProjectLayout(project.path)
    folder = layout.result(entry.id)
    try:
        result = load_slide_result(folder)
        saved_ns = (folder / SLIDE).stat().st_mtime_ns
    except (QprdError, OSError):
        return ResultStatus(entry.name, entry.id, "missing", "", "no")
    written: Literal["yes", "waiting", "no"] = "no"
    if (entry.metadata.get(BUNDLE), entry.metadata.get(DATE)) == (result.bundle, result.created):
        written = "yes"
    else:
        with suppress(OSError):
            file = layout.predictions / f"{entry.id}.geojson"
            written = "waiting" if file.stat().st_mtime_ns >= saved_ns else "no"
    found = Freshness("stale", "there is no bundle to compare it with")
    by_default = True
    if inputs is not None:
        found = inputs.freshness(project, entry, any_settings=True)
        by_default = result.made_from is None or inputs.is_made_with(result.made_from)
    score = result.slide_score
    return ResultStatus(entry.name, entry.id, found.state, found.reason, written, by_default, score)


def _split(entry: Entry) -> Split | None:
    with suppress(QprdError):
        return metadata_split(entry.metadata, entry.name)
    return None


def _drawn(project: Project, entry: Entry, classes: Classes) -> tuple[int | None, int | None]:
    """Number of annotations that label tumor, and normal tissue; None if they cannot be read."""
    try:
        roles = Counter(role_of(found, classes) for found in project.annotations(entry))
    except QprdError:
        return None, None
    return roles["tumor"], roles["normal"] + roles["rejected"]


def _names(results: Sequence[ResultStatus]) -> str:
    return name_list([result.image for result in results])
