from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qprd.errors import QprdError
from qprd.model.depth_maps import DepthMaps, chosen_layers, create_any_size, require_maps


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm", reason="the extra 'timm' is not installed")


def noise(edge: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, edge, edge, generator=torch.manual_seed(0))


def block_outputs(model: Any, blocks: nn.Module, images: Tensor) -> list[Tensor]:
    """What each block gives in the network's own forward pass."""
    found: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _module, _args, output: found.append(output))
        for block in blocks.children()
    ]
    with torch.no_grad():
        model.forward_features(images)
    for handle in handles:
        handle.remove()
    return found


#: Registers, SwiGLU and layer scale as the large networks have them, in the smallest size.
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "class token, patch 16": ("test_vit", {}),
    "patch 8": ("test_vit", {"patch_size": 8, "img_size": 64}),
    "patch 14, registers, layer scale": (
        "test_vit",
        {
            "patch_size": 14,
            "img_size": 70,
            "reg_tokens": 4,
            "init_values": 1e-5,
            "no_embed_class": True,
        },
    ),
    "SwiGLU": ("test_vit", {"swiglu": True, "mlp_ratio": 5.0}),
    "rotary positions": ("eva02_tiny_patch14_224", {"depth": 4}),
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("edge", [56, 112, 128])
def test_maps_are_the_tokens_after_the_chosen_blocks(
    timm: ModuleType, kind: str, edge: int
) -> None:
    architecture, given = PLAIN[kind]
    arguments = dict(given)
    if arguments.pop("swiglu", False):
        arguments |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    model: Any = create_any_size(timm, architecture, arguments).eval()
    token = model.patch_embed.patch_size[0]
    side = -(-edge // token)
    images = noise(edge)
    enlarged = functional.interpolate(
        images, (side * token, side * token), mode="bilinear", align_corners=False
    )
    expected = [
        tokens[:, -side * side :].mT.unflatten(2, (side, side))
        for tokens in block_outputs(model, model.blocks, enlarged)
    ]
    maps = DepthMaps(model, (1, 3))
    found = maps(images)
    assert [f.shape[1:] for f in found] == [(n, side, side) for n in maps.channels]
    for f, n in zip(found, maps.layers, strict=True):
        torch.testing.assert_close(f, expected[n - 1])


def test_maps_of_swin_are_its_stages_at_their_strides(timm: ModuleType) -> None:
    arguments = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
    model: Any = create_any_size(timm, "swin_tiny_patch4_window7_224", arguments).eval()
    images = noise(128)
    expected = [f.permute(0, 3, 1, 2) for f in block_outputs(model, model.layers, images)]
    maps = DepthMaps(model, chosen_layers(model, None, "swin"))
    assert (maps.layers, maps.channels, maps.strides) == ((1, 2, 3), (16, 32, 64), (4, 8, 16))
    for f, wanted in zip(maps(images), expected[:3], strict=True):
        torch.testing.assert_close(f, wanted)


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(12, (2, 4, 6, 8)), (40, (6, 13, 20, 27)), (6, (1, 2, 3, 4)), (2, (1,))],
)
def test_layers_are_evenly_spaced_unless_they_are_given(
    blocks: int, expected: tuple[int, ...]
) -> None:
    model: Any = nn.Module()
    model.feature_info = [{"reduction": 16, "num_chs": 8} for _ in range(blocks)]
    assert chosen_layers(model, None, "x") == expected
    assert chosen_layers(model, (1, 2), "x") == (1, 2)
    for wrong in ((0, 1), (2, 1), (1, 1), (1, blocks + 1), ()):
        with pytest.raises(QprdError, match="no such layers"):
            chosen_layers(model, wrong, "x")


@pytest.mark.parametrize("edge", [128, 224])
def test_a_fixed_size_changes_no_map(timm: ModuleType, edge: int) -> None:
    maps = DepthMaps(create_any_size(timm, "test_vit", {"patch_size": 14, "img_size": 70}), (2, 6))
    nn.init.normal_(maps.model.get_parameter("pos_embed"))
    images = noise(edge)
    expected = maps.eval()(images)
    maps.fix_size(edge)
    for f, wanted in zip(maps(images), expected, strict=True):
        torch.testing.assert_close(f, wanted)


def test_a_network_of_one_size_is_refused(timm: ModuleType) -> None:
    model = create_any_size(timm, "convit_tiny", {"depth": 2, "local_up_to_layer": 1})
    with pytest.raises(QprdError, match="images of any size"):
        require_maps(DepthMaps(model, (1, 2)), "timm:convit_tiny")
