"""What a checkpoint holds comes back bit for bit, and other tools read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from umif.errors import CheckpointError, RunError
from umif.train.checkpoint import (
    MANIFEST,
    _sealed,
    latest_checkpoint,
    load_state,
    load_tensors,
    safetensors_chunks,
    save_checkpoint,
    verify_checkpoint,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_every_type_and_shape_comes_back_as_it_was(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "half": torch.randn(3, 5, generator=generator).to(torch.bfloat16),
        "single": torch.randn(2, 3, 4, generator=generator),
        "double": torch.randn(7, generator=generator, dtype=torch.float64),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "long": torch.arange(3),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(4, 6, generator=generator).T,
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    }
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"".join(bytes(chunk) for chunk in safetensors_chunks(tensors)))
    # The library that defines the format is the independent reference.
    loaded = load_file(file)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (loaded[name], tensor)]
        assert torch.equal(*raw)


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"model": {"a": torch.arange(6.0), "b": torch.ones(2, 2)}}
    first = save_checkpoint(tmp_path / "1", 3, tensors, {"loss": 0.1, "step": 3})
    turned = {"model": dict(reversed(tensors["model"].items()))}
    second = save_checkpoint(tmp_path / "2", 3, turned, {"step": 3, "loss": 0.1})
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_floats_of_the_state_keep_every_bit(tmp_path: Path) -> None:
    value = 0.1 + 2**-55
    path = save_checkpoint(tmp_path, 1, {"model": {}}, {"x": value, "text": "µ"})
    assert load_state(path) == {"x": value, "text": "µ"}


def test_the_newest_are_kept_and_the_newest_of_all_is_found(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 10, 100_000_000, 15):
        save_checkpoint(tmp_path, step, {"model": {"a": torch.tensor([step])}}, {}, keep=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000010", "step-00000015", "step-100000000"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert load_tensors(newest)["a"].item() == 100_000_000


def test_a_newer_format_is_refused_but_not_set_aside(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"model": {}}, {})
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest.pop("sha256")
    (path / MANIFEST).write_bytes(_sealed({**manifest, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        verify_checkpoint(path)
    with pytest.raises(RunError, match="newer UmiF"):
        latest_checkpoint(tmp_path, set_aside=True)
    assert path.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"model": {}}, {})
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors"):
        load_tensors(path, "optimizer")
    (path / "state.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"state\.json: holds no JSON object"):
        load_state(path)
