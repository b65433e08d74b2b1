"""The speed of qprd here: ratios within one run, each against its floor, its rival or its limit.

    python benchmarks/speed.py [--json FILE] [--markdown FILE] [--device cpu] [--only ROW ...]
        [--wsinfer PYTHON] [--tiatoolbox PYTHON]

Ratios, because no two machines are alike. What needs the slides of ``../shared/data`` or a QuPath
says so where there is none.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

import torch

from harness.command import run_command
from harness.options import command_line
from harness.runs import processor, versions
from harness.tables import markdown_table, publish
from qprd.jobs.reporting import write_json_object
from speed_rows.rivals import RIVALS
from speed_rows.row import Row, Setup

#: Modules of `speed_rows`, in the order of the table.
ROWS = (
    "prediction",
    "rivals",
    "network",
    "transformer",
    "closed_form",
    "reading",
    "training_step",
    "write_back",
    "scaling",
    "memory",
    "waits",
)
#: Only if asked for.
_MORE = ("compilation", "readers")
_HEAD = ("what", "against", "ratio", "target", "kept", "detail")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda|mps")
    for name in RIVALS:
        parser.add_argument(
            f"--{name}", type=Path, metavar="PYTHON", help=f"one that has {name}, to compare with"
        )
    parser.add_argument("--only", action="append", choices=ROWS + _MORE, help="repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    rivals = {name: python for name in RIVALS if (python := vars(arguments)[name])}
    rows: list[Row] = []
    for name in arguments.only or ROWS:
        with tempfile.TemporaryDirectory(prefix="qprd-speed-") as folder:
            setup = Setup(arguments.device, arguments.data.resolve(), Path(folder), rivals)
            started = time.perf_counter()
            for row in importlib.import_module(f"speed_rows.{name}").measure(setup):
                rows.append(row)
                print(": ".join(row.cells()[:3:2]), row.detail, sep="; ", file=sys.stderr)
            print(f"{name} took {time.perf_counter() - started:.0f} s", file=sys.stderr)
    write_json_object(arguments.json, [row.as_json() for row in rows])
    publish(_report(rows, arguments.device), arguments.markdown)


def _report(rows: list[Row], device: str) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    table = markdown_table(_HEAD, [row.cells() for row in rows])
    return f"{table}\n{_machine(device)}; {found}\n\n```sh\n{command_line()}\n```\n"


def _machine(device: str) -> str:
    """Processor or GPU, and cores."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    run_command(main)
