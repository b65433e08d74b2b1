"""A fine-tuned patch classifier, as the winners of the Camelyon16 challenge trained theirs.

Wang et al. (HMS & MIT), "Deep learning for identifying metastatic breast cancer", 2016, took
GoogLeNet; others a ResNet. All of the network is trained, with cross-entropy in which both labels
weigh the same, on flipped, turned and color-jittered patches; the epoch of the best validation
accuracy is kept (of equal ones that of the best AUROC), as for reverse distillation.

`RankingClassifier` adds the idea of Chen et al., "Few-shot breast cancer metastases classification
via unsupervised cell ranking", IEEE/ACM TCBB 18(5), 2021: a part of a patch holds fewer cells than
the patch, so the network first learns, without labels, to score a patch above a part of it (40 to
90 % of its area), and is then fine-tuned. There the ranking was learned from hundreds of thousands
of patches of unlabeled slides; here only the training patches are known. The optimizer is ours:
theirs would hardly move a network in as few steps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from methods.frd import training_progress
from methods.interface import Images, Labels, MethodOptions, Scores
from methods.networks import Network, build_network
from qprd.device import make_fabric
from qprd.errors import QprdError
from qprd.evaluation.metrics import auroc
from qprd.evaluation.operating_point import accuracy_threshold

_EPOCHS = 15
_LR_FROM_IMAGENET, _LR_FROM_RANDOM = 3e-4, 1e-3
_WEIGHT_DECAY = 1e-4
_SMALLEST_PART, _LARGEST_PART = 0.4, 0.9


class Classifier:
    """A network fine-tuned on labeled patches."""

    def __init__(self, options: MethodOptions) -> None:
        self._options = options
        self._device = make_fabric(options.device, "32").device
        self._network: Network | None = None

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,
        val_tumor: Labels,
        *,
        seed: int,
    ) -> None:
        """See `methods.interface.Method`; validation patches choose the epoch."""
        if len(train_images) < 2:
            raise QprdError("Training needs at least two patches.", where="--normal")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._start(train_images)
            self._network = self._fine_tune(
                network, train_images, train_tumor, val_images, val_tumor
            )

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Log-odds of tumor, not calibrated."""
        if self._network is None:
            raise ValueError("not fitted")
        return _log_odds(self._network.eval(), images, self._options.batch_size, self._device)

    def _start(self, train_images: Images) -> Network:  # noqa: ARG002
        """The network to fine-tune."""
        options = self._options
        return build_network(options.network, options.network_weights, 2).to(self._device)

    def _fine_tune(
        self,
        network: Network,
        images: Images,
        tumor: Labels,
        val_images: Images,
        val_tumor: Labels,
    ) -> Network:
        counts = np.array([(~tumor).sum(), tumor.sum()])
        weights = torch.tensor(len(tumor) / (2 * counts), dtype=torch.float32).to(self._device)
        loss_of = nn.CrossEntropyLoss(weights)
        targets = torch.from_numpy(tumor.astype(np.int64))
        epochs = self._epochs
        optimizer, schedule = self._optimizer(network)
        best: tuple[tuple[float, float], dict[str, Tensor]] | None = None
        with training_progress().task("fine-tuning", epochs) as task:
            for _ in range(epochs):
                network.train()
                for batch in self._batches(len(images)):
                    pixels = torch.from_numpy(images[batch.numpy()])
                    if self._options.augment:
                        pixels = augmented(pixels, jitter=True)
                    logits = network(pixels.to(self._device))
                    loss = loss_of(logits, targets[batch].to(self._device))
                    _step(optimizer, loss)
                schedule.step()
                scores = _log_odds(
                    network.eval(), val_images, self._options.batch_size, self._device
                )
                figures = _figures(val_tumor, scores)
                if best is None or figures > best[0]:
                    best = figures, copy.deepcopy(network.state_dict())
                task.advance()
                task.note(f"val accuracy {figures[0]:.3f}  AUROC {figures[1]:.3f}")
        if best is None:
            raise QprdError("Training needs at least one epoch.", where="--epochs")
        network.load_state_dict(best[1])
        return network

    @property
    def _epochs(self) -> int:
        return _EPOCHS if self._options.epochs is None else self._options.epochs

    def _optimizer(
        self, network: Network
    ) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.CosineAnnealingLR]:
        random = self._options.network_weights == "none"
        default = _LR_FROM_RANDOM if random else _LR_FROM_IMAGENET
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=self._options.lr or default, weight_decay=_WEIGHT_DECAY
        )
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._epochs)

    def _batches(self, count: int) -> Iterator[Tensor]:
        """Numbers of patches in random order; batch normalization has no variance of one patch."""
        for batch in torch.randperm(count).split(self._options.batch_size):
            if len(batch) > 1:
                yield batch


class RankingClassifier(Classifier):
    """A classifier that learned to rank patches by how many cells they hold before."""

    def _start(self, train_images: Images) -> Network:
        options = self._options
        network = build_network(options.network, options.network_weights, 1).to(self._device)
        part_of = v2.RandomResizedCrop(
            train_images.shape[-1], scale=(_SMALLEST_PART, _LARGEST_PART), antialias=True
        )
        ranking = nn.MarginRankingLoss(margin=1.0)
        optimizer, schedule = self._optimizer(network)
        with training_progress().task("ranking", self._epochs) as task:
            for _ in range(self._epochs):
                network.train()
                for batch in self._batches(len(train_images)):
                    whole = augmented(torch.from_numpy(train_images[batch.numpy()]), jitter=False)
                    parts = torch.stack([part_of(image) for image in whole])
                    scores = network(torch.cat([whole, parts]).to(self._device)).squeeze(1)
                    of_whole, of_part = scores.chunk(2)
                    loss = ranking(of_whole, of_part, torch.ones_like(of_whole))
                    _step(optimizer, loss)
                schedule.step()
                task.advance()
        return network.with_new_head(2)


def augmented(images: Tensor, *, jitter: bool) -> Tensor:
    """Patches at one of 8 orientations each and, if wanted, with jittered colors.

    Random numbers come from torch's global generator.
    """
    color = v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.04)
    out = []
    for pixels in images:
        turned = torch.rot90(pixels, int(torch.randint(4, ())), (1, 2))
        flipped = turned.flip(2) if int(torch.randint(2, ())) else turned
        out.append(color(flipped) if jitter else flipped)
    return torch.stack(out)


@torch.inference_mode()
def _log_odds(network: Network, images: Images, batch_size: int, device: torch.device) -> Scores:
    scores = []
    for start in range(0, len(images), batch_size):
        logits = network(torch.from_numpy(images[start : start + batch_size]).to(device))
        scores.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
    return np.concatenate(scores).astype(np.float64)


def _figures(tumor: Labels, scores: Scores) -> tuple[float, float]:
    """Accuracy and AUROC on validation patches."""
    if not np.isfinite(scores).all():
        raise QprdError("The training diverged.", where="--lr", fix="Take a lower --lr.")
    threshold = accuracy_threshold(tumor, scores)
    return (0.0 if threshold is None else threshold.accuracy), auroc(tumor, scores) or 0.0


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
