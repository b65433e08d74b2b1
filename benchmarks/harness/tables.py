"""Tables of figures over seeds, in Markdown, with what they come from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.evaluation import SeedResult, spread
from harness.folder import PatchFolder
from harness.options import command_line
from harness.runs import describe_data, versions
from harness.splits import SplitSizes
from qprd.errors import QprdError

#: What stands where a method has no result.
UNDEFINED = "-"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's syntax."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(results: Sequence[SeedResult] | str, figure: str) -> str:
    """Mean and sample standard deviation of a figure, such as ``.912 ± .008``."""
    if isinstance(results, str):
        return UNDEFINED
    return spread_cell([getattr(result, figure) for result in results])


def spread_cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation of values; without any, they are undefined."""
    figures = spread(values)
    if figures.mean is None:
        return UNDEFINED
    return short(figures.mean) + ("" if figures.sd is None else f" ± {short(figures.sd)}")


def short(value: float) -> str:
    """Three digits, without a leading zero."""
    return f"{value:.3f}".removeprefix("0")


def provenance(folder: PatchFolder, patch_px: int, sizes: SplitSizes, seeds: Sequence[int]) -> str:
    """What a table's figures come from: data, splits, seeds, versions, command."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    how = (
        "Patches were split at random, for they carry no slide ids: neighbors of a slide may be "
        "on both sides."
        if folder.splits is None
        else "The folder states its splits; seeds chose among its training patches."
    )
    return (
        f"Data: {describe_data(folder)}; at {patch_px} px. {how} Validation {sizes.val} + "
        f"{sizes.val} and test {sizes.test} + {sizes.test} patches; validation chose epochs and "
        f"thresholds. Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}.\n\n"
        f"{found}\n\n```sh\n{command_line()}\n```\n"
    )


def publish(text: str, file: Path | None) -> None:
    """Print a report and, if a file is named, write it there too.

    Raises:
        QprdError: the file cannot be written.
    """
    sys.stdout.write(text)
    if file is None:
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise QprdError(
            f"The table cannot be written: {error.strerror}.",
            where=str(file),
            fix="Give --markdown a file in an existing, writable folder.",
        ) from error
