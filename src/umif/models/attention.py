"""Attention inside each segment of a packed stream: one function, the fastest exact kernel of each device behind it.

Why so (figures in docs/models.md): padding a batch of ragged groups to its longest member wastes up to half of the
arithmetic. All linear parts of a ViT do not care where a segment ends, so they run on the stream as it is; only
attention must stay inside a segment.

* CPU: one autograd function that loops over runs of equally long segments with torch's CPU flash kernel. Slicing the
  stream per segment instead would make autograd write a full-size zero gradient per slice.
* CUDA, half precision: `varlen_attn` reads the offsets itself.
* Anything else: segments are gathered into a padded block with a key mask.

Shape legend: T rows of the stream, S segments, H heads, E width of a head, L longest segment.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Segments:
    """Where the segments of a packed stream lie, in the forms that the kernels need.

    `max_length` is a bound that does not change from batch to batch, since CUDA kernels compile per value.
    """

    def __init__(self, offsets_S1: Tensor, max_length: int) -> None:
        self.offsets_S1 = offsets_S1
        self.max_length = max_length
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
        runs, row = [], 0
        for length, run in groupby(self.lengths):
            count = len(list(run))
            runs.append((row, count, length))
            row += count * length
        return runs

    def padded(self) -> tuple[Tensor, Tensor]:
        """Rows of a padded block and which of them are real. Shapes (S, L) int64 and bool; padding reads row 0."""
        lengths = torch.tensor(self.lengths, device=self.offsets_S1.device)
        position_L = torch.arange(int(lengths.max()), device=lengths.device)
        real_SL = position_L < lengths[:, None]
        rows_SL = torch.where(real_SL, self.offsets_S1[:-1, None].long() + position_L, 0)
        return rows_SL, real_SL


class _LoopAttention(torch.autograd.Function):
    """Self-attention of every segment with the CPU flash kernel, forward and backward in one pass over the runs."""

    @staticmethod
    def forward(ctx: Any, qkv_T3HE: Tensor, runs: Sequence[tuple[int, int, int]]) -> Tensor:
        rows, _, heads, width = qkv_T3HE.shape
        out_THE = qkv_T3HE.new_empty(rows, heads, width)
        logsumexps = []
        for start, count, length in runs:
            stop = start + count * length
            q, k, v = qkv_T3HE[start:stop].view(count, length, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
            out, logsumexp = _FLASH(q, k, v, 0.0, False)
            out_THE[start:stop].view(count, length, heads, width).copy_(out.transpose(1, 2))
            logsumexps.append(logsumexp)
        ctx.save_for_backward(qkv_T3HE, out_THE, *logsumexps)
        ctx.runs = runs
        return out_THE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        qkv_T3HE, out_THE, *logsumexps = ctx.saved_tensors
        _, _, heads, width = qkv_T3HE.shape
        grad_THE = grads[0].contiguous()
        grad_T3HE = torch.empty_like(qkv_T3HE)
        for (start, count, length), logsumexp in zip(ctx.runs, logsumexps, strict=True):
            rows, shape = slice(start, start + count * length), (count, length, heads, width)
            q, k, v = qkv_T3HE[rows].view(count, length, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
            grad, out = grad_THE[rows].view(shape).transpose(1, 2), out_THE[rows].view(shape).transpose(1, 2)
            parts = _FLASH_BACKWARD(grad, q, k, v, out, logsumexp, 0.0, False)
            target = grad_T3HE[rows].view(count, length, 3, heads, width)
            for index, part in enumerate(parts):
                target[:, :, index].copy_(part.transpose(1, 2))
        return grad_T3HE, None


def segment_attention(qkv_T3HE: Tensor, segments: Segments) -> Tensor:
    """Self-attention inside each segment.

    Shapes: qkv_T3HE (T, 3, H, E); returns (T, H, E) of the same dtype.
    Differs: on CPUs half precision is computed in fp32, whose kernel is the faster one where there is no AMX.
    """
    if qkv_T3HE.device.type == "cpu":
        exact = qkv_T3HE if qkv_T3HE.dtype == torch.float64 else qkv_T3HE.float()
        out: Tensor = _LoopAttention.apply(exact.contiguous(), segments.runs)
        return out.to(qkv_T3HE.dtype)
    q_THE, k_THE, v_THE = qkv_T3HE.unbind(1)
    if _has_varlen(qkv_T3HE):
        return _varlen(q_THE, k_THE, v_THE, segments.offsets_S1, segments.offsets_S1, segments.max_length, segments)
    rows_SL, real_SL = segments.padded()
    q, k, v = (part[rows_SL].transpose(1, 2) for part in (q_THE, k_THE, v_THE))
    out_SLHE = F.scaled_dot_product_attention(q, k, v, attn_mask=real_SL[:, None, None, :]).transpose(1, 2)
    return out_SLHE[real_SL]


def cls_attention(q_SHE: Tensor, kv_T2HE: Tensor, segments: Segments) -> Tensor:
    """Attention of each segment's CLS query over its segment; all that a loss on CLS features needs of the last block.

    Shapes: q_SHE (S, H, E); kv_T2HE (T, 2, H, E); returns (S, H, E).
    """
    if _has_varlen(kv_T2HE):
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
    rows_SL, real_SL = segments.padded()
    k, v = (part[rows_SL].transpose(1, 2) for part in kv_T2HE.unbind(1))
    return F.scaled_dot_product_attention(q_SHE[:, :, None], k, v, attn_mask=real_SL[:, None, None, :])[:, :, 0]


def _has_varlen(x: Tensor) -> bool:
    return x.device.type == "cuda" and x.dtype in (torch.bfloat16, torch.float16)


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, offsets_q: Tensor, offsets_k: Tensor, max_q: int, segments: Segments
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imported here: older builds without CUDA lack its kernels

    out = varlen_attn(q, k, v, offsets_q, offsets_k, max_q, segments.max_length)
    assert isinstance(out, Tensor)
    return out
