"""``qprd write-back``: results into the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qprd.errors import QprdError
from qprd.events import emit
from qprd.files.layout import ProjectLayout
from qprd.jobs.changes import RELOAD, ProjectChange, change_images, changed_files
from qprd.names import counted
from qprd.progress import Progress, progress_bars
from qprd.qupath.entry_slides import name_list, require_same_image, select_entries
from qprd.qupath.project import Entry, Project, WriteReport
from qprd.results.folder import load_predictions, load_slide_result


@dataclass(frozen=True, kw_only=True)
class WriteBackSummary(ProjectChange):
    """What a write-back did.

    Attributes:
        bundles: Names of the images that were written, by the bundle that predicted them.
        unchanged: Number of images that have their results already.
    """

    written: tuple[WriteReport, ...]
    bundles: Mapping[str, Sequence[str]]
    unchanged: int = 0

    def followed_by(self, later: WriteBackSummary) -> WriteBackSummary:
        """This and what the same command did later, as one."""
        reports = {report.entry_id: report for report in self.written}
        for report in later.written:
            first = reports.get(report.entry_id, report)
            files = tuple(dict.fromkeys((*first.files, *report.files)))
            reports[report.entry_id] = replace(report, replaced=first.replaced, files=files)
        return replace(
            later,
            written=tuple(reports.values()),
            bundles={
                bundle: list(
                    dict.fromkeys([*self.bundles.get(bundle, ()), *later.bundles.get(bundle, ())])
                )
                for bundle in {**self.bundles, **later.bundles}
            },
            problems=tuple(dict.fromkeys((*self.problems, *later.problems))),
            notes=tuple(dict.fromkeys((*self.notes, *later.notes))),
            backup=later.backup or self.backup,
        )

    def lines(self) -> list[str]:
        """The summary for people."""
        replaced = sum(report.replaced for report in self.written)
        lines = [
            f"{'Would write' if self.dry_run else 'Wrote'} {_count_objects(*self.written)} "
            f"to {counted(len(self.written), 'image')}"
            + (f", replacing {counted(replaced, 'object')} of an earlier run" if replaced else "")
            + f" ({self.backend})."
        ]
        if self.unchanged:
            lines.append(
                f"{counted(self.unchanged, 'image')} with results written already (qprd write-back "
                "writes them again)."
            )
        if self.dry_run:
            lines += [
                f"{report.image_name}: {_count_objects(report)} for "
                f"{counted(report.replaced, 'object')}; "
                + changed_files(report.files, self.project)
                for report in self.written
            ]
        lines += self._closing("not written")
        if self.dry_run or not self.written:
            return lines
        if self.in_qupath:
            lines.append(RELOAD)
        else:
            lines.append(
                "In QuPath, run groovy/import_predictions.groovy for the project to see them "
                "(qprd groovy DIR puts the scripts there)."
            )
        return lines


def _count_objects(*reports: WriteReport) -> str:
    """How many objects of each kind are new, in words."""
    tiles = counted(sum(report.tiles for report in reports), "tile")
    contours = counted(sum(report.contours for report in reports), "contour")
    if review := sum(report.review for report in reports):
        return f"{tiles}, {contours} and {counted(review, 'region to review')}"
    return f"{tiles} and {contours}"


def write_back(
    project: Project,
    *,
    images: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    progress: bool | Progress = True,
) -> WriteBackSummary:
    """Put results that were predicted before into the project; `undo` takes that back.

    An image that cannot be written stays as it was and is reported, and the others go on.

    Args:
        project: Gets tiles, contours and slide scores; nothing else in it changes.
        images: Names of the only images to write; empty for all that have results.
        exclude: Names of images to leave out, which outweighs ``images``.
        dry_run: Say what would change, and touch nothing.
        progress: False shows no bars.

    Raises:
        QprdError: there are no results, or another command is writing.

    Examples:
        >>> len(qprd.write_back(project).written)
        5
    """
    layout = ProjectLayout(project.path)
    entries = [
        entry
        for entry in select_entries(project, images, exclude)
        if images or layout.result(entry.id).is_dir()
    ]
    if not entries:
        raise QprdError(
            "There are no results to write back.",
            where=str(layout.results),
            fix="Run qprd predict first.",
        )
    bars = progress_bars(progress)
    summary = write_back_entries(project, entries, dry_run=dry_run, progress=bars)
    return replace(summary, notes=(*summary.notes, *_stale_notes(summary.bundles, layout)))


def _stale_notes(bundles: Mapping[str, Sequence[str]], layout: ProjectLayout) -> list[str]:
    """Say which results are of another bundle than the newest, or of which bundles they are."""
    from qprd.bundle.reading import newest_bundle, read_bundle_info

    try:
        newest = read_bundle_info(newest_bundle(layout.bundles)).name
    except QprdError:
        newest = None
    stale = {bundle: names for bundle, names in bundles.items() if bundle != newest}
    if not stale or (newest is None and len(stale) == 1):
        return []
    listed = [f"{name_list(names)} by {bundle}" for bundle, names in stale.items()]
    which = "of several bundles" if newest is None else f"not of the newest bundle, {newest}"
    return [
        f"results {which}: {'; '.join(listed)}. Thresholds and scores of different bundles cannot "
        "be compared; run qprd predict on these images to have all of one bundle"
    ]


def write_back_entries(
    project: Project,
    entries: Sequence[Entry],
    *,
    dry_run: bool = False,
    progress: Progress,
    part_of: Sequence[Entry] = (),
    will_continue: bool = False,
    wait: bool = False,
) -> WriteBackSummary:
    """Write the results of these entries into the project.

    An entry that cannot be written is left as it was and reported, and the others go on.
    ``part_of``, ``will_continue`` and ``wait`` are those of `change_images`.
    """
    layout = ProjectLayout(project.path)
    written: list[WriteReport] = []
    bundles: dict[str, list[str]] = {}

    def write(entry: Entry) -> None:
        folder = layout.result(entry.id)
        result = load_slide_result(folder)
        # Results of a slide that is gone, or another one by now, cannot be vouched for.
        require_same_image(entry, result.slide, result.frame)
        written.append(project.write_predictions(entry, load_predictions(folder)))
        bundles.setdefault(result.bundle, []).append(entry.name)

    change = change_images(
        project,
        entries,
        write,
        command="write-back",
        doing="writing back",
        dry_run=dry_run,
        progress=progress,
        part_of=part_of,
        will_continue=will_continue,
        wait=wait,
    )
    for report in () if dry_run else written:
        emit("written", image=report.image_name, entry=report.entry_id)
    return WriteBackSummary(**change, written=tuple(written), bundles=bundles)
