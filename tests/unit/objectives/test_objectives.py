"""The losses equal an independent NumPy reference, alone and over several processes."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import ConfigError, RegistryError, ShapeError
from umif.models.umif import Features
from umif.objectives import alignment_loss, check_objectives, compute_losses, consistency_loss, gather_features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def numpy_alignment(f1: NDArray[Any], f0: NDArray[Any], temperature: float) -> float:
    """Eq. 1 term by term, with loops."""
    z = np.concatenate([f1, f0]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    pairs, total = len(f1), 0.0
    for a in range(2 * pairs):
        b = (a + pairs) % (2 * pairs)
        others = [np.exp(z[a] @ z[k] / temperature) for k in range(2 * pairs) if k != a]
        total += -np.log(np.exp(z[a] @ z[b] / temperature) / np.sum(others))
    return total / pairs


def numpy_consistency(t: NDArray[Any], f1: NDArray[Any], f0: NDArray[Any]) -> float:
    """Eq. 2 as the squared distance of unit vectors, which 2 − 2 cos is."""
    t, f1, f0 = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (t, f1, f0))
    return float(np.mean(((t - f0) ** 2).sum(1) + ((t - f1) ** 2).sum(1)))


@settings(max_examples=50, deadline=None)
@given(pairs=st.integers(1, 9), width=st.integers(2, 17), temperature=st.floats(0.05, 2.0), seed=st.integers(0, 10_000))
def test_losses_equal_the_numpy_reference(pairs: int, width: int, temperature: float, seed: int) -> None:
    f1, f0, t = np.random.default_rng(seed).normal(size=(3, pairs, width)) * 3
    as64 = [torch.from_numpy(x) for x in (f1, f0, t)]
    as32 = [x.float() for x in as64]
    align, con = numpy_alignment(f1, f0, temperature), numpy_consistency(t, f1, f0)
    # The contract is 1e-6 relative; one pair alone has loss 0, compared absolutely.
    assert alignment_loss(as64[0], as64[1], temperature).item() == pytest.approx(align, rel=1e-6, abs=1e-9)
    assert consistency_loss(as64[2], as64[0], as64[1]).item() == pytest.approx(con, rel=1e-6)
    # fp32 rounds similarities at 6e-8, which a temperature of 0.05 multiplies by 20.
    assert alignment_loss(as32[0], as32[1], temperature).item() == pytest.approx(align, rel=1e-5, abs=1e-5)
    assert consistency_loss(as32[2], as32[0], as32[1]).item() == pytest.approx(con, rel=1e-5)


def test_losses_are_fp32_whatever_the_features_precision() -> None:
    f = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = compute_losses(Features(f, f.flip(0), f), {"align": {}, "con": {}})
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    exact = alignment_loss(f.float(), f.flip(0).float(), 0.1)
    torch.testing.assert_close(losses["align"], exact, rtol=1e-6, atol=0)


def test_the_teacher_gets_no_gradient() -> None:
    t, f1, f0 = (torch.randn(3, 4, requires_grad=True) for _ in range(3))
    consistency_loss(t, f1, f0).backward()
    assert t.grad is None
    assert f1.grad is not None


def test_weights_scale_the_total_only() -> None:
    f = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    features = Features(f, f.flip(0), f)
    losses = compute_losses(features, {"align": {"weight": 2.0, "temperature": 0.3}, "con": {"weight": 0.5}})
    torch.testing.assert_close(losses["total"], 2 * losses["align"] + 0.5 * losses["con"])
    torch.testing.assert_close(losses["align"], alignment_loss(f, f.flip(0), 0.3))


def test_misspelt_objectives_and_arguments_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(RegistryError, match="'align'"):
        check_objectives({"aling": {}})
    with pytest.raises(ConfigError, match="'temperature'"):
        check_objectives({"align": {"temprature": 0.1}})
    with pytest.raises(ConfigError, match="no objective"):
        check_objectives({})


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError):
        alignment_loss(torch.zeros(2, 3), torch.zeros(3, 3), 0.1)
    with pytest.raises(ShapeError):
        consistency_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="positive"):
        alignment_loss(torch.ones(2, 3), torch.ones(2, 3), 0.0)


def global_features() -> torch.Tensor:
    return torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def process(rank: int, shares: list[list[int]], file: str, queue: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=len(shares))
    f1, f0, t = (x[shares[rank]].clone().requires_grad_() for x in global_features())
    features = gather_features(Features(f1, f0, t.detach()), torch.tensor(shares[rank], dtype=torch.int64))
    total = compute_losses(features, {"align": {}, "con": {}})["total"]
    total.backward()
    assert f1.grad is not None
    assert f0.grad is not None
    queue.put((rank, total.item(), f1.grad.numpy(), f0.grad.numpy()))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "shares",
    [[[0, 2, 4, 6], [1, 3, 5, 7]], [[0, 1, 2], [3], [4, 5, 6, 7], []], [[7, 0], [6, 1], [5, 2], [4, 3]]],
    ids=["2 processes", "4 uneven processes", "4 processes"],
)
def test_several_processes_give_the_loss_and_gradients_of_one(shares: list[list[int]], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=process, args=(rank, shares, str(tmp_path / "rendezvous"), queue))
        for rank in range(len(shares))
    ]
    for worker in workers:
        worker.start()
    results = {rank: rest for rank, *rest in (queue.get(timeout=120) for _ in workers)}
    for worker in workers:
        worker.join()
    f1, f0, t = (x.clone().requires_grad_() for x in global_features())
    total = compute_losses(Features(f1, f0, t.detach()), {"align": {}, "con": {}})["total"]
    total.backward()
    for rank, share in enumerate(shares):
        value, grad1, grad0 = results[rank]
        # fp64 and the same order of rows: only the reduction order of gloo-free arithmetic is left.
        assert value == pytest.approx(total.item(), rel=1e-12)
        np.testing.assert_allclose(grad1, f1.grad[share].numpy(), rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(grad0, f0.grad[share].numpy(), rtol=1e-9, atol=1e-14)
