"""Write patches of a QuPath project as a patch folder that the other benchmarks read.

    python benchmarks/export_patches.py --project PROJECT --out DIR

DIR gets images/, labels.csv (id, label, split), patches.csv (where each patch lies) and
export.json (command, counts, areas). Training patches come from the training slides. Without test
slides each validation slide is cut in two by a straight line: one side validates, the other tests,
and at least a patch's edge lies between them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.command import run_command
from harness.options import add_export_options, export


def main() -> None:
    """Parse, export, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--project", type=Path, required=True, help="project.qpproj or its folder")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    add_export_options(parser)
    arguments = parser.parse_args()
    export(arguments, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    run_command(main)
