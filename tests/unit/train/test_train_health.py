"""The signs of health, against slow references and known cases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from umif.models.umif import Features
from umif.train.health import feature_health
from umif.train.recipe import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor


def features(f1_BD: Tensor, f0_BD: Tensor) -> Features:
    return Features(f1_BD, f0_BD, f1_BD)


def random_features(count: int, width: int, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    f1_BD, f0_BD = (torch.randn(count, width, generator=generator) for _ in range(2))
    return features(f1_BD, f0_BD)


def test_the_numbers_are_those_of_their_definitions() -> None:
    seen = random_features(6, 5)
    health = feature_health(seen)
    z = np.concatenate([seen.f1_BD.numpy(), seen.f0_BD.numpy()]).astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    hits, pairs = 0, []
    for i in range(12):
        distances = [np.inf if j == i else float(((z[i] - z[j]) ** 2).sum()) for j in range(12)]
        hits += int(np.argmin(distances)) == (i + 6) % 12
        pairs += [d for d in distances if np.isfinite(d)]
    # fp32 against fp64.
    assert health.accuracy == pytest.approx(hits / 12)
    assert health.uniformity == pytest.approx(math.log(np.mean(np.exp(-2 * np.array(pairs)))), rel=1e-5)
    assert health.alignment == pytest.approx(((z[:6] - z[6:]) ** 2).sum(1).mean(), rel=1e-5)
    assert health.std == pytest.approx(z.std(axis=0).mean() * math.sqrt(5), rel=1e-5)
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    share = values / values.sum()
    assert health.effective_rank == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-4)
    assert health.chance == 1 / 11


def test_features_spread_over_the_sphere_have_std_one() -> None:
    assert feature_health(random_features(500, 64)).std == pytest.approx(1.0, abs=0.02)


def test_pairs_that_agree_are_found_and_are_healthy() -> None:
    base = random_features(50, 32).f1_BD
    health = feature_health(features(base, base + 0.01 * random_features(50, 32, 1).f1_BD))
    assert health.accuracy == 1.0
    assert not health.collapsed(TrainConfig())


def test_features_that_are_all_alike_count_as_collapsed() -> None:
    base = torch.ones(50, 32) + 1e-4 * random_features(50, 32).f1_BD
    health = feature_health(features(base, base.flip(0)))
    assert health.std < 0.01
    assert health.collapsed(TrainConfig(collapse_accuracy=0.0))


def test_features_that_tell_no_pair_from_another_count_as_collapsed() -> None:
    health = feature_health(random_features(400, 8))
    assert health.std > 0.5
    assert health.collapsed(TrainConfig(collapse_accuracy=4.0))
    assert not health.collapsed(TrainConfig(collapse_accuracy=0.0)) or health.accuracy == 0


def test_one_pair_has_numbers_too() -> None:
    health = feature_health(random_features(1, 4))
    assert health.accuracy == 1.0
    assert all(math.isfinite(value) for value in health.to_json().values())
