"""The results page, ``results/index.html``: the slides of a prediction and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from qprd.review.pages import write_page

INDEX_NAME = "index.html"


@dataclass(frozen=True)
class SlideRow:
    """One slide on the page.

    Attributes:
        name: Name of the entry, as QuPath shows it.
        picture: PNG of the heatmap, relative to the results folder; None if there is none.
        slide_score: Raw score of the slide; None if nothing was scored.
        contours: Number of contours.
        tumor_area_mm2: Area inside the contours.
        tissue_area_mm2: Area of the tissue that was scored.
        split: ``train`` or ``val`` if the model has seen the slide.
        files: Other files of the slide: label to path relative to the results folder.
        warnings: What the reader must know about this slide.
        entry_id: Id of the entry; empty if there is nothing to look at.
        slide_probability: The probability of the slide score; None without a calibration.
    """

    name: str
    picture: PurePosixPath | None = None
    slide_score: float | None = None
    contours: int = 0
    tumor_area_mm2: float = 0.0
    tissue_area_mm2: float = 0.0
    split: str | None = None
    files: Mapping[str, PurePosixPath] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    entry_id: str = ""
    slide_probability: float | None = None

    @property
    def tumor_percent(self) -> float | None:
        """Tumor in percent of the tissue; None without tissue."""
        if self.tissue_area_mm2 <= 0:
            return None
        return 100 * self.tumor_area_mm2 / self.tissue_area_mm2


def write_index(
    results_dir: Path,
    slides: Sequence[SlideRow],
    *,
    bundle: str,
    threshold: float | None,
    facts: Mapping[str, str],
    warnings: Sequence[str] = (),
    evaluation: tuple[PurePosixPath, str] | None = None,
) -> Path:
    """Write the index page.

    Slides come in descending order of their score; the page can sort them in other ways.

    Args:
        results_dir: Folder that holds the pictures and files; the page is written into it.
        slides: One row per slide.
        bundle: Name of the bundle.
        threshold: Raw score at and above which tissue is called tumor; None if there is none.
        facts: What else the header says about the model and the run, by name.
        warnings: What the reader must know about all slides, such as a missing validation.
        evaluation: The evaluation page, relative to the results folder, and a description of it;
            None if there is none.

    Returns:
        The page.

    Raises:
        QprdError: A picture or file does not lie inside the results folder, or the page cannot be
            written.
    """
    ordered = sorted(
        slides,
        key=lambda slide: (
            slide.slide_score is None,
            -(slide.slide_score or 0.0),
            slide.name,
        ),
    )
    return write_page(
        results_dir / INDEX_NAME,
        INDEX_NAME,
        slides=ordered,
        bundle=bundle,
        threshold=threshold,
        facts=facts,
        warnings=warnings,
        evaluation=evaluation,
    )
