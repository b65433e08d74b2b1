"""The base of all models: a frozen teacher, and scores at the locations of its maps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qprd.errors import QprdError
from qprd.model.anomaly import upsampled
from qprd.model.teacher import Teacher
from qprd.settings import ModelKind


class Network(nn.Module):
    """A frozen teacher, and what turns its maps into scores.

    Attributes:
        teacher: The frozen part.
        multiple_px: Edges of images are multiples of this.
    """

    #: Its name in a bundle.
    kind: ModelKind
    #: Attributes whose parameters and buffers a bundle holds.
    trained: tuple[str, ...]

    def __init__(self, teacher: Teacher, multiple_px: int) -> None:
        super().__init__()
        self.teacher = teacher
        self.multiple_px = multiple_px

    @abstractmethod
    def score_parts(self, images: Tensor) -> list[Tensor]:
        """All maps that a score is made of; `qprd.model.inference` compares them.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of `multiple_px`.

        Returns:
            Maps (N, C, h, w), of any number.
        """

    @abstractmethod
    def location_scores(self, images: Tensor) -> list[Tensor]:
        """Raw scores of the locations of each map; scores of pixels and patches add them up.

        Args:
            images: As for `score_parts`.

        Returns:
            (N, h, w) for each map, float32 or wider.
        """

    def score_maps(self, images: Tensor) -> Tensor:
        """Raw scores (N, H, W) of every pixel, not smoothed, higher for tumor.

        Their mean over an image is the sum of the means of its `location_scores`.

        Args:
            images: As for `score_parts`.
        """
        return upsampled(self.location_scores(images), (images.shape[-2], images.shape[-1]))

    def require_fit(self, images: Tensor) -> None:
        """Refuse images whose edges are no multiples of `multiple_px`.

        Raises:
            QprdError: they are not.
        """
        height, width = images.shape[-2:]
        if height % self.multiple_px or width % self.multiple_px or not height or not width:
            raise QprdError(
                f"Patches of {width} x {height} px do not fit the network.",
                where="--patch-px",
                fix=f"Use a multiple of {self.multiple_px}.",
            )

    def trainable_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the `trained` parts: what a bundle holds.

        The tensors are the model's own, not copies.
        """
        return {
            f"{part}.{name}": tensor
            for part in self.trained
            for name, tensor in getattr(self, part).state_dict().items()
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy a `trainable_state` into this model.

        Raises:
            RuntimeError: names or shapes differ.
        """
        for part in self.trained:
            prefix = f"{part}."
            getattr(self, part).load_state_dict(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if name.startswith(prefix)
                }
            )


def mean_over_transpositions(
    upright: Sequence[Tensor], transposed: Sequence[Tensor]
) -> list[Tensor]:
    """Average maps of images with maps (..., h, w) of the transposed images.

    ImageNet has an up and a down, tissue has not.
    """
    return [(a + b.mT) / 2 for a, b in zip(upright, transposed, strict=True)]


def channels_last(images: Tensor) -> Tensor:
    """The same images in the memory layout that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last)
