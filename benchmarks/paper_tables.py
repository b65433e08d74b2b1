"""The experiments of He & Li (MIDL 2023) on any patch folder or project, over several seeds.

    python benchmarks/paper_tables.py --data DIR --table tumor-patches
    python benchmarks/paper_tables.py --project PROJECT --table weighting

tumor-patches   Table 3: 0, 5, 10, 50, 100, 500, 1000 tumor patches, those that the data have
weighting       Section 4.3: with and without the focal weighting
supervision     Section 4.4: balanced labels, and all patches there are with alpha .5

The paper's accuracies stand beside ours for the shape, not for the height: they are for
Camelyon16, ten times more patches and another network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.command import run_command
from harness.evaluation import SeedResult
from harness.folder import PatchFolder
from harness.options import (
    add_method_options,
    add_size_options,
    add_source_options,
    add_table_options,
    command_line,
    method_options,
    open_source,
    patch_px,
    seeds,
    sizes_of,
)
from harness.runs import Runner, Variant
from harness.splits import MAX_TEST, MAX_VAL, SplitSizes, plan_sizes
from harness.tables import UNDEFINED, cell, markdown_table, provenance, publish
from methods.interface import MethodOptions
from qprd.errors import QprdError

#: Tumor patches of the paper's Table 3, and its accuracies.
_TABLE_3 = {0: ".646", 5: ".759", 10: ".784", 50: ".812", 100: ".843", 500: ".881", 1000: ".879"}
#: A count of Table 3 is left out where fewer test patches of a label would remain.
_LEAST_TEST = 50
#: Shares of the rarer label that are held out where all others are to be trained on.
_FULL_TEST_SHARE, _FULL_VAL_SHARE = 0.25, 0.1


@dataclass(frozen=True)
class Row:
    """A line of a table before it is run."""

    variant: Variant
    sizes: SplitSizes
    paper: str = UNDEFINED


def main() -> None:
    """Parse, run the rows, print the table."""
    arguments = _parse()
    options = method_options(arguments)
    edge = patch_px(arguments)
    with open_source(arguments) as folder:
        rows = PLANS[arguments.table](folder, arguments, options)
        runner = Runner(
            folder, edge, csv_file=arguments.csv, reuse=arguments.reuse, command=command_line()
        )
        results = [runner.results(row.variant, row.sizes, seeds(arguments)) for row in rows]
        text = f"{_TITLES[arguments.table]}\n\n{_table(rows, results)}\n"
        text += provenance(folder, edge, rows[0].sizes, seeds(arguments))
    publish(text, arguments.markdown)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=tuple(PLANS), required=True)
    parser.add_argument("--recipe", choices=("paper", "best"), default="paper")
    add_source_options(parser)
    add_size_options(parser)
    parser.add_argument("--tumor", type=int, help="of weighting and supervision; default: up to 90")
    add_table_options(parser)
    add_method_options(parser)
    return parser.parse_args()


def tumor_patches(
    folder: PatchFolder, arguments: argparse.Namespace, options: MethodOptions
) -> list[Row]:
    """Table 3: the same test patches for all counts."""
    plans: list[SplitSizes] = []
    for tumor in _TABLE_3:
        try:
            plan = sizes_of(folder, arguments, tumor)
        except QprdError:
            if not plans:  # without any tumor patch: something else is wrong
                raise
            break
        if plans and plan.test < min(_LEAST_TEST, plans[0].test):
            break
        plans.append(plan)
    most = plans[-1]
    return [
        Row(
            Variant(f"{tumor} tumor patches", "frd", arguments.recipe, options),
            replace(most, tumor=tumor),
            _TABLE_3[tumor],
        )
        for tumor in list(_TABLE_3)[: len(plans)]
    ]


def weighting(
    folder: PatchFolder, arguments: argparse.Namespace, options: MethodOptions
) -> list[Row]:
    """Section 4.3: the focal weighting, with either of its alphas, and none."""
    sizes = sizes_of(folder, arguments, arguments.tumor)
    settings = (
        (f"alpha {options.alpha}, gamma {options.gamma:g}", options, ".881"),
        (f"alpha auto, gamma {options.gamma:g}", replace(options, alpha="auto"), UNDEFINED),
        ("no weighting: alpha .5, gamma 0", replace(options, alpha=0.5, gamma=0.0), ".838"),
    )
    return [
        Row(Variant(label, "frd", arguments.recipe, own), sizes, paper)
        for label, own, paper in settings
    ]


def supervision(
    folder: PatchFolder, arguments: argparse.Namespace, options: MethodOptions
) -> list[Row]:
    """Section 4.4: few tumor patches, as many normal as tumor, and all there are."""
    tumor = int(folder.tumor.sum())
    least = min(tumor, len(folder) - tumor)
    test, val = arguments.test, arguments.val
    if folder.splits is None:
        test = test or max(1, min(MAX_TEST, int(least * _FULL_TEST_SHARE)))
        val = val or max(1, min(MAX_VAL, int(least * _FULL_VAL_SHARE)))
    few = plan_sizes(folder, normal=arguments.normal, tumor=arguments.tumor, val=val, test=test)
    balanced = replace(few, normal=max(few.tumor, 1))
    everything = _all_there_is(folder, few)
    even = replace(options, alpha=0.5)
    return [
        Row(Variant("few tumor patches", "frd", arguments.recipe, options), few, ".881"),
        Row(Variant("balanced, alpha .5", "frd", arguments.recipe, even), balanced, ".869"),
        Row(Variant("all patches, alpha .5", "frd", arguments.recipe, even), everything, ".930"),
    ]


def _all_there_is(folder: PatchFolder, sizes: SplitSizes) -> SplitSizes:
    """The same validation and test patches, and all others to train on."""
    chosen = folder.tumor
    if folder.splits is not None:
        chosen = chosen[[split == "train" for split in folder.splits]]
        held_out = 0
    else:
        held_out = sizes.val + sizes.test
    tumor = int(chosen.sum())
    return replace(sizes, normal=len(chosen) - tumor - held_out, tumor=tumor - held_out)


PLANS = {"tumor-patches": tumor_patches, "weighting": weighting, "supervision": supervision}
_TITLES = {
    "tumor-patches": "Number of tumor patches (the paper's Table 3)",
    "weighting": "With and without the focal weighting (Section 4.3)",
    "supervision": "Few, balanced and all patches (Section 4.4)",
}


def _table(rows: Sequence[Row], results: Sequence[tuple[SeedResult, ...] | str]) -> str:
    head = ["", "normal", "tumor", "AUROC", "accuracy", "accuracy in the paper"]
    return markdown_table(
        head,
        [
            [
                row.variant.label,
                str(row.sizes.normal),
                str(row.sizes.tumor),
                cell(own, "auroc"),
                cell(own, "accuracy"),
                row.paper,
            ]
            for row, own in zip(rows, results, strict=True)
        ],
    )


if __name__ == "__main__":
    run_command(main)
