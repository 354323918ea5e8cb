"""Summing parameter gradients over processes, while the backward pass is still under way.

Gradients lie in buckets of about `BUCKET_BYTES`, in the model's order. As soon as the backward pass has finished a
bucket its all-reduce begins, the last bucket first, since the pass goes from the last layer to the first; what is left
to wait for at the end is the last one sent. Buckets, their layout and the order in which they are sent depend on the
model alone, so every process sends alike and a sum is the same, bit for bit, whether or not it overlaps.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

BUCKET_BYTES = 32 * 2**20


class GradientSum:
    """Sums the gradient of every trainable parameter of a model over all processes, in place.

    A parameter that nothing in the batch used gets a zero gradient, as it does where another process used it.

    Args:
        model: Its trainable parameters, as they are now.
        world_size: Number of processes; with one, nothing is sent.

    Attributes:
        buckets: The parameters of each message, in the model's order.
    """

    def __init__(self, model: nn.Module, world_size: int) -> None:
        self.world_size = world_size
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.buckets = list(fill_buckets(parameters))
        self._bucket_of = {parameter: index for index, bucket in enumerate(self.buckets) for parameter in bucket}
        self._hooks: list[Any] = []
        self._missing: list[int] = []
        self._sent: list[tuple[int, Tensor, Any]] = []

    @property
    def bytes(self) -> int:
        """Size of all gradients."""
        return sum(p.numel() * p.element_size() for bucket in self.buckets for p in bucket)

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Send what the backward pass inside has finished, and leave with every gradient summed.

        Where gradients are collected over several passes, only the last belongs inside.
        """
        if self.world_size > 1:
            self._missing = [len(bucket) for bucket in self.buckets]
            self._hooks = [p.register_post_accumulate_grad_hook(self._finished) for p in self._bucket_of]
        try:
            yield
        finally:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []
        for bucket in self.buckets:
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        if self.world_size > 1:
            self._send(wait_for_all=False)
            self._take_back()

    def _finished(self, parameter: Tensor) -> None:
        self._missing[self._bucket_of[parameter]] -= 1
        self._send(wait_for_all=True)

    def _send(self, *, wait_for_all: bool) -> None:
        """Send buckets, the last first, as far as they are complete; all that are left without `wait_for_all`."""
        for index in reversed(range(len(self.buckets) - len(self._sent))):
            if wait_for_all and self._missing[index] > 0:
                return
            flat = torch.cat([_gradient(p).reshape(-1) for p in self.buckets[index]])
            self._sent.append((index, flat, dist.all_reduce(flat, async_op=True)))

    def _take_back(self) -> None:
        """Wait for the sums and put them where the gradients were."""
        for index, flat, work in self._sent:
            work.wait()
            gradients = [_gradient(p) for p in self.buckets[index]]
            parts = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])
        self._sent = []


def fill_buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield runs of tensors of one type that together fill about `BUCKET_BYTES`."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
