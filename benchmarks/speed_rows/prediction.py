"""A slide scored from large fields, against the published way and against the bare network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import openslide
import torch
from numpy.typing import NDArray
from scipy import ndimage

from qprd.device import make_fabric
from qprd.model.inference import for_inference
from qprd.model.network import Network
from qprd.progress import SilentProgress
from qprd.scoring.by_field import score_slide_by_field
from qprd.scoring.cells import score_grid
from qprd.slides.slide import Slide
from qprd.slides.tissue import tissue_mask
from speed_rows.network import make_model
from speed_rows.row import Row, Setup
from speed_rows.slides import write_slide

_TEACHER, _PATCH_PX, _STRIDE = "wide_resnet50_2", 256, 64
_GLASS_PX, _TISSUE_PX = 512, 4_096
#: Patches of the published way that are timed; every other one takes as long.
_TIMED, _BATCH = 16, 4
_SIGMA_PX, _MPP = 4, 0.25


def measure(setup: Setup) -> Iterator[Row]:
    """The same slide and the same network, in 32 bits, for all three."""
    fabric = make_fabric(setup.device, "32")
    file = setup.folder / "slide.tif"
    edge = _TISSUE_PX + 2 * _GLASS_PX
    write_slide(file, (edge, edge), [(_GLASS_PX, _GLASS_PX, _TISSUE_PX)], _MPP)
    plain = make_model(_TEACHER, "paper", fabric.device)
    model = for_inference(plain)
    shapes: list[tuple[int, ...]] = []
    watch = model.register_forward_pre_hook(lambda _model, args: shapes.append(args[0].shape))
    with Slide(file) as slide, SilentProgress().task("", 1) as task:
        grid = score_grid(
            slide,
            tissue_mask(slide),
            mpp=_MPP,
            patch_px=_PATCH_PX,
            stride=_STRIDE,
            min_tissue=0.5,
        )
        started = time.perf_counter()
        score_slide_by_field(model, slide, grid, fabric=fabric, reduction="mean", task=task)
        ours = time.perf_counter() - started
    watch.remove()
    rows, columns = np.nonzero(grid.wanted)
    corners = np.stack([grid.patch_x[columns], grid.patch_y[rows]], axis=1)
    chosen = corners[np.linspace(0, len(corners) - 1, _TIMED).astype(int)]
    published = _published_way(plain, file, chosen) * len(corners) / len(chosen)
    yield Row(
        f"predict, stride {_STRIDE}",
        "the published way, patch by patch",
        ">=",
        12.0,
        published / ours,
        f"{len(corners) / ours:.1f} cells/s against {len(corners) / published:.2f} "
        f"({len(chosen)} of {len(corners):,} patches of {_PATCH_PX} px timed), {_TEACHER}; "
        f"{len(shapes)} fields",
    )
    bare = _bare_network(model, shapes, fabric.device)
    yield Row(
        "predict, network share",
        "bare forward passes on tensors in memory",
        ">=",
        0.9,
        bare / ours,
        f"{bare:.1f} of {ours:.1f} s are the network's",
    )


@torch.inference_mode()
def _published_way(model: Network, file: Path, corners: NDArray[np.int64]) -> float:
    """Seconds for patches as the published code scores them.

    Read, normalized in floating point, passed in batches; of each patch the three difference maps
    are brought to its size, summed, smoothed and averaged on the CPU.
    """
    device = next(model.parameters()).device
    started = time.perf_counter()
    with openslide.OpenSlide(file) as slide:
        for first in range(0, len(corners), _BATCH):
            batch = []
            for x, y in corners[first : first + _BATCH].tolist():
                region = slide.read_region((x, y), 0, (_PATCH_PX, _PATCH_PX)).convert("RGB")
                batch.append(np.asarray(region, np.float32).transpose(2, 0, 1) / 255)
            teacher_maps, student_maps = model(torch.from_numpy(np.stack(batch)).to(device))
            distances = [
                (1 - torch.cosine_similarity(f, g)).cpu()
                for f, g in zip(teacher_maps, student_maps, strict=True)
            ]
            for number in range(len(batch)):
                total = np.zeros((_PATCH_PX, _PATCH_PX), np.float32)
                for distance in distances:
                    total += torch.nn.functional.interpolate(
                        distance[number][None, None],
                        size=_PATCH_PX,
                        mode="bilinear",
                        align_corners=True,
                    )[0, 0].numpy()
                float(ndimage.gaussian_filter(total, _SIGMA_PX).mean())
    return time.perf_counter() - started


@torch.inference_mode()
def _bare_network(model: Network, shapes: Sequence[tuple[int, ...]], device: torch.device) -> float:
    """Seconds for forward passes over fields of these shapes that lie on the device."""
    fields = [
        torch.zeros(shape, dtype=torch.uint8, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for shape in shapes
    ]
    started = time.perf_counter()
    for field in fields:
        maps = model(field)
        maps[1][0].sum().item()  # waits for the device
    return time.perf_counter() - started
