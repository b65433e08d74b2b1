"""Feed every parser with damaged and hostile inputs: each is read, or refused with a reason.

python benchmarks/fuzz.py [--inputs N] [--seed N] [--only TEXT] [--data DIR] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from fuzz_rows.mutations import mutated
from fuzz_rows.parsers import Parser, parsers
from harness.options import command_line
from harness.runs import versions
from harness.tables import markdown_table, publish
from qprd.errors import QprdError

#: An input that takes longer, or more memory than there was before it, is a failure.
_MAX_S, _MAX_BYTES = 20, 4 * 2**30


@dataclass
class Found:
    """What became of the inputs of a parser.

    Attributes:
        outcomes: How many were read, refused, or ended otherwise.
        failures: Number of the input, and traceback, of the first of each kind that did.
        seconds: Time for all.
        slowest_s: The longest time for one.
        is_interrupted: Whether Ctrl-C left out the rest of them.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    seconds: float = 0.0
    slowest_s: float = 0.0
    is_interrupted: bool = False


class _TooSlowError(BaseException):
    """No Exception: no parser may take it for a damaged input."""


def main() -> None:
    """Feed and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="for each parser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="TEXT", default="", help="parsers with it in their name")
    parser.add_argument("--input", type=int, metavar="N", help="this input alone, and show it")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    started, rows, failed = time.perf_counter(), [], 0
    for one in parsers(arguments.data):
        if arguments.only not in one.name:
            continue
        if arguments.input is not None:
            sys.stdout.buffer.write(input_of(one, arguments.seed, arguments.input))
        numbers = range(arguments.inputs)
        chosen = numbers if arguments.input is None else [arguments.input]
        found = feed(one, chosen, seed=arguments.seed)
        failed += found.outcomes["otherwise"]
        rows.append(_row(one, found))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        for kind, (number, trace) in found.failures.items():
            print(f"{one.name}: {kind}, first by input {number}\n{trace}", file=sys.stderr)
        if found.is_interrupted:
            break
    minutes = (time.perf_counter() - started) / 60
    head = ["parser", "read", "refused with a reason", "otherwise", "mean ms", "slowest s"]
    publish(_report(markdown_table(head, rows), arguments.seed, minutes), arguments.markdown)
    sys.exit(bool(failed))


def input_of(parser: Parser, seed: int, number: int) -> bytes:
    """An input, which depends on nothing but the arguments and the parser's seeds."""
    random = Random(f"{seed}/{parser.name}/{number}")  # noqa: S311
    return mutated(parser.seeds, parser.tree_format, random)


def feed(parser: Parser, numbers: range | list[int], *, seed: int) -> Found:
    """Let a parser read inputs, and see how each ends."""
    found = Found()
    with (
        tempfile.TemporaryDirectory(dir=_scratch()) as scratch,
        _limits(),
        contextlib.suppress(KeyboardInterrupt),
    ):
        found.is_interrupted = True
        for number in numbers:
            folder = Path(scratch, str(number) if parser.touches else "all")
            data = input_of(parser, seed, number)
            target = folder / parser.file
            if not target.exists():
                _lay_out(parser, folder)
            target.write_bytes(data)
            started = time.perf_counter()
            outcome = _outcome(parser, folder, number, found)
            spent = time.perf_counter() - started
            found.outcomes[outcome] += 1
            found.seconds += spent
            found.slowest_s = max(found.slowest_s, spent)
            if parser.touches:
                shutil.rmtree(folder)
        found.is_interrupted = False
    return found


def _scratch() -> str | None:
    """A file system in memory, where there is one: a million files are written."""
    memory = Path("/dev/shm")  # noqa: S108
    return str(memory) if memory.is_dir() else None


def _lay_out(parser: Parser, folder: Path) -> None:
    for place, content in (*parser.beside, (parser.file, b"")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)


def _outcome(parser: Parser, folder: Path, number: int, found: Found) -> str:
    signal.setitimer(signal.ITIMER_REAL, _MAX_S)
    try:
        parser.read(folder)
    except QprdError as error:
        # What it says must be printable.
        str(error).encode()
        return "refused"
    except (Exception, _TooSlowError) as error:  # noqa: BLE001
        found.failures.setdefault(type(error).__name__, (number, traceback.format_exc(limit=-6)))
        return "otherwise"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Bound time and memory, and keep quiet what libraries say of damaged files."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise _TooSlowError

    handler = signal.signal(signal.SIGALRM, give_up)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MAX_BYTES, limits[1]))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, handler)


def _row(parser: Parser, found: Found) -> list[str]:
    counts = [f"{found.outcomes[kind]:,}" for kind in ("read", "refused", "otherwise")]
    mean_ms = 1000 * found.seconds / max(1, found.outcomes.total())
    return [parser.name, *counts, f"{mean_ms:.2f}", f"{found.slowest_s:.2f}"]


def _report(table: str, seed: int, minutes: float) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return (
        f"{table}\nSeed {seed}, {minutes:.0f} minutes. An input is made anew by its number: "
        f"`--only PARSER --input N`.\n\n{found}\n\n```sh\n{command_line()}\n```\n"
    )


if __name__ == "__main__":
    faulthandler.enable()  # a library may end the process
    main()
