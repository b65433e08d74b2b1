"""The student: rebuilds the teacher's three maps from the embedding."""

from __future__ import annotations

from torch import Tensor, nn

from qprd.model.residual import Block, initialize, residual_stage

#: Widths of the stages at strides 16, 8 and 4: the mirror image of ResNet's first three stages.
WIDTHS = (256, 128, 64)


class Student(nn.Module):
    """Decoder of three residual stages, each doubling the resolution (Deng & Li 2022).

    Args:
        in_channels: Channels of the embedding.
        block: Block of the stages.
        blocks: Number of blocks at strides 16, 8 and 4.
        base_width: Width of the blocks, as in `qprd.model.residual.WideBlock`.
        project_to: Channels of the teacher's maps at strides 4, 8, 16, which a 1x1 convolution
            at each scale then yields (any sign). None: the stages' own channels are the teacher's
            and the maps are >= 0 after ReLU, as a ResNet's are.
        widths: Widths of the stages at strides 16, 8 and 4.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        block: Block,
        blocks: tuple[int, int, int],
        base_width: int = 64,
        project_to: tuple[int, int, int] | None = None,
        widths: tuple[int, int, int] = WIDTHS,
    ) -> None:
        super().__init__()
        stages = []
        for width, count in zip(widths, blocks, strict=True):
            stages.append(
                residual_stage(
                    block, in_channels, width, count, resample="up", base_width=base_width
                )
            )
            in_channels = width * block.expansion
        self.stage_3, self.stage_2, self.stage_1 = stages
        outputs = [width * block.expansion for width in reversed(widths)]
        self.project = nn.ModuleList(
            nn.Identity() if project_to is None else nn.Conv2d(width, channels, 1)
            for width, channels in zip(outputs, project_to or (0, 0, 0), strict=True)
        )
        initialize(self)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """Predict the teacher's maps.

        Args:
            embedding: (N, `in_channels`, H/32, W/32).

        Returns:
            f'1, f'2, f'3 at strides 4, 8, 16, shaped like the teacher's maps.
        """
        f3 = self.stage_3(embedding)
        f2 = self.stage_2(f3)
        f1 = self.stage_1(f2)
        return [project(f) for project, f in zip(self.project, (f1, f2, f3), strict=True)]
