"""Gradient training of a head on frozen features: AdamW, warm-up and cosine, the best state on validation kept.

The same (head, data, settings, seed) give the same weights: batches are drawn by key, and nothing reads global state.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from umif.config import Config
from umif.errors import EmptyError, NonFiniteError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

from dataclasses import dataclass


class HeadTraining(Config):
    """How a head is trained."""

    steps: int = Field(600, gt=0, description="Most steps")
    batch: int = Field(16, gt=0, description="Images a step")
    lr: float = Field(1e-3, gt=0, description="Highest learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's, on weights of two and more axes")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the rate rises")
    validate_every: int = Field(50, gt=0, description="Steps between looks at validation")
    patience: int = Field(6, gt=0, description="Looks without a better value before it stops")


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went.

    Attributes:
        steps: Steps made.
        best_step: After which the kept state was.
        best: Its value on validation; higher is better.
        history: (step, mean training loss since the last look, validation value).
    """

    steps: int
    best_step: int
    best: float
    history: tuple[tuple[int, float, float], ...]


def train_head(
    head: nn.Module,
    n_train: int,
    loss: Callable[[NDArray[np.int64], np.random.Generator], Tensor],
    validate: Callable[[], float],
    settings: HeadTraining,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train `head` in place and leave it, in eval mode, with the weights that were best on validation.

    Args:
        head: Its parameters are trained.
        n_train: Training images.
        loss: Positions of a batch and a generator for augmentation → a scalar with gradient.
        validate: Value on validation images, higher is better; called in eval mode without gradients.
        settings: Rates and lengths.
        seed: Draws the batches.
        progress: Called with steps done and in all.

    Raises:
        EmptyError: there is nothing to train on.
        NonFiniteError: the loss is NaN or infinite.
    """
    if n_train < 1:
        raise EmptyError("there is no training image")
    optimiser = torch.optim.AdamW(_groups(head, settings.weight_decay), lr=settings.lr)
    batches = _batches(n_train, settings.batch, seed)
    best, best_step, history, losses = -math.inf, 0, [], []
    kept: dict[str, Tensor] = {}
    step = 0
    for step in range(1, settings.steps + 1):
        head.train()
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * _schedule(step, settings)
        value = loss(next(batches), keyed_rng(seed, "head augmentation", step=step))
        if not torch.isfinite(value):
            raise NonFiniteError(f"the head's loss is {value.item()} at step {step}", fix="lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
        progress(step, settings.steps)
        if step % settings.validate_every and step < settings.steps:
            continue
        head.eval()
        with torch.no_grad():
            now = validate()
        history.append((step, sum(losses) / len(losses), now))
        losses = []
        if now > best or not kept:
            best, best_step = now, step
            kept = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
        elif len(history) - 1 - next(i for i, row in enumerate(history) if row[0] == best_step) >= settings.patience:
            break
    head.load_state_dict(kept)
    head.eval()
    progress(settings.steps, settings.steps)
    return Trained(step, best_step, best, tuple(history))


def _groups(head: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


def _schedule(step: int, settings: HeadTraining) -> float:
    """Share of the highest rate at a step (1-based): a straight rise, then half a cosine down to zero."""
    rise = settings.warmup_share * settings.steps
    if step <= rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (settings.steps - rise + 1)))


def _batches(count: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Positions, each once an epoch, the order drawn anew; a batch larger than the data is the data."""
    epoch = 0
    while True:
        order = keyed_rng(seed, "head batches", step=epoch).permutation(count)
        full = max(1, count // size)
        for number in range(full):
            yield order[number * size : (number + 1) * size]
        epoch += 1
