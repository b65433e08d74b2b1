"""The worth of each idea of --recipe best: one changed at a time, over several seeds.

    python benchmarks/ablation.py --data DIR --normal 400 --seeds 5
    python benchmarks/ablation.py --project PROJECT ...
    python benchmarks/ablation.py --data DIR --rows students ...

``--rows recipe`` changes one idea of the recipe at a time; ``context`` adds what is around a patch,
which is then the middle of an image of twice its edge; ``students`` adds a student that learns from
the same patches; ``normal`` learns from normal patches alone.

Every row stands with its validation AUROC, by which ideas were chosen, and its test AUROC, by which
none was. The features of a patch are computed once for all seeds and ideas.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from harness.command import run_command
from harness.evaluation import spread
from harness.folder import PatchFolder, PatchImages
from harness.options import (
    benchmark_parser,
    method_options,
    open_source,
    patch_px,
    seeds,
    sizes_of,
)
from harness.splits import SplitSizes, draw_split
from harness.tables import markdown_table, provenance, publish, spread_cell
from methods.ideas import CONTEXT_IDEAS, IDEAS, idea_scores
from methods.interface import MethodOptions
from methods.students import normal_only_scores, student_scores
from qprd.errors import ExitCode, QprdError
from qprd.evaluation.metrics import auroc

_TUMOR = (3, 9, 30, 90)
#: What can be compared, and what a table says of it.
_ROWS = {
    "recipe": "Each row differs from best in what it says.",
    "context": "Each row differs from best in what it says.",
    "students": "The score is that of best and, for the stated share, of a student that was "
    "trained on the same patches, each in units of its deviation over normal validation patches.",
    "normal": "No row knows a tumor patch.",
}


@dataclass(frozen=True)
class Row:
    """A line of the CSV file.

    Attributes:
        idea: What was tried.
        tumor: Tumor patches trained on.
        seed: Of the split.
        val_auroc: On validation patches.
        auroc: On test patches.
    """

    idea: str
    tumor: int
    seed: int
    val_auroc: float
    auroc: float


def main() -> None:
    """Parse, run every seed, print the table."""
    arguments = _parse()
    options = method_options(arguments)
    counts = [0] if arguments.rows == "normal" else sorted(set(arguments.tumor))
    if counts[0] < 1 and arguments.rows != "normal":
        raise QprdError(
            "Without tumor patches there is no discriminant.",
            where="--tumor",
            fix="Give counts of 1 or more, or --rows normal.",
            exit_code=ExitCode.USAGE,
        )
    edge = patch_px(arguments)
    with open_source(arguments) as folder:
        sizes = sizes_of(folder, arguments, counts[-1])
        images = PatchImages(folder, 2 * edge if arguments.rows == "context" else edge)
        rows: list[Row] = []
        for tumor in counts:
            for seed in seeds(arguments):
                started = time.perf_counter()
                rows += _run(
                    folder,
                    images,
                    replace(sizes, tumor=tumor),
                    seed,
                    options,
                    compared=arguments.rows,
                )
                _write(rows, arguments.csv)
                seconds = time.perf_counter() - started
                print(f"{tumor} tumor patches, seed {seed}: {seconds:.0f} s", file=sys.stderr)
        text = _report(rows, counts, sizes, arguments.rows)
        text += provenance(folder, edge, sizes, seeds(arguments))
    publish(text, arguments.markdown)


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--tumor", type=int, nargs="+", default=list(_TUMOR), metavar="N")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a line an idea and seed")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the table as printed")
    parser.add_argument("--rows", choices=_ROWS, default="recipe", help="what to compare")
    return parser.parse_args()


def _run(
    folder: PatchFolder,
    images: PatchImages,
    sizes: SplitSizes,
    seed: int,
    options: MethodOptions,
    *,
    compared: str,
) -> list[Row]:
    split = draw_split(folder, sizes, seed)
    parts = images[split.train], images[split.val], images[split.test]
    train_tumor = folder.tumor[split.train]
    if compared == "students":
        labels = train_tumor, folder.tumor[split.val]
        scores = student_scores(parts, labels, options, seed)
    elif compared == "normal":
        scores = normal_only_scores(parts, options, seed)
    elif compared == "context":
        scores = idea_scores(parts, train_tumor, options, CONTEXT_IDEAS, surrounded=True)
    else:
        scores = idea_scores(parts, train_tumor, options, IDEAS)
    rows = []
    for idea, found in scores.items():
        on_val = auroc(folder.tumor[split.val], found.val)
        on_test = auroc(folder.tumor[split.test], found.test)
        # Both splits are 1:1, so neither can be undefined.
        assert on_val is not None
        assert on_test is not None
        rows.append(Row(idea, sizes.tumor, seed, on_val, on_test))
    return rows


def _write(rows: list[Row], file: Path | None) -> None:
    if file is None:
        return
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    except OSError as error:
        raise QprdError(
            f"The rows cannot be written: {error.strerror}.",
            where=str(file),
            fix="Give --csv a file in an existing, writable folder.",
        ) from error


def _report(rows: list[Row], counts: list[int], sizes: SplitSizes, compared: str) -> str:
    text = (
        f"Trained on {sizes.normal} normal patches and as many tumor patches as stated. "
        f"{_ROWS[compared]}\n"
    )
    for figure, name in (("val_auroc", "Validation"), ("auroc", "Test")):
        head = ["idea", *map(str, counts), "mean"]
        table = []
        for idea in dict.fromkeys(row.idea for row in rows):
            own = [row for row in rows if row.idea == idea]
            columns = [[getattr(row, figure) for row in own if row.tumor == n] for n in counts]
            means = [spread(column).mean or 0.0 for column in columns]
            table.append([idea, *map(spread_cell, columns), f"{sum(means) / len(means):.4f}"[1:]])
        text += f"\n{name} AUROC by number of tumor patches:\n\n{markdown_table(head, table)}"
    return f"{text}\n"


if __name__ == "__main__":
    run_command(main)
