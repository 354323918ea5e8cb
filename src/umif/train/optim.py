"""AdamW, what it leaves undecayed, and the schedules. Every value is a pure function of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from umif.errors import CheckpointError
from umif.train.shard import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from umif.train.recipe import OptimConfig

# Parts of a parameter's name that mark what weight decay would only blur: places, modalities and class tokens.
_UNDECAYED = ("pos_embed", "position", "modality", "cls_token", "cls_0", "reg_token")


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay acts on a parameter: matrices yes; biases, norms, embeddings of place and kind, CLS no."""
    return parameter.ndim >= 2 and not any(part in name for part in _UNDECAYED)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that get a gradient, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Build AdamW over the student in two groups, with and without decay."""
    named = trainable(model)
    groups = [
        {"params": [p for n, p in named.items() if decays(n, p)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Return the rate of step 0, 1, … of `steps`: linear warm-up to `lr`, then half a cosine."""
    warmup = warmup_steps(config, steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    share = config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * share


def warmup_steps(config: OptimConfig, steps: int) -> int:
    """Return the number of steps in which the rate rises."""
    return round(config.warmup_share * steps)


def teacher_momentum(config: OptimConfig, step: int, steps: int) -> float:
    """Return the teacher's momentum at step 0, 1, … of `steps`: from the first value to 1 on a cosine.

    Source: BYOL, section 3.2.
    """
    return 1.0 - (1.0 - config.teacher_momentum) * 0.5 * (1 + math.cos(math.pi * step / steps))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's moments and step counts as `exp_avg/<parameter>`, … ."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in trainable(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value
    return tensors


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put saved moments back, by parameter name; the tensors are taken over, and lie where their parameters do.

    Raises:
        CheckpointError: a name or a shape that the model does not have.
    """
    named = trainable(model)
    for full, value in tensors.items():
        key, _, name = full.partition("/")
        parameter = named.get(name)
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise CheckpointError(f"the optimiser's {full!r} fits no parameter of the model", where="optimizer")
        optimizer.state[parameter][key] = value


def clip_gradients(model: nn.Module, largest: float | None) -> Tensor:
    """Scale the student's whole gradient to a norm of at most `largest`; return the norm it had, ()."""
    parameters = list(trainable(model).values())
    limit = math.inf if largest is None else largest
    return whole(torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True))
