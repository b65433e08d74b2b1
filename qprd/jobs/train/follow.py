"""The part of the other processes in a training that the first one leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qprd.errors import ExitCode
from qprd.jobs.train.run import Run
from qprd.progress import SilentProgress
from qprd.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def lead(fabric: Fabric, run: Run, config: TrainConfig, *, finish: bool) -> None:
    """Start the other processes, if there are to be any, and send them the training.

    The folder of the run has all that they need.
    """
    fabric.launch()
    work = {"run": str(run.folder.resolve()), "config": config.model_dump(), "finish": finish}
    fabric.broadcast(work)


def follow(config: TrainConfig) -> Path:
    """Take part in a training until it has ended.

    Args:
        config: As given to this process; device and precision count.

    Returns:
        The bundle that the first process has written.

    Raises:
        SystemExit: the first process has ended without one.
    """
    from qprd.device import make_fabric
    from qprd.jobs.train.fit import fit_model
    from qprd.model.assembly import build_network
    from qprd.model.teacher import build_teacher
    from qprd.training.recipes import model_of

    fabric = make_fabric(config.device, config.precision, config.devices)
    with _ends_with_the_first():
        fabric.launch()
        work: Mapping[str, Any] = fabric.broadcast({})
        run = Run(Path(work["run"]))
        config = TrainConfig(**work["config"])
        table = run.table()
        assert table is not None
        weights = None if config.weights is None else Path(config.weights)
        teacher = build_teacher(config.teacher, weights=weights, layers=config.teacher_layers)
        n_tumor = int(table.subset("train").is_tumor.sum())
        # Whatever it starts from, it gets the weights of the first process.
        model = build_network(model_of(config.recipe, n_tumor), teacher, config.seed)
        fit_model(
            model,
            table,
            config,
            run,
            fabric=fabric,
            progress=SilentProgress(),
            finish=bool(work["finish"]),
        )
        return Path(fabric.broadcast(""))


@contextmanager
def _ends_with_the_first() -> Iterator[None]:
    """End without a word if the first process is gone, which has said why."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("onnection closed", "onnection reset")):
            raise
        raise SystemExit(ExitCode.FAILED) from error
