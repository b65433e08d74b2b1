from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, box
from torch import nn

from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.given_settings import train_config
from qprd.model.frd import FRD
from qprd.model.loss import SimilarityLoss, build_loss
from qprd.progress import SilentProgress
from qprd.sampling.dataset import PatchDataset, rasterize_labels
from qprd.sampling.regions import LabelRegions
from qprd.sampling.table import Patch, PatchTable
from qprd.settings import TrainConfig
from qprd.training.history import Epoch, ValidationPatches, save_history
from qprd.training.loop import TrainingOutcome, fit
from tests.helpers.acts_after import ActsAfter

PATCH_PX = 32


def patches(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Smooth normal patches, every third one grainy "tumor"."""
    random = np.random.default_rng(seed)
    tumor = np.arange(count) % 3 == 0
    images = np.full((count, 3, PATCH_PX, PATCH_PX), 180, np.uint8)
    images[tumor] = random.integers(0, 255, images[tumor].shape, dtype=np.uint8)
    return images, tumor


def dataset(count: int, *, tumor: bool = True) -> PatchDataset:
    images, is_tumor = patches(count, 0)
    if not tumor:
        images, is_tumor = images[~is_tumor], is_tumor[~is_tumor]
    rows = tuple(
        Patch("1", "a", 40 * i, 0, 32.0, 0.5, "tumor" if t else "normal", "train")
        for i, t in enumerate(is_tumor)
    )
    return PatchDataset(PatchTable(rows), images, patch_px=PATCH_PX)


def config(**flags: object) -> TrainConfig:
    given = {"teacher": "resnet18", "patch_px": 32, "epochs": 3, "batch_size": 8, "lr": 1e-3}
    return train_config(given | flags)


class TinyTeacher(nn.Module):
    """Three fixed random maps; the real networks are tested in tests/model."""

    name = "tiny"
    channels = (8, 8, 8)
    strides = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Conv2d(fan_in, 8, size, stride=size) for fan_in, size in ((3, 4), (8, 2), (8, 2))
        )
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        maps, x = [], images.float() / 255 - 0.5
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TinyBottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return self.embed(maps[2])


class TinyStudent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.ConvTranspose2d(16, 8, size, size) for size in (4, 2, 1))

    def forward(self, embedding: torch.Tensor) -> list[torch.Tensor]:
        return [head(embedding) for head in self.heads]


def best_of(outcome: TrainingOutcome) -> Epoch:
    assert outcome.best is not None
    return outcome.best


def model(seed: int = 0) -> FRD:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        frd = FRD(TinyTeacher())  # type: ignore[arg-type]
        torch.manual_seed(seed)
        frd.bottleneck, frd.student = TinyBottleneck(), TinyStudent()
        return frd


def train(
    frd: FRD,
    settings: TrainConfig,
    *,
    val: bool = True,
    progress: object = None,
    tumor: bool = True,
    annealed: bool = False,
) -> TrainingOutcome:
    data = dataset(24, tumor=tumor)
    loss = build_loss(TrainConfig(), n_tumor=8 if tumor else 0, n_normal=16)
    held_out = ValidationPatches(*patches(12, 1)) if val else None
    return fit(
        frd,
        data,
        loss,
        held_out,
        settings,
        fabric=make_fabric("cpu", "auto"),
        progress=progress or SilentProgress(),  # type: ignore[arg-type]
        annealed=annealed,
    )


def test_the_same_seed_gives_the_same_weights_on_the_cpu() -> None:
    first, second, other = model(), model(), model()
    outcomes = [train(first, config()), train(second, config()), train(other, config(seed=1))]
    assert [row.loss for row in outcomes[0].history] == [row.loss for row in outcomes[1].history]
    assert [row.loss for row in outcomes[0].history] != [row.loss for row in outcomes[2].history]
    for name, tensor in first.trainable_state().items():
        assert torch.equal(tensor, second.trainable_state()[name]), name


def test_the_model_ends_with_the_weights_of_the_best_epoch() -> None:
    frd = model()
    outcome = train(frd, config(epochs=4))
    accuracies = [row.val_accuracy or 0.0 for row in outcome.history]
    assert best_of(outcome).val_accuracy == max(accuracies)
    from qprd.scoring.by_patch import score_patches

    images, _ = patches(12, 1)
    scores = score_patches(frd, images, fabric=make_fabric("cpu", "auto"), batch_size=5)
    assert outcome.val_scores is not None
    np.testing.assert_allclose(scores, outcome.val_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("epochs", "looks"), [(3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (12, [3, 5, 8, 10, 12])]
)
def test_an_annealed_training_looks_five_times_at_what_chooses_nothing(
    epochs: int, looks: list[int]
) -> None:
    outcome = train(model(), config(epochs=epochs), annealed=True)
    seen = [row.epoch for row in outcome.history if row.val_accuracy is not None]
    assert seen == looks
    assert outcome.best == outcome.history[-1]
    unseen = train(model(), config(epochs=epochs), annealed=True, val=False)
    assert [row.loss for row in unseen.history] == [row.loss for row in outcome.history]


def test_without_a_compiler_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_graph: object, _inputs: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=no_compiler))
    with pytest.raises(QprdError, match="cannot compile the network") as caught:
        train(model(), config(compile=True))
    assert caught.value.where == "--compile"


def test_without_validation_the_last_epoch_is_kept() -> None:
    outcome = train(model(), config(), val=False)
    assert outcome.best == outcome.history[-1]
    assert outcome.val_scores is None
    assert best_of(outcome).val_auroc is None


def test_without_tumor_it_is_plain_reverse_distillation_and_learns() -> None:
    outcome = train(model(), config(epochs=6), tumor=False)
    assert outcome.history[-1].loss < outcome.history[0].loss


def test_the_teacher_stays_as_it_was() -> None:
    frd = model()
    before = {name: tensor.clone() for name, tensor in frd.teacher.state_dict().items()}
    train(frd, config())
    for name, tensor in frd.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def diverges_after(steps: int, frd: FRD) -> ActsAfter:
    """Progress that makes the student's weights NaN after so many steps."""

    def spoil() -> None:
        with torch.no_grad():
            frd.trainable_parameters()[0].fill_(float("nan"))

    return ActsAfter(steps, spoil)


def test_a_diverged_training_keeps_the_epochs_before() -> None:
    frd = model()
    outcome = train(frd, config(epochs=4), progress=diverges_after(4, frd))
    assert outcome.diverged
    assert len(outcome.history) == 1
    assert all(torch.isfinite(t).all() for t in frd.trainable_state().values())


def test_a_training_that_diverges_at_once_says_so() -> None:
    frd = model()
    with pytest.raises(QprdError) as caught:
        train(frd, config(), progress=diverges_after(1, frd))
    assert "--lr" in str(caught.value)


def test_masks_are_what_the_loss_sees() -> None:
    square = box(0, 0, 1000, 16)
    regions = LabelRegions(MultiPolygon([square]), MultiPolygon(), (), "annotations")
    images, is_tumor = patches(9, 0)
    rows = tuple(
        Patch("1", "a", 40 * i, 0, 32.0, 0.5, "tumor" if t else "normal", "train")
        for i, t in enumerate(is_tumor)
    )
    table = PatchTable(rows)
    masks = rasterize_labels(table, {"1": regions}.get, patch_px=PATCH_PX)
    data = PatchDataset(table, images, patch_px=PATCH_PX, masks=masks)
    seen: list[torch.Tensor] = []
    settings = config(epochs=1, similarity="location", labels="mask")
    real = build_loss(settings, n_tumor=3, n_normal=6)

    class Spy(SimilarityLoss):
        def __call__(self, teacher_maps, student_maps, y):  # type: ignore[no-untyped-def]
            seen.append(y)
            return super().__call__(teacher_maps, student_maps, y)

    spy = Spy(real.kind, real.alpha, real.gamma, real.similarity, real.labels)
    fit(
        model(),
        data,
        spy,
        None,
        settings,
        fabric=make_fabric("cpu", "auto"),
        progress=SilentProgress(),
    )
    assert {tuple(y.shape[1:]) for y in seen} == {(8, 8)}
    assert {float(v) for y in seen for v in y.unique()} == {0.0, -1.0}


def test_adam_has_the_published_momenta(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    adam = torch.optim.Adam

    def spy(parameters, **options):  # type: ignore[no-untyped-def]
        made.append(options)
        return adam(parameters, **options)

    monkeypatch.setattr(torch.optim, "Adam", spy)
    train(model(), config(epochs=1))
    assert made == [{"lr": 1e-3, "betas": (0.5, 0.999), "fused": True}]


def test_a_last_batch_of_one_patch_does_no_harm() -> None:
    outcome = train(model(), config(batch_size=23, epochs=1))
    assert np.isfinite(best_of(outcome).loss)


def test_the_history_is_a_csv_file_with_a_line_an_epoch(tmp_path: Path) -> None:
    outcome = train(model(), config())
    save_history(outcome.history, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["loss"]) for row in rows] == [row.loss for row in outcome.history]
