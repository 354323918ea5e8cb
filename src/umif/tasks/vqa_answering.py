"""Asking a trained model: the likeliest of many candidate answers, and free answers.

Shape legend: N questions, n questions of a batch, C candidates, K candidates scored at a time, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from umif.tasks.vqa_features import MOST_QUESTIONS, blocks, memory_of
from umif.tasks.vqa_model import PAD
from umif.tasks.vqa_ranking import rank_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.tasks.vqa_data import Pictures
    from umif.tasks.vqa_decoder import Memory
    from umif.tasks.vqa_model import VqaModel

# Logits held at a time when answers are scored: 128 MiB of fp32.
_LOGITS = 32 * 2**20
# Candidates scored together, so that a short answer is not padded to the longest of all.
_COLUMNS = 16


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
        for places in blocks(len(pairs_P2), MOST_QUESTIONS):
            rows, texts = pairs_P2[places, 0], pairs_P2[places, 1]
            memory = memory_of(model, pictures, rows, words[texts])
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
