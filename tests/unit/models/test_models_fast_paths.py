"""Every fast way through the model gives the numbers of the padded fp32 reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor  # torch reads the operators' annotations
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from model_cases import BATCHES, SMALL, SPEC
from umif.models import ModelConfig, Segments, UmiF, build_model
from umif.models import attention as attention_module
from umif.models import umif as umif_module
from umif.models.attention import cls_attention, padded_attention, padded_cls_attention, segment_attention
from umif.models.packed import Execution
from umif.models.umif import fill_up
from umif.objectives import compute_losses
from umif.train.optim import build_optimizer, clip_gradients
from umif.train.recipe import OptimConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.tokens.batch import Batch

# torch says this of tensors that its own tracer makes.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
# (packing, execution) of every way; compiled by a backend that needs no compiler of C++.
WAYS: dict[str, tuple[str, Execution]] = {
    "gathered": ("gathered", Execution()),
    "packed": ("packed", Execution()),
    "every row": ("packed", Execution(every_row=True)),
    "recompute": ("packed", Execution(recompute=True)),
    "compiled": ("packed", Execution(compile="aot_eager")),
    "compiled, recompute, every row": ("packed", Execution(recompute=True, compile="aot_eager", every_row=True)),
    "varlen": ("packed", Execution()),
    "varlen, compiled": ("packed", Execution(compile="aot_eager")),
}


def varlen_attn(
    q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor, max_q: int, max_k: int
) -> Tensor:
    """torch's `varlen_attn` by its definition, as one operator: what runs on CUDA, where there is none."""
    assert offsets_q.dtype == offsets_k.dtype == torch.int32
    # Rows beyond the last offset would get gradients that nobody wrote.
    torch._check(q.shape[0] > 0)
    out = _varlen(q, k, v, offsets_q, offsets_k, max_q, max_k)
    assert isinstance(out, Tensor)
    return out


def _masked(q: Tensor, k: Tensor, offsets_q: Tensor, offsets_k: Tensor) -> Tensor:
    """Softmax of the scores inside each segment. Shapes: (H, Tq, Tk)."""
    assert int(offsets_q[-1]) == len(q)
    assert int(offsets_k[-1]) == len(k)
    segment_q, segment_k = (
        torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff().long())
        for offsets in (offsets_q, offsets_k)
    )
    scores = torch.einsum("qhe,khe->hqk", q, k) * q.shape[-1] ** -0.5
    shares: Tensor = scores.masked_fill(segment_q[:, None] != segment_k, float("-inf")).softmax(-1)
    return shares


@torch.library.custom_op("umif_test::varlen", mutates_args=())
def _varlen(q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor, max_q: int, max_k: int) -> Tensor:
    assert int(offsets_q.diff().max()) <= max_q
    assert int(offsets_k.diff().max()) <= max_k
    return torch.einsum("hqk,khe->qhe", _masked(q, k, offsets_q, offsets_k), v).contiguous()


@_varlen.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor, max_q: int, max_k: int) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("umif_test::varlen_backward", mutates_args=())
def _varlen_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    shares = _masked(q, k, offsets_q, offsets_k)
    slope = torch.einsum("qhe,khe->hqk", grad, v)
    slope = shares * (slope - (slope * shares).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
    grad_q, grad_k = torch.einsum("hqk,khe->qhe", slope, k), torch.einsum("hqk,qhe->khe", slope, q)
    return grad_q.contiguous(), grad_k.contiguous(), torch.einsum("hqk,qhe->khe", shares, grad).contiguous()


@_varlen_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor) -> Any:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _grads(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*_varlen_backward(grad, *ctx.saved_tensors), None, None, None, None)


_varlen.register_autograd(_grads, setup_context=_setup)


@pytest.fixture
def cuda_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go the way of CUDA in half precision, with the definition in place of the kernel."""
    monkeypatch.setattr(Segments, "has_varlen", lambda self, dtype: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)


PLAIN = Execution()


def model_with(execution: Execution = PLAIN) -> UmiF:
    model = build_model(ModelConfig(**SMALL), seed=1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        # A teacher that differs from the student, so that mixing them up cannot go unnoticed.
        for parameter in model.teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return run_as(model, execution)


def run_as(model: UmiF, execution: Execution) -> UmiF:
    model.student.execution = model.teacher.execution = execution
    return model


def loss_and_gradients(model: UmiF, batch: Batch, packing: str) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    total = compute_losses(model(batch, packing=packing), SPEC)["total"]
    total.backward()
    return total.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def go(way: str, request: pytest.FixtureRequest) -> tuple[str, Execution]:
    if way.startswith("varlen"):
        request.getfixturevalue("cuda_path")
    # A graph that was made on one path must not serve the other.
    torch._dynamo.reset()
    return WAYS[way]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_equals_padded_in_loss_and_every_gradient(
    way: str, request: pytest.FixtureRequest, make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umif_module, "ROWS_MULTIPLE", 16)
    packing, execution = go(way, request)
    model = model_with()
    for name, kinds in BATCHES.items():
        batch = make_batch(kinds, seed=len(name))
        expected, references = loss_and_gradients(run_as(model, Execution()), batch, "padded")
        loss, gradients = loss_and_gradients(run_as(model, execution), batch, packing)
        # fp32: sums in another order; the contract is 1e-5 relative.
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        assert gradients.keys() == references.keys()
        scale = max(float(reference.norm()) for reference in references.values())
        for key, reference in references.items():
            distance = float((gradients[key] - reference).norm())
            assert distance <= 1e-5 * max(float(reference.norm()), 1e-2 * scale), (name, key)


@pytest.mark.parametrize("way", WAYS)
def test_ten_steps_of_training_end_where_padded_training_ends(
    way: str, request: pytest.FixtureRequest, make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umif_module, "ROWS_MULTIPLE", 16)
    packing, execution = go(way, request)
    batches = [make_batch(kinds, seed=seed) for seed, kinds in enumerate([*BATCHES.values()] * 2) if len(kinds) > 1]
    batches = [*batches, make_batch(BATCHES["all kinds"], seed=77), make_batch(BATCHES["all kinds"], seed=78)]
    assert len(batches) == 10
    expected = train(model_with(), batches, "padded")
    losses = train(model_with(execution), batches, packing)
    # AdamW divides by the gradient's own size, so rounding in gradients near zero grows from step to step.
    assert losses == pytest.approx(expected, rel=1e-3)
    assert expected[0] != pytest.approx(expected[-1], rel=1e-2)


def train(model: UmiF, batches: list[Batch], packing: str, *, bf16: bool = False) -> list[float]:
    # Its epsilon is what makes AdamW's step a smooth function of a gradient near zero.
    optimizer = build_optimizer(model, OptimConfig(lr=1e-4, eps=1e-6))
    losses = []
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            features = model(batch, packing=packing)
        loss = compute_losses(features, SPEC)["total"]
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(model, 1.0)
        optimizer.step()
        model.update_teacher(0.99)
        losses.append(float(loss.detach()))
    return losses


def test_bfloat16_training_stays_in_its_band(make_batch: Callable[..., Batch]) -> None:
    batches = [make_batch(BATCHES["all kinds"] * 2, seed=seed % 4) for seed in range(24)]
    exact = train(model_with(), batches, "packed")
    rough = train(model_with(), batches, "packed", bf16=True)
    assert exact[-1] < exact[0]
    # The band that docs/speed.md states: 2 % of the loss at every step.
    assert rough == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("way", ["recompute", "compiled", "compiled, recompute, every row"])
def test_ways_that_only_change_how_blocks_run_are_bitwise_the_same(
    way: str, request: pytest.FixtureRequest, make_batch: Callable[..., Batch]
) -> None:
    packing, execution = go(way, request)
    plain = Execution(every_row=execution.every_row)
    batch = make_batch(BATCHES["all kinds"])
    loss, gradients = loss_and_gradients(model_with(plain), batch, packing)
    again, others = loss_and_gradients(model_with(execution), batch, packing)
    assert torch.equal(loss, again)
    for key, gradient in gradients.items():
        # Products over a stream of other length may be summed in other blocks.
        torch.testing.assert_close(others[key], gradient, rtol=0, atol=0 if execution.compile is None else 1e-6)


def test_recomputing_comes_from_the_config_and_keeps_less(make_batch: Callable[..., Batch]) -> None:
    batch, kept = make_batch(BATCHES["all kinds"]), []
    for recompute in (False, True):
        model = build_model(ModelConfig(**SMALL, recompute=recompute))
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(batch)
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]


def test_two_hundred_steps_compile_at_most_four_times(
    make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umif_module, "ROWS_MULTIPLE", 16)
    torch._dynamo.reset()
    counters.clear()
    model = build_model(ModelConfig(**SMALL, compile="eager"))
    kinds, totals = BATCHES["all kinds"], set()
    for step in range(200):
        # Lengths change with every batch and, as after dropped samples, so does the number of pairs.
        batch = make_batch(kinds[: 3 + step % 4], seed=step)
        compute_losses(model(batch), SPEC)["total"].backward()
        totals.add(-(-(len(batch.full.rows_T) + 1) // 16))
    assert len(totals) > 5
    assert 1 <= counters["stats"]["unique_graphs"] <= 4
    assert not counters["graph_break"]


def test_the_hot_path_of_cuda_does_nothing_per_pair(cuda_path: None, make_batch: Callable[..., Batch]) -> None:
    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            assert "item" not in str(func)
            assert "_local_scalar_dense" not in str(func)
            return func(*args, **(kwargs or {}))

    model, calls = model_with(), []
    for pairs in (3, 12):
        batch = make_batch(["report", "segment", "class"] * (pairs // 3), seed=pairs)
        with Count() as count:
            compute_losses(model(batch), SPEC)["total"].backward()
        calls.append(count.calls)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("rows", [1, 15, 16, 17])
def test_a_stream_is_filled_up_with_one_segment_to_its_last_row(rows: int) -> None:
    filled, offsets = fill_up(torch.arange(5, 5 + rows), torch.tensor([0, rows], dtype=torch.int32), 16)
    assert len(filled) % 16 == 0
    assert filled[:rows].tolist() == list(range(5, 5 + rows))
    assert not filled[rows:].any()
    assert offsets.tolist() == [0, rows, len(filled)]
    assert rows < len(filled) <= rows + 16


def test_what_fills_a_stream_up_changes_nothing(make_batch: Callable[..., Batch]) -> None:
    batch, model = make_batch(BATCHES["all kinds"]), model_with().double()
    table = model.student.embed(batch).detach().requires_grad_()
    plain = model.student.encode_streams(table, (batch.full,))
    (expected,) = torch.autograd.grad(plain.square().sum(), table)
    torch._dynamo.reset()
    run_as(model, Execution(compile="eager"))
    filled = model.student.encode_streams(table, (batch.full,))
    (gradient,) = torch.autograd.grad(filled.square().sum(), table)
    assert filled.shape == plain.shape
    torch.testing.assert_close(filled, plain)
    torch.testing.assert_close(gradient, expected)


def test_the_padded_fallback_is_the_same_attention() -> None:
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(12, 3, 2, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    segments = Segments(torch.tensor([0, 5, 6, 12], dtype=torch.int32), 12)
    kv, q = qkv[:, 1:], qkv[segments.cls_S, 0]
    pairs = [
        (padded_attention(qkv, segments), segment_attention(qkv, segments)),
        (padded_cls_attention(q, kv, segments), cls_attention(q, kv, segments)),
    ]
    for slow, fast in pairs:
        torch.testing.assert_close(slow, fast)
        weight = torch.randn(slow.shape, generator=generator, dtype=torch.float64)
        gradients = [torch.autograd.grad((out * weight).sum(), qkv, retain_graph=True)[0] for out in (slow, fast)]
        torch.testing.assert_close(*gradients)


def test_our_operator_keeps_to_the_rules_of_torchs_registry() -> None:
    qkv = torch.randn(7, 3, 2, 8, requires_grad=True)
    offsets = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    torch.library.opcheck(attention_module._loop_attention, (qkv, offsets))


def test_torchs_own_varlen_attn_takes_what_we_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Shapes and types alone, on a device that need not be there: the real operator's own rules.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    with FakeTensorMode():
        qkv = torch.empty(10, 3, 2, 64, dtype=torch.bfloat16, device="cuda")
        segments = Segments(torch.empty(4, dtype=torch.int32, device="cuda"), 453)
        assert segments.one_operator(torch.bfloat16)
        assert not segments.one_operator(torch.float32)
        out = segment_attention(qkv, segments)
        single = cls_attention(qkv[segments.cls_S, 0], qkv[:, 1:], segments)
        assert (out.shape, out.device.type) == ((10, 2, 64), "cuda")
        assert single.shape == (3, 2, 64)
