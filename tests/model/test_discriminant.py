from __future__ import annotations

import numpy as np
import pytest
import torch

from qprd.model.anomaly import smooth
from qprd.model.assembly import build_network
from qprd.model.discriminant import Discriminant, DiscriminantHead, moments
from qprd.model.fisher import LinearClassifier
from qprd.model.teacher import build_teacher


@pytest.mark.parametrize("channels", [(3,), (2, 3, 5, 5)])
def test_the_mean_of_the_locations_is_the_decision_on_the_pooled_maps(
    channels: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [
        3 * torch.randn((4, count, edge, 2 * edge), generator=generator) + 1
        for count, edge in zip(channels, (16, 8, 4, 4), strict=False)
    ]
    random = np.random.default_rng(0)
    classifier = LinearClassifier(random.normal(size=2 * sum(channels)), 0.7)
    head = DiscriminantHead(channels)
    head.set(classifier)
    found = torch.stack([scores.mean((1, 2)) for scores in head(maps)]).sum(0)
    assert found.numpy() == pytest.approx(classifier(moments(maps)), rel=1e-4, abs=1e-4)


def test_the_mean_of_the_score_map_is_the_mean_decision_on_an_image_and_its_transpose() -> None:
    model = build_network(Discriminant, build_teacher("resnet18", pretrained=False), 0)
    random = np.random.default_rng(0)
    n_features = 2 * sum(model.teacher.channels)
    classifier = LinearClassifier(random.normal(size=n_features) / n_features, -0.2)
    model.head.set(classifier)
    images = torch.rand((3, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    found = smooth(model.score_maps(images)).mean((1, 2)).numpy()
    views = [classifier(moments(model.score_parts(view))) for view in (images, images.mT)]
    assert np.std(found) > 0
    assert found == pytest.approx(np.mean(views, axis=0), rel=1e-4, abs=1e-5)
