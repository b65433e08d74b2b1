from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from qprd.errors import QprdError
from qprd.model.weights import load_strictly, read_state, state_sha256
from tests.helpers.runs_code import RunsCode


@pytest.mark.parametrize(
    "write", [torch.save, lambda o, p: Path(p).write_bytes(pickle.dumps(o, protocol=2))]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_file_with_code_is_refused_and_runs_none(
    tmp_path: Path, write: object, suffix: str
) -> None:
    path, marker = tmp_path / f"evil{suffix}", tmp_path / "code ran"
    write({"conv1.weight": RunsCode(marker)}, path)  # type: ignore[operator]
    with pytest.raises(QprdError, match="cannot be read as tensors") as caught:
        read_state(path)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not weights",
        b"PK\x03\x04 broken zip",
        b"slide,name,x,y\n1,a,2,3\n",
        b"<!DOCTYPE html>\n<html>",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_broken_weights_file_is_a_clear_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(QprdError, match="cannot be read as tensors"):
        read_state(path)


def test_missing_weights_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(QprdError, match="no such weights file"):
        read_state(tmp_path / "gone.pth")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(2)])
def test_file_without_a_state_dict_is_a_clear_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(QprdError, match="no state dict"):
        read_state(tmp_path / "other.pth")


def test_hash_depends_on_names_shapes_and_values_but_not_on_order_or_counters() -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    same = {"b": torch.ones(2, 2), "a": torch.arange(6.0), "n.num_batches_tracked": torch.tensor(3)}
    assert state_sha256(base) == state_sha256(same)
    others = [
        {"a": torch.arange(6.0), "c": torch.ones(2, 2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, 2)},
        {"a": torch.arange(6.0).double(), "b": torch.ones(2, 2)},
        {"a": torch.arange(6.0).flip(0), "b": torch.ones(2, 2)},
    ]
    assert len({state_sha256(base), *map(state_sha256, others)}) == 5


def test_hash_sees_values_not_memory_layout() -> None:
    tensor = torch.rand(4, 3, 5, 5)
    assert state_sha256({"a": tensor}) == state_sha256(
        {"a": tensor.to(memory_format=torch.channels_last)}
    )


def test_loading_needs_every_tensor_in_its_shape() -> None:
    module = torch.nn.Linear(2, 3)
    with pytest.raises(QprdError, match="lack 'bias'"):
        load_strictly(module, {"weight": torch.zeros(3, 2)}, "here")
    with pytest.raises(QprdError, match=r"shape \(2, 3\), not \(3, 2\)"):
        load_strictly(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, "here")
    load_strictly(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3), "x": torch.ones(1)}, "here")  # noqa: E501  # fmt: skip
    assert torch.equal(module.weight, torch.ones(3, 2))
