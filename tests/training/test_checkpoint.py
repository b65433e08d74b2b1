from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qprd.errors import QprdError
from qprd.settings import Recipe
from qprd.training.checkpoint import CHECKPOINT_FILE
from qprd.training.history import ValidationPatches
from qprd.training.loop import TrainingOutcome
from tests.helpers.acts_after import stops_after
from tests.training.test_recipes import patches, state_of, trained

VAL = ValidationPatches(*patches(6, 4, 1))
EPOCHS = 4
#: Of training, which are 3 batches of 8 with 6 tumor patches and less without.
STEPS = 3


def rows_of(outcome: TrainingOutcome) -> list[object]:
    """The history but for what the clock says."""
    return [replace(row, seconds=0.0) for row in outcome.history]


@pytest.mark.parametrize(("recipe", "tumor"), [("paper", 6), ("best", 0)])
@pytest.mark.parametrize("stops", [(2,), (STEPS + 1,), (3 * STEPS + 2,), (STEPS + 2, STEPS + 1)])
def test_a_training_that_was_stopped_comes_to_the_same_bits(
    recipe: Recipe, tumor: int, stops: tuple[int, ...], tmp_path: Path
) -> None:
    settings = {"tumor": tumor, "val": VAL, "epochs": EPOCHS, "augment": True}
    undisturbed, expected, _ = trained(recipe, **settings, folder=None)  # type: ignore[arg-type]
    for steps in stops:
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, **settings, folder=tmp_path, progress=stops_after(steps))  # type: ignore[arg-type]
    torch.manual_seed(99)  # another process begins with other random numbers
    resumed, outcome, _ = trained(recipe, **settings, folder=tmp_path)  # type: ignore[arg-type]
    for name, tensor in state_of(undisturbed).items():
        assert torch.equal(tensor, state_of(resumed)[name]), name
    assert rows_of(outcome) == rows_of(expected)
    assert outcome.val_scores is not None
    np.testing.assert_array_equal(outcome.val_scores, expected.val_scores)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first, expected, _ = trained("paper", val=VAL, folder=tmp_path)
    again, outcome, _ = trained("paper", val=VAL, folder=tmp_path, progress=stops_after(10**6))
    assert outcome.history == expected.history
    for name, tensor in state_of(first).items():
        assert torch.equal(tensor, state_of(again)[name]), name


def test_a_closed_form_is_not_fitted_again(tmp_path: Path) -> None:
    first, _, _ = trained("best", folder=tmp_path)
    again, _, _ = trained("best", folder=tmp_path, progress=stops_after(1))
    for name, tensor in state_of(first).items():
        assert torch.equal(tensor, state_of(again)[name]), name


def test_the_history_grows_epoch_by_epoch(tmp_path: Path) -> None:
    for stop, finished in ((STEPS + 1, 1), (2 * STEPS + 1, 2)):
        with pytest.raises(KeyboardInterrupt):
            trained("paper", epochs=3, folder=tmp_path, progress=stops_after(stop))
        with (tmp_path / "history.csv").open() as file:
            assert [int(row["epoch"]) for row in csv.DictReader(file)] == [*range(1, finished + 1)]


@pytest.mark.parametrize(("recipe", "tumor"), [("paper", 6), ("best", 0)])
def test_a_training_can_be_finished_with_the_epochs_that_it_has(
    recipe: Recipe, tumor: int, tmp_path: Path
) -> None:
    settings = {"tumor": tumor, "val": VAL, "epochs": 12, "folder": tmp_path}
    with pytest.raises(QprdError, match="No epoch of this training is finished"):
        trained(recipe, **settings, finish=True)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, **settings, progress=stops_after(4 * STEPS + 1))  # type: ignore[arg-type]
    _, outcome, _ = trained(recipe, **settings, finish=True)  # type: ignore[arg-type]
    assert len(outcome.history) == 4
    assert outcome.best is not None
    # An annealed one looks at the validation patches after epochs 3 and 5.
    assert outcome.best.val_accuracy is not None
    assert outcome.val_scores is not None


def test_a_damaged_checkpoint_is_said(tmp_path: Path) -> None:
    trained("paper", epochs=1, folder=tmp_path)
    file = tmp_path / CHECKPOINT_FILE
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"x" * 100):
        file.write_bytes(damaged)
        with pytest.raises(QprdError, match="checkpoint is damaged"):
            trained("paper", epochs=1, folder=tmp_path)
