"""The head of ``--recipe best``: standardized maps, a linear classifier of them, and the fusion.

A linear layer commutes with average pooling: trained on pooled features, applied at each location,
it gives a map for free, and the mean of the map is the classifier's decision for the patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qprd.model.anomaly import differences

#: Inverse strength of the classifier's L2 penalty, for features of unit variance; one patch in its
#: eight symmetries counts once. Chosen on validation patches: ``benchmarks/ablation.py``.
PENALTY_C = 0.1

#: Channels that hardly vary over normal patches are not blown up beyond this.
_MIN_STD = 1e-3

#: Scales are counted from the finest, as in f1, f2, f3.
_SCALES = (1, 2, 3)


class FusionHead(nn.Module):
    """Standardizes teacher maps, and turns them and the student's differences into a score map.

    With f the standardized teacher map and f' the student's of scale n, at each location::

        score = sum over n of  w_n . f_n  +  d_n * (1 - cosine(f_n, f'_n))    + b

    up-sampled bilinearly such that the mean over the patch is the mean over the locations (not
    aligned at the corners). Fitted so that the mean score of normal training patches is 0 and that
    of tumor patches 1. Before `fuse`, and for good without tumor patches, w = 0, d = 1, b = 0: the
    plain difference, 0..6.

    Args:
        channels: Channels of the teacher's maps at strides 4, 8, 16.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        for scale, count in enumerate(channels, start=1):
            self.register_buffer(f"mean_{scale}", torch.zeros(count))
            self.register_buffer(f"std_{scale}", torch.ones(count))
            self.register_buffer(f"linear_{scale}", torch.zeros(count))
        self.register_buffer("difference", torch.ones(3))
        self.register_buffer("bias", torch.zeros(()))

    def standardize(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """``(f - mean) / std`` channel by channel: three maps (N, C, H, W), 32 bits or wider."""
        return [
            (f - self._channels("mean", n)) / self._channels("std", n)
            for n, f in zip(_SCALES, maps, strict=True)
        ]

    def location_scores(
        self, teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor]
    ) -> list[Tensor]:
        """The terms of the equation.

        Args:
            teacher_maps: Three standardized maps (N, C, H, W).
            student_maps: Three maps of the same shapes.

        Returns:
            (N, H, W) for each scale, float32 or wider, of any sign; the first with the bias.
        """
        difference = self.get_buffer("difference")
        found = []
        for n, f, distance in zip(
            _SCALES, teacher_maps, differences(teacher_maps, student_maps), strict=True
        ):
            linear = (f.to(distance.dtype) * self._channels("linear", n)).sum(1)
            found.append(linear + difference[n - 1] * distance)
        found[0] = found[0] + self.get_buffer("bias")
        return found

    @torch.no_grad()
    def fit_standardization(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Take mean and standard deviation of each channel over all locations of normal patches.

        Args:
            batches: The teacher's own maps, three (N, C, H, W) a batch; read once.

        Raises:
            ValueError: there is no batch.
        """
        count = torch.zeros(3, dtype=torch.float64)
        sums = [
            torch.zeros(len(self.get_buffer(f"mean_{n}")), dtype=torch.float64) for n in _SCALES
        ]
        squares = [torch.zeros_like(total) for total in sums]
        for maps in batches:
            for i, f in enumerate(maps):
                wide = f.to("cpu", torch.float64)
                count[i] += wide.numel() // wide.shape[1]
                sums[i] += wide.sum((0, 2, 3))
                squares[i] += wide.square().sum((0, 2, 3))
        if not count.all():
            raise ValueError("no maps to standardize over")
        for n, total, square, locations in zip(_SCALES, sums, squares, count, strict=True):
            mean = total / locations
            variance = (square / locations - mean.square()).clamp(min=0)
            self.get_buffer(f"mean_{n}").copy_(mean)
            self.get_buffer(f"std_{n}").copy_(variance.sqrt().clamp(min=_MIN_STD))

    @torch.no_grad()
    def unfuse(self) -> None:
        """Go back to the plain difference, as before `fuse`; the standardization stays."""
        for n in _SCALES:
            self.get_buffer(f"linear_{n}").zero_()
        self.get_buffer("difference").fill_(1)
        self.get_buffer("bias").zero_()

    @torch.no_grad()
    def fuse(self, classifier: LinearClassifier, fusion: Fusion) -> None:
        """Take over a linear classifier and its weight against the student.

        Args:
            classifier: For pooled standardized maps, C1 + C2 + C3 weights.
            fusion: How much of either.
        """
        scaled = torch.from_numpy(classifier.weights * fusion.linear)
        start = 0
        for n in _SCALES:
            linear = self.get_buffer(f"linear_{n}")
            linear.copy_(scaled[start : start + len(linear)])
            start += len(linear)
        self.get_buffer("difference").fill_(fusion.student)
        self.get_buffer("bias").fill_(classifier.intercept * fusion.linear + fusion.offset)

    def _channels(self, name: str, scale: int) -> Tensor:
        return self.get_buffer(f"{name}_{scale}").view(1, -1, 1, 1)


@dataclass(frozen=True)
class LinearClassifier:
    """Decision ``weights . features + intercept``, higher for tumor.

    Attributes:
        weights: (C,).
        intercept: In the unit of the decision.
    """

    weights: NDArray[np.float64]
    intercept: float

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decisions (n,) on features (n, C)."""
        return np.asarray(features @ self.weights + self.intercept, np.float64)


def fit_linear(
    views: Sequence[NDArray[np.float64]],
    tumor: NDArray[np.bool_],
    *,
    penalty_c: float = PENALTY_C,
) -> LinearClassifier:
    """Logistic regression on pooled features, the classes weighing alike whatever their numbers.

    Args:
        views: Pooled features of the same patches in several symmetries, (n, C) each.
        tumor: (n,), with both classes.
        penalty_c: Inverse strength of the penalty, above 0.

    Returns:
        The classifier, for features as given.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate(views)
    normal = np.concatenate([view[~tumor] for view in views])
    mean, std = normal.mean(axis=0), normal.std(axis=0)
    std[std < _MIN_STD] = 1.0
    fit = LogisticRegression(C=penalty_c / len(views), class_weight="balanced", max_iter=5000)
    fit.fit((features - mean) / std, np.tile(tumor, len(views)))
    weights = np.asarray(fit.coef_[0], np.float64) / std
    return LinearClassifier(weights, float(fit.intercept_[0] - weights @ mean))


@dataclass(frozen=True)
class Fusion:
    """Score = ``linear * decision + student * difference + offset``.

    Attributes:
        linear: Factor of the classifier's decision.
        student: Factor of the student's difference.
        offset: Brings the mean of normal training patches to 0.
    """

    linear: float
    student: float
    offset: float

    def __call__(
        self, decisions: NDArray[np.float64], differences: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Scores (n,) of patches."""
        return self.linear * decisions + self.student * differences + self.offset


def fit_fusion(
    decisions: NDArray[np.float64],
    differences: NDArray[np.float64],
    tumor: NDArray[np.bool_],
    share: float,
) -> Fusion:
    """Scale classifier and student to a distance of 1 between the class means, and mix them.

    One that does not tell the means of its own training patches apart is left out.

    Args:
        decisions: The classifier's, on training patches, (n,).
        differences: The student's sum over scales of the mean 1 - cosine on them, (n,), 0..6.
        tumor: (n,), with both classes.
        share: The student's, 0..1.
    """
    linear, linear_offset = _unit_gap(decisions, tumor)
    student, student_offset = _unit_gap(differences, tumor)
    if not linear or not student:
        share = float(not linear)
    return Fusion(
        (1 - share) * linear,
        share * student,
        (1 - share) * linear_offset + share * student_offset,
    )


def _unit_gap(values: NDArray[np.float64], tumor: NDArray[np.bool_]) -> tuple[float, float]:
    """Scale and offset that bring the mean of normal to 0 and that of tumor to 1; else zeros."""
    low, high = float(values[~tumor].mean()), float(values[tumor].mean())
    if not math.isfinite(high - low) or high - low <= np.finfo(np.float32).eps:
        return 0.0, 0.0
    return 1 / (high - low), -low / (high - low)
