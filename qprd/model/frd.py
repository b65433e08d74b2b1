"""Focal reverse distillation: frozen teacher, trained bottleneck and student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from qprd.checked import STRIDE_PX
from qprd.errors import QprdError
from qprd.model.anomaly import anomaly_map, differences, upsampled
from qprd.model.bottleneck import OneClassBottleneck
from qprd.model.head import FusionHead
from qprd.model.residual import BasicBlock, Block, WideBlock
from qprd.model.student import WIDTHS, Student
from qprd.model.teacher import Teacher
from qprd.settings import Recipe

#: Views of an image, numbered as the symmetries of a square in `qprd.sampling.dataset.symmetric`.
UPRIGHT: Final = 0
TRANSPOSED: Final = 7

#: Block, base width, blocks of the bottleneck and blocks of the student (strides 16, 8, 4) that
#: mirror each ResNet in the published code.
_MIRRORS: dict[str, tuple[Block, int, int, tuple[int, int, int]]] = {
    "resnet18": (BasicBlock, 64, 2, (2, 2, 2)),
    "resnet34": (BasicBlock, 64, 3, (3, 4, 6)),
    "resnet50": (WideBlock, 64, 3, (3, 4, 6)),
    "wide_resnet50_2": (WideBlock, 128, 3, (3, 4, 6)),
}


def build_trained_parts(
    teacher: str, channels: tuple[int, int, int], recipe: Recipe = "paper"
) -> tuple[OneClassBottleneck, Student]:
    """Bottleneck and student for a teacher, freshly initialized.

    ``recipe="paper"``: ResNets get the published architecture, the student mirroring the teacher.
    Any other teacher gets a small student: BasicBlocks, two a stage, 64, 128 and 256 channels at
    strides 4, 8 and 16, and a 1x1 convolution to the teacher's channels at each scale.

    ``recipe="best"``: all teachers get that student at half its width with one block a stage. Its
    maps may have any sign, as standardized teacher maps have, and a fifth of the time trains it.

    Args:
        teacher: Name of the teacher.
        channels: Channels of its maps at strides 4, 8, 16.
        recipe: How the model is trained.
    """
    if recipe == "best":
        widths = (WIDTHS[0] // 2, WIDTHS[1] // 2, WIDTHS[2] // 2)
        bottleneck = OneClassBottleneck(
            channels,
            widths=(widths[1], widths[0]),
            block=BasicBlock,
            blocks=1,
            embedding_width=2 * widths[0],
        )
        student = Student(
            bottleneck.out_channels,
            block=BasicBlock,
            blocks=(1, 1, 1),
            project_to=channels,
            widths=widths,
        )
        return bottleneck, student
    if teacher in _MIRRORS:
        block, base_width, blocks, student_blocks = _MIRRORS[teacher]
        fused = (channels[1], channels[2])
        project_to = None
    else:
        block, base_width, blocks, student_blocks = BasicBlock, 64, 2, (2, 2, 2)
        fused = (128, 256)
        project_to = channels
    bottleneck = OneClassBottleneck(
        channels, widths=fused, block=block, blocks=blocks, base_width=base_width
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

    #: Attributes whose parameters and buffers a bundle holds.
    trained: tuple[str, ...] = ("bottleneck", "student")

    def __init__(self, teacher: Teacher, bottleneck: OneClassBottleneck, student: Student) -> None:
        super().__init__()
        self.teacher = teacher
        self.bottleneck = bottleneck
        self.student = student

    def teacher_maps(self, images: Tensor, known: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The maps that the student learns to give.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of 32.
            known: What the teacher gives for these images, if it need not be run.

        Returns:
            Three maps at strides 4, 8, 16.

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
        maps: list[Tensor] = self.teacher(images) if known is None else list(known)
        return maps

    def forward(
        self, images: Tensor, known: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Both sets of maps.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of 32.
            known: What the teacher gives for these images, if it need not be run.

        Returns:
            Teacher maps and student maps, three each, at strides 4, 8, 16.

        Raises:
            QprdError: the size is no multiple of 32.
        """
        teacher_maps = self.teacher_maps(images, known)
        return teacher_maps, self.student(self.bottleneck(teacher_maps))

    def location_scores(self, images: Tensor) -> list[Tensor]:
        """Raw scores of the locations of each scale; scores of pixels and patches add them up.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of 32.

        Returns:
            (N, h, w) for each scale, float32 or wider.
        """
        return self.mean_over_views(images, lambda view, _: self._view_scores(view))

    def score_maps(self, images: Tensor) -> Tensor:
        """Raw scores of every pixel: the anomaly map.

        Args:
            images: (N, 3, H, W), uint8 0..255 or float 0..1; H and W multiples of 32.

        Returns:
            (N, H, W), float32 or wider, 0..6, not smoothed, higher for tumor.
        """
        teacher_maps, student_maps = self(_in_memory_of_networks(images))
        return anomaly_map(teacher_maps, student_maps, (images.shape[-2], images.shape[-1]))

    def mean_over_views(
        self, images: Tensor, maps_of: Callable[[Tensor, int], list[Tensor]]
    ) -> list[Tensor]:
        """Maps that are averaged over all views of an image that a score is made of: here one.

        Args:
            images: (N, 3, H, W).
            maps_of: Makes maps (N, ..., h, w) of a view of the images. It also gets the view's
                number among the symmetries of a square, `UPRIGHT` or `TRANSPOSED`.

        Returns:
            The maps, in the orientation of the images.
        """
        return maps_of(_in_memory_of_networks(images), UPRIGHT)

    def _view_scores(self, view: Tensor) -> list[Tensor]:
        return differences(*self(view))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters of bottleneck and student: what an optimizer gets."""
        return [*self.bottleneck.parameters(), *self.student.parameters()]

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


class FusedFRD(FRD):
    """The model of ``--recipe best``: FRD on standardized maps, fused with a linear classifier.

    The student learns the teacher's maps after each channel was standardized over normal patches,
    so that no channel drowns the others. The score adds to the student's difference what a linear
    classifier of the same maps says, see `qprd.model.head`. ImageNet has an up and a down, tissue
    has not: a score is the mean of those of the image and the transposed image.
    """

    trained = ("bottleneck", "student", "head")

    def __init__(self, teacher: Teacher, bottleneck: OneClassBottleneck, student: Student) -> None:
        super().__init__(teacher, bottleneck, student)
        self.head = FusionHead(teacher.channels)

    def teacher_maps(self, images: Tensor, known: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Standardized maps; see `FRD.teacher_maps`."""
        return self.head.standardize(super().teacher_maps(images, known))

    def score_maps(self, images: Tensor) -> Tensor:
        """Raw scores (N, H, W) of every pixel, of any sign; see `qprd.model.head.FusionHead`."""
        size = (images.shape[-2], images.shape[-1])
        return upsampled(self.location_scores(images), size)

    def mean_over_views(
        self, images: Tensor, maps_of: Callable[[Tensor, int], list[Tensor]]
    ) -> list[Tensor]:
        """Maps that are averaged over the image and the transposed image."""
        upright = maps_of(_in_memory_of_networks(images), UPRIGHT)
        transposed = maps_of(_in_memory_of_networks(images.mT), TRANSPOSED)
        return [(a + b.mT) / 2 for a, b in zip(upright, transposed, strict=True)]

    def _view_scores(self, view: Tensor) -> list[Tensor]:
        return self.head.location_scores(*self(view))


def _in_memory_of_networks(images: Tensor) -> Tensor:
    """The same images in the memory layout that convolutions are fastest in."""
    return images.contiguous(memory_format=torch.channels_last)


def assemble_frd(teacher: Teacher, recipe: Recipe) -> FRD:
    """A model with weights as PyTorch's random state gives them."""
    parts = build_trained_parts(teacher.name, teacher.channels, recipe)
    return FusedFRD(teacher, *parts) if recipe == "best" else FRD(teacher, *parts)


def build_frd(teacher: Teacher, seed: int, recipe: Recipe = "paper") -> FRD:
    """An untrained model; the same seed gives the same weights, whatever ran before.

    The global random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return assemble_frd(teacher, recipe)
