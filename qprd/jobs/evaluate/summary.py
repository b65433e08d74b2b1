"""Summary of an evaluation: metrics by level, tables for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from qprd.evaluation.bootstrap import Interval
from qprd.evaluation.levels import (
    LesionMetrics,
    LevelMetrics,
    PatchMetrics,
    PixelMetrics,
    SlideMetrics,
)
from qprd.evaluation.mistakes import Mistake
from qprd.evaluation.overlap import Coverage
from qprd.jobs.evaluate.slide import EvaluatedSlide, SlideReport
from qprd.jobs.evaluate.split import EvaluatedSplit
from qprd.jobs.reporting import aligned
from qprd.names import counted
from qprd.qupath.entry_slides import name_list

_DASH = "\N{EN DASH}"
#: With fewer slides than this, tables say that an interval over them is rough.
_FEW_SLIDES = 10
#: If a larger share of what is drawn was not scored, a note says so. The rims of drawn regions
#: reach into glass.
_NOTED_SHARE = 0.05
_TISSUES = {"tumor": "tumor", "normal": "normal tissue"}


class LevelTable(NamedTuple):
    """The metrics of one level as they are shown.

    Attributes:
        rows: Name, value, interval, and a note on the interval or on why there is none.
    """

    title: str
    basis: str
    rows: list[tuple[str, str, str, str]]


@dataclass(frozen=True)
class EvaluateSummary:
    """The result of an evaluation.

    Attributes:
        bundle: Name of the bundle that predicted.
        created: When it began, ISO 8601, UTC.
        threshold: Raw score at and above which a cell is called tumor; None if there is none.
        patch: Metrics of the patches, such as ``patch.auroc``.
        lesion: Metrics of the lesion points, such as ``lesion.froc_score``.
        pixel: Metrics of the contours, such as ``pixel.iou``.
        false_positives: Index of the slide, and mistake; the worst first, as in ``misses``.
        problems: Name and reason of each slide of the split that was not evaluated.

    Examples:
        >>> found = qprd.evaluate(project, progress=False)
        >>> interval = found.patch.intervals["auroc"]
        >>> interval.low <= found.patch.auroc <= interval.high
        True
        >>> found.slides[0].report.image
        'demo_3.tif'
    """

    project: Path
    backend: str
    bundle: str
    split: EvaluatedSplit
    created: str
    threshold: float | None
    patch: PatchMetrics
    slide: SlideMetrics
    lesion: LesionMetrics
    pixel: PixelMetrics
    slides: tuple[EvaluatedSlide, ...]
    false_positives: tuple[tuple[int, Mistake], ...]
    misses: tuple[tuple[int, Mistake], ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    page: Path
    seconds: float

    @property
    def failed(self) -> int:
        """Number of slides of the split that could not be evaluated."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        names = [slide.entry.name for slide in self.slides]
        slides = counted(len(names), "slide").replace(" ", f" {self.split} ")
        lines = [f"{self.bundle} on {slides}: {name_list(names)}"]
        for table in level_tables(self):
            lines += ["", f"{table.title} ({table.basis})"]
            lines += [f"  {line}" for line in aligned(table.rows, right=[1])]
        lines += ["", *aligned(slide_table(self), right=range(3, len(_SLIDE_COLUMNS))), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not evaluated: {problem}" for problem in self.problems]
        lines.append(f"Curves and the worst mistakes: {self.page}")
        return lines

    def report(self) -> dict[str, object]:
        """The summary for machines: a metric that is null has its reason under ``reasons``."""
        report: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        del report["lesion"]
        levels = {
            "patch": self.patch,
            "slide": self.slide,
            "froc": self.lesion,
            "pixel": self.pixel,
        }
        report |= {name: _level_json(level) for name, level in levels.items()}
        report["slides"] = [slide.report for slide in self.slides]
        report["not_scored"] = {
            kind: sum(parts, Coverage()).figures() for kind, _, parts in _coverages(self.slides)
        }
        for kind in ("false_positives", "misses"):
            report[kind] = [
                {
                    "entry_id": self.slides[i].entry.id,
                    "image": self.slides[i].entry.name,
                    "x": m.x,
                    "y": m.y,
                    "score": m.score,
                }
                for i, m in getattr(self, kind)
            ]
        return report


def level_tables(summary: EvaluateSummary) -> list[LevelTable]:
    """The metrics of the four levels as they are shown."""
    patch, slide, lesion, pixel = (
        level.measured_on for level in (summary.patch, summary.slide, summary.lesion, summary.pixel)
    )
    lesion_basis = f"{lesion['lesions']} on {counted(lesion['slides'], 'slide')}"
    if lesion["isolated_tumor_cells"]:
        lesion_basis += f", {lesion['isolated_tumor_cells']} too small to count"
    if unjudged := lesion["detections_where_nothing_is_drawn"]:
        lesion_basis += f"; {unjudged} lesion points where nothing is drawn are left out"
    if lost := lesion["lesions_not_scored"]:
        lesion_basis += f", {lost} of them without any score, and so missed"
    return [
        _coverage_table(summary),
        _table(
            "Patches",
            f"cells of the score maps: {patch['tumor']} tumor, {patch['normal']} normal on "
            f"{counted(patch['slides'], 'slide')}",
            summary.patch,
        ),
        _table("Slides", f"{slide['tumor']} with tumor, {slide['normal']} without", summary.slide),
        _table("Lesions", lesion_basis, summary.lesion),
        _table(
            "Pixels",
            f"contours against drawn tumor, {counted(pixel['slides'], 'slide')}",
            summary.pixel,
        ),
    ]


def slide_table(summary: EvaluateSummary) -> list[tuple[str, ...]]:
    """Headings, then one row per slide in project order."""
    reports = [slide.report for slide in summary.slides]
    rows = (tuple(shown(report) for shown in _SLIDE_COLUMNS.values()) for report in reports)
    return [tuple(_SLIDE_COLUMNS), *rows]


def shown_number(value: float | None) -> str:
    """Three digits after the point, or a dash."""
    return _DASH if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return _DASH if share is None else f"{share:.1%}"


def _shown_count(count: int | None, of: int | None = None) -> str:
    if count is None:
        return _DASH
    return str(count) if of is None else f"{count} of {of}"


_SLIDE_COLUMNS: Mapping[str, Callable[[SlideReport], str]] = {
    "slide": lambda slide: slide.image,
    "drawn": lambda slide: "tumor" if slide.has_tumor else "normal",
    "used for": lambda slide: slide.used_for,
    "score": lambda slide: shown_number(slide.slide_score),
    "tumor cells": lambda slide: str(slide.tumor_cells),
    "normal cells": lambda slide: str(slide.normal_cells),
    "AUROC": lambda slide: shown_number(slide.auroc),
    "sensitivity": lambda slide: shown_number(slide.sensitivity),
    "specificity": lambda slide: shown_number(slide.specificity),
    "lesions hit": lambda slide: _shown_count(slide.lesions_hit_at_threshold, slide.lesions),
    "false positives": lambda slide: _shown_count(slide.false_positives_at_threshold),
    "IoU": lambda slide: shown_number(slide.iou),
    "IoU, scored": lambda slide: shown_number(slide.iou_scored),
    "tumor not scored": lambda slide: _percent(slide.not_scored["tumor"]["share"]),
}


def coverage_notes(slides: Sequence[EvaluatedSlide]) -> list[str]:
    """Say how much of what is drawn has no score, if it is much."""
    notes = []
    for kind, effect, parts in _coverages(slides):
        total = sum(parts, Coverage())
        if total.share is None or total.share < _NOTED_SHARE:
            continue
        named = [
            f"{slide.entry.name} {_percent(part.share)}"
            for slide, part in zip(slides, parts, strict=True)
            if part.share and part.share >= _NOTED_SHARE
        ]
        notes.append(
            f"{_percent(total.share)} of the drawn {_TISSUES[kind]} was not scored "
            f"({_percent(total.not_tissue / total.drawn)} is not taken for tissue, such as glass), "
            f"and {effect}: {name_list(named)}"
        )
    return notes


def _coverages(
    slides: Sequence[EvaluatedSlide],
) -> Iterator[tuple[str, str, list[Coverage]]]:
    """What is drawn, what becomes of it without a score, and how much of it each slide has."""
    yield "tumor", "counts as missed", [slide.comparison.tumor_mm2 for slide in slides]
    yield "normal", "is in no figure", [slide.comparison.normal_mm2 for slide in slides]


def _coverage_table(summary: EvaluateSummary) -> LevelTable:
    rows = []
    for kind, _, parts in _coverages(summary.slides):
        total = sum(parts, Coverage())
        areas = f"{total.not_scored:.3g} of {total.drawn:.3g} mm²"
        if total.not_tissue:
            areas += f", {total.not_tissue:.3g} of it not taken for tissue"
        rows.append(
            (f"drawn {_TISSUES[kind]}", _percent(total.share), "", areas if total.drawn else "none")
        )
    return LevelTable("Not scored", "share of what is drawn", rows)


def _table(title: str, basis: str, level: LevelMetrics) -> LevelTable:
    rows, labels = [], level.labels()
    for name, value in level.values().items():
        interval = level.intervals.get(name)
        shown = "" if interval is None else f"{interval.low:.3f}{_DASH}{interval.high:.3f}"
        note = level.reasons.get(name, "") if interval is None else _interval_note(interval)
        rows.append((labels[name], shown_number(value), shown, note))
    return LevelTable(title, basis, rows)


def _interval_note(interval: Interval) -> str:
    note = f"over {interval.unit}"
    if interval.unit == "patches":
        note += ": too narrow, as patches of a slide resemble each other"
    elif interval.size < _FEW_SLIDES:
        note += f": rough and mostly too narrow, with {interval.size} slides to draw from"
    if interval.undefined:
        note += f", {interval.undefined} resamples undefined"
    return note


def _level_json(level: LevelMetrics) -> dict[str, object]:
    # The FROC score is called "score" in the section "froc".
    values = {name.removeprefix("froc_"): value for name, value in level.values().items()}
    intervals = {name.removeprefix("froc_"): found for name, found in level.intervals.items()}
    reasons = {name.removeprefix("froc_"): reason for name, reason in level.reasons.items()}
    return {
        **values,
        "measured_on": level.measured_on,
        "intervals": {
            name: intervals.get(name, {"low": None, "high": None, "reason": reasons.get(name)})
            for name, value in values.items()
            if value is not None
        },
        "reasons": {name: reasons.get(name) for name, value in values.items() if value is None},
    }
