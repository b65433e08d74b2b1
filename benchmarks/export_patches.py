"""Write patches of a QuPath project as a patch folder that the benchmarks read.

    python benchmarks/export_patches.py --project PROJECT --out DIR

DIR gets ``images/``, ``labels.csv`` (id, label, split), ``patches.csv`` (where each patch lies) and
``export.json`` (command, counts, areas). Training patches come from the training slides. Without
test slides each validation slide is cut in two by a straight line: one side validates, the other
tests, and at least a patch's edge lies between them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from harness.command import run_command
from harness.project_patches import ExportCounts, export_project
from qprd.config import TrainConfig, train_config
from qprd.layout import find_project
from qprd.progress import TerminalProgress
from qprd.qupath.opening import open_project


def main() -> None:
    """Parse, export, say what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--project", type=Path, required=True, help="project.qpproj or its folder")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    add_export_options(parser)
    arguments = parser.parse_args()
    project, how = open_project(
        find_project(arguments.project),
        backend=arguments.backend,
        slides=arguments.slides,
        annotations=arguments.annotations,
    )
    print(how, file=sys.stderr)
    with project:
        exported = export_project(
            project,
            arguments.out,
            export_config(arguments),
            export_counts(arguments),
            command=shlex.join(["python", *sys.argv]),
            progress=TerminalProgress(),
        )
    for note in exported.notes:
        print(f"note: {note}")
    for split, areas in exported.areas.items():
        own = exported.table.subset(split)
        tumor = len(own.subset(split, "tumor"))
        where = "; ".join(
            f"{name} x {b[0]:.0f}-{b[2]:.0f}, y {b[1]:.0f}-{b[3]:.0f}" for name, b in areas.items()
        )
        print(f"{split:>6}: {len(own) - tumor} normal + {tumor} tumor patches of {where}")
    print(f"Written to {arguments.out}")


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Where slides and annotations are, and which patches to take."""
    parser.add_argument("--backend", choices=("auto", "paquo", "exchange"), default="auto")
    parser.add_argument("--slides", type=Path, action="append", default=[], help="folder of slides")
    parser.add_argument("--annotations", type=Path, help="folder of GeoJSON exports")
    parser.add_argument("--train-normal", type=int, default=400)
    parser.add_argument("--train-tumor", type=int, default=120)
    parser.add_argument("--val", type=int, default=100, help="patches of each label")
    parser.add_argument("--test", type=int, default=300, help="patches of each label")
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--export-px", type=int, default=128, help="edge of a patch at --mpp")
    parser.add_argument("--max-overlap", type=float, default=0.5, help="of patches of one split")
    parser.add_argument("--export-seed", type=int, default=0)


def export_config(arguments: argparse.Namespace) -> TrainConfig:
    """The settings of `add_export_options` that concern single patches."""
    return train_config(
        {
            "teacher": "efficientnet_lite0",
            "mpp": arguments.mpp,
            "patch_px": arguments.export_px,
            "max_overlap": arguments.max_overlap,
            "seed": arguments.export_seed,
        }
    )


def export_counts(arguments: argparse.Namespace) -> ExportCounts:
    """The numbers of patches of `add_export_options`."""
    return ExportCounts(
        arguments.train_normal, arguments.train_tumor, arguments.val, arguments.test
    )


if __name__ == "__main__":
    run_command(main)
