"""What an evaluation found, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.evaluation.froc import FROC_RATES
from qprd.evaluation.metrics import auroc, sensitivity, specificity
from qprd.evaluation.summary import Figure, Measured, Section
from qprd.evaluation.worst import Mistake
from qprd.jobs.evaluate.slide import EvaluatedSlide
from qprd.jobs.evaluate.split import EvaluatedSplit
from qprd.review.evaluation_page import FigureRow, FigureTable, SlideFigures

_NAMES_SHOWN = 5
_DASH = "\N{EN DASH}"
#: With fewer slides the reader is told what an interval over them is worth.
_FEW_SLIDES = 10
#: How figures are called, in the order of the tables.
_PATCH = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "expected_calibration_error": "calibration error",
}
_SLIDE = {"auroc": "AUROC", "average_precision": "average precision"}
_FROC = {
    "score": "FROC score",
    **{f"sensitivity_at_{rate:g}": f"sensitivity at {rate:g} FP a slide" for rate in FROC_RATES},
}
_PIXEL = {
    "iou": "IoU where the truth is known",
    "dice": "Dice where the truth is known",
    "iou_all_tissue": "IoU in all tissue",
    "dice_all_tissue": "Dice in all tissue",
}


@dataclass(frozen=True)
class EvaluateSummary:
    """What an evaluation found.

    Attributes:
        project: The project file.
        backend: How it was read.
        bundle: Name of the bundle that predicted.
        split: The split that was taken.
        created: ISO 8601 time, UTC.
        threshold: Raw score from which a cell counts as tumor; None if there is none.
        detection_threshold: The same on the scale of the detections.
        measured: All figures and curves.
        slides: What is known of each slide.
        seen: By entry id, what the model used a slide for: ``train``, ``val`` or ``nothing``.
        false_positives: Index of the slide and mistake, worst first.
        misses: Likewise.
        notes: What the reader of the figures must know.
        problems: Name and reason of each slide of the split that was not evaluated.
        page: The page with the curves.
        seconds: Time spent.
    """

    project: Path
    backend: str
    bundle: str
    split: EvaluatedSplit
    created: str
    threshold: float | None
    detection_threshold: float | None
    measured: Measured
    slides: tuple[EvaluatedSlide, ...]
    seen: Mapping[str, str]
    false_positives: tuple[tuple[int, Mistake], ...]
    misses: tuple[tuple[int, Mistake], ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    page: Path
    seconds: float

    @property
    def failed(self) -> int:
        """Slides of the split that could not be evaluated."""
        return len(self.problems)

    def lines(self) -> list[str]:
        """The summary for people."""
        names = [slide.entry.name for slide in self.slides]
        some = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        many = "s" * (len(names) != 1)
        lines = [f"{self.bundle} on {len(names)} {self.split} slide{many}: {some}"]
        for table in figure_tables(self.measured):
            lines += ["", f"{table.title} ({table.basis})", *_figure_lines(table.rows)]
        lines += ["", *_aligned(slide_rows(self)), ""]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not evaluated: {problem}" for problem in self.problems]
        lines.append(f"Curves and the worst mistakes: {self.page}")
        return lines

    def report(self) -> dict[str, object]:
        """The summary for machines: a figure that is null has its reason under ``reasons``."""
        measured = self.measured
        return {
            "project": self.project,
            "backend": self.backend,
            "bundle": self.bundle,
            "split": self.split,
            "created": self.created,
            "threshold": self.threshold,
            "patch": _section_json(measured.patch),
            "slide": _section_json(measured.slide),
            "froc": _section_json(measured.froc),
            "pixel": _section_json(measured.pixel),
            "slides": [_slide_json(slide, self) for slide in self.slides],
            "false_positives": [_mistake_json(*found, self) for found in self.false_positives],
            "misses": [_mistake_json(*found, self) for found in self.misses],
            "notes": self.notes,
            "problems": self.problems,
            "page": self.page,
            "seconds": self.seconds,
        }


def figure_tables(measured: Measured) -> list[FigureTable]:
    """The figures of the four levels as they are shown."""
    patch, slide, lesion, pixel = (
        section.counts
        for section in (measured.patch, measured.slide, measured.froc, measured.pixel)
    )
    apart = lesion["detections_where_nothing_is_drawn"]
    lesion_basis = f"{lesion['lesions']} on {_count(lesion['slides'], 'slide')}"
    if lesion["isolated_tumor_cells"]:
        lesion_basis += f", {lesion['isolated_tumor_cells']} too small to count"
    if apart:
        lesion_basis += f"; {apart} detections where nothing is drawn are left out"
    return [
        FigureTable(
            "Patches",
            f"cells of the score maps: {patch['tumor']} tumor, {patch['normal']} normal on "
            f"{_count(patch['slides'], 'slide')}",
            _rows(measured.patch, _PATCH),
        ),
        FigureTable(
            "Slides",
            f"{slide['tumor']} with tumor, {slide['normal']} without",
            _rows(measured.slide, _SLIDE),
        ),
        FigureTable("Lesions", lesion_basis, _rows(measured.froc, _FROC)),
        FigureTable(
            "Pixels",
            f"contours against drawn tumor, inside tissue, {_count(pixel['slides'], 'slide')}",
            _rows(measured.pixel, _PIXEL),
        ),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _rows(section: Section, names: Mapping[str, str]) -> tuple[FigureRow, ...]:
    return tuple(
        FigureRow(shown, shown_number(section.value(name)), *_interval(section.figures[name]))
        for name, shown in names.items()
    )


def _interval(figure: Figure) -> tuple[str, str]:
    """An interval as text, and what is to be said of it or of its absence."""
    interval = figure.interval
    if interval is None:
        return "", figure.reason or ""
    note = f"over {interval.unit}"
    if interval.unit == "patches":
        note += ": too narrow, as patches of a slide resemble each other"
    elif interval.size < _FEW_SLIDES:
        note += f": rough and mostly too narrow, with {interval.size} slides to draw from"
    if interval.undefined:
        note += f", {interval.undefined} resamples undefined"
    return f"{interval.low:.3f}{_DASH}{interval.high:.3f}", note


def shown_number(value: float | None) -> str:
    """Three digits after the point, or a dash."""
    return _DASH if value is None else f"{value:.3f}"


def slide_rows(summary: EvaluateSummary) -> list[SlideFigures]:
    """One row a slide, in project order."""
    rows = []
    for slide in summary.slides:
        facts = _slide_json(slide, summary)
        hit = facts["lesions_hit_at_threshold"]
        rows.append(
            SlideFigures(
                name=slide.entry.name,
                truth="tumor" if slide.measured.has_tumor else "normal",
                used_for=summary.seen[slide.entry.id],
                columns={
                    "score": shown_number(slide.measured.slide_score),
                    "tumor cells": str(facts["tumor_cells"]),
                    "normal cells": str(facts["normal_cells"]),
                    **{
                        heading: shown_number(value if isinstance(value, float) else None)
                        for heading, value in (
                            ("AUROC", facts["auroc"]),
                            ("sensitivity", facts["sensitivity"]),
                            ("specificity", facts["specificity"]),
                        )
                    },
                    "lesions hit": _DASH if hit is None else f"{hit} of {slide.lesions}",
                    "false detections": str(
                        _DASH if hit is None else facts["false_positives_at_threshold"]
                    ),
                    "IoU": shown_number(
                        slide.measured.overlap.iou if slide.measured.overlap else None
                    ),
                },
            )
        )
    return rows


def _figure_lines(rows: Sequence[FigureRow]) -> list[str]:
    name, value, interval = (
        max(len(text) for text in column)
        for column in zip(*((r.name, r.value, r.interval) for r in rows), strict=True)
    )
    return [
        f"  {r.name:<{name}}  {r.value:>{value}}  {r.interval:<{interval}}  {r.note}".rstrip()
        for r in rows
    ]


def _aligned(rows: Sequence[SlideFigures]) -> list[str]:
    texts = [(row.name, row.truth, row.used_for, *row.columns.values()) for row in rows]
    headings = ("slide", "drawn", "used for", *rows[0].columns)
    widths = [max(len(text) for text in column) for column in zip(headings, *texts, strict=True)]
    return [
        "  ".join(
            f"{text:<{width}}" if column < 3 else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (headings, *texts)
    ]


def _section_json(section: Section) -> dict[str, object]:
    figures = section.figures
    return {
        **{name: figure.value for name, figure in figures.items()},
        "measured_on": section.counts,
        "intervals": {
            name: figure.interval or {"low": None, "high": None, "reason": figure.reason}
            for name, figure in figures.items()
            if figure.value is not None
        },
        "reasons": {name: f.reason for name, f in figures.items() if f.value is None},
    }


def _slide_json(slide: EvaluatedSlide, summary: EvaluateSummary) -> dict[str, object]:
    measured, at = slide.measured, summary.threshold
    y, scores = measured.cells.y_tumor, measured.cells.scores
    hit = false = None
    if summary.detection_threshold is not None:
        least = summary.detection_threshold
        hit = int((measured.matches.best_scores >= least).sum())
        false = int((measured.matches.false_positive_scores >= least).sum())
    return {
        "entry_id": slide.entry.id,
        "image": slide.entry.name,
        "used_for": summary.seen[slide.entry.id],
        "has_tumor": measured.has_tumor,
        "slide_score": measured.slide_score,
        "tumor_cells": int(y.sum()),
        "normal_cells": int((~y).sum()),
        "auroc": auroc(y, scores),
        "sensitivity": None if at is None else sensitivity(y, scores, at),
        "specificity": None if at is None else specificity(y, scores, at),
        "lesions": slide.lesions,
        "lesions_hit_at_threshold": hit,
        "false_positives_at_threshold": false,
        "contours": slide.contours,
        "iou": None if measured.overlap is None else measured.overlap.iou,
        "dice": None if measured.overlap is None else measured.overlap.dice,
    }


def _mistake_json(index: int, mistake: Mistake, summary: EvaluateSummary) -> dict[str, object]:
    image = summary.slides[index].entry.name
    return {"image": image, "x": mistake.x, "y": mistake.y, "score": mistake.score}
