"""A bundle as one network that others can run: from pixels to scores, probabilities or logits.

Normalization, both orientations, smoothing and calibration are inside. All of them take images
(N, 3, P, P), RGB, float32 0..1, with P the bundle's patch size, and N as the caller likes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qprd.evaluation.calibration import Isotonic, Platt
from qprd.export.calibration_curves import CalibrationCurve
from qprd.model.anomaly import Smoothing, patch_score
from qprd.model.depth_maps import DepthMaps
from qprd.model.network import Network
from qprd.settings import PatchScore

#: Names of outputs.
PROBABILITY = "probability"
SCORE = "score"


class Score(nn.Module):
    """The raw score of each patch, as `qprd.scoring.by_patch.score_patches` computes it.

    Args:
        model: A trained model, put into evaluation mode; the position embeddings of a transformer
            are interpolated for patches for good.
        patch_px: Edge of its patches.
        reduction: How a score map becomes a score.
    """

    #: What its outputs are called.
    outputs: tuple[str, ...] = (SCORE,)

    def __init__(self, model: Network, patch_px: int, reduction: PatchScore) -> None:
        super().__init__()
        self.model = model
        self.smoothing = Smoothing(patch_px)
        self.patch_px = patch_px
        self.reduction: PatchScore = reduction
        for part in model.modules():
            if isinstance(part, DepthMaps):
                part.fix_size(patch_px)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Raw scores (N,)."""
        return patch_score(self.smoothing(self.model.score_maps(images)), self.reduction)


class _Calibrated(nn.Module):
    """A score and its curve; subclasses say what of it others want."""

    def __init__(self, score: Score, calibration: Platt | Isotonic) -> None:
        super().__init__()
        self.patch_px = score.patch_px
        self.score = score
        self.curve = CalibrationCurve(calibration)
        self.eval()


class TwoLogits(_Calibrated):
    """Logits of normal and tumor tissue whose softmax is the calibrated probability.

    WSInfer always applies a softmax; of logarithms of probabilities it gives these back.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2): normal, tumor."""
        return torch.stack(self.curve(self.score(images)), dim=1)


class ProbabilityAndScore(_Calibrated):
    """The calibrated probability, and the raw score it comes from."""

    outputs = (PROBABILITY, SCORE)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of tumor 0..1 and raw score, (N,) each."""
        score = self.score(images)
        _, log_tumor = self.curve(score)
        return log_tumor.exp(), score


def random_patches(n: int, patch_px: int) -> Tensor:
    """Images to compare a network with its translation on, (n, 3, P, P), 0..1; always the same."""
    generator = torch.Generator().manual_seed(n)
    return torch.rand((n, 3, patch_px, patch_px), generator=generator)
