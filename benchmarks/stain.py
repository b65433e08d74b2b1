"""The cost of another stain in the test slides: AUROC, calibration, sensitivity and specificity.

    python benchmarks/stain.py --data DIR --normal 400 --tumor 30 --seeds 5 --markdown FILE

Methods are fitted as in `comparison.py`, and their threshold and probability chosen on validation
patches: as they are, and again in other stains, as qprd shows them in training. Then the stain of
the test patches is changed. ``density`` multiplies the optical density of all three channels, which
is a darker or a fainter stain; ``hue`` turns the hue of every pixel by an angle. The rows
``validation`` and ``unchanged`` are what the others are measured by.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from skimage.color import hsv2rgb, rgb2hsv

from harness.command import run_command
from harness.folder import PatchFolder, PatchImages
from harness.options import (
    benchmark_parser,
    method_options,
    open_source,
    patch_px,
    seeds,
    sizes_of,
)
from harness.runs import Variant
from harness.splits import SplitSizes, draw_split
from harness.tables import markdown_table, provenance, publish, spread_cell
from harness.variants import add_variants_option, chosen_variants
from methods.interface import Images, Labels, Scores
from methods.registry import build_method
from qprd.evaluation.calibration import Uncalibrated, fit_calibration
from qprd.evaluation.metrics import auroc, sensitivity, specificity
from qprd.evaluation.operating_point import accuracy_threshold
from qprd.evaluation.reliability import measure_reliability
from qprd.sampling.stain import restained


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
#: What threshold and calibration were chosen on.
OWN_STAIN, OTHER_STAINS = "own stain", "other stains"
_DEFAULT_METHODS = ("best", "best-own-stain", "best-hed", "best-standardized", "linear-tuned")


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
    chosen = chosen_variants(arguments.methods, method_options(arguments))
    edge = patch_px(arguments)
    with open_source(arguments) as folder:
        sizes = sizes_of(folder, arguments, arguments.tumor)
        images = PatchImages(folder, edge)
        of_seeds = [_run(chosen, folder, images, sizes, seed) for seed in seeds(arguments)]
        rows = [[*row, *_cells([figures[row] for figures in of_seeds])] for row in of_seeds[0]]
        head = [
            "method",
            "validated on",
            "patches",
            "AUROC",
            "calibration error",
            "sensitivity",
            "specificity",
        ]
        text = (
            f"Trained on {sizes.normal} normal and {sizes.tumor} tumor patches.\n\n"
            f"{markdown_table(head, rows)}\n"
        )
        text += provenance(folder, edge, sizes, seeds(arguments))
    publish(text, arguments.markdown)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    add_variants_option(parser, _DEFAULT_METHODS)
    parser.add_argument("--tumor", type=int, default=30, help="tumor patches, default 30")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as printed")
    return parser.parse_args()


def _run(
    chosen: Sequence[Variant],
    folder: PatchFolder,
    images: PatchImages,
    sizes: SplitSizes,
    seed: int,
) -> Mapping[tuple[str, str, str], Figures]:
    """Fit each method, choose on validation patches of either kind, measure on all stains.

    Returns:
        Figures by method, what was validated on and what was measured on.
    """
    split = draw_split(folder, sizes, seed)
    val, test = images[split.val], images[split.test]
    val_tumor, test_tumor = folder.tumor[split.val], folder.tumor[split.test]
    shifted, others = {str(shift): shift(test) for shift in SHIFTS}, restained(val)
    found = {}
    for variant in chosen:
        started = time.perf_counter()
        method = build_method(variant.method, variant.recipe, variant.options)
        method.fit(images[split.train], folder.tumor[split.train], val, val_tumor, seed=seed)
        measured = {VALIDATION: (val_tumor, method.score(val))}
        measured |= {name: (test_tumor, method.score(part)) for name, part in shifted.items()}
        chosen_on = {OWN_STAIN: measured[VALIDATION][1], OTHER_STAINS: method.score(others)}
        for how, val_scores in chosen_on.items():
            for where, figures in _figures(val_tumor, val_scores, measured, seed).items():
                found[variant.label, how, where] = figures
        seconds = time.perf_counter() - started
        print(f"{variant.label}, seed {seed}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def _figures(
    val_tumor: Labels,
    val_scores: Scores,
    measured: Mapping[str, tuple[Labels, Scores]],
    seed: int,
) -> dict[str, Figures]:
    """Choose threshold and calibration, and measure with them."""
    threshold = accuracy_threshold(val_tumor, val_scores)
    calibration = fit_calibration(val_tumor, val_scores, seed=seed)
    # Validation patches are 1:1 and at least two of each class.
    assert threshold is not None
    assert not isinstance(calibration, Uncalibrated)
    found = {}
    for where, (y_true, scores) in measured.items():
        error, _ = measure_reliability(y_true, calibration.probability(scores))
        figures = (
            auroc(y_true, scores),
            error,
            sensitivity(y_true, scores, threshold.value),
            specificity(y_true, scores, threshold.value),
        )
        found[where] = Figures(*(float("nan") if value is None else value for value in figures))
    return found


def _cells(found: list[Figures]) -> list[str]:
    return [spread_cell([getattr(one, field.name) for one in found]) for field in fields(Figures)]


if __name__ == "__main__":
    run_command(main)
