"""Items → requests: what is sent for each, which of them are the same, and the key that each is cached by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from umif.config import Config
from umif.language.llm.endpoint import tokens_of
from umif.language.llm.items import Item
from umif.language.llm.judge import states_of
from umif.language.llm.prompts import own_prompts
from umif.language.templates import NO_FINDING
from umif.language.vocabulary import vocabulary
from umif.readers.base import LabelState
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from umif.language.llm.prompts import Job, Prompts

# A retried answer is drawn anew: another seed, and a little freer.
_WARMER = 0.15
_HOTTEST = 1.2
_SEEDS_PER_ITEM = 100
_WHOLE = {
    LabelState.PRESENT: "- the radiograph as a whole: normal",
    LabelState.ABSENT: "- the radiograph as a whole: not normal",
    LabelState.UNCERTAIN: "- the radiograph as a whole: uncertain whether it is normal",
}


class Sampling(Config):
    """What decides an answer besides the prompt; all of it is part of the cache's key."""

    model: str = Field(min_length=1, description="The model's name at the endpoint")
    temperature: float | None = Field(0.3, ge=0, le=2, description="Of the first try; none = not sent")
    seed: int | None = Field(0, ge=0, description="Of the first try; none = not sent")
    max_tokens: int = Field(800, ge=16, le=100_000, description="Longest answer, tokens")
    max_tokens_name: str = Field(
        "max_tokens", description="What the endpoint calls it; max_completion_tokens elsewhere"
    )
    tries: int = Field(3, ge=1, le=10, description="Answers asked for until one is fit")
    variants: int = Field(8, ge=1, le=_SEEDS_PER_ITEM, description="Different reports written for one set of labels")
    extra: dict[str, Any] = Field(default_factory=dict, description="Further fields of the request")


@dataclass(frozen=True, slots=True)
class Unit:
    """Items whose messages are the same: one request serves them all.

    Attributes:
        messages: System and user message.
        variant: Which of several wordings of the same labels.
    """

    messages: tuple[dict[str, str], ...]
    variant: int
    items: tuple[Item, ...]

    def payload(self, sampling: Sampling, attempt: int) -> dict[str, Any]:
        """Return the body of the request for the n-th try, from 0."""
        body: dict[str, Any] = {"model": sampling.model, "messages": list(self.messages)}
        body[sampling.max_tokens_name] = sampling.max_tokens
        if sampling.temperature is not None:
            body["temperature"] = round(
                max(sampling.temperature, min(_HOTTEST, sampling.temperature + _WARMER * attempt)), 3
            )
        if sampling.seed is not None:
            body["seed"] = sampling.seed + self.variant * _SEEDS_PER_ITEM + attempt
        return {name: value for name, value in {**body, **sampling.extra}.items() if value is not None}

    def key(self, sampling: Sampling, attempt: int) -> str:
        """Return the hash of everything that decides the answer to the n-th try."""
        # Tries differ even where neither seed nor temperature may be sent.
        whole = [self.payload(sampling, attempt), self.variant, attempt]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    @property
    def tokens_in(self) -> int:
        """About how many tokens are sent."""
        return tokens_of(sum(len(message["content"]) for message in self.messages))


def make_units(
    job: Job, items: Iterable[Item], sampling: Sampling, prompts: Prompts | None = None
) -> tuple[list[Unit], list[Item]]:
    """Return what is to be asked, in the order of the items, and the items that there is nothing to ask about."""
    prompt = (prompts or own_prompts()).of(job)
    groups: dict[str, tuple[list[dict[str, str]], int, list[Item]]] = {}
    idle: list[Item] = []
    for item in items:
        variant = _variant(item, sampling.variants) if job == "reports" else 0
        values = _report_values(item, variant) if job == "reports" else {"text": item.text}
        if not (values.get("text") or values.get("findings")):
            idle.append(item)
            continue
        messages = prompt.messages(**values)
        key = json.dumps([messages, variant])
        groups.setdefault(key, (messages, variant, []))[2].append(item)
    units = [Unit(tuple(messages), variant, tuple(members)) for messages, variant, members in groups.values()]
    return units, idle


def _variant(item: Item, variants: int) -> int:
    """Return which wording an image gets: a hash, so that it does not change with the other images."""
    digest = hashlib.sha256(json.dumps([item.dataset, item.id]).encode()).digest()
    return int.from_bytes(digest[:8], "big") % variants


def _report_values(item: Item, variant: int) -> dict[str, str]:
    lines = label_lines(item.labels)
    # In an order of its own for each wording: models write findings in the order given.
    order = keyed_rng(variant, "llm order").permutation(len(lines))
    return {"findings": "\n".join(lines[int(place)] for place in order), "order": str(variant + 1)}


def label_lines(labels: Sequence[tuple[str, LabelState]]) -> list[str]:
    """Return one line for each finding that labels state, sorted: its words, and present, absent or uncertain."""
    states = states_of(Item("", None, "", tuple(labels)))
    lines = [f"- {vocabulary()[key].name}: {state}" for key, state in states.items() if key != NO_FINDING]
    for raw, state in labels:  # what the vocabulary does not know is named as it is
        if vocabulary().find(raw) is None and state != LabelState.NOT_MENTIONED:
            words = " ".join(raw.replace("_", " ").replace("/", " ").split())
            if words:
                lines.append(f"- {words}: {state}")
    if NO_FINDING in states:
        lines.append(_WHOLE[states[NO_FINDING]])
    return sorted(dict.fromkeys(lines))
