"""The curves from raw scores to probabilities as parts of a network.

Single precision throughout: Apple's GPUs, on which WSInfer also runs, know no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from qprd.errors import QprdError
from qprd.evaluation.calibration import PLATT_SHARE, Isotonic, Platt

#: The smallest normal number of single precision; logarithms are taken from there on.
_TINY = float(np.finfo(np.float32).tiny)


class Curve(nn.Module):
    """A calibration; subclasses say how.

    Both logarithms are given, as 1 - p has no digits left where p is close to 1.
    """

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """From raw scores to the logarithms of both probabilities.

        Args:
            scores: (N,), float32.

        Returns:
            Logarithms of the probabilities of normal and of tumor tissue, (N,) each, finite.
        """
        raise NotImplementedError


class PlattCurve(Curve):
    """`qprd.evaluation.calibration.Platt`."""

    def __init__(self, slope: float, intercept: float) -> None:
        super().__init__()
        self.register_buffer("slope", _single([slope])[0])
        self.register_buffer("intercept", _single([intercept])[0])

    def log_odds(self, scores: Tensor) -> Tensor:
        """``slope * score + intercept``, (N,)."""
        return self.get_buffer("slope") * scores + self.get_buffer("intercept")

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """See `Curve`."""
        log_odds = self.log_odds(scores)
        return functional.logsigmoid(-log_odds), functional.logsigmoid(log_odds)


class IsotonicCurve(Curve):
    """`qprd.evaluation.calibration.Isotonic`.

    Linear interpolation is written as ``y_1 + sum over i of rise_i * ramp_i``, where ``ramp_i``
    climbs from 0 to 1 between the points i and i + 1: no search, and never falling however it is
    rounded.
    """

    def __init__(self, curve: Isotonic) -> None:
        super().__init__()
        self.logistic = PlattCurve(curve.slope, curve.intercept)
        widths = np.maximum(np.diff(curve.scores), _TINY)
        self.register_buffer("first", _single(curve.probabilities[:1])[0])
        self.register_buffer("left", _single(curve.scores[:-1]))
        self.register_buffer("widths", _single(widths.tolist()))
        self.register_buffer("rises", _single(np.diff(curve.probabilities).tolist()))

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """See `Curve`."""
        beyond = scores.unsqueeze(1) - self.get_buffer("left")
        ramps = (beyond / self.get_buffer("widths")).clamp(0, 1)
        staircase = self.get_buffer("first") + (ramps * self.get_buffer("rises")).sum(1)
        staircase = staircase.clamp(0, 1)
        log_odds = self.logistic.log_odds(scores)
        tumor = (1 - PLATT_SHARE) * staircase + PLATT_SHARE * torch.sigmoid(log_odds)
        normal = (1 - PLATT_SHARE) * (1 - staircase) + PLATT_SHARE * torch.sigmoid(-log_odds)
        return normal.clamp(min=_TINY).log(), tumor.clamp(min=_TINY).log()


def curve_of(calibration: Platt | Isotonic) -> Curve:
    """A calibration as part of a network.

    Raises:
        QprdError: it has numbers beyond single precision.
    """
    if isinstance(calibration, Isotonic):
        return IsotonicCurve(calibration)
    return PlattCurve(calibration.slope, calibration.intercept)


def _single(values: Sequence[float]) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if not torch.isfinite(tensor).all():
        raise QprdError(
            "The calibration has numbers beyond single precision, in which other programs compute.",
            fix="Train again.",
        )
    return tensor
