"""Focal reverse distillation: frozen teacher, trained bottleneck and student."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qprd.config import STRIDE_PX
from qprd.errors import QprdError
from qprd.model.bottleneck import OneClassBottleneck
from qprd.model.residual import BasicBlock, Block, WideBlock
from qprd.model.student import Student
from qprd.model.teacher import Teacher

#: Block, base width, blocks of the bottleneck and blocks of the student (strides 16, 8, 4) that
#: mirror each ResNet in the published code.
_MIRRORS: dict[str, tuple[Block, int, int, tuple[int, int, int]]] = {
    "resnet18": (BasicBlock, 64, 2, (2, 2, 2)),
    "resnet34": (BasicBlock, 64, 3, (3, 4, 6)),
    "resnet50": (WideBlock, 64, 3, (3, 4, 6)),
    "wide_resnet50_2": (WideBlock, 128, 3, (3, 4, 6)),
}


def build_trained_parts(
    teacher: str, channels: tuple[int, int, int]
) -> tuple[OneClassBottleneck, Student]:
    """Bottleneck and student for a teacher, freshly initialized.

    ResNets get the published architecture, the student mirroring the teacher. Any other teacher
    gets a small student: BasicBlocks, two a stage, 64, 128 and 256 channels at strides 4, 8 and
    16, and a 1x1 convolution to the teacher's channels at each scale.

    Args:
        teacher: Name of the teacher.
        channels: Channels of its maps at strides 4, 8, 16.
    """
    if teacher in _MIRRORS:
        block, base_width, blocks, student_blocks = _MIRRORS[teacher]
        widths = (channels[1], channels[2])
        project_to = None
    else:
        block, base_width, blocks, student_blocks = BasicBlock, 64, 2, (2, 2, 2)
        widths = (128, 256)
        project_to = channels
    bottleneck = OneClassBottleneck(
        channels, widths=widths, block=block, blocks=blocks, base_width=base_width
    )
    student = Student(
        bottleneck.out_channels,
        block=block,
        blocks=student_blocks,
        base_width=base_width,
        project_to=project_to,
    )
    return bottleneck, student


class FRD(nn.Module):
    """Teacher E, bottleneck B and student D: ``f = E(x)``, ``f' = D(B(f))``.

    Where f and f' disagree there is tumor; `qprd.model.loss` trains it, `qprd.model.anomaly`
    reads it. `train` and gradients touch bottleneck and student only.
    """

    def __init__(self, teacher: Teacher, bottleneck: OneClassBottleneck, student: Student) -> None:
        super().__init__()
        self.teacher = teacher
        self.bottleneck = bottleneck
        self.student = student

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Both sets of maps.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of 32.

        Returns:
            Teacher maps and student maps, three each, at strides 4, 8, 16.

        Raises:
            QprdError: the size is no multiple of 32.
        """
        height, width = images.shape[-2:]
        if height % STRIDE_PX or width % STRIDE_PX or not height or not width:
            raise QprdError(
                f"Patches of {width} x {height} px do not fit the network.",
                where="--patch-px",
                fix=f"Use a multiple of {STRIDE_PX}.",
            )
        teacher_maps = self.teacher(images)
        return teacher_maps, self.student(self.bottleneck(teacher_maps))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters of bottleneck and student: what an optimizer gets."""
        return [*self.bottleneck.parameters(), *self.student.parameters()]

    def trainable_state(self) -> dict[str, Tensor]:
        """Parameters and batch statistics of bottleneck and student: what a bundle holds.

        The tensors are the model's own, not copies.
        """
        return {
            f"{part}.{name}": tensor
            for part in ("bottleneck", "student")
            for name, tensor in getattr(self, part).state_dict().items()
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy a `trainable_state` into this model.

        Raises:
            RuntimeError: names or shapes differ.
        """
        for part in ("bottleneck", "student"):
            prefix = f"{part}."
            getattr(self, part).load_state_dict(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if name.startswith(prefix)
                }
            )


def build_frd(teacher: Teacher, seed: int) -> FRD:
    """An untrained model; the same seed gives the same weights, whatever ran before.

    The global random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FRD(teacher, *build_trained_parts(teacher.name, teacher.channels))
