from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from qprd.model.assembly import MODELS, build_network
from qprd.model.discriminant import Discriminant
from qprd.model.frd import FRD, StandardizedFRD
from qprd.model.inference import faster_teacher, for_inference
from qprd.model.network import Network
from qprd.model.teacher import build_teacher
from qprd.settings import ModelKind


def with_lived_in_norms(teacher: str, kind: ModelKind = "frd") -> Network:
    """A model whose batch norms are not those of the initialization, where folding is nothing."""
    if teacher not in ("resnet18", "resnet50"):
        pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    model = build_network(MODELS[kind], build_teacher(teacher, pretrained=False), 0)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=generator) / 10)
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
            module.bias.data.copy_(torch.randn(shape, generator=generator) / 10)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def scores(model: Network, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.score_maps(images)


@pytest.mark.parametrize(
    ("teacher", "kind"),
    [
        ("resnet18", "frd"),
        ("resnet50", "standardized_frd"),
        ("efficientnet_lite0", "discriminant"),
        ("timm:mobilenetv3_small_050", "frd"),
    ],
)
def test_it_gives_the_scores_of_the_plain_modules_without_any_batch_norm(
    teacher: str, kind: ModelKind
) -> None:
    model = with_lived_in_norms(teacher, kind)
    if isinstance(model, Discriminant):
        for weights in model.head.buffers():
            weights.fill_(0.001)
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    expected = scores(model, images)
    folded = for_inference(model)
    assert norms(folded) == 0
    assert float((scores(folded, images) - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 1e-3


def test_the_model_itself_stays_as_it_is() -> None:
    model = with_lived_in_norms("resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for_inference(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(model, FRD)
    assert all(parameter.requires_grad for parameter in model.trainable_parameters())


def test_a_faster_teacher_can_take_part_in_a_training() -> None:
    model = with_lived_in_norms("resnet18")
    assert isinstance(model, FRD)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected, sha256 = model.teacher(images), model.teacher.weights_sha256
    model.teacher = faster_teacher(model.teacher)
    assert norms(model.teacher) == 0
    assert model.teacher.weights_sha256 == sha256
    for found, wanted in zip(model.teacher(images), expected, strict=True):
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
    teacher_maps, student_maps = model.train()(images)
    sum(m.mean() for m in student_maps).backward()
    assert not any(m.requires_grad for m in teacher_maps)
    assert all(parameter.grad is not None for parameter in model.trainable_parameters())


class TwiceUsed(nn.Module):
    """A teacher's trunk whose convolutions also feed something else than their batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, 1, stride=s) for s in (4, 8, 16))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [conv(x) for conv in self.convs]
        return [norm(f) + f for norm, f in zip(self.norms, maps, strict=True)]


def test_nothing_is_folded_where_folding_would_change_the_maps() -> None:
    model = with_lived_in_norms("resnet18")
    model.teacher.trunk = TwiceUsed()
    model.teacher.channels = (8, 8, 8)
    model = build_network(StandardizedFRD, model.teacher, 0).eval()
    for norm in model.teacher.trunk.norms:  # type: ignore[union-attr]
        norm.running_mean.fill_(3.0)
    images = torch.rand(1, 3, 64, 64)
    folded = for_inference(model)
    assert norms(folded) == norms(model)
    torch.testing.assert_close(scores(folded, images), scores(model, images))


@pytest.mark.parametrize("kind", ["discriminant", "frd"])
def test_a_transformer_is_shared_with_the_model_not_copied(kind: ModelKind) -> None:
    pytest.importorskip("timm", reason="the extra 'timm' is not installed")
    model = build_network(MODELS[kind], build_teacher("timm:test_vit", pretrained=False), 0).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected = scores(model, images)
    fast = for_inference(model)
    assert fast.teacher is not model.teacher
    assert fast.teacher.trunk is model.teacher.trunk
    torch.testing.assert_close(scores(fast, images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores(model, images), expected)
