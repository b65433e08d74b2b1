"""The results page, ``results/index.html``: the slides of a prediction and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qprd.results.folder import OVERVIEW, PREDICTIONS, SLIDE, SlideResult
from qprd.review.pages import write_page

INDEX_NAME = "index.html"


@dataclass(frozen=True)
class SlideRow:
    """One slide on the page.

    Attributes:
        folder: Name of the folder of its files, beside the page.
        result: What was found; None if it cannot be read.
        split: ``train`` or ``val`` if the model has seen the slide.
        warnings: What the reader must know about this slide.
    """

    folder: str
    result: SlideResult | None = None
    split: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the image, as QuPath shows it."""
        return f"entry {self.folder}" if self.result is None else self.result.image

    @property
    def slide_score(self) -> float | None:
        """Raw score of the slide; None if nothing was scored."""
        return None if self.result is None else self.result.slide_score

    @property
    def tumor_percent(self) -> float | None:
        """Tumor in percent of the tissue; None without tissue."""
        if self.result is None or self.result.tissue_um2 <= 0:
            return None
        return 100 * self.result.tumor_um2 / self.result.tissue_um2


def write_index(
    results_dir: Path,
    slides: Sequence[SlideRow],
    *,
    bundle: str,
    threshold: float | None,
    facts: Mapping[str, str],
    warnings: Sequence[str] = (),
    evaluation: tuple[str, str] | None = None,
) -> Path:
    """Write the index page.

    Slides come in descending order of their score; the page can sort them in other ways.

    Args:
        results_dir: Folder that holds the results; the page is written into it.
        slides: One row per slide.
        bundle: Name of the bundle.
        threshold: Raw score at and above which tissue is called tumor; None if there is none.
        facts: What else the header says about the model and the run, by name.
        warnings: What the reader must know about all slides, such as a missing validation.
        evaluation: Name of the evaluation page, and a description of it; None if there is none.

    Raises:
        QprdError: The page cannot be written.
    """
    ordered = sorted(
        slides,
        key=lambda slide: (slide.slide_score is None, -(slide.slide_score or 0.0), slide.name),
    )
    return write_page(
        results_dir / INDEX_NAME,
        INDEX_NAME,
        slides=ordered,
        picture=OVERVIEW,
        files={"GeoJSON": PREDICTIONS, "figures": SLIDE},
        bundle=bundle,
        threshold=threshold,
        facts=facts,
        warnings=warnings,
        evaluation=evaluation,
    )
