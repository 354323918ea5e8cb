"""Which of many candidate answers is the likeliest, without scoring all of them in full.

An answer is never likelier than its first token, so once some answers are scored, every candidate whose first token is
less likely than the best of them is ruled out for certain.

Shape legend: N questions, C candidates, K answers scored at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

# Scored before anything is ruled out; mostly the answer is among them.
FIRST_ROUND = 4


@dataclass(frozen=True, slots=True)
class Ranked:
    """The likeliest candidate of each question.

    Shapes: choice_N int64; log_likelihood_N; exact_N bool, whether no candidate that was not scored can be likelier.
    """

    choice_N: Tensor
    log_likelihood_N: Tensor
    exact_N: Tensor


def rank_candidates(
    first_NC: Tensor, score: Callable[[Tensor, Tensor], Tensor], keep: int, first_round: int = FIRST_ROUND
) -> Ranked:
    """Return the likeliest of the `keep` candidates with the likeliest first tokens.

    With `keep` no smaller than the number of candidates the choice is exact. Of equally likely ones that with the
    likelier first token counts, then the earlier.

    Args:
        first_NC: Log-probability of each candidate's first token.
        score: (questions n, candidates (n, K)) → log-likelihoods (n, K) of whole answers.
        keep: How many stay after the first stage.
        first_round: How many are scored for every question.

    Shapes: N questions, C candidates.
    """
    count, candidates = first_NC.shape
    keep = min(keep, candidates)
    bound_NC, order_NC = torch.sort(first_NC, dim=1, descending=True, stable=True)
    everyone = torch.arange(count, device=first_NC.device)
    now = min(first_round, keep)
    likelihood_NK = score(everyone, order_NC[:, :now])
    best_N, place_N = likelihood_NK.max(1)
    choice_N = order_NC.gather(1, place_N[:, None])[:, 0]
    while now < keep:
        open_n = torch.nonzero(bound_NC[:, now] > best_N)[:, 0]
        if not len(open_n):
            break
        then = min(now + max(now, first_round), keep)
        likelihood_nK = score(open_n, order_NC[open_n, now:then])
        best_n, place_n = likelihood_nK.max(1)
        better_n = best_n > best_N[open_n]
        found_n = order_NC[open_n, now:then].gather(1, place_n[:, None])[:, 0]
        choice_N[open_n] = torch.where(better_n, found_n, choice_N[open_n])
        best_N[open_n] = torch.where(better_n, best_n, best_N[open_n])
        now = then
    rest_N = bound_NC[:, keep] if keep < candidates else torch.full_like(best_N, -torch.inf)
    return Ranked(choice_N, best_N, rest_N <= best_N)
