from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qprd.model.assembly import build_network
from qprd.model.frd import FRD
from qprd.model.inference import for_inference
from qprd.model.matrix_convolution import MatrixConvolution, pays
from qprd.model.teacher import build_teacher


@settings(deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    bias=st.booleans(),
)
def test_it_is_the_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
    bias: bool,
) -> None:
    conv = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias)
    x = torch.rand(2, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = conv(x), MatrixConvolution.of(conv)(x)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_it_leaves_lower_precision_to_pytorch() -> None:
    conv = nn.Conv2d(3, 5, 3)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(MatrixConvolution.of(conv)(x), conv(x), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect"}])
def test_it_is_for_plain_convolutions_with_large_weights(options: dict[str, object]) -> None:
    with torch.device("meta"):
        large = nn.Conv2d(1024, 1024, 3)
    assert not pays(large)  # not on a CPU
    assert pays(nn.Conv2d(1024, 1024, 3))
    assert not pays(nn.Conv2d(1024, 1024, 1))
    assert not pays(nn.Conv2d(1024, 2048, 3, **options))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_papers_network_has_some() -> None:
    model = build_network(FRD, build_teacher("wide_resnet50_2", pretrained=False), 0)
    folded = for_inference(model)
    assert sum(isinstance(module, MatrixConvolution) for module in folded.modules()) == 4
