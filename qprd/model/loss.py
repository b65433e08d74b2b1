"""The focal similarity loss, and the plain one of reverse distillation.

Per scale, S is the cosine similarity of teacher and student map. With y = 1 normal, y = 0 tumor
(He & Li, MIDL 2023)::

    S_t     = S      if y = 1      alpha_t = alpha      if y = 1
              1 - S  if y = 0                1 - alpha  if y = 0
    L       = -alpha_t * (1 - S_t)^gamma * log(S_t)

averaged over the batch and summed over the scales.

S_t as a cosine leaves (0, 1], where the logarithm is defined and the loss meant:

* Below `EPS` the logarithm goes on as its tangent, ``-log(EPS) + (EPS - S_t) / EPS``. Value and
  slope are continuous, so the gradient neither explodes (a bare logarithm has slope 1 / S_t),
  nor is it NaN at S_t <= 0 (the published code), nor does it vanish there (a plain clamp): a
  normal patch at S = -1 is still pulled back. The slope ends at 1 / EPS because Adam remembers a
  single huge gradient for a thousand steps, and an untrained student without a last ReLU starts
  at S around 0.
* Above 1, which is a tumor patch with S < 0, S_t counts as 1: student and teacher differ enough,
  the loss is 0 and stays 0. The equation as printed would turn negative and reward going on.
  Maps after ReLU, all ResNets', never get there.

Where S = 1 exactly the cosine itself has gradient 0, so identical maps do not move, tumor or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from qprd.errors import ExitCode, QprdError
from qprd.model.processes import mean_count
from qprd.settings import Labels, Similarity, TrainConfig

#: S_t below which the logarithm goes on as a straight line.
EPS = 0.01

#: From teacher maps, student maps and labels, see `focal_similarity_loss`, to a scalar.
Loss = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Tensor]

NORMAL = 1
TUMOR = 0


def map_similarity(teacher_map: Tensor, student_map: Tensor, similarity: Similarity) -> Tensor:
    """Compute the cosine similarity of one scale's maps, -1..1, in at least 32 bits.

    A zero vector has similarity 0 to everything.

    Args:
        teacher_map: (N, C, H, W).
        student_map: The same shape.
        similarity: ``"image"`` flattens over C*H*W, ``"location"`` compares the C-vectors.

    Returns:
        (N,) or (N, H, W).
    """
    if teacher_map.shape != student_map.shape:
        raise ValueError(f"maps differ: {teacher_map.shape} and {student_map.shape}")
    dtype = torch.promote_types(
        torch.promote_types(teacher_map.dtype, student_map.dtype), torch.float32
    )
    teacher_map, student_map = teacher_map.to(dtype), student_map.to(dtype)
    if similarity == "image":
        teacher_map, student_map = teacher_map.flatten(1), student_map.flatten(1)
    return functional.cosine_similarity(teacher_map, student_map, dim=1)


def labels_at_scale(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label of every location of a map from a mask of the patch's pixels.

    A location takes the label of most labeled pixels it stands for, tumor on a tie; it is
    ignored where less than half of them are labeled.

    Args:
        mask: (N, H, W); 0 tumor, 1 normal, anything else (NaN, -1) ignored.
        size: Height and width of the map; where they do not divide H and W, what the locations
            stand for overlaps.

    Returns:
        (N, *size), float: 0, 1 or NaN.
    """
    normal = functional.adaptive_avg_pool2d((mask == NORMAL).float(), size)
    tumor = functional.adaptive_avg_pool2d((mask == TUMOR).float(), size)
    label = torch.where(normal > tumor, float(NORMAL), float(TUMOR))
    return torch.where(normal + tumor >= 0.5, label, torch.nan)


def _label_like(similarity: Tensor, y: Tensor, labels: Labels) -> Tensor:
    """Broadcast the labels to the shape of the similarities."""
    if labels == "mask":
        height, width = similarity.shape[1:]
        return labels_at_scale(y, (height, width))
    return y.reshape(-1, *[1] * (similarity.dim() - 1)).expand_as(similarity)


def _check_modes(similarity: Similarity, labels: Labels) -> None:
    if labels == "mask" and similarity != "location":
        raise QprdError(
            "A label per location needs a similarity per location.",
            where="--labels mask",
            fix="Add --similarity location.",
            exit_code=ExitCode.USAGE,
        )


def _mean(terms: Tensor, used: Tensor) -> Tensor:
    """Return the mean of the used terms; if there are none, 0 with a gradient.

    In several processes it is the share of this one's terms in the mean of all, times the number of
    processes.
    """
    return torch.where(used, terms, 0).sum() / mean_count(used.sum())


def focal_terms(similarity: Tensor, y: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Compute the equation of this module, element by element.

    Args:
        similarity: S, any shape, -1..1.
        y: 1 normal, 0 tumor, same shape.
        alpha: Weight of normal, 0..1.
        gamma: Focal exponent, >= 0.

    Returns:
        The same shape, >= 0 and finite, with finite gradients.
    """
    normal = y == NORMAL
    s_t = torch.where(normal, similarity, 1 - similarity).clamp(max=1)
    # The floor keeps the power's gradient finite at S_t = 1 where gamma is below 1.
    weight = (1 - s_t).clamp(min=torch.finfo(s_t.dtype).eps) ** gamma
    below = s_t < EPS
    tangent = (EPS - s_t) / EPS - math.log(EPS)
    # The inner where keeps the logarithm's NaN out of the gradient.
    neg_log = torch.where(below, tangent, -torch.log(torch.where(below, EPS, s_t)))
    alpha_t = torch.where(normal, s_t.new_tensor(alpha), s_t.new_tensor(1 - alpha))
    return alpha_t * weight * neg_log


def focal_similarity_loss(
    teacher_maps: Sequence[Tensor],
    student_maps: Sequence[Tensor],
    y: Tensor,
    *,
    alpha: float,
    gamma: float,
    similarity: Similarity = "image",
    labels: Labels = "patch",
) -> Tensor:
    """Compute the focal similarity loss of a batch by the equation of this module.

    Args:
        teacher_maps: (N, C, H, W) of each scale.
        student_maps: Maps of the same shapes.
        y: 1 normal, 0 tumor, anything else (NaN, -1) is left out. (N,) for ``labels="patch"``;
            for ``labels="mask"`` the patch's pixels, (N, H, W), see `labels_at_scale`.
        alpha: Weight of normal, 0..1; tumor weighs 1 - alpha.
        gamma: Focal exponent, >= 0; 0 is no focal weighting.
        similarity: ``"image"``: one S a patch (published code). ``"location"``: one S, and one
            term of the loss, a location (paper, Eq. 1-2).
        labels: ``"mask"`` labels locations, and needs ``similarity="location"``.

    Returns:
        A scalar >= 0. A batch without tumor, or without any label (0 then), is fine.

    Raises:
        QprdError: ``labels="mask"`` with ``similarity="image"``.
    """
    _check_modes(similarity, labels)
    total = torch.zeros((), device=teacher_maps[0].device)
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        s = map_similarity(teacher_map, student_map, similarity)
        label = _label_like(s, y, labels)
        terms = focal_terms(s, label, alpha=alpha, gamma=gamma)
        total = total + _mean(terms, (label == NORMAL) | (label == TUMOR))
    return total


def plain_similarity_loss(
    teacher_maps: Sequence[Tensor],
    student_maps: Sequence[Tensor],
    y: Tensor | None = None,
    *,
    similarity: Similarity = "image",
    labels: Labels = "patch",
) -> Tensor:
    """Plain reverse distillation: the mean of 1 - S over normal, summed over the scales.

    With ``similarity="image"`` the loss of RD4AD's code, with ``"location"`` that of its paper
    (Deng & Li 2022, Eq. 2).

    Args:
        teacher_maps: (N, C, H, W) of each scale.
        student_maps: Maps of the same shapes.
        y: Labels as in `focal_similarity_loss`, all but normal left out; None: all are normal.
        similarity: As in `focal_similarity_loss`.
        labels: As in `focal_similarity_loss`.

    Returns:
        A scalar, 0 to twice the number of scales.
    """
    _check_modes(similarity, labels)
    total = torch.zeros((), device=teacher_maps[0].device)
    for teacher_map, student_map in zip(teacher_maps, student_maps, strict=True):
        s = map_similarity(teacher_map, student_map, similarity)
        normal = (
            torch.ones_like(s, dtype=torch.bool)
            if y is None
            else _label_like(s, y, labels) == NORMAL
        )
        total = total + _mean(1 - s, normal)
    return total


def resolve_alpha(alpha: float | Literal["auto"], n_tumor: int, n_normal: int) -> float:
    """Return the weight of normal patches; ``"auto"`` is tumor / (tumor + normal).

    Without any tumor patch ``"auto"`` is 1, not the 0 that would switch the loss off: the weight
    is then a common factor, which Adam cancels.

    Raises:
        QprdError: there are no normal patches.
    """
    if n_normal < 1:
        raise QprdError(
            "Training needs normal patches, and there are none.",
            where="--normal",
            fix="Annotate normal tissue, and ask for at least one patch with --normal.",
        )
    if alpha != "auto":
        return alpha
    return n_tumor / (n_tumor + n_normal) if n_tumor else 1.0


@dataclass(frozen=True)
class SimilarityLoss:
    """A loss with its settings; `build_loss` makes it.

    Attributes:
        kind: ``focal``; or ``plain`` reverse distillation, where ``alpha`` and ``gamma`` have no
            effect.
        alpha: Weight of normal, resolved.
        gamma: Focal exponent.
        similarity: As in `focal_similarity_loss`.
        labels: As in `focal_similarity_loss`.
    """

    kind: Literal["plain", "focal"]
    alpha: float
    gamma: float
    similarity: Similarity = "image"
    labels: Labels = "patch"

    def __call__(
        self, teacher_maps: Sequence[Tensor], student_maps: Sequence[Tensor], y: Tensor
    ) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        maps = teacher_maps, student_maps, y
        if self.kind == "plain":
            return plain_similarity_loss(*maps, similarity=self.similarity, labels=self.labels)
        return focal_similarity_loss(
            *maps,
            alpha=self.alpha,
            gamma=self.gamma,
            similarity=self.similarity,
            labels=self.labels,
        )


def build_loss(config: TrainConfig, *, n_tumor: int, n_normal: int) -> SimilarityLoss:
    """Build the loss of a training set: focal, or the plain one if there is no tumor.

    Raises:
        QprdError: there are no normal patches.
    """
    alpha = resolve_alpha(config.alpha, n_tumor, n_normal)
    kind: Literal["focal", "plain"] = "focal" if n_tumor else "plain"
    return SimilarityLoss(kind, alpha, config.gamma, config.similarity, config.labels)
