"""The curve from raw scores to probabilities as part of a network.

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


class CalibrationCurve(nn.Module):
    """A calibration as part of a network.

    Linear interpolation is written as ``y_1 + sum over i of rise_i * ramp_i``, where ``ramp_i``
    climbs from 0 to 1 between the points i and i + 1: no search, and never falling however it is
    rounded.

    Raises:
        QprdError: the calibration has numbers beyond single precision.
    """

    def __init__(self, calibration: Platt | Isotonic) -> None:
        super().__init__()
        self.is_isotonic = isinstance(calibration, Isotonic)
        numbers = {"slope": [calibration.slope], "intercept": [calibration.intercept]}
        if isinstance(calibration, Isotonic):
            numbers["first"] = [calibration.probabilities[0]]
            numbers["left"] = list(calibration.scores[:-1])
            numbers["widths"] = np.maximum(np.diff(calibration.scores), _TINY).tolist()
            numbers["rises"] = np.diff(calibration.probabilities).tolist()
        for name, values in numbers.items():
            self.register_buffer(name, _single(values))

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """From raw scores to the logarithms of both probabilities.

        Both are given, as 1 - p has no digits left where p is close to 1.

        Args:
            scores: (N,), float32.

        Returns:
            Logarithms of the probabilities of normal and of tumor tissue, (N,) each, finite.
        """
        log_odds = self.get_buffer("slope") * scores + self.get_buffer("intercept")
        if not self.is_isotonic:
            return functional.logsigmoid(-log_odds), functional.logsigmoid(log_odds)
        beyond = scores.unsqueeze(1) - self.get_buffer("left")
        ramps = (beyond / self.get_buffer("widths")).clamp(0, 1)
        staircase = self.get_buffer("first") + (ramps * self.get_buffer("rises")).sum(1)
        staircase = staircase.clamp(0, 1)
        tumor = (1 - PLATT_SHARE) * staircase + PLATT_SHARE * torch.sigmoid(log_odds)
        normal = (1 - PLATT_SHARE) * (1 - staircase) + PLATT_SHARE * torch.sigmoid(-log_odds)
        return normal.clamp(min=_TINY).log(), tumor.clamp(min=_TINY).log()


def _single(values: Sequence[float]) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    if not torch.isfinite(tensor).all():
        raise QprdError(
            "The calibration has numbers beyond single precision, in which other programs compute.",
            fix="Train again.",
        )
    return tensor
