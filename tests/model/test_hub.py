from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from qprd import known_teachers
from qprd.errors import QprdError
from qprd.known_teachers import KNOWN_TEACHERS, KnownTeacher
from qprd.model.backbone import Backbone
from qprd.model.checkpoint_names import timm_names
from qprd.model.hub import cached_weights, hub_backbone, timm_network

GRAY = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TINY = KnownTeacher(
    "tiny", "lab/Tiny", "pytorch_model.bin", "test_vit", 0.3, GRAY, "MIT", gated=True, source="here"
)


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    return pytest.importorskip("timm", reason="the extra 'timm' is not installed")


@pytest.fixture
def hub(timm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, one small known teacher, and no network."""
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise AssertionError("nothing may be downloaded here")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(known_teachers, "KNOWN_TEACHERS", MappingProxyType({"tiny": TINY}))
    return tmp_path / "cache"


def put(hub: Path, repository: str, file: str, content: bytes | str) -> Path:
    """Put a file where the hub's own program would have put it."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    path = folder / "snapshots" / "abc" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc", encoding="ascii")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def network(timm: ModuleType, **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    made: nn.Module = timm.create_model("test_vit", num_classes=0, **arguments)
    return made


def saved(model: nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def build(timm: ModuleType, name: str, **given: Any) -> Backbone:
    options: dict[str, Any] = {
        "weights": None,
        "pretrained": True,
        "layers": None,
        "download": False,
    }
    return hub_backbone(timm, name, **{**options, **given})


@pytest.mark.parametrize("known", KNOWN_TEACHERS.values(), ids=list(KNOWN_TEACHERS))
def test_each_known_teacher_is_a_network_that_timm_builds(
    timm: ModuleType, known: KnownTeacher
) -> None:
    described = timm_network(timm, known)
    with torch.device("meta"):
        model = timm.create_model(
            described.architecture, pretrained=False, num_classes=0, **described.arguments
        )
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(
        known.millions, abs=0.06
    )
    assert known.patch_px % 32 == 0
    assert known.conditions.startswith(f"The weights of {known.name} are under the license")
    assert known.gated == (known.page in known.conditions)


def test_weights_are_found_in_the_cache_and_loaded_whole(timm: ModuleType, hub: Path) -> None:
    model = network(timm)
    assert cached_weights(TINY) is None
    path = put(hub, "lab/Tiny", "model.safetensors", b"")
    saved(model, path)
    assert cached_weights(TINY) == path
    backbone = build(timm, "tiny", layers=(2, 6))
    assert (backbone.mean, backbone.std) == GRAY
    assert (backbone.layers, backbone.sees_all, backbone.source) == (
        (2, 6),
        True,
        "hf-hub:lab/Tiny",
    )
    loaded = backbone.trunk.state_dict()
    assert set(loaded) <= {f"model.{name}" for name in model.state_dict()}
    for name, tensor in model.state_dict().items():
        if f"model.{name}" in loaded:
            assert torch.equal(loaded[f"model.{name}"], tensor), name
    assert build(timm, "hf-hub:LAB/tiny").mean == GRAY[0]


def test_weights_of_another_network_are_refused(
    timm: ModuleType, hub: Path, tmp_path: Path
) -> None:
    other = saved(network(timm, embed_dim=96), tmp_path / "other.safetensors")
    part = dict(network(timm).state_dict())
    del part["blocks.3.attn.qkv.weight"]
    save_file(part, tmp_path / "part.safetensors")
    for path in (other, tmp_path / "part.safetensors"):
        with pytest.raises(QprdError, match=r"shape|lack"):
            build(timm, "tiny", weights=path)


@pytest.mark.parametrize("name", ["tiny", "hf-hub:stranger/model"])
def test_a_bundle_makes_nothing_be_downloaded(timm: ModuleType, hub: Path, name: str) -> None:
    with pytest.raises(QprdError, match="nothing is downloaded because of a bundle") as caught:
        build(timm, name)
    assert "--weights FILE" in str(caught.value)
    assert ("license MIT" in str(caught.value)) == (name == "tiny")


def test_license_and_gate_are_told_before_a_download(
    timm: ModuleType,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def fetch(repository: str, file: str) -> str:
        assert "license MIT" in caplog.text
        assert "access must be requested at https://huggingface.co/lab/Tiny" in caplog.text
        asked.append((repository, file))
        if file == "pytorch_model.bin":
            raise EntryNotFoundError("no such file")
        return str(saved(network(timm), tmp_path / "fetched.safetensors"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    with caplog.at_level(logging.INFO):
        build(timm, "tiny", download=True)
    assert asked == [("lab/Tiny", "pytorch_model.bin"), ("lab/Tiny", "model.safetensors")]


def test_a_download_that_fails_names_the_ways_out(
    timm: ModuleType, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def fail(*_: object) -> str:
        raise OSError("403 Client Error.\nhttps://huggingface.co/secret")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(QprdError, match=r"could not be downloaded: 403 Client Error\.") as caught:
        build(timm, "tiny", download=True)
    assert "hf auth login" in str(caught.value)
    assert "--weights FILE" in str(caught.value)


def test_any_repository_of_timm_weights_can_be_a_teacher(timm: ModuleType, hub: Path) -> None:
    config = {
        "architecture": "test_vit",
        "model_args": {"img_size": 96, "num_classes": 7},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 7},
    }
    put(hub, "me/mine", "config.json", json.dumps(config))
    saved(network(timm, img_size=96), put(hub, "me/mine", "model.safetensors", b""))
    backbone = build(timm, "hf-hub:me/mine")
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert backbone.channels == (64,) * 4


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "no json",
        '{"architecture": "hf-hub:a/b", "pretrained_cfg": {"mean": [0,0,0], "std": [1,1,1]}}',
        '{"architecture": "test_vit", "pretrained_cfg": {"mean": [0, 0], "std": [1, 1, 1]}}',
        '{"architecture": "test_vit", "pretrained_cfg": {"mean": [0,0,0], "std": [1,1,0]}}',
        '{"architecture": ["test_vit"], "pretrained_cfg": {"mean": [0,0,0], "std": [1,1,1]}}',
    ],
)
def test_a_repository_of_something_else_is_refused(
    timm: ModuleType, hub: Path, config: str
) -> None:
    put(hub, "a/b", "config.json", config)
    with pytest.raises(QprdError, match="does not describe a network of timm"):
        build(timm, "hf-hub:a/b")


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:../..", "hf-hub:a/b/c"])
def test_what_is_no_repository_is_told(timm: ModuleType, hub: Path, name: str) -> None:
    with pytest.raises(QprdError, match="is no repository"):
        build(timm, name)


#: Names in transformers' files of a block, by timm's.
DINOV2 = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
VIT = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}


def in_transformers(state: Mapping[str, Tensor], of_block: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a timm network as the library transformers would save them."""
    found: dict[str, Tensor] = {"embeddings.mask_token": torch.zeros(1), "pooler.x": torch.zeros(1)}
    for name, tensor in state.items():
        stem, _, leaf = name.rpartition(".")
        if name.startswith("blocks."):
            _, number, part = stem.split(".", 2)
            inside = f"encoder.layer.{number}."
            if part == "attn.qkv":
                for third, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    found[f"{inside}attention.attention.{third}.{leaf}"] = piece.clone()
            elif leaf == "gamma":
                found[inside + of_block[f"{part}.gamma"]] = tensor
            else:
                found[f"{inside}{of_block.get(part, part)}.{leaf}"] = tensor
        elif name == "reg_token":
            found["embeddings.register_tokens"] = tensor
        else:
            found[OUTSIDE[name] if name in OUTSIDE else f"{OUTSIDE[stem]}.{leaf}"] = tensor
    return found


@pytest.mark.parametrize("prefix", ["", "vit."])
@pytest.mark.parametrize("of_block", [DINOV2, VIT], ids=["dinov2", "vit"])
@pytest.mark.parametrize("registers", [0, 4])
def test_names_of_transformers_become_those_of_timm(
    timm: ModuleType, prefix: str, of_block: dict[str, str], registers: int
) -> None:
    arguments: dict[str, Any] = {"init_values": 1e-5} if of_block is DINOV2 else {}
    if registers:
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    model = network(timm, **arguments)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    expected = {n: t for n, t in model.state_dict().items() if n != "fc_norm"}
    stored = in_transformers(expected, of_block)
    if registers:  # there the class token has a position of its own
        own = torch.randn(1, 1, expected["pos_embed"].shape[2])
        stored["embeddings.position_embeddings"] = torch.cat([own, expected["pos_embed"]], 1)
        stored["embeddings.cls_token"] = expected["cls_token"] - own
    found = timm_names({prefix + name: tensor for name, tensor in stored.items()}, "transformers")
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_swiglu_of_transformers_becomes_that_of_timm() -> None:
    stored = {f"encoder.layer.2.mlp.weights_{side}.bias": torch.ones(1) for side in ("in", "out")}
    assert set(timm_names(stored, "transformers")) == {
        "blocks.2.mlp.fc1.bias",
        "blocks.2.mlp.fc2.bias",
    }


def test_numbered_parts_of_tiatoolbox_become_a_resnet() -> None:
    from torchvision.models import resnet18

    model = resnet18()
    parts = nn.Sequential(*list(model.children())[:-2])
    stored = {f"feat_extract.{name}": tensor for name, tensor in parts.state_dict().items()}
    found = timm_names({**stored, "classifier.weight": torch.ones(1)}, "tiatoolbox")
    expected = {n: t for n, t in model.state_dict().items() if not n.startswith("fc.")}
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_file_that_was_renamed_before_stays_as_it_is(timm: ModuleType) -> None:
    state = network(timm).state_dict()
    assert timm_names(state, "transformers") == dict(state)
