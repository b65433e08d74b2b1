from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import qprd
from qprd.errors import QprdError
from qprd.qupath.exchange import ExchangeProject
from tests.helpers.drawn_project import TRAINING


def curves_and_pictures(folder: Path) -> tuple[dict[str, list[int]], list[int]]:
    """Epochs of each curve, and those of the pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    tags: dict[str, Any] = found.Tags()
    curves = {name: [one.step for one in found.Scalars(name)] for name in tags["scalars"]}
    return curves, [one.step for name in tags["images"] for one in found.Images(name)]


def train(project: Path, folder: Path, **settings: object) -> None:
    with ExchangeProject(project) as opened:
        qprd.train(opened, log_dir=folder, progress=False, **{**TRAINING, **settings})


def test_epochs_become_curves_pictures_and_events(project: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with qprd.log_events(log, "train"):
        train(project, tmp_path / "log", recipe="paper", epochs=2)
    curves, pictures = curves_and_pictures(tmp_path / "log")
    names = ("loss", "validation/accuracy", "validation/AUROC", "learning rate", "seconds")
    assert curves == {name: [1, 2] for name in names}
    assert pictures == [1, 2]
    epochs = [
        one for one in map(json.loads, log.read_text().splitlines()) if one["event"] == "epoch"
    ]
    assert [(one["epoch"], one["epochs"]) for one in epochs] == [(1, 2), (2, 2)]
    assert all(one["loss"] > 0 and one["lr"] > 0 and one["val_auroc"] >= 0 for one in epochs)


def test_a_closed_form_has_a_picture_and_a_figure(project: Path, tmp_path: Path) -> None:
    train(project, tmp_path / "log")
    curves, pictures = curves_and_pictures(tmp_path / "log")
    assert curves == {"validation/AUROC": [0]}
    assert pictures == [0]


def test_without_tensorboard_it_says_what_to_install(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(QprdError) as caught:
        train(project, tmp_path / "log")
    assert "qprd[log]" in str(caught.value.fix)
