"""Events of a command as lines of JSON, for programs that follow it; see docs/events.md.

Code reports by `emit`, which does nothing unless `log_events` is in effect.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from typing_extensions import override

from qprd.errors import ExitCode, QprdError, Terminated
from qprd.version import __version__

#: Raised whenever events change in a way that breaks programs which read them.
FORMAT = 1
#: Each line begins like this.
_START = b'{"event": '

_sinks: list[_Sink] = []


class _Sink(logging.Handler):
    """A stream that gets events, among them what the library logs.

    One that cannot be written any more is left alone.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lock = threading.RLock()
        self._is_broken = False

    @override
    def emit(self, record: logging.LogRecord) -> None:
        kind = "warning" if record.levelno >= logging.WARNING else "message"
        self.write(kind, message=record.getMessage())

    def write(self, event: str, **values: object) -> None:
        """Write one event."""
        time_now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        content = {"event": event, "time": time_now, **values}
        line = json.dumps(_plain(content), default=str) + "\n"
        with self._lock:
            if self._is_broken:
                return
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError) as error:
                # A full disk or a reader that has gone must not end a training. The warning is an
                # event itself, hence the lock that its own thread can take again.
                self._is_broken = True
                logging.getLogger(__name__).warning("No more events are logged: %s", error)


def emit(event: str, **values: object) -> None:
    """Report what has happened.

    Args:
        event: Its kind, as in docs/events.md.
        values: What belongs to it; paths and the like are written as text, and numbers that are
            not finite as null.
    """
    for sink in _sinks:
        sink.write(event, **values)


@contextmanager
def only_events_on_stdout(command: str) -> Iterator[None]:
    """Log events to standard output, and send whatever else is written there to standard error.

    Lines are ASCII and end in a line feed on every system. Another program can stop the command by
    writing the line ``stop`` to its standard input, as SIGTERM does.
    """
    with ExitStack() as stack:
        try:
            number = sys.stdout.fileno()
        except OSError:
            # A stand-in, as in a notebook or a test.
            stream = sys.stdout
        else:
            sys.stdout.flush()
            stream = os.fdopen(os.dup(number), "w", encoding="ascii", newline="\n")
            stack.callback(_close, stream)
            # What is not Python, and processes that are started, write there too.
            os.dup2(sys.stderr.fileno(), number)
            # A process in the background must not read from the terminal: it would be halted.
            if not os.isatty(0):
                _listen()
        stack.enter_context(redirect_stdout(sys.stderr))
        stack.enter_context(log_events(stream, command))
        yield


def _close(stream: TextIO) -> None:
    # What a reader that has gone did not take is lost.
    with suppress(OSError):
        stream.close()


def _listen() -> None:
    """Take standard input for orders; whatever else reads it finds nothing there."""
    # On Windows, libraries that look at standard input while they are loaded would wait for the
    # thread that reads the same pipe.
    with suppress(OSError):
        orders, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        threading.Thread(target=_obey, args=(orders,), daemon=True).start()


def _obey(number: int) -> None:
    """End the command when another program asks for it."""
    # Unbuffered, as a buffer's lock would be waited for at the end of the process.
    with suppress(OSError), open(number, "rb", buffering=0) as orders:
        for line in orders:
            if line.strip() == b"stop":
                _thread.interrupt_main(signal.SIGTERM)


def is_logged() -> bool:
    """Whether anybody listens."""
    return bool(_sinks)


@contextmanager
def log_events(log: Path | str | TextIO | None, command: str) -> Iterator[None]:
    """Log the events of what happens in a ``with`` block, from ``started`` to ``finished``.

    Args:
        log: A file, to which lines are appended, or a stream; None logs nothing.
        command: What is done, such as ``train``.

    Raises:
        QprdError: the file cannot be opened.

    Examples:
        >>> with qprd.log_events("train.jsonl", "train"):
        ...     model = qprd.train(project, teacher="efficientnet_lite0", normal=30, tumor=8)
    """
    if log is None:
        yield
        return
    if isinstance(log, (str, Path)):
        with _opened(Path(log)) as stream, log_events(stream, command):
            yield
        return
    sink, logger = _Sink(log), logging.getLogger("qprd")
    level = logger.level
    logger.addHandler(sink)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    _sinks.append(sink)
    started, code = time.monotonic(), int(ExitCode.OK)
    try:
        sink.write("started", command=command, qprd=__version__, format=FORMAT, process=os.getpid())
        yield
    except BaseException as error:
        code = _exit_code(error)
        if isinstance(error, QprdError):
            sink.write("error", message=error.problem, where=error.where, fix=error.fix)
        elif isinstance(error, KeyboardInterrupt):
            sink.write("stopped", message=str(error) or "Run the same command again.")
        elif hasattr(error, "format_message"):
            fix = "qprd COMMAND --help shows what it takes."
            sink.write("error", message=error.format_message(), where=None, fix=fix)
        elif isinstance(error, Exception) and not hasattr(error, "exit_code"):
            sink.write("error", message=f"{type(error).__name__}: {error}", where=None, fix=None)
        raise
    finally:
        sink.write("finished", exit_code=code, seconds=round(time.monotonic() - started, 3))
        with suppress(ValueError):
            _sinks.remove(sink)
        logger.removeHandler(sink)
        logger.setLevel(level)


def _opened(file: Path) -> TextIO:
    try:
        if file.is_file() and not file.is_symlink():  # as /dev/stdout is
            with file.open("rb") as earlier:
                start = earlier.read(len(_START))
            if start != _START[: len(start)]:
                raise QprdError(
                    "This file is there already, and holds something else than events.",
                    where=str(file),
                    fix="Name a new file for the events, such as events.jsonl.",
                    exit_code=ExitCode.USAGE,
                )
        return file.open("a", encoding="utf-8")
    except OSError as error:
        raise QprdError(
            f"Events cannot be logged to this file: {error.strerror or error}.",
            where=str(file),
            fix="Name a file in an existing, writable folder.",
            exit_code=ExitCode.USAGE,
        ) from error


def _exit_code(error: BaseException) -> int:
    """The exit code of a process that ends by an exception; typer's Exit has its own."""
    if isinstance(error, Terminated):
        return int(ExitCode.TERMINATED)
    if isinstance(error, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return int(getattr(error, "exit_code", ExitCode.FAILED))


def _plain(value: object) -> object:
    """A value without numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
