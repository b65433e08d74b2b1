"""Nearest-neighbor memory of normal tissue, after PatchCore.

Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022. As there: maps of
the second and the third scale, each averaged over 3 x 3 locations, the coarser one upsampled to
the finer one and concatenated; every location of every normal training patch is a vector of the
memory; a greedy k-center coreset (on a random projection to 128 dimensions) may thin it out; a
location's score is the distance to its nearest neighbor; a patch's score is the maximum over its
locations, without the paper's re-weighting, which its published code leaves out too. Ours are two
things: a memory with more than `memory_vectors` vectors takes a random part of them, and
``--memory-score mean`` averages over the locations, because tumor fills its patches and industrial
defects do not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from methods.interface import Images, Labels, MethodOptions, Scores
from methods.teachers import teacher_maps, teacher_of
from qprd.errors import QprdError
from qprd.model.frd import student_scales

_NEIGHBORHOOD = 3
_PROJECTED = 128
#: Queries compared with the memory at once: 120 MiB of distances to 30000 vectors.
_QUERIES = 1024


class NormalMemory:
    """Distances to what normal tissue looks like; tumor patches have no effect."""

    def __init__(self, options: MethodOptions) -> None:
        if not 0 < options.coreset <= 1:
            raise QprdError(f"{options.coreset:g} is no share above 0.", where="--coreset")
        self._options = options
        self._teacher = teacher_of(options)
        self._scales = student_scales(self._teacher.strides)[-2:]
        self._memory = torch.empty(0)

    def fit(
        self,
        train_images: Images,
        train_tumor: Labels,
        val_images: Images,  # noqa: ARG002
        val_tumor: Labels,  # noqa: ARG002
        *,
        seed: int,
    ) -> None:
        """See `methods.interface.Method`; validation patches have no effect."""
        normal = train_images[~train_tumor]
        memory = self._collect(normal, seed)
        if self._options.coreset < 1:
            count = max(1, round(self._options.coreset * len(memory)))
            memory = memory[greedy_coreset(memory, count, seed)]
        self._memory = memory

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Maximum or mean over the locations of the distance to the nearest neighbor."""
        scores = []
        for maps in teacher_maps(self._teacher, images):
            vectors = location_vectors(self._chosen(maps))
            distances = nearest_distances(vectors.flatten(0, 1), self._memory)
            by_patch = distances.view(vectors.shape[:2])
            chosen = by_patch.amax(1) if self._options.memory_score == "max" else by_patch.mean(1)
            scores.append(chosen.cpu().numpy())
        return np.concatenate(scores).astype(np.float64)

    def _chosen(self, maps: list[Tensor]) -> list[Tensor]:
        """The second and the third scale."""
        return [maps[scale] for scale in self._scales]

    @torch.inference_mode()
    def _collect(self, images: Images, seed: int) -> Tensor:
        """All vectors of the images, or a random part of them, never holding more than that."""
        locations = (images.shape[-1] // 8) ** 2
        count = min(self._options.memory_vectors, len(images) * locations)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(images) * locations, generator=generator)[:count].sort().values
        parts, first = [], 0
        for maps in teacher_maps(self._teacher, images):
            vectors = location_vectors(self._chosen(maps)).flatten(0, 1)
            own = chosen[(chosen >= first) & (chosen < first + len(vectors))] - first
            parts.append(vectors[own.to(vectors.device)])
            first += len(vectors)
        return torch.cat(parts)


def location_vectors(maps: list[Tensor]) -> Tensor:
    """Locally averaged vectors of the finer of two maps' locations: (N, h * w, C2 + C3)."""
    fine, coarse = (
        functional.avg_pool2d(
            m, _NEIGHBORHOOD, stride=1, padding=_NEIGHBORHOOD // 2, count_include_pad=False
        )
        for m in maps
    )
    size = (fine.shape[2], fine.shape[3])
    coarse = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.cat([fine, coarse], 1).flatten(2).transpose(1, 2)


def nearest_distances(queries: Tensor, memory: Tensor) -> Tensor:
    """Euclidean distance of each query (Q, C) to the nearest row of a memory (M, C): (Q,)."""
    return torch.cat([torch.cdist(part, memory).amin(1) for part in queries.split(_QUERIES)])


def greedy_coreset(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Numbers of ``count`` vectors such that no vector is far from all of them.

    Greedy k-center: each time the vector farthest from those chosen before, the first at random.
    """
    generator = torch.Generator().manual_seed(seed)
    projected = vectors
    if vectors.shape[1] > _PROJECTED:
        projection = torch.randn(vectors.shape[1], _PROJECTED, generator=generator)
        projected = vectors @ projection.to(vectors.device)
    newest = int(torch.randint(len(vectors), (1,), generator=generator))
    chosen = [newest]
    distances = torch.full((len(vectors),), torch.inf, device=vectors.device)
    while len(chosen) < count:
        to_newest = (projected - projected[newest]).square().sum(1)
        distances = torch.minimum(distances, to_newest)
        newest = int(distances.argmax())
        chosen.append(newest)
    return torch.tensor(chosen)
