"""Fine-tuning on questions, and asking what was trained.

Every draw is keyed by (seed, step), so the same encoder, data, settings and seed give the same answers.

Shape legend: N questions, n questions of a batch, I pictures, K answers, T tokens, C candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from umif.errors import NonFiniteError
from umif.rng import keyed_rng
from umif.tasks.vqa_model import PAD, AnswerTokens
from umif.tasks.vqa_ranking import rank_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.tasks.vqa_config import VqaConfig
    from umif.tasks.vqa_data import Pictures, Questions
    from umif.tasks.vqa_decoder import Memory
    from umif.tasks.vqa_model import VqaModel

# Logits held at a time when answers are scored: 128 MiB of fp32.
_LOGITS = 32 * 2**20
_MOST_QUESTIONS = 512
# Candidates scored together, so that a short answer is not padded to the longest of all.
_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training went.

    Attributes:
        steps: Steps made.
        planned: Steps that there would have been without an early stop.
        best_step: After which the kept weights were.
        val_log_likelihood: Mean log-likelihood of val's answers then.
    """

    steps: int
    planned: int
    best_step: int
    val_log_likelihood: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What a model answers.

    Attributes:
        choice_N: Position of the likeliest candidate.
        exact: Share of questions where no candidate that was left out can be likelier.
        generated_N: Token ids of free answers, end included; empty where none were asked for.
    """

    choice_N: NDArray[np.int64]
    exact: float
    generated_N: list[tuple[int, ...]]


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

    Raises:
        NonFiniteError: the loss is NaN or infinite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(_groups(model, config))
    images = len(np.unique(questions.rows_N[train]))
    planned = min(config.steps, config.epochs * math.ceil(images / config.images))
    tokens = [model.tokens.encode(answer) for answer in questions.answers_N.tolist()]
    val = _of_some_images(questions, questions.of("val"), config.val_images)
    best, best_step, step = -math.inf, 0, 0
    kept: dict[str, Tensor] = {}
    batches = _batches(questions, train, config, seed)
    for step in range(1, planned + 1):
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * _schedule(step, planned, config.warmup_share)
        loss = -_truth(model, pictures, questions, next(batches), tokens).mean()
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"the loss of vqa is {loss.item()} at step {step}", fix="lower vqa.lr and vqa.lr_encoder"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        progress(1)
        if step % config.check_every and step < planned:
            continue
        now = _val_likelihood(model, pictures, questions, val, tokens)
        if now > best or not kept:
            best, best_step = now, step
            kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        elif step - best_step >= config.patience * config.check_every:
            break
    progress(planned - step)
    model.load_state_dict(kept)
    model.eval()
    return Fitted(step, planned, best_step, best)


def answer(
    model: VqaModel,
    pictures: Pictures,
    rows_N: NDArray[np.int64],
    questions_N: NDArray[np.str_],
    candidates: Sequence[str],
    keep: int,
    *,
    generate: bool = False,
) -> Answered:
    """Answer questions about pictures: the likeliest of the candidates, and freely if asked to.

    Equal questions about one picture are answered once.
    """
    words, text_N = np.unique(questions_N, return_inverse=True)
    pairs_P2, pair_N = np.unique(np.stack([rows_N, text_N], axis=1), axis=0, return_inverse=True)
    block = model.tokens.pad([model.tokens.encode(candidate) for candidate in candidates]).to(model.device)
    choices, exact, generated = [], [], []
    model.eval()
    with torch.inference_mode():
        for places in _blocks(len(pairs_P2), _MOST_QUESTIONS):
            rows, texts = pairs_P2[places, 0], pairs_P2[places, 1]
            memory = _memory(model, pictures, rows, words[texts])
            ranked = rank_candidates(model.first_log_probs(memory)[:, block[:, 0]], _scorer(model, memory, block), keep)
            choices.append(ranked.choice_N.cpu().numpy())
            exact.append(ranked.exact_N.cpu().numpy())
            if generate:
                generated += model.generate(memory)
    pair_N = pair_N.reshape(-1)
    return Answered(
        np.concatenate(choices)[pair_N],
        float(np.concatenate(exact)[pair_N].mean()),
        [generated[pair] for pair in pair_N] if generate else [],
    )


def _scorer(model: VqaModel, memory: Memory, candidates_CT: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that scores candidates of questions, short answers apart from long ones."""
    length_C = (candidates_CT != PAD).sum(1)

    def score(questions_n: Tensor, candidates_nK: Tensor) -> Tensor:
        shortest_first_nK = length_C[candidates_nK].argsort(dim=1, stable=True)
        sorted_nK = candidates_nK.gather(1, shortest_first_nK)
        found = []
        for columns_nk in sorted_nK.split(_COLUMNS, dim=1):
            longest = int(length_C[columns_nk].max())
            at_once = max(1, _LOGITS // (columns_nk.shape[1] * longest * model.tokens.vocabulary))
            parts = zip(questions_n.split(at_once), columns_nk.split(at_once), strict=True)
            found.append(
                torch.cat([model.log_likelihoods(memory.take(n), candidates_CT[k, :longest]) for n, k in parts])
            )
        return torch.zeros(sorted_nK.shape, device=sorted_nK.device).scatter(
            1, shortest_first_nK, torch.cat(found, dim=1)
        )

    return score


def _memory(model: VqaModel, pictures: Pictures, rows_n: NDArray[np.int64], questions_n: NDArray[np.str_]) -> Memory:
    rows, image_n = np.unique(rows_n, return_inverse=True)
    words, text_n = np.unique(questions_n, return_inverse=True)
    return model.remember(pictures.take(rows), words.tolist(), image_n.reshape(-1), text_n.reshape(-1))


def _truth(
    model: VqaModel,
    pictures: Pictures,
    questions: Questions,
    places: NDArray[np.int64],
    tokens: Sequence[tuple[int, ...]],
) -> Tensor:
    """Log-likelihood of the true answers. Shape (n,)."""
    memory = _memory(model, pictures, questions.rows_N[places], questions.questions_N[places])
    answers_nT = AnswerTokens.pad([tokens[place] for place in places])
    return model.log_likelihoods(memory, answers_nT[:, None])[:, 0]


def _val_likelihood(
    model: VqaModel,
    pictures: Pictures,
    questions: Questions,
    val: NDArray[np.int64],
    tokens: Sequence[tuple[int, ...]],
) -> float:
    model.eval()
    with torch.inference_mode():
        parts = [
            _truth(model, pictures, questions, val[places], tokens).cpu()
            for places in _blocks(len(val), _MOST_QUESTIONS // 4)
        ]
    return float(torch.cat(parts).double().mean())


def _batches(
    questions: Questions, train: NDArray[np.int64], config: VqaConfig, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Positions of some questions of some images; every image once an epoch, its questions drawn anew."""
    rows = questions.rows_N[train]
    asked = {int(row): train[rows == row] for row in np.unique(rows)}
    names = np.array(sorted(asked))
    step = 0
    for epoch in range(config.epochs):
        order = keyed_rng(seed, "vqa images", step=epoch).permutation(names)
        for start in range(0, len(order), config.images):
            rng = keyed_rng(seed, "vqa questions", step=step)
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


def _groups(model: VqaModel, config: VqaConfig) -> list[dict[str, object]]:
    """Parameters by rate, and by whether they decay."""
    groups: list[dict[str, object]] = []
    for module, rate in ((model.network, config.lr_encoder), (model.decoder, config.lr)):
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for decays in (True, False):
            some = [parameter for parameter in parameters if (parameter.ndim > 1) == decays]
            if some:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": some, "lr": rate, "peak": rate, "weight_decay": decay})
    return groups


def _schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share of the highest rate at a step (1-based): a straight rise, then half a cosine down to zero."""
    rise = warmup_share * steps
    if step <= rise:
        return step / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise + 1)))


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
