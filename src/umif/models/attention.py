"""Attention inside each segment of a packed stream: one function, the fastest exact kernel of each device behind it.

Why so (figures in docs/speed.md): padding a batch of ragged groups to its longest member wastes up to half of the
arithmetic. All linear parts of a ViT do not care where a segment ends, so they run on the stream as it is; only
attention must stay inside a segment.

* CPU: one operator that loops over runs of equally long segments with torch's CPU flash kernel. Slicing the stream per
  segment instead would make autograd write a full-size zero gradient per slice. It is an operator of torch's own
  registry, so that `torch.compile` takes it as one node and never sees the lengths.
* CUDA, half precision, Ampere or later: `varlen_attn` (flash kernels) reads the offsets itself; nothing waits for the
  device and nothing is done per pair.
* Anything else: segments are gathered into a padded block with a key mask.

Shape legend: T rows of the stream, S segments, H heads, E width of a head, L longest segment.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_HALF = (torch.bfloat16, torch.float16)


class Segments:
    """Where the segments of a packed stream lie, in the forms that the kernels need.

    `max_length` is a bound that does not change from batch to batch, since CUDA kernels compile per value.
    """

    def __init__(self, offsets_S1: Tensor, max_length: int) -> None:
        self.offsets_S1 = offsets_S1
        self.max_length = max_length
        device = offsets_S1.device
        # Flash kernels need Ampere or later.
        self._flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        self._lengths: list[int] | None = None

    @property
    def cls_S(self) -> Tensor:
        """Row of each segment's CLS token: its first. Shape (S,), int64."""
        return self.offsets_S1[:-1].long()

    @property
    def lengths(self) -> list[int]:
        """Length of each segment; reading it waits for the device, so CUDA's fast path never does."""
        if self._lengths is None:
            self._lengths = (self.offsets_S1[1:] - self.offsets_S1[:-1]).tolist()
        return self._lengths

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """(first row, number of segments, length of each) of every run of neighbours that are equally long."""
        return _runs(self.lengths)

    def has_varlen(self, dtype: torch.dtype) -> bool:
        """Whether `varlen_attn`'s flash kernels take tensors of `dtype` on the segments' device."""
        return self._flash and dtype in _HALF

    def one_operator(self, dtype: torch.dtype) -> bool:
        """Whether `segment_attention` of tensors of `dtype` is one operator, whatever the lengths."""
        return self.offsets_S1.device.type == "cpu" or self.has_varlen(dtype)

    def padded(self, length: int | None = None) -> tuple[Tensor, Tensor]:
        """Rows of a block padded to `length` or to the longest segment, and which of them are real.

        Shapes: (S, L) int64 and bool; padding reads row 0.
        """
        lengths = torch.tensor(self.lengths, device=self.offsets_S1.device)
        position_L = torch.arange(length or int(lengths.max()), device=lengths.device)
        real_SL = position_L < lengths[:, None]
        rows_SL = torch.where(real_SL, self.offsets_S1[:-1, None].long() + position_L, 0)
        return rows_SL, real_SL


def _runs(lengths: list[int]) -> list[tuple[int, int, int]]:
    runs, row = [], 0
    for length, run in groupby(lengths):
        count = len(list(run))
        if length:  # the kernel divides by it
            runs.append((row, count, length))
        row += count * length
    return runs


def _runs_of(offsets_S1: Tensor) -> list[tuple[int, int, int]]:
    return _runs([stop - start for start, stop in pairwise(offsets_S1.tolist())])


def _heads(qkv_T3HE: Tensor, start: int, count: int, length: int) -> tuple[Tensor, ...]:
    """Queries, keys and values of a run, as the kernel wants them. Shapes: views (count, H, length, E)."""
    _, _, heads, width = qkv_T3HE.shape
    run = qkv_T3HE[start : start + count * length].view(count, length, 3, heads, width)
    return run.permute(2, 0, 3, 1, 4).unbind(0)


@torch.library.custom_op("umif::segment_attention_cpu", mutates_args=(), device_types="cpu")
def _loop_attention(qkv_T3HE: Tensor, offsets_S1: Tensor) -> tuple[Tensor, Tensor]:
    """Self-attention of every segment with the CPU flash kernel, and the logarithms of its sums, run after run.

    Shapes: returns (T, H, E) and (T·H,).
    """
    rows, _, heads, width = qkv_T3HE.shape
    out_THE = qkv_T3HE.new_empty(rows, heads, width)
    logsumexp_X = qkv_T3HE.new_empty(rows * heads)
    for start, count, length in _runs_of(offsets_S1):
        stop = start + count * length
        out, logsumexp = _FLASH(*_heads(qkv_T3HE, start, count, length), 0.0, False)
        out_THE[start:stop].view(count, length, heads, width).copy_(out.transpose(1, 2))
        logsumexp_X[start * heads : stop * heads].view(count, heads, length).copy_(logsumexp)
    return out_THE, logsumexp_X


@_loop_attention.register_fake
def _(qkv_T3HE: Tensor, offsets_S1: Tensor) -> tuple[Tensor, Tensor]:
    rows, _, heads, width = qkv_T3HE.shape
    return qkv_T3HE.new_empty(rows, heads, width), qkv_T3HE.new_empty(rows * heads)


@torch.library.custom_op("umif::segment_attention_cpu_backward", mutates_args=(), device_types="cpu")
def _loop_attention_backward(
    grad_THE: Tensor, qkv_T3HE: Tensor, out_THE: Tensor, logsumexp_X: Tensor, offsets_S1: Tensor
) -> Tensor:
    _, _, heads, width = qkv_T3HE.shape
    grad_THE = grad_THE.contiguous()
    grad_T3HE = torch.empty_like(qkv_T3HE)
    for start, count, length in _runs_of(offsets_S1):
        rows, shape = slice(start, start + count * length), (count, length, heads, width)
        grad, out = grad_THE[rows].view(shape).transpose(1, 2), out_THE[rows].view(shape).transpose(1, 2)
        sums = logsumexp_X[start * heads : rows.stop * heads].view(count, heads, length)
        parts = _FLASH_BACKWARD(grad, *_heads(qkv_T3HE, start, count, length), out, sums, 0.0, False)
        target = grad_T3HE[rows].view(count, length, 3, heads, width)
        for index, part in enumerate(parts):
            target[:, :, index].copy_(part.transpose(1, 2))
    return grad_T3HE


@_loop_attention_backward.register_fake
def _(grad_THE: Tensor, qkv_T3HE: Tensor, out_THE: Tensor, logsumexp_X: Tensor, offsets_S1: Tensor) -> Tensor:
    return torch.empty_like(qkv_T3HE)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_THE: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
    qkv_T3HE, offsets_S1, out_THE, logsumexp_X = ctx.saved_tensors
    return _loop_attention_backward(grad_THE, qkv_T3HE, out_THE, logsumexp_X, offsets_S1), None


_loop_attention.register_autograd(_backward, setup_context=_save)


def segment_attention(qkv_T3HE: Tensor, segments: Segments) -> Tensor:
    """Self-attention inside each segment.

    Shapes: qkv_T3HE (T, 3, H, E); returns (T, H, E) of the same dtype.
    Differs: on CPUs half precision is computed in fp32, whose kernel is the faster one where there is no AMX.
    """
    if segments.has_varlen(qkv_T3HE.dtype):
        q_THE, k_THE, v_THE = qkv_T3HE.unbind(1)
        return _varlen(q_THE, k_THE, v_THE, segments.offsets_S1, segments.offsets_S1, segments.max_length, segments)
    if qkv_T3HE.device.type == "cpu":
        exact = qkv_T3HE if qkv_T3HE.dtype == torch.float64 else qkv_T3HE.float()
        out: Tensor = _loop_attention(exact.contiguous(), segments.offsets_S1)[0]
        return out.to(qkv_T3HE.dtype)
    return padded_attention(qkv_T3HE, segments)


def padded_attention(qkv_T3HE: Tensor, segments: Segments) -> Tensor:
    """`segment_attention` where no kernel reads offsets: gather into a padded block, mask, and take the real rows."""
    rows_SL, real_SL = segments.padded()
    q, k, v = (part[rows_SL].transpose(1, 2) for part in qkv_T3HE.unbind(1))
    out_SLHE = F.scaled_dot_product_attention(q, k, v, attn_mask=real_SL[:, None, None, :]).transpose(1, 2)
    return out_SLHE[real_SL]


def cls_attention(q_SHE: Tensor, kv_T2HE: Tensor, segments: Segments) -> Tensor:
    """Attention of each segment's CLS query over its segment; all that a loss on CLS features needs of the last block.

    Shapes: q_SHE (S, H, E); kv_T2HE (T, 2, H, E); returns (S, H, E).
    """
    if segments.has_varlen(kv_T2HE.dtype):
        single = torch.arange(len(q_SHE) + 1, device=q_SHE.device, dtype=torch.int32)
        k_THE, v_THE = kv_T2HE.unbind(1)
        return _varlen(q_SHE, k_THE, v_THE, single, segments.offsets_S1, 1, segments)
    if kv_T2HE.device.type == "cpu":
        dtype = q_SHE.dtype
        exact = dtype if dtype == torch.float64 else torch.float32
        outs, first = [], 0
        sizes = [count * length for _, count, length in segments.runs]
        # split(), not slices: the gradient of a split is one concatenation.
        for part, (_, count, length) in zip(kv_T2HE.to(exact).split(sizes), segments.runs, strict=True):
            k, v = part.view(count, length, *kv_T2HE.shape[1:]).permute(2, 0, 3, 1, 4).unbind(0)
            q = q_SHE[first : first + count, :, None].to(exact)
            outs.append(F.scaled_dot_product_attention(q, k, v)[:, :, 0])
            first += count
        return torch.cat(outs).to(dtype)
    return padded_cls_attention(q_SHE, kv_T2HE, segments)


def padded_cls_attention(q_SHE: Tensor, kv_T2HE: Tensor, segments: Segments) -> Tensor:
    """`cls_attention` where no kernel reads offsets."""
    rows_SL, real_SL = segments.padded()
    k, v = (part[rows_SL].transpose(1, 2) for part in kv_T2HE.unbind(1))
    return F.scaled_dot_product_attention(q_SHE[:, :, None], k, v, attn_mask=real_SL[:, None, None, :])[:, :, 0]


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor, max_q: int, segments: Segments
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imported here: older builds without CUDA lack its kernels

    out = varlen_attn(q, k, v, offsets_q, offsets_k, max_q, segments.max_length)
    assert isinstance(out, Tensor)
    return out
