"""Focal reverse distillation: frozen teacher, trained bottleneck and student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from torch import Tensor, nn

from qprd.model.anomaly import anomaly_map, differences
from qprd.model.bottleneck import OneClassBottleneck
from qprd.model.head import StandardizedHead
from qprd.model.network import Network, channels_last, mean_over_transpositions
from qprd.model.residual import BasicBlock, Block, WideBlock
from qprd.model.student import Student
from qprd.model.teacher import Teacher
from qprd.model.token_student import TokenBottleneck, TokenStudent
from qprd.settings import ModelKind

#: Block, base width, blocks of the bottleneck and blocks of the student (strides 16, 8, 4) that
#: mirror each ResNet in the published code.
_MIRRORS: Final[dict[str, tuple[Block, int, int, tuple[int, int, int]]]] = {
    "resnet18": (BasicBlock, 64, 2, (2, 2, 2)),
    "resnet34": (BasicBlock, 64, 3, (3, 4, 6)),
    "resnet50": (WideBlock, 64, 3, (3, 4, 6)),
    "wide_resnet50_2": (WideBlock, 128, 3, (3, 4, 6)),
}
#: Channels of a student's stage, of the published size or of half of it, by its stride.
_WIDTH_PER_STRIDE: Final = {"full": 16, "half": 8}
_BLOCKS: Final = {"full": 2, "half": 1}
#: Channels of the embedding of maps of one stride.
_TOKEN_WIDTH: Final = {"full": 256, "half": 128}
#: Channels of the embedding of ResNets, before the expansion of their blocks.
_EMBEDDING_WIDTH: Final = 512


def student_scales(strides: Sequence[int]) -> tuple[int, ...]:
    """Choose the maps that a student learns: the last of each stride, as far as strides double.

    Where all have one stride, as a plain transformer's have, it learns all.

    Args:
        strides: Of the teacher's maps, ascending.

    Returns:
        Indices, ascending; the last map is always among them.

    Examples:
        >>> student_scales((4, 8, 16, 16))
        (0, 1, 3)
    """
    if len(set(strides)) == 1:
        return tuple(range(len(strides)))
    chosen = [len(strides) - 1]
    for index in reversed(range(len(strides))):
        if 2 * strides[index] == strides[chosen[0]]:
            chosen.insert(0, index)
    return tuple(chosen)


def build_trained_parts(
    teacher: str,
    channels: Sequence[int],
    strides: Sequence[int] = (4, 8, 16),
    size: Literal["full", "half"] = "full",
) -> tuple[nn.Module, nn.Module]:
    """Bottleneck and student for a teacher, freshly initialized.

    ``"full"``: ResNets get the published architecture, the student mirroring the teacher. Any other
    teacher gets a small student: BasicBlocks, two a stage, 64, 128 and 256 channels at strides 4, 8
    and 16, and a 1x1 convolution to the teacher's channels at each scale.

    ``"half"``: all teachers get that student at half its width with one block a stage. Its maps may
    have any sign, as standardized teacher maps have, and a fifth of the time trains it.

    Maps of one stride get the bottleneck and the student of `qprd.model.token_student`.

    Args:
        teacher: Name of the teacher.
        channels: Channels of the maps to learn.
        strides: Their strides, each twice the one before, or all the same.
        size: Size of the student.
    """
    if len(set(strides)) < len(strides):
        embedding = TokenBottleneck(channels, _TOKEN_WIDTH[size])
        return embedding, TokenStudent(embedding.out_channels, channels, _BLOCKS[size])
    widths = [stride * _WIDTH_PER_STRIDE[size] for stride in strides]
    if size == "full" and teacher in _MIRRORS:
        block, base_width, blocks, student_blocks = _MIRRORS[teacher]
        bottleneck = OneClassBottleneck(
            channels, widths=channels[1:], block=block, blocks=blocks, base_width=base_width
        )
        student = Student(
            bottleneck.out_channels,
            block=block,
            blocks=student_blocks,
            widths=widths[::-1],
            base_width=base_width,
        )
        return bottleneck, student
    bottleneck = OneClassBottleneck(
        channels,
        widths=widths[1:],
        block=BasicBlock,
        blocks=_BLOCKS[size],
        embedding_width=2 * widths[-1],
    )
    student = Student(
        bottleneck.out_channels,
        block=BasicBlock,
        blocks=[_BLOCKS[size] for _ in widths],
        widths=widths[::-1],
        project_to=channels,
    )
    return bottleneck, student


class FRD(Network):
    """Teacher E, bottleneck B and student D: ``f = E(x)``, ``f' = D(B(f))``.

    Where f and f' disagree there is tumor; `qprd.model.loss` trains it, `qprd.model.anomaly`
    reads it. `train` and gradients touch bottleneck and student only.

    Attributes:
        scales: Which of the teacher's maps the student learns, see `student_scales`.
    """

    kind: ModelKind = "frd"
    trained: tuple[str, ...] = ("bottleneck", "student")
    #: Size of bottleneck and student, see `build_trained_parts`.
    size: Literal["full", "half"] = "full"

    def __init__(self, teacher: Teacher) -> None:
        scales = student_scales(teacher.strides)
        strides = [teacher.strides[scale] for scale in scales]
        # The embedding halves the coarsest scale, but not a grid of tokens.
        one_grid = len(set(strides)) < len(strides)
        super().__init__(teacher, teacher.multiple_px if one_grid else 2 * strides[-1])
        self.scales = scales
        self.channels = [teacher.channels[scale] for scale in scales]
        self.strides = strides
        self.bottleneck, self.student = build_trained_parts(
            teacher.name, self.channels, strides, self.size
        )

    def raw_maps(self, images: Tensor) -> list[Tensor]:
        """The teacher's own maps at the `scales`, which do not change in a training.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of `multiple_px`.
        """
        maps: list[Tensor] = self.teacher(images)
        return [maps[scale] for scale in self.scales]

    def teacher_maps(self, images: Tensor, known: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The maps that the student learns to give.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of `multiple_px`.
            known: `raw_maps` of these images, if the teacher need not be run.

        Returns:
            (N, C, h, w) of each of the `scales`.

        Raises:
            QprdError: the size is no such multiple.
        """
        self.require_fit(images)
        return self.raw_maps(images) if known is None else list(known)

    def forward(
        self, images: Tensor, known: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Both sets of maps: of the teacher, see `teacher_maps`, and of the student."""
        teacher_maps = self.teacher_maps(images, known)
        return teacher_maps, self.student(self.bottleneck(teacher_maps))

    def score_parts(self, images: Tensor) -> list[Tensor]:
        """Maps of teacher and student; see `Network.score_parts`."""
        teacher_maps, student_maps = self(images)
        return [*teacher_maps, *student_maps]

    def location_scores(self, images: Tensor) -> list[Tensor]:
        """``1 - cosine`` at each location, 0..2; see `Network.location_scores`."""
        return differences(*self(channels_last(images)))

    def score_maps(self, images: Tensor) -> Tensor:
        """The anomaly map (N, H, W), as published; see `qprd.model.anomaly.anomaly_map`."""
        teacher_maps, student_maps = self(channels_last(images))
        return anomaly_map(teacher_maps, student_maps, (images.shape[-2], images.shape[-1]))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters of bottleneck and student: what an optimizer gets."""
        return [*self.bottleneck.parameters(), *self.student.parameters()]


class StandardizedFRD(FRD):
    """The model of ``--recipe best`` without tumor patches: a small student on standardized maps.

    The student learns the teacher's maps after each channel was standardized over normal patches,
    so that no channel drowns the others. The score is the mean of those of the image and the
    transposed image; its map is not stretched.
    """

    kind = "standardized_frd"
    trained = ("bottleneck", "student", "head")
    size = "half"

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher)
        self.head = StandardizedHead(self.channels)

    def teacher_maps(self, images: Tensor, known: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Standardized maps; see `FRD.teacher_maps`."""
        return self.head.standardize(super().teacher_maps(images, known))

    def location_scores(self, images: Tensor) -> list[Tensor]:
        """Scores of locations; see `qprd.model.head.StandardizedHead`."""
        upright, transposed = (
            self.head.location_scores(*self(channels_last(view))) for view in (images, images.mT)
        )
        return mean_over_transpositions(upright, transposed)

    def score_maps(self, images: Tensor) -> Tensor:
        """Raw scores (N, H, W) of every pixel; see `Network.score_maps`."""
        return Network.score_maps(self, images)
