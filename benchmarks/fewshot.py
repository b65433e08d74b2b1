"""One method on a folder of labeled patches, trained on few of them, over several seeds.

    python benchmarks/fewshot.py --data DIR --method frd --recipe paper --normal 400 --tumor 90 \
        --seeds 5 --json FILE

DIR holds labels.csv (id,label with 1 = tumor, 0 = normal; a third column split = train, val or
test is honored) and images/<id>.<ext>. Training, validation and test patches are disjoint and fixed
by the seed, validation and test 1:1. Validation chooses epoch and threshold; nothing else sees it,
and nothing sees the test labels before the figures are computed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from harness.command import run_command
from harness.evaluation import SeedResult, spread
from harness.folder import read_folder
from harness.options import (
    add_method_options,
    add_size_options,
    command_line,
    method_options,
    patch_px,
    seeds,
    sizes_of,
    told,
)
from harness.runs import Runner, Variant, describe_data, versions
from harness.splits import SplitSizes
from methods.registry import METHODS, ONE_CLASS
from qprd.jobs.reporting import write_json_object


def main() -> None:
    """Parse, run all seeds, print and write the figures."""
    arguments = _parse()
    started = time.perf_counter()
    options = method_options(arguments)
    edge = patch_px(arguments)
    folder = told(read_folder(arguments.data))
    sizes = sizes_of(folder, arguments, arguments.tumor)
    variant = Variant(arguments.method, arguments.method, arguments.recipe, options)
    runner = Runner(folder, edge, csv_file=arguments.csv, command=command_line())
    # Found out before the training rather than after it.
    report: dict[str, object] = {"auroc": None, "accuracy": None, "reason": "not finished"}
    write_json_object(arguments.json, report)
    results = runner.results(variant, sizes, seeds(arguments))
    reason = results if isinstance(results, str) else None
    runs: Sequence[SeedResult] = () if isinstance(results, str) else results
    auroc, accuracy = spread([r.auroc for r in runs]), spread([r.accuracy for r in runs])
    used_tumor = 0 if variant.method in ONE_CLASS else sizes.tumor
    report = {
        "auroc": auroc,
        "accuracy": accuracy,
        "reason": reason,
        "method": arguments.method,
        "recipe": arguments.recipe,
        "seeds": list(seeds(arguments)),
        "sizes": {
            "train_normal": sizes.normal,
            "train_tumor": used_tumor,
            "val_per_label": sizes.val,
            "test_per_label": sizes.test,
        },
        "runs": runs,
        "settings": variant.settings(edge, sizes.tumor),
        "data": describe_data(folder),
        "notes": folder.notes,
        "versions": versions(),
        "threads": options.threads,
        "command": command_line(),
        "seconds": time.perf_counter() - started,
    }
    write_json_object(arguments.json, report)
    _print(variant, sizes, used_tumor, runs, reason)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--method", choices=METHODS, default="frd")
    parser.add_argument("--recipe", choices=("paper", "best"), default="best", help="of frd")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures, settings, versions")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="one line a seed")
    add_size_options(parser)
    parser.add_argument("--tumor", type=int, help="tumor patches to train on; default: up to 90")
    add_method_options(parser)
    return parser.parse_args()


def _print(
    variant: Variant,
    sizes: SplitSizes,
    used_tumor: int,
    runs: Sequence[SeedResult],
    reason: str | None,
) -> None:
    print(
        f"{variant.label}: trained on {sizes.normal} normal + {used_tumor} tumor patches, "
        f"validated on {sizes.val} + {sizes.val}, tested on {sizes.test} + {sizes.test}"
    )
    if reason is not None:
        print(f"undefined: {reason}")
        return
    for name in ("auroc", "accuracy"):
        figures = spread([getattr(run, name) for run in runs])
        each = " ".join(f"{value:.3f}" for value in figures.seeds)
        sd = "" if figures.sd is None else f", sd {figures.sd:.3f}"
        print(f"{name}: mean {figures.mean:.3f}{sd} over {len(runs)} seeds ({each})")


if __name__ == "__main__":
    run_command(main)
