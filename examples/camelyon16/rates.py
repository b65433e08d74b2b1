"""Measure on this machine how fast it trains, scores and reads, and what the protocol would take.

    python examples/camelyon16/rates.py --slide SLIDE.tif [--device cuda]

Weights are random: they cost the same. The hours on another device follow from the number of
floating-point operations and the rate that it sustains, ``--tflops``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from challenge import TEST_SLIDES, TRAIN, VAL
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.given_settings import train_config
from qprd.jobs.reporting import write_json_object
from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.loss import build_loss
from qprd.model.teacher import build_teacher
from qprd.progress import SilentProgress, printable
from qprd.sampling.dataset import PatchDataset, decode_all
from qprd.sampling.table import Patch, PatchTable
from qprd.scoring.by_patch import score_patches
from qprd.settings import TrainConfig
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask
from qprd.training.loop import fit

_CONFIG = Path(__file__).with_name("paper.toml")
_STRIDES = (64, 128)
#: `qprd predict` takes all slides of the project.
_SLIDES = TEST_SLIDES + len(TRAIN) + len(VAL)
#: An assumption: the tissue outlines of 158 normal training slides that
#: github.com/baidu-research/NCRF publishes have 109 mm² on average and a median of 82.
TISSUE_MM2 = 100.0
#: Normal and tumor test patches of the published lists.
_LISTED_TEST = 10842 + 9856


@dataclass(frozen=True)
class Rates:
    """Patches a second of each kind of work, and its floating-point operations a patch.

    On a CPU, a second is one that the processor spent on this program: on a machine that does other
    things, too, the wall clock would measure those.
    """

    device: str
    train: float
    score: float
    read: float
    train_flops: float
    score_flops: float


@dataclass(frozen=True)
class Step:
    """A part of the protocol.

    Attributes:
        what: For people.
        patches: How many.
        flops: Of one patch in the network; None for what is done without it.
        rate: Patches a second, measured here.
    """

    what: str
    patches: float
    flops: float | None
    rate: float

    @property
    def hours_here(self) -> float:
        """At the measured rate."""
        return self.patches / self.rate / 3600

    def hours_at(self, tflops: float) -> float:
        """Where so many 10^12 operations a second are sustained; reading goes on as here."""
        if self.flops is None:
            return self.hours_here
        return self.patches * self.flops / (tflops * 1e12) / 3600


class Stopwatch:
    """Starts when it is made.

    Args:
        device: Where the work is done; on a GPU it is the wall clock that counts.
        threads: Among which the processor's time is shared.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._threads = threads if device.type == "cpu" else None
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def share(self) -> float:
        """How much of the wall clock's time counts, 0..1."""
        if self._threads is None:
            return 1.0
        wall = (time.perf_counter() - self._wall) * self._threads
        return min(1.0, (time.process_time() - self._cpu) / wall)

    @property
    def seconds(self) -> float:
        """The time that counts."""
        return (time.perf_counter() - self._wall) * self.share


def measure(config: TrainConfig, slide: Path, *, patches: int, device: str) -> Rates:
    """Train an epoch on so many patches of a slide, then score them.

    Raises:
        QprdError: the slide cannot be read or holds too little tissue, or the device is not there.
    """
    fabric = make_fabric(device, config.precision)
    model = build_network(FRD, build_teacher(config.teacher, pretrained=False), config.seed)
    table = _tissue_patches(slide, config, patches)
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch(fabric.device, threads=1)
        images = decode_all(
            table,
            lambda _: Slide(slide, mpp=config.mpp),
            patch_px=config.patch_px,
            folder=Path(folder),
        )
        read = len(table) / watch.seconds
    loss = build_loss(config, n_tumor=1, n_normal=10)
    batch = min(config.batch_size, patches)
    dataset = PatchDataset(table, images, patch_px=config.patch_px)
    threads = torch.get_num_threads()
    watch = Stopwatch(fabric.device, threads)
    # The second epoch is the one that counts: in the first, memory is claimed and kernels chosen.
    settings = config.model_copy(update={"epochs": 2, "batch_size": batch})
    outcome = fit(model, dataset, loss, None, settings, fabric=fabric, progress=SilentProgress())
    train = patches / (outcome.history[-1].seconds * watch.share)

    model.to(fabric.device)
    score_patches(model, images[:batch], fabric=fabric, batch_size=batch)
    watch = Stopwatch(fabric.device, threads)
    score_patches(model, images, fabric=fabric, batch_size=batch)
    score = patches / watch.seconds

    few = torch.from_numpy(images[:2]).to(fabric.device)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        model(few)
    model.train()
    with FlopCounterMode(display=False) as both:
        teacher_maps, student_maps = model(few)
        y = torch.tensor([1, 0], device=fabric.device)
        torch.autograd.backward(loss(teacher_maps, student_maps, y))
    return Rates(
        device=_name(fabric.device),
        train=train,
        score=score,
        read=read,
        train_flops=both.get_total_flops() / len(few),
        score_flops=forward.get_total_flops() / len(few),
    )


def protocol_steps(rates: Rates, config: TrainConfig, tissue_mm2: float) -> list[Step]:
    """What the protocol puts through the network, with so much tissue on a slide."""
    n_normal, n_tumor = config.most_training("normal"), config.most_training("tumor")
    n_val = 2 * (config.val_patches or 0)
    steps = [
        Step(
            f"train {config.epochs} epochs on {n_normal} + {n_tumor} patches",
            config.epochs * (n_normal + n_tumor),
            rates.train_flops,
            rates.train,
        ),
        Step(
            f"validate {config.epochs} times on {n_val} patches",
            config.epochs * n_val,
            rates.score_flops,
            rates.score,
        ),
        Step(
            f"score {_LISTED_TEST} listed test patches",
            _LISTED_TEST,
            rates.score_flops,
            rates.score,
        ),
    ]
    area_um2 = _SLIDES * tissue_mm2 * 1e6
    patch_um = config.patch_px * config.mpp
    steps.append(
        Step(f"read {_SLIDES} slides once, one thread", area_um2 / patch_um**2, None, rates.read)
    )
    for stride in _STRIDES:
        cells = area_um2 / (stride * config.mpp) ** 2
        steps.append(
            Step(
                f"predict {_SLIDES} slides, a patch every {stride} px",
                cells,
                rates.score_flops,
                rates.score,
            )
        )
    return steps


def _tissue_patches(slide: Path, config: TrainConfig, count: int) -> PatchTable:
    """The first patches of a slide, row by row, that are mostly tissue."""
    with Slide(slide, mpp=config.mpp) as opened:
        tissue, size = tissue_mask(opened), config.patch_px
        y, x = np.mgrid[0 : opened.height - size : size, 0 : opened.width - size : size]
    x, y = x.ravel(), y.ravel()
    usable = np.flatnonzero(tissue.fractions(x, y, float(size)) > 0.5)[:count]
    if len(usable) < count:
        raise QprdError(
            f"Only {len(usable)} of {count} patches can be had.",
            where=str(slide),
            fix="Name a larger slide, or fewer --patches.",
        )
    return PatchTable(
        tuple(
            Patch("1", slide.name, int(x[i]), int(y[i]), float(size), config.mpp, label, "train")
            for number, i in enumerate(usable)
            for label in (("tumor" if number % 11 == 0 else "normal"),)
        )
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--patches", type=int, default=32, metavar="N", help="to measure with")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the paper's 32")
    parser.add_argument(
        "--tissue-mm2", type=float, default=TISSUE_MM2, metavar="N", help="on a slide"
    )
    parser.add_argument(
        "--tflops", type=float, nargs="+", default=[5.0, 20.0, 80.0], metavar="N", help="assumed"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    config = train_config({"batch_size": arguments.batch_size}, _CONFIG)
    rates = measure(config, arguments.slide, patches=arguments.patches, device=arguments.device)
    steps = protocol_steps(rates, config, arguments.tissue_mm2)
    print(
        f"{config.teacher}, {config.patch_px} px, {rates.device}: "
        f"trains {rates.train:.2f}, scores {rates.score:.2f}, reads {rates.read:.0f} patches/s; "
        f"{rates.train_flops / 1e9:.0f} and {rates.score_flops / 1e9:.0f} GFLOP a patch"
    )
    assumed = arguments.tflops
    print(
        f"{'':52}{'patches':>12}{'h here':>10}" + "".join(f"{f'h at {t:g}':>10}" for t in assumed)
    )
    for step in steps:
        hours = "".join(f"{step.hours_at(t):10.2f}" for t in assumed)
        print(f"{step.what:52}{step.patches:12,.0f}{step.hours_here:10.1f}{hours}")
    write_json_object(arguments.json, {"rates": rates, "steps": steps})


if __name__ == "__main__":
    try:
        main()
    except QprdError as error:
        sys.exit(printable(f"error: {error}"))
