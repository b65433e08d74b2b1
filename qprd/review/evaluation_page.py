"""The page that shows how good the predictions are: ``results/evaluation.html``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.review.pages import write_page

EVALUATION_NAME = "evaluation.html"


@dataclass(frozen=True)
class FigureRow:
    """One figure as it is shown.

    Attributes:
        name: What it is.
        value: As text; a dash if there is none.
        interval: Likewise.
        note: Why there is no value or interval, or what was drawn for the interval.
    """

    name: str
    value: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class FigureTable:
    """The figures of one level.

    Attributes:
        title: The level.
        basis: What they were measured on.
        rows: The figures.
    """

    title: str
    basis: str
    rows: tuple[FigureRow, ...]


@dataclass(frozen=True)
class SlideFigures:
    """One slide in the table; numbers as text, as they shall be shown.

    Attributes:
        name: Its name.
        truth: ``tumor`` or ``normal``.
        used_for: What the model used it for.
        columns: The others, by heading, in their order.
    """

    name: str
    truth: str
    used_for: str
    columns: dict[str, str]


@dataclass(frozen=True)
class MistakeCard:
    """A mistake and how to get there.

    Attributes:
        slide: Name of the slide.
        x_px: Center of the cell, level-0 pixels of the QuPath frame.
        y_px: Likewise.
        x_um: In micrometres, as QuPath shows it.
        y_um: Likewise.
        score: Raw score and probability, as text.
        jpeg: The place with the cell outlined.
    """

    slide: str
    x_px: float
    y_px: float
    x_um: float
    y_um: float
    score: str
    jpeg: bytes

    @property
    def groovy(self) -> str:
        """What brings QuPath's viewer there, once the slide is open."""
        return (
            "getCurrentViewer().setDownsampleFactor(1)\n"
            f"getCurrentViewer().setCenterPixelLocation({self.x_px:.0f}, {self.y_px:.0f})"
        )


@dataclass(frozen=True)
class Plot:
    """A picture with its description.

    Attributes:
        title: For those who do not see it.
        png: The file; None if it cannot be drawn.
        reason: Why it cannot.
    """

    title: str
    png: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class EvaluationContent:
    """All that the page shows.

    Attributes:
        split: ``test``, ``val`` or ``all``.
        facts: Heading to value: bundle, date and the like.
        warnings: What the reader must know first.
        tables: Figures by level.
        plots: Curves.
        slides: One row a slide.
        false_positives: Normal tissue that was called tumor, worst first.
        misses: Tumor that was called normal, worst first.
        no_mistakes: Why there are none to show, such as a missing threshold.
    """

    split: str
    facts: dict[str, str]
    warnings: tuple[str, ...]
    tables: tuple[FigureTable, ...]
    plots: tuple[Plot, ...]
    slides: tuple[SlideFigures, ...]
    false_positives: tuple[MistakeCard, ...]
    misses: tuple[MistakeCard, ...]
    no_mistakes: str = ""

    @property
    def mistakes(self) -> Sequence[tuple[str, str, tuple[MistakeCard, ...]]]:
        """Title, what it means, and cards of both kinds."""
        return (
            (
                "Worst false positives",
                "Cells drawn as normal with the highest scores.",
                self.false_positives,
            ),
            ("Worst misses", "Cells drawn as tumor with the lowest scores.", self.misses),
        )


def write_evaluation_page(results_dir: Path, content: EvaluationContent) -> Path:
    """Write the page; its pictures are in it.

    Args:
        results_dir: Folder of the results.
        content: What it shows.

    Raises:
        QprdError: The page cannot be written.
    """
    return write_page(results_dir / EVALUATION_NAME, EVALUATION_NAME, page=content)
