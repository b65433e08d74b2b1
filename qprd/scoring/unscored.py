"""What a slide shows besides glass that no score says anything of, by cause."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qprd.predictions import ScoreMap
from qprd.slides.surface import Surface
from qprd.slides.tissue import TissueMask

#: Share of what is not glass from which on the user is told; the rims of small pieces alone may
#: be half of it.
_WORTH_SAYING = 0.10

_CAUSES = {
    Surface.PEN: "under pen",
    Surface.DARK: "too dark or gray",
    Surface.SMALL: "in pieces too small",
}
_IN_CELLS = "in cells with too little tissue"


def unscored_areas(tissue: TissueMask, score_map: ScoreMap) -> dict[str, float]:
    """Areas that are neither glass nor border nor scored, in um2, by cause; none that is 0.

    Args:
        tissue: With its surface.
        score_map: Scores of the same slide.
    """
    if tissue.surface is None:
        return {}
    px_um2 = (tissue.downsample * score_map.mpp) ** 2
    counts = np.bincount(tissue.surface.ravel(), minlength=len(Surface))
    pixels = {cause: int(counts[kind]) for kind, cause in _CAUSES.items()}
    pixels[_IN_CELLS] = int(np.count_nonzero(tissue.mask & ~_scored(tissue, score_map)))
    return {cause: count * px_um2 for cause, count in pixels.items() if count}


def unscored_note(tissue: TissueMask, score_map: ScoreMap) -> str | None:
    """A sentence on `unscored_areas` if they are a tenth of what is not glass, or more."""
    areas = unscored_areas(tissue, score_map)
    scored = np.count_nonzero(tissue.mask & _scored(tissue, score_map))
    total = sum(areas.values()) + scored * (tissue.downsample * score_map.mpp) ** 2
    if not total or sum(areas.values()) < _WORTH_SAYING * total:
        return None
    listed = ", ".join(
        f"{area / 1e6:.2f} mm² {cause}"
        for cause, area in sorted(areas.items(), key=lambda item: -item[1])
        if area >= _WORTH_SAYING / 10 * total
    )
    return f"{sum(areas.values()) / total:.0%} of what is not glass was not scored: {listed}"


def _scored(tissue: TissueMask, score_map: ScoreMap) -> NDArray[np.bool_]:
    """Whether the center of each pixel of the mask lies in a cell that has a score."""
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
