"""The score map of a whole slide, as prediction and validation make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qprd.config import PatchScore
from qprd.progress import Progress
from qprd.results import ScoreMap
from qprd.slides.slide import Slide
from qprd.slides.tissue import TissueMask

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from qprd.model.frd import FRD


@dataclass(frozen=True)
class SlideScorer:
    """A model and how slides are scored with it.

    Attributes:
        model: A trained model.
        mpp: Its resolution, micrometres per pixel.
        patch_px: Edge of its patches in pixels at ``mpp``.
        patch_score: How an anomaly map becomes a score.
        min_tissue: Least share of tissue in a cell and in its patch, 0..1.
        batch_size: Patches a forward pass.
        fabric: Where to compute.
        progress: Shows one bar a slide.
        stride: Edge of a cell in pixels at ``mpp``; None is half a patch.
    """

    model: FRD
    mpp: float
    patch_px: int
    patch_score: PatchScore
    min_tissue: float
    batch_size: int
    fabric: Fabric
    progress: Progress
    stride: int | None = None

    def score(self, name: str, slide: Slide, tissue: TissueMask) -> ScoreMap:
        """Score the tissue of a slide.

        Args:
            name: Shown with the bar.
            slide: Must have a resolution.
            tissue: Its tissue mask.

        Raises:
            QprdError: the map would be too large, or the slide cannot be read.
        """
        from qprd.prediction import score_grid, score_slide

        grid = score_grid(
            slide,
            tissue,
            mpp=self.mpp,
            patch_px=self.patch_px,
            stride=self.stride or self.patch_px // 2,
            min_tissue=self.min_tissue,
        )
        with self.progress.task(name, int(grid.wanted.sum())) as task:
            return score_slide(
                self.model,
                slide,
                grid,
                fabric=self.fabric,
                batch_size=self.batch_size,
                reduction=self.patch_score,
                task=task,
            )
