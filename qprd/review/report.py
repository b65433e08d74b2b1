"""The page that shows what a prediction found: ``results/index.html``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from qprd.errors import QprdError

INDEX_NAME = "index.html"


@dataclass(frozen=True)
class SlideRow:
    """One slide on the page.

    Attributes:
        name: The entry's name, as QuPath shows it.
        picture: PNG of the heatmap, relative to the results folder; None if there is none.
        slide_score: Raw score of the slide; None if nothing was scored.
        contours: How many.
        tumor_area_mm2: Area inside the contours.
        tissue_area_mm2: Area of the tissue that was scored.
        split: ``train``, ``val`` or ``test`` if the model has seen the slide or was tested on it.
        files: What else there is of the slide: label to path relative to the results folder.
        warnings: What the reader must know about this slide.
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

    @property
    def tumor_percent(self) -> float | None:
        """Tumor in percent of the tissue; None without tissue."""
        if self.tissue_area_mm2 <= 0:
            return None
        return 100 * self.tumor_area_mm2 / self.tissue_area_mm2


@dataclass(frozen=True)
class RunSummary:
    """What the page says about the model and the run.

    Attributes:
        bundle: Name of the bundle.
        teacher: Name of the teacher network.
        date: When the prediction was made, as it shall be shown.
        version: qprd's version.
        threshold: Raw score at and above which tissue is called tumor; None if there is none.
        validation: Figures of the validation: name to value, as they shall be shown.
        warnings: What the reader must know about all slides, such as a missing validation.
    """

    bundle: str
    teacher: str
    date: str
    version: str
    threshold: float | None
    validation: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def write_index(results_dir: Path, slides: Sequence[SlideRow], summary: RunSummary) -> Path:
    """Write the index page; it needs no network, no server, and no script to be read.

    Slides come in descending order of their score; a reader's browser can sort them otherwise.
    Everything shown is escaped: names come from strangers' projects.

    Args:
        results_dir: Folder that holds the pictures and files; the page is written into it.
        slides: One row a slide.
        summary: The model and the run.

    Returns:
        The page.

    Raises:
        QprdError: A picture or file does not lie inside the results folder, or the page cannot be
            written.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["href"] = _href
    ordered = sorted(
        slides,
        key=lambda slide: (
            slide.slide_score is None,
            -(slide.slide_score or 0.0),
            slide.name,
        ),
    )
    page = environment.get_template(INDEX_NAME).render(slides=ordered, summary=summary)
    path = results_dir / INDEX_NAME
    new = path.with_suffix(".html.new")
    try:
        # A file name that is not valid Unicode reaches us as lone surrogates.
        new.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise QprdError(
            f"The result page could not be written: {error.strerror}.",
            where=str(path),
            fix="Make room on the disk, or choose a folder that can be written to.",
        ) from error
    return path


def _href(path: PurePosixPath) -> str:
    """A relative link; percent-encoded, so that a colon in a name makes no URL scheme of it."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise QprdError(
            "A file of the results does not lie inside the results folder.",
            where=str(path),
            fix="Run the prediction again.",
        )
    return quote(os.fsencode(str(path)))
