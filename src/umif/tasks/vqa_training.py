"""Training on questions: the decoder alone on tokens that are kept, then the whole model.

Every draw is keyed by (seed, step), so the same encoder, data, settings and seed give the same answers.

Shape legend: N questions, n questions of a batch, I pictures, K answers, T tokens, C candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umif.errors import NonFiniteError
from umif.rng import keyed_rng
from umif.tasks.vqa_features import MOST_QUESTIONS, KeptTokens, blocks, memory_of, some_rows
from umif.tasks.vqa_model import AnswerTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from umif.tasks.vqa_config import VqaConfig
    from umif.tasks.vqa_data import Pictures, Questions
    from umif.tasks.vqa_decoder import Memory
    from umif.tasks.vqa_model import VqaModel

# The decoder's own steps are cheaper than looks at val, so that stage looks more seldom.
_DECODER_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training went.

    Attributes:
        decoder_steps: Steps in which the decoder alone learned.
        decoder_planned: Steps of that kind that there would have been without an early stop.
        decoder_best_step: After which of them its best weights were.
        steps: Steps of the whole model.
        planned: Steps of that kind that there would have been without an early stop.
        best_step: After which of them the kept weights were; 0 if none was better than the decoder's own stage.
        val_log_likelihood: Mean log-likelihood of val's answers under the kept weights.
        kept_images: Training images that the decoder alone learned on.
    """

    decoder_steps: int
    decoder_planned: int
    decoder_best_step: int
    steps: int
    planned: int
    best_step: int
    val_log_likelihood: float
    kept_images: int


@dataclass(frozen=True, slots=True)
class _Stage:
    """Some steps with the same parameters.

    Attributes:
        steps: Most of them.
        groups: Parameters with their highest rates, as AdamW takes them.
        memory: Picture rows and questions → what the decoder reads.
        batches: Positions of each step's questions.
        check_every: Steps between looks at val.
    """

    steps: int
    groups: list[dict[str, Any]]
    memory: Callable[[NDArray[np.int64], NDArray[np.str_]], Memory]
    batches: Iterator[NDArray[np.int64]]
    check_every: int


class _Course:
    """One training: its data, and the best weights so far."""

    def __init__(
        self,
        model: VqaModel,
        questions: Questions,
        val: NDArray[np.int64],
        config: VqaConfig,
        bar: Callable[[int], None],
    ) -> None:
        self.model, self.questions, self.val, self.config, self.bar = model, questions, val, config, bar
        self.tokens = [model.tokens.encode(answer) for answer in questions.answers_N.tolist()]
        self.best = -math.inf
        self.kept: dict[str, Tensor] = {}

    def carry_out(self, stage: _Stage) -> tuple[int, int]:
        """Train, and leave the model with the best weights of all stages; steps made, and the best one's number.

        The number is 0 where no step was better than what an earlier stage had reached.

        Raises:
            NonFiniteError: the loss is NaN or infinite.
        """
        model, config = self.model, self.config
        optimiser = torch.optim.AdamW(stage.groups)
        parameters = [parameter for group in stage.groups for parameter in group["params"]]
        best_step = step = 0
        for step in range(1, stage.steps + 1):
            model.train()
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _schedule(step, stage.steps, config.warmup_share)
            loss = -self._truth(stage, next(stage.batches)).mean()
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the loss of vqa is {loss.item()} at step {step}",
                    fix="lower vqa.lr and vqa.lr_encoder",
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            optimiser.step()
            self.bar(1)
            if step % stage.check_every and step < stage.steps:
                continue
            now = self._val_likelihood(stage)
            if now > self.best or not self.kept:
                self.best, best_step = now, step
                self.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            elif step - best_step >= config.patience * stage.steps:
                break
        self.bar(stage.steps - step)
        if self.kept:
            model.load_state_dict(self.kept)
        model.eval()
        return step, best_step

    def _truth(self, stage: _Stage, places: NDArray[np.int64]) -> Tensor:
        """Log-likelihood of the true answers. Shape (n,)."""
        memory = stage.memory(self.questions.rows_N[places], self.questions.questions_N[places])
        return true_likelihoods(self.model, memory, [self.tokens[place] for place in places])

    def _val_likelihood(self, stage: _Stage) -> float:
        self.model.eval()
        with torch.inference_mode():
            parts = [
                self._truth(stage, self.val[places]).cpu() for places in blocks(len(self.val), MOST_QUESTIONS // 4)
            ]
        return float(torch.cat(parts).double().mean())


def fit(
    model: VqaModel,
    pictures: Pictures,
    questions: Questions,
    train: NDArray[np.int64],
    config: VqaConfig,
    seed: int,
    progress: Callable[[int], None] = lambda steps: None,
) -> Fitted:
    """Train a model in place on the questions at `train`; leave it in eval mode with the weights that were best on val.

    First the decoder alone learns, on tokens that the network made once: a step costs little then, and it takes many
    until answers come from the picture. Then the whole model is tuned.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
    """
    val = _of_some_images(questions, questions.of("val"), config.val_images)
    course = _Course(model, questions, val, config, progress)
    model.eval()
    token_bytes = 4 * model.network.width * model.image_tokens
    rows = some_rows(questions.rows_N[train], config.kept_images, token_bytes, seed)
    tokens = KeptTokens(
        model,
        pictures,
        np.concatenate([rows, questions.rows_N[val]]),
        questions.questions_N[np.concatenate([train, val])],
    )
    tokens.standardise(rows)
    own = train[np.isin(questions.rows_N[train], rows)]
    planned = min(config.decoder_steps, _epochs(questions, own, config))
    alone = _Stage(
        planned,
        _groups((model.decoder, config.lr), decay=config.weight_decay),
        tokens.memory,
        _batches(questions, own, config, seed, "vqa decoder"),
        _DECODER_LOOKS * config.check_every,
    )
    decoder_steps, decoder_best = course.carry_out(alone)
    del tokens, alone
    whole = _Stage(
        min(config.steps, _epochs(questions, train, config)),
        _groups(
            (model.network, config.lr_encoder),
            (model.decoder, config.lr * config.tuned_rate),
            decay=config.weight_decay,
        ),
        lambda rows_n, questions_n: memory_of(model, pictures, rows_n, questions_n),
        _batches(questions, train, config, seed, "vqa"),
        config.check_every,
    )
    steps, best_step = course.carry_out(whole)
    return Fitted(decoder_steps, planned, decoder_best, steps, whole.steps, best_step, course.best, len(rows))


def true_likelihoods(model: VqaModel, memory: Memory, answers: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the log-likelihood of one answer to each question; a short one is not padded to the longest of all.

    Shapes: n answers → (n,).
    """
    # Lengths up to 2, 4, 8, … go together: few groups, and at most half of each is padding.
    group_n = np.array([math.ceil(math.log2(len(ids))) for ids in answers])
    found, order = [], []
    for group in np.unique(group_n):
        own = np.flatnonzero(group_n == group)
        here = memory.take(torch.from_numpy(own).to(model.device)) if len(own) < len(answers) else memory
        found.append(model.log_likelihoods(here, AnswerTokens.pad([answers[n] for n in own.tolist()])[:, None])[:, 0])
        order.append(own)
    return torch.cat(found)[torch.from_numpy(np.argsort(np.concatenate(order))).to(model.device)]


def _epochs(questions: Questions, train: NDArray[np.int64], config: VqaConfig) -> int:
    """Steps that the most passes over the images of some questions take."""
    return config.epochs * math.ceil(len(np.unique(questions.rows_N[train])) / config.images)


def _batches(
    questions: Questions, train: NDArray[np.int64], config: VqaConfig, seed: int, name: str
) -> Iterator[NDArray[np.int64]]:
    """Positions of some questions of some images; every image once an epoch, its questions drawn anew."""
    rows = questions.rows_N[train]
    asked = {int(row): train[rows == row] for row in np.unique(rows)}
    names = np.array(sorted(asked))
    step = 0
    for epoch in range(config.epochs):
        order = keyed_rng(seed, f"{name} images", step=epoch).permutation(names)
        for start in range(0, len(order), config.images):
            rng = keyed_rng(seed, f"{name} questions", step=step)
            chosen = [
                rng.permutation(asked[int(row)])[: config.questions] for row in order[start : start + config.images]
            ]
            yield np.concatenate(chosen)
            step += 1


def _of_some_images(questions: Questions, places: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The questions among `places` of up to `most` images, the same ones every time."""
    rows = np.unique(questions.rows_N[places])
    if len(rows) <= most:
        return places
    chosen = keyed_rng(0, "vqa val images").permutation(rows)[:most]
    return places[np.isin(questions.rows_N[places], chosen)]


def _groups(*parts: tuple[nn.Module, float], decay: float) -> list[dict[str, Any]]:
    """Parameters by rate, and by whether they decay."""
    groups: list[dict[str, Any]] = []
    for module, rate in parts:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decays in (True, False):
            some = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            if some:
                groups.append({"params": some, "lr": rate, "peak": rate, "weight_decay": decay if decays else 0.0})
    return groups


def _schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share of the highest rate at a step (1-based): a straight rise, then half a cosine down to zero."""
    rise = warmup_share * steps
    if step <= rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise + 1)))
