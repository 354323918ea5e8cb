"""Schedules against their formulas, and which weights decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from umif.errors import CheckpointError
from umif.models import ModelConfig, build_model
from umif.train.optim import (
    build_optimizer,
    clip_gradients,
    decays,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
    teacher_momentum,
    trainable,
    warmup_steps,
)
from umif.train.recipe import OptimConfig

TINY = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=50)


def test_the_rate_rises_linearly_then_falls_on_a_cosine_as_torch_computes_it() -> None:
    config = OptimConfig(lr=2e-3, warmup_share=0.2, final_lr_share=0.1)
    parameter = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], lr=config.lr)
    warm = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: min(1.0, (step + 1) / 20))
    rates = []
    for _ in range(20):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        warm.step()
    sgd = torch.optim.SGD([parameter], lr=config.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=80, eta_min=config.lr * 0.1)
    for _ in range(80):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        cosine.step()
    ours = [learning_rate(config, step, 100) for step in range(100)]
    # torch multiplies its way from step to step, so it gathers rounding.
    assert ours == pytest.approx(rates, rel=1e-9)
    assert warmup_steps(config, 100) == 20


def test_without_warm_up_the_first_rate_is_the_peak() -> None:
    config = OptimConfig(lr=1.0, warmup_share=0.0)
    assert learning_rate(config, 0, 10) == 1.0
    assert 0 < learning_rate(config, 9, 10) < 0.1


def test_the_teacher_slows_down_from_its_first_momentum_to_one() -> None:
    config = OptimConfig(teacher_momentum=0.996)
    momenta = [teacher_momentum(config, step, 1000) for step in range(1001)]
    assert momenta[0] == 0.996
    assert momenta[500] == pytest.approx(0.998)
    assert momenta[1000] == 1.0
    assert momenta == sorted(momenta)
    assert momenta[250] == pytest.approx(1 - 0.004 * (math.cos(math.pi / 4) + 1) / 2)


def test_biases_norms_places_modalities_and_class_tokens_do_not_decay() -> None:
    model = build_model(TINY.model_copy(update={"cls": "separate"}))
    decayed = {name for name, parameter in trainable(model).items() if decays(name, parameter)}
    names = set(trainable(model))
    assert {n.rsplit(".", 1)[-1] for n in decayed} == {"weight"}
    assert not any("norm" in n for n in decayed)
    kept = {n for n in names if any(p in n for p in ("pos_embed", "position", "modality", "cls"))}
    assert len(kept) >= 6
    assert not kept & decayed
    assert "student.word_embed.weight" in decayed
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.5))
    by_decay = {group["weight_decay"]: sum(p.numel() for p in group["params"]) for group in optimizer.param_groups}
    assert by_decay[0.5] == sum(trainable(model)[n].numel() for n in decayed)
    assert sum(by_decay.values()) == sum(p.numel() for p in trainable(model).values())


def test_the_teacher_is_not_trained() -> None:
    assert not any(name.startswith("teacher") for name in trainable(build_model(TINY)))


def test_moments_come_back_by_name_and_the_next_step_is_the_same_bit_for_bit() -> None:
    def gradients(model: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in trainable(model).values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    config = OptimConfig(lr=1e-2)
    model = build_model(TINY)
    optimizer = build_optimizer(model, config)
    for seed in range(3):
        gradients(model, seed)
        optimizer.step()
    other = build_model(TINY, seed=1)
    other.load_state_dict(model.state_dict())
    restored = build_optimizer(other, config)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(model, optimizer).items()}
    load_optimizer_tensors(other, restored, saved)
    for each, its in ((model, optimizer), (other, restored)):
        gradients(each, 9)
        its.step()
    for name, parameter in trainable(model).items():
        assert torch.equal(parameter, trainable(other)[name])
    assert {name.split("/")[0] for name in saved} == {"exp_avg", "exp_avg_sq", "step"}


def test_moments_of_another_model_are_refused() -> None:
    model = build_model(TINY)
    optimizer = build_optimizer(model, OptimConfig())
    with pytest.raises(CheckpointError, match="fits no parameter"):
        load_optimizer_tensors(model, optimizer, {"exp_avg/student.gone": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="fits no parameter"):
        load_optimizer_tensors(model, optimizer, {"exp_avg/student.word_embed.weight": torch.zeros(2)})


@pytest.mark.parametrize(("largest", "expected"), [(1.0, 1.0), (100.0, 5.0), (None, 5.0)])
def test_the_whole_gradient_is_clipped(largest: float | None, expected: float) -> None:
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert float(clip_gradients(model, largest)) == 5.0
    # The divisor holds an epsilon of 1e-6.
    assert math.hypot(model.weight.grad.item(), model.bias.grad.item()) == pytest.approx(expected, rel=1e-5)
