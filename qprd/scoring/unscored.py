"""Parts of a slide besides glass that no score says anything of, by cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qprd.predictions import ScoreMap
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask

#: Share of what is not glass from which on the user is told. The rims of ordinary sections, whose
#: cells hold too little of them, are 1 to 4 % of it.
_WORTH_SAYING = 0.05

#: Causes by their names in reports, and in words. Borders are no part of the slide: they are
#: counted, and nobody is told.
_KINDS = {
    Surface.PEN: "pen",
    Surface.DARK: "dark",
    Surface.SMALL: "small_pieces",
    Surface.OUTSIDE: "outside_drawn_tissue",
    Surface.BORDER: "border",
}
_IN_CELLS = "little_tissue_in_cell"
_WORDS = {
    "pen": "under pen",
    "dark": "too dark or gray",
    "small_pieces": "in pieces too small",
    "outside_drawn_tissue": "outside of what is drawn as tissue",
    _IN_CELLS: "in cells with too little tissue",
}


@dataclass(frozen=True)
class Unscored:
    """What of a slide is neither glass nor scored.

    Attributes:
        areas_mm2: Areas by cause; causes without any are left out.
        scored_mm2: Area of the tissue that is scored.
        mask: Where it is, border left out; bool, (h, w).
        downsample: Level-0 pixels per pixel of the mask.
    """

    areas_mm2: Mapping[str, float]
    scored_mm2: float
    mask: NDArray[np.bool_]
    downsample: float

    @property
    def share(self) -> float:
        """Share of what is neither glass nor border, 0..1."""
        missing = sum(self._told.values())
        return missing / (missing + self.scored_mm2) if missing else 0.0

    @property
    def is_much(self) -> bool:
        """Whether it is so much that the user must know."""
        return self.share >= _WORTH_SAYING

    def note(self) -> str | None:
        """A sentence on the areas and their causes; None if they are not much."""
        if not self.is_much:
            return None
        told = self._told
        listed = ", ".join(
            f"{area:.2g} mm² {_WORDS[cause]}"
            for cause, area in sorted(told.items(), key=lambda item: -item[1])
            if area >= _WORTH_SAYING * sum(told.values())
        )
        return f"{self.share:.0%} of what is not glass was not scored: {listed}"

    @property
    def _told(self) -> dict[str, float]:
        return {cause: area for cause, area in self.areas_mm2.items() if cause in _WORDS}


def find_unscored(tissue: TissueMask, score_map: ScoreMap) -> Unscored:
    """Find what of a slide is neither glass nor scored.

    Args:
        tissue: With its surface; without one, only its tissue is looked at.
        score_map: Scores of the same slide.
    """
    px_mm2 = (tissue.downsample * score_map.mpp) ** 2 / 1e6
    has_score = _scored(tissue, score_map)
    lost = tissue.mask & ~has_score
    pixels = {_IN_CELLS: int(np.count_nonzero(lost))}
    if tissue.surface is not None:
        counts = np.bincount(tissue.surface.ravel(), minlength=len(Surface))
        pixels |= {cause: int(counts[kind]) for kind, cause in _KINDS.items()}
        lost |= np.isin(tissue.surface, [kind for kind in _KINDS if _KINDS[kind] in _WORDS])
    return Unscored(
        {cause: count * px_mm2 for cause, count in pixels.items() if count},
        np.count_nonzero(tissue.mask & has_score) * px_mm2,
        lost,
        tissue.downsample,
    )


def _scored(tissue: TissueMask, score_map: ScoreMap) -> NDArray[np.bool_]:
    """Whether the center of each pixel of a mask lies in a cell that has a score, (h, w)."""
    known = np.pad(~np.isnan(score_map.scores), 1)
    inside = []
    for count, start, cells in zip(
        tissue.mask.shape, (score_map.y, score_map.x), score_map.scores.shape, strict=True
    ):
        centers = (np.arange(count) + 0.5) * tissue.downsample
        index = np.floor((centers - start) / score_map.cell_px).astype(np.intp)
        inside.append(np.clip(index, -1, cells) + 1)
    result: NDArray[np.bool_] = known[np.ix_(*inside)]
    return result
