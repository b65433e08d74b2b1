"""Scoring of slides, and of patches on them, in prediction and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qprd.errors import QprdError
from qprd.predictions import ScoreMap
from qprd.progress import Progress
from qprd.sampling.table import PatchTable
from qprd.scoring.fields import Windows
from qprd.settings import PatchScore, Scoring
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.model.network import Network


@dataclass(frozen=True)
class SlideScorer:
    """A model, and how slides are scored with it.

    Attributes:
        model: From `qprd.model.inference.for_inference`.
        mpp: Its resolution, micrometers per pixel.
        patch_px: Edge of its patches in pixels at ``mpp``.
        patch_score: How the score map of a patch becomes its score.
        min_tissue: Least share of tissue in a cell and in its patch, 0..1.
        batch_size: Patches per forward pass.
        fabric: Where to compute, and in which precision.
        progress: Shows one bar per slide.
        scoring: From large fields (`by_field`), or patch by patch (`by_patch`).
        stride: Edge of a cell in pixels at ``mpp``; None is half a patch.
    """

    model: Network
    mpp: float
    patch_px: int
    patch_score: PatchScore
    min_tissue: float
    batch_size: int
    fabric: Fabric
    progress: Progress
    scoring: Scoring = "fields"
    stride: int | None = None

    def score(self, name: str, slide: Slide, tissue: TissueMask) -> ScoreMap:
        """Score the tissue of a slide.

        Raises:
            QprdError: the map would be too large, or the slide cannot be read.
        """
        from qprd.scoring.by_field import score_slide_by_field
        from qprd.scoring.by_patch import score_slide_by_patch
        from qprd.scoring.cells import score_grid

        grid = score_grid(
            slide,
            tissue,
            mpp=self.mpp,
            patch_px=self.patch_px,
            stride=self.stride or self.patch_px // 2,
            min_tissue=self.min_tissue,
        )
        with self.progress.task(name, int(grid.wanted.sum()), "patch") as task:
            if self.scoring == "fields":
                return score_slide_by_field(
                    self.model,
                    slide,
                    grid,
                    fabric=self.fabric,
                    reduction=self.patch_score,
                    task=task,
                )
            return score_slide_by_patch(
                self.model,
                slide,
                grid,
                fabric=self.fabric,
                batch_size=self.batch_size,
                reduction=self.patch_score,
                task=task,
            )

    def patch_scores_from_fields(
        self, table: PatchTable, open_slide: Callable[[str], Slide]
    ) -> tuple[NDArray[np.float32], dict[str, QprdError]]:
        """Score patches from large fields of their slides.

        Args:
            table: The patches; they are moved to whole pixels at their resolution.
            open_slide: Opens the slide of an entry.

        Returns:
            (n,) raw scores, and why a slide cannot be read, by its entry; its scores are NaN.
        """
        from qprd.scoring.by_field import score_windows

        scores = np.full(len(table), np.nan, np.float32)
        unreadable: dict[str, QprdError] = {}
        together: dict[tuple[str, float], list[int]] = {}
        for index, patch in enumerate(table.patches):
            together.setdefault((patch.slide, patch.mpp), []).append(index)
        with self.progress.task("validating on fields", len(table), "patch") as task:
            for (entry_id, mpp), members in together.items():
                corners = np.array([(table.patches[i].x, table.patches[i].y) for i in members])
                try:
                    with open_slide(entry_id) as slide:
                        to_level0 = slide.downsample_of(mpp)
                        ends = np.array([slide.width, slide.height]) / to_level0 - self.patch_px
                        x, y = np.clip(np.rint(corners / to_level0), 0, np.maximum(ends, 0)).T
                        scores[members] = score_windows(
                            self.model,
                            slide,
                            Windows(x.astype(np.int64), y.astype(np.int64), self.patch_px),
                            mpp=mpp,
                            fabric=self.fabric,
                            reduction=self.patch_score,
                            task=task,
                        )
                except QprdError as error:
                    unreadable[entry_id] = error
        return scores, unreadable
