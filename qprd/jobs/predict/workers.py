"""Other processes on this machine that score slides of a prediction, each on a device of its own.

A worker is ``python -m qprd.jobs.predict.workers``. It reads its work from its standard input,
prints the id of each slide that it has scored, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from qprd.cores import cores
from qprd.errors import QprdError
from qprd.files.claims import Claims
from qprd.jobs.predict.model import Model
from qprd.jobs.predict.predictor import Predictor
from qprd.jobs.predict.queue import SlideQueue, Work
from qprd.progress import SilentProgress
from qprd.ranks import this_rank
from qprd.settings import PredictConfig


class Workers:
    """The workers of a prediction.

    Args:
        work: The prediction.
        model: The model.
        count: Number of processes, that of the command included.
    """

    def __init__(self, work: Work, model: Model, count: int) -> None:
        self._scored: SimpleQueue[str | None] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._reading = 0
        for local in range(1, count):
            process = subprocess.Popen(  # noqa: S603 - no shell, and no words of others
                [sys.executable, "-m", __name__],
                env={**os.environ, "LOCAL_RANK": str(local), "WORLD_SIZE": str(count)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._processes.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has died
                pickle.dump((work, model), process.stdin)
                process.stdin.flush()
            self._reading += 1
            threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def scored(self, *, to_the_end: bool = False) -> Iterator[str]:
        """Ids of the slides that workers have scored since the last call, or until all have ended.

        A worker that dies is no error: its slide is for the others.
        """
        with contextlib.suppress(Empty):
            while True:
                entry_id = self._scored.get(block=to_the_end and self._reading > 0)
                if entry_id is None:
                    self._reading -= 1
                else:
                    yield entry_id
        if to_the_end:
            for process in self._processes:
                process.wait()

    def end(self) -> None:
        """End those that still run."""
        for process in self._processes:
            process.terminate()
            process.wait()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._scored.put(line.decode().rstrip("\n"))
        self._scored.put(None)


@contextmanager
def workers(work: Work, model: Model, count: int) -> Iterator[Workers]:
    """Start workers; those that still run are ended with the block."""
    if count > 1:
        share_cores(count)
    started = Workers(work, model, count)
    try:
        yield started
    finally:
        started.end()


def process_count(config: PredictConfig) -> int:
    """Number of processes that this command is to be; a launcher has started all there are.

    Raises:
        QprdError: there are not so many devices.
    """
    from qprd.device import count_processes

    if config.devices == 1 or this_rank().count > 1:
        return 1
    return count_processes(config.device, config.devices)


def share_cores(count: int) -> None:
    """Leave this process its share of the cores, as several compute at once."""
    import torch

    torch.set_num_threads(max(1, cores() // count))


def main() -> None:
    """Score slides until none is left."""
    # Ctrl-C goes to all processes of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work, model = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that started this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    share_cores(this_rank().count)
    predictor = Predictor(model, work.config, SilentProgress())
    try:
        with Claims(work.project.path) as claims:
            for entry in SlideQueue(work, predictor.inputs, claims).score(predictor):
                print(entry.id, flush=True)
    except QprdError as error:
        sys.exit(f"error: {error}")


def _end_with_parent() -> None:
    # Not by sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
