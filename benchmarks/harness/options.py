"""Options that the commands share."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from harness.folder import PatchFolder, read_folder
from harness.project_patches import ExportCounts, export_project
from harness.splits import SplitSizes, plan_sizes
from methods.interface import MethodOptions
from methods.networks import NETWORKS
from qprd.checked import STRIDE_PX
from qprd.errors import ExitCode, QprdError
from qprd.files.layout import find_project
from qprd.given_settings import train_config
from qprd.progress import printable
from qprd.qupath.opening import open_project
from qprd.settings import TrainConfig

_DEFAULTS = MethodOptions()


def command_line() -> str:
    """What was typed."""
    return shlex.join(["python", *sys.argv])


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options for data, patches and methods."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_options(parser)
    add_size_options(parser)
    add_method_options(parser)
    return parser


def sizes_of(folder: PatchFolder, arguments: argparse.Namespace, tumor: int | None) -> SplitSizes:
    """How many patches are used with so many tumor patches; see `harness.splits.plan_sizes`."""
    return plan_sizes(
        folder, normal=arguments.normal, tumor=tumor, val=arguments.val, test=arguments.test
    )


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """How many patches, which seeds."""
    group = parser.add_argument_group("patches")
    group.add_argument("--normal", type=int, help="to train on; default: up to 900")
    group.add_argument("--val", type=int, help="of each label; default: up to 100")
    group.add_argument("--test", type=int, help="of each label; default: up to 370")
    group.add_argument("--seeds", type=int, default=3, help="number of seeds, default 3")
    group.add_argument("--first-seed", type=int, default=0)
    group.add_argument(
        "--patch-px",
        type=int,
        help="edge to which patches are brought, a multiple of 32; default: the teacher's "
        "(128 for efficientnet_lite0)",
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Settings of the methods, see `methods.interface.MethodOptions`."""
    group = parser.add_argument_group("methods")
    group.add_argument("--teacher", default=_DEFAULTS.teacher, help="of rd, frd, linear, memory")
    group.add_argument("--teacher-weights", metavar="FILE")
    group.add_argument(
        "--network", choices=NETWORKS, default=_DEFAULTS.network, help="of classifier, ranking"
    )
    group.add_argument(
        "--weights",
        default=_DEFAULTS.network_weights,
        metavar="imagenet|none|FILE",
        help="of --network; default: imagenet, which torchvision downloads for all but "
        "efficientnet_lite0",
    )
    group.add_argument("--epochs", type=int)
    group.add_argument("--batch-size", type=int, default=_DEFAULTS.batch_size)
    group.add_argument("--lr", type=float)
    group.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, default=_DEFAULTS.augment
    )
    group.add_argument("--alpha", default=str(_DEFAULTS.alpha), help="0..1 or auto")
    group.add_argument("--gamma", type=float, default=_DEFAULTS.gamma)
    group.add_argument("--similarity", choices=("image", "location"), default="image")
    group.add_argument("--coreset", type=float, default=_DEFAULTS.coreset, metavar="SHARE")
    group.add_argument("--memory-vectors", type=int, default=_DEFAULTS.memory_vectors)
    group.add_argument("--memory-score", choices=("max", "mean"), default=_DEFAULTS.memory_score)
    group.add_argument("--device", default=_DEFAULTS.device)
    group.add_argument("--threads", type=int, help="default: all")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Files of a table."""
    group = parser.add_argument_group("files")
    group.add_argument("--csv", type=Path, metavar="FILE", help="one line a run, written at once")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="the table as printed")
    group.add_argument(
        "--reuse",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="CSV files whose runs of the same data and settings are not repeated",
    )


def method_options(arguments: argparse.Namespace) -> MethodOptions:
    """Settings from the command line; sets the number of threads.

    Raises:
        QprdError: a value is out of range.
    """
    for option, value, least in (
        ("--seeds", arguments.seeds, 1),
        ("--first-seed", arguments.first_seed, 0),
        ("--epochs", arguments.epochs, 1),
        ("--batch-size", arguments.batch_size, 2),
        ("--threads", arguments.threads, 1),
        ("--memory-vectors", arguments.memory_vectors, 1),
    ):
        if value is not None and value < least:
            raise _unusable(option, value, f"{least} is the least")
    if arguments.lr is not None and not arguments.lr > 0:
        raise _unusable("--lr", arguments.lr, "it must be above 0")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return MethodOptions(
        teacher=arguments.teacher,
        teacher_weights=arguments.teacher_weights,
        network=arguments.network,
        network_weights=arguments.weights,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        augment=arguments.augment,
        alpha=_alpha(arguments.alpha),
        gamma=arguments.gamma,
        similarity=arguments.similarity,
        coreset=arguments.coreset,
        memory_vectors=arguments.memory_vectors,
        memory_score=arguments.memory_score,
        device=arguments.device,
        threads=torch.get_num_threads(),
    )


def patch_px(arguments: argparse.Namespace) -> int:
    """Edge to which patches are brought.

    Raises:
        QprdError: it is no multiple of 32.
    """
    given: int | None = arguments.patch_px
    if given is None:
        return TrainConfig(teacher=arguments.teacher).patch_px
    if given < STRIDE_PX or given % STRIDE_PX:
        raise _unusable("--patch-px", given, f"it must be a multiple of {STRIDE_PX}")
    return given


def seeds(arguments: argparse.Namespace) -> range:
    """The seeds to run."""
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """A patch folder, or a project to take patches from."""
    group = parser.add_argument_group("data, one of the two")
    group.add_argument("--data", type=Path, metavar="DIR", help="labels.csv and images/")
    group.add_argument("--project", type=Path, help="project.qpproj or its folder")
    add_export_options(parser)


@contextmanager
def open_source(arguments: argparse.Namespace) -> Iterator[PatchFolder]:
    """The folder that was named, or a temporary one with patches of the project.

    Raises:
        QprdError: neither or both were given, or there is no such thing.
    """
    if (arguments.data is None) == (arguments.project is None):
        raise QprdError("Give either --data or --project.", exit_code=ExitCode.USAGE)
    if arguments.data is not None:
        yield told(read_folder(arguments.data))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "patches"
        export(arguments, folder)
        yield told(read_folder(folder))


def told(folder: PatchFolder) -> PatchFolder:
    """The same folder, its notes printed."""
    for note in folder.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    return folder


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Where slides and annotations of a project are, and which patches to take."""
    group = parser.add_argument_group("patches of a project")
    group.add_argument("--backend", choices=("auto", "paquo", "exchange"), default="auto")
    group.add_argument("--slides", type=Path, action="append", default=[], help="folder of slides")
    group.add_argument("--annotations", type=Path, help="folder of GeoJSON exports")
    group.add_argument("--export-normal", type=int, default=400, help="to train on")
    group.add_argument("--export-tumor", type=int, default=120, help="to train on")
    group.add_argument("--export-val", type=int, default=100, help="of each label")
    group.add_argument("--export-test", type=int, default=300, help="of each label")
    group.add_argument("--export-px", type=int, default=128, help="edge of a patch at --mpp")
    group.add_argument("--export-seed", type=int, default=0)
    group.add_argument("--mpp", type=float, default=0.5)
    group.add_argument("--max-overlap", type=float, default=0.5, help="of patches of one split")


def export(arguments: argparse.Namespace, folder: Path) -> None:
    """Write patches of the project to a folder, and say what they are on standard error.

    Raises:
        QprdError: as `harness.project_patches.export_project`.
    """
    counts = ExportCounts(
        train_normal=arguments.export_normal,
        train_tumor=arguments.export_tumor,
        val=arguments.export_val,
        test=arguments.export_test,
    )
    project, how = open_project(
        find_project(arguments.project),
        backend=arguments.backend,
        slides=arguments.slides,
        annotations=arguments.annotations,
    )
    print(how, file=sys.stderr)
    with project:
        exported = export_project(
            project, folder, _export_config(arguments), counts, command=command_line()
        )
    for line in exported.lines():
        print(printable(line), file=sys.stderr)


def _export_config(arguments: argparse.Namespace) -> TrainConfig:
    settings: Mapping[str, object] = {
        "teacher": "efficientnet_lite0",
        "mpp": arguments.mpp,
        "patch_px": arguments.export_px,
        "max_overlap": arguments.max_overlap,
        "seed": arguments.export_seed,
    }
    return train_config(settings)


def _alpha(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise _unusable("--alpha", text, "it is a number from 0 to 1, or auto")
    return alpha


def _unusable(option: str, value: object, why: str) -> QprdError:
    return QprdError(f"{value} cannot be used: {why}.", where=option, exit_code=ExitCode.USAGE)
