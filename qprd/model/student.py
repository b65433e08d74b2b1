"""The student: rebuilds the teacher's maps from the embedding."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qprd.model.residual import Block, initialize, residual_stage


class Student(nn.Module):
    """Decoder of residual stages, each doubling the resolution (Deng & Li 2022).

    Args:
        in_channels: Channels of the embedding.
        block: Block of the stages.
        blocks: Number of blocks at each scale, from the coarsest on.
        widths: Widths of the stages, from the coarsest on.
        base_width: Width of the blocks, as in `qprd.model.residual.WideBlock`.
        project_to: Channels of the teacher's maps, from the finest scale on, which a 1x1
            convolution at each scale then yields (any sign). None: the stages' own channels are
            the teacher's and the maps are >= 0 after ReLU, as a ResNet's are.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        block: Block,
        blocks: Sequence[int],
        widths: Sequence[int],
        base_width: int = 64,
        project_to: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._scales = range(len(widths), 0, -1)
        for scale, width, count in zip(self._scales, widths, blocks, strict=True):
            stage = residual_stage(
                block, in_channels, width, count, resample="up", base_width=base_width
            )
            self.add_module(f"stage_{scale}", stage)
            in_channels = width * block.expansion
        outputs = [width * block.expansion for width in reversed(widths)]
        self.project = nn.ModuleList(
            nn.Identity() if project_to is None else nn.Conv2d(width, channels, 1)
            for width, channels in zip(outputs, project_to or outputs, strict=True)
        )
        initialize(self)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """Predict the teacher's maps.

        Args:
            embedding: (N, `in_channels`, h, w).

        Returns:
            Maps shaped like the teacher's, from the finest scale on; the last is (N, C, 2h, 2w).
        """
        maps: list[Tensor] = []
        f = embedding
        for scale in self._scales:
            f = self.get_submodule(f"stage_{scale}")(f)
            maps.insert(0, f)
        return [project(f) for project, f in zip(self.project, maps, strict=True)]
