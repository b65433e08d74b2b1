"""The cost of another stain in the test slides: AUROC, calibration, sensitivity and specificity.

    python benchmarks/stain.py --data DIR --normal 400 --tumor 30 --seeds 5 --markdown FILE

Methods are fitted as in `comparison.py`, and their threshold and probability chosen on validation
patches, in the ways that ``--validated-on`` names: as they are; in other stains, as qprd shows them
in training; with those training patches beside them that the seed left over, which is a second
slide; on these alone; or as if a slide's scores were shifted by an amount that is not known, normal
with a deviation of a tenth or of a fifth of the distance between the classes. Last, the scores
themselves may be shifted: by the amount that makes the measured patches most likely under the
scores of validation (EM of two normal distributions and their shares, a deviation of a tenth being
the prior).

Then the stain of the test patches is changed. ``density`` multiplies the optical density of all
three channels, which is a darker or a fainter stain; ``hue`` turns the hue of every pixel by an
angle. The rows ``validation`` and ``unchanged`` are what the others are measured by. Half of the
patches are tumor; of ``unchanged, 5 % tumor`` as few as on a slide with little of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.stats import norm
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
from harness.splits import SplitSizes, draw_split, left_over
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
VALIDATION, LITTLE_TUMOR = "validation", "unchanged, 5 % tumor"
_LITTLE = 0.05
#: What threshold and calibration are chosen on; see this module.
OWN_STAIN, OTHER_STAINS = "own stain", "other stains"
TWO_SLIDES, TRAINING_SLIDE = "two slides", "training slide"
PRIORS: Mapping[str, float] = {"prior .1": 0.1, "prior .2": 0.2}
ESTIMATED = "shift estimated"
WAYS = (OWN_STAIN, OTHER_STAINS, TWO_SLIDES, TRAINING_SLIDE, *PRIORS, ESTIMATED)
#: Shifts that stand for a normal prior of deviation 1, equally likely.
_QUANTILES = norm.ppf((np.arange(9) + 0.5) / 9)
_PRIOR_SD, _EM_STEPS = 0.1, 200
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
        of_seeds = [
            _run(
                chosen,
                folder,
                images,
                sizes,
                seed,
                ways=arguments.validated_on,
                shifts=SHIFTS if arguments.stains else SHIFTS[:1],
            )
            for seed in seeds(arguments)
        ]
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
    parser.add_argument(
        "--validated-on",
        nargs="+",
        choices=WAYS,
        default=[OWN_STAIN, OTHER_STAINS],
        help="what threshold and calibration are chosen on; default: own and other stains",
    )
    parser.add_argument(
        "--stains",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to change the stain of test patches, which takes most of the time",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as printed")
    return parser.parse_args()


def _run(
    chosen: Sequence[Variant],
    folder: PatchFolder,
    images: PatchImages,
    sizes: SplitSizes,
    seed: int,
    *,
    ways: Sequence[str],
    shifts: Sequence[Shift],
) -> Mapping[tuple[str, str, str], Figures]:
    """Fit each method, choose on validation patches in each way, measure on all stains.

    Returns:
        Figures by method, what was validated on and what was measured on.
    """
    split = draw_split(folder, sizes, seed)
    val, test = images[split.val], images[split.test]
    val_tumor, test_tumor = folder.tumor[split.val], folder.tumor[split.test]
    shifted = {str(shift): shift(test) for shift in shifts}
    few = np.flatnonzero(test_tumor)[: max(1, round(_LITTLE * sizes.test))]
    little = np.concatenate([np.flatnonzero(~test_tumor), few])
    found = {}
    for variant in chosen:
        started = time.perf_counter()
        method = build_method(variant.method, variant.recipe, variant.options)
        method.fit(images[split.train], folder.tumor[split.train], val, val_tumor, seed=seed)
        own = val_tumor, method.score(val)
        measured = {VALIDATION: own}
        measured |= {name: (test_tumor, method.score(part)) for name, part in shifted.items()}
        measured[LITTLE_TUMOR] = test_tumor[little], measured[str(SHIFTS[0])][1][little]
        for way in ways:
            chosen_on, of_way = own, measured
            if way == OTHER_STAINS:
                chosen_on = val_tumor, method.score(restained(val))
            elif way in (TWO_SLIDES, TRAINING_SLIDE):
                left = left_over(folder, split)
                chosen_on = folder.tumor[left], method.score(images[left])
                if way == TWO_SLIDES:
                    chosen_on = _joined(own, chosen_on)
            elif way in PRIORS:
                chosen_on = _joined(*((own[0], own[1] + PRIORS[way] * z) for z in _QUANTILES))
            elif way == ESTIMATED:
                of_way = {
                    name: (y_true, scores - estimated_shift(scores, *own))
                    for name, (y_true, scores) in measured.items()
                }
            for where, figures in _figures(*chosen_on, of_way, seed).items():
                found[variant.label, way, where] = figures
        seconds = time.perf_counter() - started
        print(f"{variant.label}, seed {seed}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def _joined(*parts: tuple[Labels, Scores]) -> tuple[Labels, Scores]:
    labels, scores = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(scores)


def estimated_shift(scores: Scores, val_tumor: Labels, val_scores: Scores) -> float:
    """Find the shift that makes scores without labels most likely, by EM.

    Either class is a normal distribution with the mean and deviation of validation; their shares
    are unknown, and the shift is a priori normal around 0 with the deviation `_PRIOR_SD`.

    Args:
        scores: (n,).
        val_tumor: Labels of the validation patches, (m,).
        val_scores: Their scores, (m,).
    """
    classes = [val_scores[~val_tumor], val_scores[val_tumor]]
    means = np.array([[own.mean()] for own in classes])
    stds = np.array([[own.std()] for own in classes])
    share, shift = np.full((2, 1), 0.5), 0.0
    for _ in range(_EM_STEPS):
        likelihood = share * norm.pdf(scores - shift, means, stds).clip(min=1e-300)
        weights = likelihood / likelihood.sum(axis=0)
        share = weights.mean(axis=1, keepdims=True)
        weights /= stds**2
        shift = float((weights * (scores - means)).sum() / (weights.sum() + _PRIOR_SD**-2))
    return shift


def _figures(
    chosen_tumor: Labels,
    chosen_scores: Scores,
    measured: Mapping[str, tuple[Labels, Scores]],
    seed: int,
) -> dict[str, Figures]:
    """Choose threshold and calibration, and measure with them."""
    threshold = accuracy_threshold(chosen_tumor, chosen_scores)
    calibration = fit_calibration(chosen_tumor, chosen_scores, seed=seed)
    # At least two patches of either class, about 1:1.
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
