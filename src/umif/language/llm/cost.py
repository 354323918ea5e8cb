"""What a job will cost and how long it will take, said before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from umif.language.llm.endpoint import CHARS_PER_TOKEN, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.language.llm.cache import Answer
    from umif.language.llm.prompts import Job
    from umif.language.llm.work import Sampling, Unit

# Until the cache has answers to go by: a model on one GPU or a hosted one of medium size.
_TOKENS_PER_SECOND = 40.0
_FIRST_TOKEN_S = 0.5
_WRITTEN_TOKENS = 90
_LEARNED_FROM = 20


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a million tokens, in whatever currency the user counts in."""

    input_per_million: float = 0.0
    output_per_million: float = 0.0

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Return the price of so many tokens."""
        return (tokens_in * self.input_per_million + tokens_out * self.output_per_million) / 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is about to be sent.

    Attributes:
        requests: First tries; `requests_most` if every answer were unfit until the last try.
        tokens_out: What is expected; the most is `requests_most` times the longest answer.
        seconds: Expected duration, at the given concurrency and limits.
    """

    items: int
    cached: int
    requests: int
    requests_most: int
    tokens_in: int
    tokens_out: int
    cost: float
    cost_most: float
    seconds: float
    measured: bool


def estimate(
    job: Job,
    pending: Sequence[tuple[Unit, int]],
    sampling: Sampling,
    price: Price,
    *,
    items: int,
    cached: int,
    concurrency: int,
    requests_per_min: float | None,
    tokens_per_min: float | None,
    known: Sequence[Answer],
) -> Estimate:
    """Estimate a job from the lengths of its texts, or from earlier answers where the cache holds enough.

    Args:
        job: Kind of job.
        pending: Units to send, with the tries that the cache has answered already.
        sampling: Model and limits.
        price: Of tokens.
        items: Number of items of the job.
        cached: How many of them need nothing sent.
        concurrency: Requests at a time.
        requests_per_min: Limit, if any.
        tokens_per_min: Limit, if any.
        known: Answers in the cache.
    """
    measured = len(known) >= _LEARNED_FROM
    tokens_in = sum(unit.tokens_in for unit, _ in pending)
    tokens_out = sum(_expected_out(job, unit, sampling) for unit, _ in pending)
    seconds_each = _FIRST_TOKEN_S + (tokens_out / len(pending) if pending else 0) / _TOKENS_PER_SECOND
    if measured:
        tokens_out = round(sum(answer.tokens_out for answer in known) / len(known) * len(pending))
        seconds_each = sum(answer.seconds for answer in known) / len(known)
    most = sum(sampling.tries - done for _, done in pending)
    most_in = sum((sampling.tries - done) * unit.tokens_in for unit, done in pending)
    waits = [seconds_each * len(pending) / concurrency]
    if requests_per_min:
        waits.append(len(pending) * 60 / requests_per_min)
    if tokens_per_min:
        waits.append(sum(unit.tokens_in + sampling.max_tokens for unit, _ in pending) * 60 / tokens_per_min)
    return Estimate(
        items=items,
        cached=cached,
        requests=len(pending),
        requests_most=most,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost=price.of(tokens_in, tokens_out),
        cost_most=price.of(most_in, most * sampling.max_tokens),
        seconds=max(waits),
        measured=measured,
    )


def _expected_out(job: Job, unit: Unit, sampling: Sampling) -> int:
    if job == "reports":
        return min(sampling.max_tokens, _WRITTEN_TOKENS)
    # Stemmed Spanish grows by about a third in English; a polish keeps its length.
    growth = 1.35 if job == "translate" else 1.1
    return min(sampling.max_tokens, int(tokens_of(len(unit.items[0].text)) * growth + 8 / CHARS_PER_TOKEN))


def estimate_lines(job: Job, told: Estimate, *, model: str, url: str, budget: float | None, priced: bool) -> list[str]:
    """Return the estimate in words."""
    minutes = told.seconds / 60
    time = (
        f"{told.seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )
    basis = "from answers in the cache" if told.measured else "a guess until the cache holds answers"
    cost = f"{told.cost:.2f}, at most {told.cost_most:.2f}" if priced else "unknown: give --price-in and --price-out"
    return [
        f"{job} with {model} at {url}",
        f"  items      {told.items}, of which {told.cached} need nothing sent",
        f"  requests   {told.requests}, at most {told.requests_most} with retries of unfit answers",
        f"  tokens     about {told.tokens_in} in, {told.tokens_out} out",
        f"  cost       {cost}" + (f"; stops at {budget:.2f}" if budget is not None else ""),
        f"  time       about {time} ({basis})",
    ]
