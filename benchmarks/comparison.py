"""All methods on the same few-shot data, with more and fewer tumor patches, over several seeds.

    python benchmarks/comparison.py --data DIR --normal 400 --seeds 5 --csv FILE --markdown FILE
    python benchmarks/comparison.py --project PROJECT ...

For one seed all methods train on the same patches, and the test patches are the same whatever the
number of tumor patches. With --csv every finished run is on disk at once; --reuse FILE takes runs
from such files, so that a benchmark can be interrupted, or done in parts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from harness.command import run_command
from harness.evaluation import SeedResult, spread
from harness.options import (
    add_table_options,
    benchmark_parser,
    command_line,
    method_options,
    open_source,
    patch_px,
    seeds,
    sizes_of,
)
from harness.runs import Runner, Variant
from harness.splits import SplitSizes, plan_sizes
from harness.tables import UNDEFINED, cell, markdown_table, provenance, publish, short
from harness.variants import add_variants_option, chosen_variants

_TUMOR = (0, 3, 9, 30, 90)


#: Needs no download.
_DEFAULT_METHODS = (
    "best",
    "frd-paper",
    "rd",
    "memory-max",
    "memory-mean",
    "linear",
    "linear-tuned",
    "forest",
    "classifier",
    "classifier-resnet18-random",
    "ranking",
)


def main() -> None:
    """Parse, run everything, print three tables."""
    arguments = _parse()
    options = method_options(arguments)
    chosen = chosen_variants(arguments.methods, options)
    counts = sorted(set(arguments.tumor))
    edge = patch_px(arguments)
    with open_source(arguments) as folder:
        # Planned for the most tumor patches, so that all columns share the test patches.
        sizes = sizes_of(folder, arguments, counts[-1])
        plan_sizes(folder, normal=sizes.normal, tumor=counts[0], val=sizes.val, test=sizes.test)
        runner = Runner(
            folder,
            edge,
            csv_file=arguments.csv,
            reuse=arguments.reuse,
            command=command_line(),
        )
        results = {
            (variant.label, tumor): runner.results(
                variant, replace(sizes, tumor=tumor), seeds(arguments)
            )
            for variant in chosen
            for tumor in counts
        }
        text = _report(chosen, counts, results, sizes)
        text += provenance(folder, edge, sizes, seeds(arguments))
    publish(text, arguments.markdown)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    add_variants_option(parser, _DEFAULT_METHODS)
    parser.add_argument("--tumor", type=int, nargs="+", default=list(_TUMOR), metavar="N")
    add_table_options(parser)
    return parser.parse_args()


def _report(
    chosen: list[Variant],
    counts: list[int],
    results: dict[tuple[str, int], tuple[SeedResult, ...] | str],
    sizes: SplitSizes,
) -> str:
    text = f"Trained on {sizes.normal} normal patches and as many tumor patches as stated.\n"
    few = [tumor for tumor in counts if tumor > 0]
    for figure, name in (("auroc", "Test AUROC"), ("accuracy", "Test accuracy")):
        head = ["method", *map(str, counts), f"mean of {', '.join(map(str, few))}"]
        rows = [
            [
                variant.label,
                *(cell(results[variant.label, tumor], figure) for tumor in counts),
                _overall([results[variant.label, tumor] for tumor in few], figure),
            ]
            for variant in chosen
        ]
        text += f"\n{name} by number of tumor patches:\n\n{markdown_table(head, rows)}"
    first, *others = chosen
    if others:
        rows = [
            [
                other.label,
                *(_lead(results[first.label, n], results[other.label, n]) for n in counts),
            ]
            for other in others
        ]
        text += (
            f"\nTest AUROC of {first.label} less that of the others, seed by seed, ± the standard "
            f"error of the mean:\n\n{markdown_table(['method', *map(str, counts)], rows)}"
        )
    return text + "\nrd and memory know no tumor patches: one result in all columns.\n\n"


def _lead(first: tuple[SeedResult, ...] | str, other: tuple[SeedResult, ...] | str) -> str:
    """Mean and standard error of the differences between the same seeds, with a sign."""
    if isinstance(first, str) or isinstance(other, str):
        return UNDEFINED
    found = spread([a.auroc - b.auroc for a, b in zip(first, other, strict=True)])
    assert found.mean is not None
    error = "" if found.sd is None else f" ± {short(found.sd / len(found.seeds) ** 0.5)}"
    return f"{'-' if found.mean < 0 else '+'}{short(abs(found.mean))}{error}"


def _overall(columns: list[tuple[SeedResult, ...] | str], figure: str) -> str:
    """Mean over several columns of a row."""
    means = [
        spread([getattr(result, figure) for result in column]).mean
        for column in columns
        if not isinstance(column, str)
    ]
    known = [mean for mean in means if mean is not None]
    return short(sum(known) / len(known)) if known and len(known) == len(columns) else UNDEFINED


if __name__ == "__main__":
    run_command(main)
