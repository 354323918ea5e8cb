"""One step: forward → gather → losses → finite check → backward → clip → update → teacher.

Weights change only if the loss and the gradient are finite, on every process. Where the host sees results at no cost
(a CPU) it looks before it goes on. A GPU would have to be waited for, so there the condition stays on the device: the
backward pass always runs, a flag tells the optimiser and the teacher to stay as they are, and the host reads what the
step came to later (`Outcome.read`). Both ways end in the same weights.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from umif.objectives import compute_losses, gather_features
from umif.train.chunks import join_features, send_back, send_nothing, split_batch
from umif.train.gradients import GradientSum
from umif.train.optim import clip_gradients, learning_rate, teacher_momentum
from umif.train.shard import is_sharded, quiet_forward, sharded_backward

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from umif.models.umif import Features
    from umif.tokens.batch import Batch
    from umif.tokens.loader import BadSample
    from umif.train.start import Run
    from umif.train.state import TrainState


@dataclass(slots=True)
class Outcome:
    """What a step came to, the same on every process.

    Attributes:
        row: Of the log.
        features: Of the global batch.
        batch, bad: This process's part, and the samples that were left out of it.
        pairs, dropped: Pairs and left-out samples of all processes.
        stop, save: Whether a process wants to.
        skipped: Where NaN or Inf was (`loss`, `gradient`), once the outcome is read.
    """

    row: dict[str, Any]
    features: Features
    batch: Batch
    bad: list[BadSample]
    pairs: int
    dropped: int
    stop: bool
    save: bool
    skipped: str | None = None
    _late: _Late | None = None

    def read(self) -> None:
        """Wait for what is still on the device, and put it into `row` and `skipped`."""
        if self._late is not None:
            self.row["losses"], self.row["grad_norm"], self.skipped = self._late.read()
            self._late = None


class Stepper:
    """Does the steps of a run.

    Args:
        run: What does not change.
        state: What does.
        ahead: Leave results on the device until they are read; `None` = where the device is no CPU.
    """

    def __init__(self, run: Run, state: TrainState, *, ahead: bool | None = None) -> None:
        self.run, self.state = run, state
        self.ahead = run.processes.device.type != "cpu" if ahead is None else ahead
        self._sharded = is_sharded(state.model)
        self._sum = None if self._sharded else GradientSum(state.model, run.processes.world_size)
        self._capacity = -(-run.recipe.batch_size // run.processes.world_size)
        self._patches = math.prod(state.model.student.grid)

    def step(self, step: int, batch: Batch, bad: list[BadSample], *, stop: bool, save: bool) -> Outcome:
        """Do step 0, 1, … on this process's part of the batch."""
        run = self.run
        lr, momentum = (
            learning_rate(run.recipe.optim, step, run.steps),
            teacher_momentum(run.recipe.optim, step, run.steps),
        )
        row: dict[str, Any] = {"step": step + 1, "losses": {}, "lr": lr, "momentum": momentum, "pairs": 0}
        message: list[float] = [stop, save and run.processes.is_main, len(bad), len(batch)]
        work = self._ahead if self.ahead else self._at_once
        return work(row, batch, bad, message)

    def _at_once(self, row: dict[str, Any], batch: Batch, bad: list[BadSample], message: list[float]) -> Outcome:
        state = self.state
        forward = self._forward(batch, pairs=None)
        values = {name: float(loss.detach()) for name, loss in forward.losses.items()}
        finite = all(math.isfinite(value) for value in values.values())
        # One message settles what all processes must do alike.
        broken, stops, saves, bads, pairs = self.run.processes.total([not finite, *message])
        row |= {"losses": values, "pairs": int(pairs)}
        outcome = Outcome(row, forward.features, batch, bad, int(pairs), int(bads), stops > 0, saves > 0)
        if broken:
            outcome.skipped = "loss"
            return outcome
        norm = self._backward(forward)
        row["grad_norm"] = float(norm)
        if math.isfinite(row["grad_norm"]):
            self._set_rate(row["lr"])
            state.optimizer.step()
            state.model.update_teacher(row["momentum"])
        else:
            outcome.skipped = "gradient"
        return outcome

    def _ahead(self, row: dict[str, Any], batch: Batch, bad: list[BadSample], message: list[float]) -> Outcome:
        state, device = self.state, self.run.processes.device
        # From host to host, while the device still computes the step before.
        stops, saves, bads, pairs = self.run.processes.total(message)
        row["pairs"] = int(pairs)
        forward = self._forward(batch, pairs=int(pairs))
        values = torch.stack([loss.detach().double() for loss in forward.losses.values()])
        norm = self._backward(forward)
        broken = torch.stack([~values.isfinite().all(), ~norm.isfinite()]).float()
        if self.run.processes.world_size > 1:
            dist.all_reduce(broken, dist.ReduceOp.MAX)
        found = broken.amax()
        self._set_rate(row["lr"])
        # The fused optimiser looks at this flag on the device, and leaves weights, moments and step counts alone.
        optimizer: Any = state.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, found
        optimizer.step()
        state.model.update_teacher(row["momentum"], keep=found)
        late = _Late(list(forward.losses), torch.cat([values, norm.detach().double()[None], broken.double()]), device)
        outcome = Outcome(row, forward.features, batch, bad, int(pairs), int(bads), stops > 0, saves > 0)
        outcome._late = late
        return outcome

    def _set_rate(self, lr: float) -> None:
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr

    def _forward(self, batch: Batch, *, pairs: int | None) -> _Forward:
        """Features and losses of the whole global batch."""
        run = self.run
        size = run.recipe.train.chunk_pairs
        if size is None or size >= self._capacity:
            chunks: list[Batch] = []
            local = self._encode(batch.to(run.processes.device))
        else:
            # Cut here, where looking at offsets costs nothing.
            chunks = [chunk.to(run.processes.device) for chunk in split_batch(batch, size, self._patches)]
            with torch.no_grad():
                local = join_features([self._encode(chunk) for chunk in chunks])
                for _ in range(self._idle(chunks)):
                    self._encode(chunks[-1])
        slots_B = batch.slots_B.to(run.processes.device, non_blocking=True)
        features = gather_features(local, slots_B, capacity=self._capacity, pairs=pairs)
        return _Forward(chunks, local, features, compute_losses(features, run.recipe.objectives))

    def _encode(self, batch: Batch, *, teacher: bool = True) -> Features:
        run = self.run
        autocast = torch.autocast(run.processes.device.type, dtype=torch.bfloat16, enabled=run.dtype == "bf16")
        with autocast, quiet_forward() if self._sharded else nullcontext():
            features: Features = self.state.model(batch, teacher=teacher)
        return features

    def _backward(self, forward: _Forward) -> Tensor:
        """Leave the gradient of the whole loss, summed over processes and clipped; return the norm it had, ()."""
        self.state.optimizer.zero_grad(set_to_none=True)
        if not forward.chunks:
            with self._summed(last=True):
                forward.losses["total"].backward()
        else:
            forward.losses["total"].backward()
            first = 0
            for index, chunk in enumerate(forward.chunks):
                with self._summed(last=index == len(forward.chunks) - 1):
                    send_back(self._encode(chunk, teacher=False), forward.local, first)
                first += len(chunk)
            for _ in range(self._idle(forward.chunks)):
                send_nothing(self._encode(forward.chunks[-1], teacher=False))
        return clip_gradients(self.state.model, self.run.recipe.optim.clip)

    def _idle(self, chunks: Sequence[Batch]) -> int:
        """Passes that count for nothing: where weights are gathered on the way, all processes do as many passes."""
        size = self.run.recipe.train.chunk_pairs
        return -(-self._capacity // size) - len(chunks) if self._sharded and size else 0

    def _summed(self, *, last: bool) -> AbstractContextManager[None]:
        """Around a backward pass: sum gradients over processes in the last one of a step."""
        if self._sum is None:
            return sharded_backward(self.state.model) if last else nullcontext()
        return self._sum.during_backward() if last else nullcontext()


@dataclass(frozen=True, slots=True)
class _Forward:
    """`chunks` is empty where the batch is handled in one piece."""

    chunks: Sequence[Batch]
    local: Features
    features: Features
    losses: dict[str, Tensor]


class _Late:
    """Numbers on their way from the device: losses, the gradient's norm, whether the loss, the gradient was broken."""

    def __init__(self, names: list[str], values: Tensor, device: torch.device) -> None:
        self._names = names
        self._event = None
        if device.type == "cuda":
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._values = values.cpu()

    def read(self) -> tuple[dict[str, float], float, str | None]:
        if self._event is not None:
            self._event.synchronize()
        *losses, norm, broken_loss, broken_gradient = self._values.tolist()
        skipped = "loss" if broken_loss else "gradient" if broken_gradient else None
        return dict(zip(self._names, losses, strict=True)), norm, skipped
