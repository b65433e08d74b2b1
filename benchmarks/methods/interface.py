"""The interface of a method: something that is fitted to patches and scores patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]
MemoryScore = Literal["max", "mean"]


class Method(Protocol):
    """Fitted once per seed, on training and validation patches; it never sees a test label."""

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,
        val_tumor: Labels,
        *,
        seed: int,
    ) -> None:
        """Learn from labeled patches.

        Args:
            train_images: (N, 3, P, P) RGB, P a multiple of 32.
            train_tumor: (N,).
            val_images: (M, 3, P, P); may choose an epoch or the like.
            val_tumor: (M,).
            seed: All randomness comes from it.
        """
        ...

    def score(self, images: Images) -> Scores:
        """How much each patch is like tumor, in any unit: (N,) finite."""
        ...


@dataclass(frozen=True)
class MethodOptions:
    """Settings of all methods; each takes those that concern it.

    Attributes:
        teacher: Frozen network of rd, frd, linear and memory.
        teacher_weights: Its weights on disk; None: the published ones.
        network: Network that classifier and ranking fine-tune.
        network_weights: ``imagenet`` (published weights), ``none`` (random) or a file.
        epochs: None: each method's own default.
        batch_size: Patches a step.
        lr: Learning rate; None: each method's own default.
        augment: Flips and quarter turns for rd, frd, classifier and ranking, and jittered colors
            for the last two.
        stains: Other stains in the training of ``frd --recipe best``: none, those of qprd, or
            jittered amounts of hematoxylin, eosin and DAB.
        standardized: Whether ``frd --recipe best`` standardizes features robustly over the patches
            that are scored at once, as if over a slide's own tissue.
        alpha: Focal weight of normal patches for frd, or ``auto``.
        gamma: Focal exponent for frd.
        similarity: One cosine a patch or one a location, for rd and frd.
        coreset: Share of the memory that the greedy coreset keeps; 1 keeps all.
        memory_vectors: Most vectors that the memory takes in, before the coreset.
        memory_score: How distances of locations become the score of a patch.
        device: ``auto``, ``cpu``, ``cuda``, ...
        threads: CPU threads.
    """

    teacher: str = "efficientnet_lite0"
    teacher_weights: str | None = None
    network: str = "efficientnet_lite0"
    network_weights: str = "imagenet"
    epochs: int | None = None
    batch_size: int = 32
    lr: float | None = None
    augment: bool = True
    stains: Literal["none", "qprd", "hed"] = "qprd"
    standardized: bool = False
    alpha: float | Literal["auto"] = 0.1
    gamma: float = 2.0
    similarity: Literal["image", "location"] = "image"
    coreset: float = 1.0
    memory_vectors: int = 30_000
    memory_score: MemoryScore = "max"
    device: str = "auto"
    threads: int = 1
