"""Training of heads: it learns, keeps the best state, is a function of its seed, and says what is wrong."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from umif.errors import EmptyError, NonFiniteError
from umif.tasks.head_training import HeadTraining, _batches, _schedule, train_head

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS = HeadTraining(steps=120, batch=8, lr=0.2, validate_every=20)


def problem(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 5, generator=generator)
    return x, x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]) + 0.3


def new_head() -> nn.Linear:
    head = nn.Linear(5, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def fit(head: nn.Linear, settings: HeadTraining = SETTINGS, seed: int = 0) -> float:
    x, y = problem()
    seen: list[int] = []

    def loss(index: np.ndarray, _: np.random.Generator) -> Tensor:
        seen.extend(index.tolist())
        return F.mse_loss(head(x[index])[:, 0], y[index])

    done = train_head(head, len(x), loss, lambda: -float(F.mse_loss(head(x)[:, 0], y)), settings, seed)
    assert set(seen) == set(range(40))
    return done.best


def test_a_line_is_learned_and_the_seed_decides_everything() -> None:
    first, second, other = new_head(), new_head(), new_head()
    assert fit(first) > -1e-2
    torch.manual_seed(99)
    fit(second)
    fit(other, seed=1)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, other.weight)


def test_the_best_state_is_kept_and_it_stops_without_progress() -> None:
    head = new_head()
    values = iter([0.1, 0.5, 0.3, 0.2, 0.4, 0.9])
    states: list[Tensor] = []

    def validate() -> float:
        states.append(head.weight.detach().clone())
        assert not head.training
        return next(values)

    x, y = problem()
    settings = HeadTraining(steps=120, batch=8, validate_every=20, patience=3)
    done = train_head(head, 40, lambda index, _: F.mse_loss(head(x[index])[:, 0], y[index]), validate, settings, 0)
    assert (done.steps, done.best_step, done.best) == (100, 40, 0.5)
    assert [step for step, _, _ in done.history] == [20, 40, 60, 80, 100]
    assert torch.equal(head.weight, states[1])
    assert not torch.equal(head.weight, states[-1])


def test_a_loss_without_a_number_and_no_data_are_refused() -> None:
    head = new_head()
    with pytest.raises(NonFiniteError, match="step 1"):
        train_head(head, 4, lambda _i, _r: head.weight.sum() * float("nan"), lambda: 0.0, SETTINGS, 0)
    with pytest.raises(EmptyError):
        train_head(head, 0, lambda _i, _r: head.weight.sum(), lambda: 0.0, SETTINGS, 0)


def test_every_image_comes_once_an_epoch_and_a_small_set_is_one_batch() -> None:
    batches = _batches(7, 3, 0)
    first = np.concatenate([next(batches), next(batches)])
    assert len(set(first.tolist())) == 6
    assert sorted(next(_batches(2, 5, 0)).tolist()) == [0, 1]


def test_the_rate_rises_and_falls_to_almost_nothing() -> None:
    settings = HeadTraining(steps=100, warmup_share=0.1)
    rates = [_schedule(step, settings) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert 0 < rates[-1] < 0.01
