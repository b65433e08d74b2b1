"""Tissue of a slide: what a person drew as tissue, or else what differs from its glass."""

from __future__ import annotations

from collections.abc import Sequence

from qprd.qupath.project import Annotation
from qprd.sampling.classes import similar_classes
from qprd.sampling.drawn import drawn_tissue, summarized
from qprd.settings import TrainConfig
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask, tissue_mask


def find_tissue_of(
    slide: Slide, annotations: Sequence[Annotation], config: TrainConfig
) -> tuple[TissueMask, list[str]]:
    """Find the tissue of a slide by the settings; annotations of a tissue class outrank its colors.

    Returns:
        The mask, and what the user should know of it.
    """
    drawn, lost = drawn_tissue(annotations, slide.width, slide.height, config.tissue_class)
    tissue = tissue_mask(
        slide,
        min_area_um2=config.tissue_min_area_um2,
        max_gap_um2=config.tissue_max_gap_um2,
        drawn=None if drawn.is_empty else drawn,
    )
    notes = summarized(lost)
    if config.tissue_class and drawn.is_empty:
        names = " or ".join(repr(name) for name in config.tissue_class)
        others = {a.class_name or "" for a in annotations} - {*config.tissue_class}
        close = similar_classes(config.tissue_class, others)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        notes.append(f"no area of class {names} is drawn{hint}, so its tissue is found by color")
    return tissue, notes
