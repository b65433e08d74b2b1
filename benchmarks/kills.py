"""Commands that are killed and run again, compared with an undisturbed run byte by byte.

    python benchmarks/kills.py [--kills 20] [--seed 0] [--only ROW ...] [--markdown FILE]

Each kill strikes a command of its own at a random moment, by SIGTERM, SIGINT and SIGKILL in turn;
it is run again until it ends well, and what is left is compared byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import qprd
from harness.command import run_command
from harness.options import command_line
from harness.runs import versions
from harness.tables import markdown_table, publish
from qprd.bundle.names import INFO_FILE, MODEL_FILE
from qprd.bundle.reading import newest_bundle
from qprd.errors import QprdError
from qprd.files.layout import ProjectLayout
from qprd.jobs.reporting import write_json_object
from qprd.jobs.train.run import runs_of
from qprd.results.arrays import SCORE_MAP

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
#: Exit codes of commands that a signal ended: said by qprd, or by the system before it could.
_ENDED = {signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2, 1), signal.SIGKILL: (-9,)}
_SLIDE_PX = (1000, 1000)
_PATCHES = ("--patch-px", "32", "--normal", "24", "--val-patches", "8", "--max-overlap", "0.8")
_SIZES = (*_PATCHES, "--batch-size", "8")
#: Share of an undisturbed run before which nobody kills: Python and PyTorch are being loaded.
_LOADED = 0.2


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        words: What follows ``qprd``; the project is added.
        again: What follows it when it is run again on a project.
        made: Digests of what it has made, by name.
        before: What has to be run on the project once before; nothing if empty.
    """

    words: tuple[str, ...]
    again: Callable[[Path], tuple[str, ...]]
    made: Callable[[Path], dict[str, str]]
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kill:
    """One kill, and what became of it.

    Attributes:
        row: The command.
        signal: What ended it.
        at_s: When, in seconds from its start.
        exit_code: How it ended.
        left: What it left.
        same: Whether the command that was run again came to the same bytes.
    """

    row: str
    signal: str
    at_s: float
    exit_code: int
    left: str
    same: bool


def main() -> None:
    """Kill, run again, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="of each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=_COMMANDS, help="repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    # A shell starts what runs in the background with this ignored, and so would what is killed be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="qprd-kills-") as temporary:
        project = qprd.draw_demo(Path(temporary, "demo"), size_px=_SLIDE_PX, progress=False)
        for name in arguments.only or _COMMANDS:
            kills += _kills_of(
                name, project, arguments.kills, np.random.default_rng(arguments.seed)
            )
    write_json_object(arguments.json, [asdict(kill) for kill in kills])
    publish(_report(kills), arguments.markdown)
    if not all(kill.same for kill in kills):
        raise QprdError("A killed command came to other bytes.", fix="Look at the table.")


def _kills_of(name: str, project: Path, count: int, rng: np.random.Generator) -> list[Kill]:
    command = _COMMANDS[name]
    if command.before:
        project = _copy(project, "template")
        _run(project, command.before)
    undisturbed = _copy(project, "undisturbed")
    started = time.perf_counter()
    _finish(undisturbed, command, again=False)
    whole_s = time.perf_counter() - started
    expected = command.made(undisturbed)
    kills = []
    for how in itertools.islice(itertools.cycle(_SIGNALS), count):
        killed = _copy(project, "killed")
        code, at_s = 0, 0.0
        while code == 0:  # it was over before
            shutil.rmtree(killed.parent)
            killed = _copy(project, "killed")
            at_s = float(whole_s * rng.uniform(_LOADED, 1))
            code = _struck(killed, command, how, at_s)
        if code not in _ENDED[how]:
            raise QprdError(f"After {how.name} the command ended with {code}.")
        left = _left(killed)
        _finish(killed, command, again=True)
        same = command.made(killed) == expected
        kills.append(Kill(name, how.name, at_s, code, left, same))
        print(kills[-1], file=sys.stderr)
    return kills


def _copy(project: Path, name: str) -> Path:
    folder = project.parents[1] / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(project.parent, folder)
    return folder / project.name


def _struck(project: Path, command: Command, how: signal.Signals, at_s: float) -> int:
    """Run a command, send it a signal, and return its exit code; 0 if it was over before."""
    with subprocess.Popen(  # noqa: S603
        [*_QPRD, *command.words, str(project)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            process.communicate(timeout=at_s)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            _, told = process.communicate()
            if b"Traceback" in told and at_s > _START_S:
                raise QprdError(
                    f"After {how.name} there was a traceback: {told.decode()}"
                ) from None
        return process.returncode


def _finish(project: Path, command: Command, *, again: bool) -> None:
    _run(project, command.again(project) if again else command.words)


def _run(project: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(  # noqa: S603
        [*_QPRD, *words, str(project)], capture_output=True, check=False
    )
    if done.returncode:
        raise QprdError(f"The command failed: {done.stderr.decode()}")


def _left(project: Path) -> str:
    """What a killed command left, in words."""
    if scored := _score_maps(project):
        return f"{len(scored)} slides"
    runs = runs_of(project)
    if runs:
        return f"{runs[0].epochs} epochs"
    bundles = ProjectLayout(project).bundles
    return "the bundle" if bundles.is_dir() and any(bundles.iterdir()) else "nothing"


def _train_again(words: tuple[str, ...]) -> Callable[[Path], tuple[str, ...]]:
    """Resume the training that was killed; train anew if it had not begun."""
    return lambda project: ("train", "--resume") if runs_of(project) else words


def _trained(project: Path) -> dict[str, str]:
    """Weights, threshold, calibration and validation scores of the newest bundle."""
    bundle = newest_bundle(ProjectLayout(project).bundles)
    scoring = json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))["scoring"]
    return {
        "weights": hashlib.sha256((bundle / MODEL_FILE).read_bytes()).hexdigest(),
        "scoring": json.dumps(scoring),
    }


def _score_maps(project: Path) -> dict[str, str]:
    """The score maps of all slides, by entry."""
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in ProjectLayout(project).results.glob(f"[!.]*/{SCORE_MAP}")
    }


def _training(*words: str) -> Command:
    words = ("train", "--teacher", "efficientnet_lite0", "--device", "cpu", *_SIZES, *words)
    return Command(words, _train_again(words), _trained)


def _report(kills: list[Kill]) -> str:
    rows = [
        [
            kill.row,
            kill.signal,
            f"{kill.at_s:.1f} s",
            str(kill.exit_code),
            kill.left,
            "yes" if kill.same else "NO",
        ]
        for kill in kills
    ]
    head = ["command", "signal", "after", "exit code", "left", "same bytes when run again"]
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    counts = f"{sum(kill.same for kill in kills)} of {len(kills)} came to the same bytes."
    return f"{counts}\n\n{markdown_table(head, rows)}\n{found}\n\n```sh\n{command_line()}\n```\n"


_QPRD = (sys.executable, "-m", "qprd")
#: Until Python has started, a signal ends it in its own way.
_START_S = 1.0
_PREDICT = ("predict", "--device", "cpu", "--write-back", "--uncertain", "4")
_BUNDLE = _training("--recipe", "best", "--tumor", "8").words
_COMMANDS: Mapping[str, Command] = {
    "train, paper": _training("--recipe", "paper", "--tumor", "8", "--epochs", "4"),
    "train, best without tumor": _training("--recipe", "best", "--tumor", "0", "--epochs", "4"),
    "train, best": _training("--recipe", "best", "--tumor", "8"),
    "predict": Command(_PREDICT, lambda _: _PREDICT, _score_maps, before=_BUNDLE),
}


if __name__ == "__main__":
    run_command(main)
