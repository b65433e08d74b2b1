"""The one exception a user may see, and its exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Process exit codes of the command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INPUT = 3
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """The system asks the command to end (SIGTERM), which it does as at Ctrl-C."""


class QprdError(Exception):
    """A problem the user can understand and fix; printed without a traceback.

    Args:
        problem: What is wrong, in one sentence.
        where: The file, slide, class or option it concerns.
        fix: What the user can do about it.
        exit_code: The process exit code, never 0.

    Examples:
        >>> try:
        ...     model = qprd.load_model("nowhere")
        ... except qprd.QprdError as error:
        ...     print(error.problem)
        There is no bundle here: ...
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        exit_code: ExitCode = ExitCode.INPUT,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        parts = [self.problem]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.fix:
            parts.append(f"  fix:   {self.fix}")
        return "\n".join(parts)

    def line_about(self, name: str) -> str:
        """One line for a list of slides that failed while the others went on."""
        return f"{name}: {self.problem}{' ' + self.fix if self.fix else ''}"


class DiskError(QprdError):
    """Nothing can be written any more: a full disk or quota, or a file system that is read-only.

    A command that goes through many images stops at it.
    """


@contextmanager
def read_errors(
    what: str, path: Path, *, fix: str = "Get read access to it, or restore it from a backup."
) -> Iterator[None]:
    """Turn an error of the system into one that says what cannot be read.

    Args:
        what: What it is, as the start of a sentence: ``"This file"``.
        path: The file or folder.
        fix: What to do.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise QprdError(f"{what} cannot be read: {reason}.", where=str(path), fix=fix) from error


def parse_fault(error: ValueError | RecursionError) -> str:
    """Say what is wrong with a text that Python's parser of JSON or TOML refused."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if type(error) is ValueError:
        # Whole numbers are limited to some thousand digits.
        return "a number in it has too many digits"
    return str(error)
