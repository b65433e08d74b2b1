"""What another stain in the test slides costs: AUROC, calibration, sensitivity and specificity.

    python benchmarks/stain.py --data DIR --normal 400 --tumor 30 --seeds 5 --markdown FILE

Methods are fitted, and their threshold and probability chosen on validation patches, as in
`comparison.py`; then the stain of the test patches is changed. ``density`` multiplies the optical
density of all three channels, which is a darker or a fainter stain; ``hue`` turns the hue of every
pixel by an angle. The rows ``validation`` and ``unchanged`` are what the others are measured by.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.color import hsv2rgb, rgb2hsv

from comparison import variants
from harness.command import run_command
from harness.evaluation import spread
from harness.folder import PatchFolder, PatchImages
from harness.options import (
    add_method_options,
    add_size_options,
    add_source_options,
    method_options,
    open_source,
    patch_px,
    seeds,
)
from harness.runs import Variant
from harness.splits import SplitSizes, draw_split, plan_sizes
from harness.tables import markdown_table, provenance, publish, short
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.registry import build_method
from qprd.errors import ExitCode, QprdError
from qprd.evaluation.calibration import Uncalibrated, fit_calibration
from qprd.evaluation.metrics import auroc, sensitivity, specificity
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.evaluation.reliability import measure_reliability


@dataclass(frozen=True)
class Shift:
    """A change of stain.

    Attributes:
        density: Factor of the optical density.
        hue: Turn of the hue, in degrees.
    """

    density: float = 1.0
    hue: float = 0.0

    def __str__(self) -> str:
        if self == Shift():
            return "unchanged"
        return f"density x {self.density:g}" if self.hue == 0 else f"hue {self.hue:+g} degrees"

    def __call__(self, images: Images) -> Images:
        """Change patches (n, 3, P, P)."""
        if self == Shift():
            return images
        bright = (images / 255) ** self.density  # exp(-density * optical density)
        if self.hue:
            hsv = rgb2hsv(np.moveaxis(bright, 1, -1))
            hsv[..., 0] = (hsv[..., 0] + self.hue / 360) % 1
            bright = np.moveaxis(hsv2rgb(hsv), -1, 1)
        return np.rint(bright * 255).astype(np.uint8)


SHIFTS = (
    Shift(),
    *(Shift(density=density) for density in (0.6, 0.8, 1.2, 1.4)),
    *(Shift(hue=hue) for hue in (-20, -10, 10, 20)),
)
VALIDATION = "validation"
_DEFAULT_METHODS = ("best", "linear-tuned", "linear")


@dataclass(frozen=True)
class Figures:
    """Figures of one method on one set of patches."""

    auroc: float
    calibration_error: float
    sensitivity: float
    specificity: float


def main() -> None:
    """Parse, run every method and seed, print the table."""
    arguments = _parse()
    known = variants(method_options(arguments))
    for name in arguments.methods:
        if name not in known:
            raise QprdError(
                f"There is no {name!r} to compare.",
                where="--methods",
                fix=f"Take some of {', '.join(known)}.",
                exit_code=ExitCode.USAGE,
            )
    edge = patch_px(arguments)
    with open_source(arguments) as folder:
        sizes = plan_sizes(
            folder,
            normal=arguments.normal,
            tumor=arguments.tumor,
            val=arguments.val,
            test=arguments.test,
        )
        images = PatchImages(folder, edge)
        rows = []
        for name in arguments.methods:
            started = time.perf_counter()
            of_seeds = [_run(known[name], folder, images, sizes, seed) for seed in seeds(arguments)]
            rows += [
                [name, row, *_cells([figures[row] for figures in of_seeds])] for row in of_seeds[0]
            ]
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        head = ["method", "patches", "AUROC", "calibration error", "sensitivity", "specificity"]
        text = (
            f"Trained on {sizes.normal} normal and {sizes.tumor} tumor patches.\n\n"
            f"{markdown_table(head, rows)}\n"
        )
        text += provenance(folder, edge, sizes, seeds(arguments))
    publish(text, arguments.markdown)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_options(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(_DEFAULT_METHODS),
        metavar="NAME",
        help=f"of {', '.join(variants(MethodOptions()))}; default: {', '.join(_DEFAULT_METHODS)}",
    )
    add_size_options(parser)
    parser.add_argument("--tumor", type=int, default=30, help="tumor patches, default 30")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as printed")
    add_method_options(parser)
    return parser.parse_args()


def _run(
    variant: Variant, folder: PatchFolder, images: PatchImages, sizes: SplitSizes, seed: int
) -> Mapping[str, Figures]:
    """Fit and choose once, and measure on validation patches and on test patches of every stain."""
    split = draw_split(folder, sizes, seed)
    val, test = images[split.val], images[split.test]
    val_tumor, test_tumor = folder.tumor[split.val], folder.tumor[split.test]
    method = build_method(variant.method, variant.recipe, variant.options)
    method.fit(images[split.train], folder.tumor[split.train], val, val_tumor, seed=seed)
    val_scores = method.score(val)
    threshold = accuracy_threshold(val_tumor, val_scores)
    calibration = fit_calibration(val_tumor, val_scores, seed=seed)
    # Validation patches are 1:1 and at least two of each class.
    assert threshold is not None
    assert not isinstance(calibration, Uncalibrated)

    def figures(y_true: Labels, scores: Scores) -> Figures:
        error, _ = measure_reliability(y_true, calibration.probability(scores))
        found = (
            auroc(y_true, scores),
            error,
            sensitivity(y_true, scores, threshold.value),
            specificity(y_true, scores, threshold.value),
        )
        return Figures(*(value if value is not None else float("nan") for value in found))

    return {
        VALIDATION: figures(val_tumor, val_scores),
        **{str(shift): figures(test_tumor, method.score(shift(test))) for shift in SHIFTS},
    }


def _cells(found: list[Figures]) -> list[str]:
    cells = []
    for name in ("auroc", "calibration_error", "sensitivity", "specificity"):
        figures = spread([getattr(one, name) for one in found])
        assert figures.mean is not None
        sd = "" if figures.sd is None else f" ± {short(figures.sd)}"
        cells.append(short(figures.mean) + sd)
    return cells


if __name__ == "__main__":
    run_command(main)
