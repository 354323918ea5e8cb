"""Who is put to a task: the model, the same network with random weights, and the encoders of others beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from umif.encoder.encoder import Encoder
from umif.errors import TaskError

if TYPE_CHECKING:
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import TaskOptions


@dataclass(frozen=True, slots=True)
class Contender:
    """One encoder under test.

    Attributes:
        name: Its name in tables, before the readout.
        baseline: Whether it is one.
        encoder: The encoder; of random weights, that of the first seed.
        by_seed: One encoder for every seed where they differ (random weights), else the same one.
    """

    name: str
    baseline: bool
    encoder: FrozenEncoder
    by_seed: tuple[FrozenEncoder, ...]

    @property
    def differs(self) -> bool:
        """Whether the seeds have encoders of their own."""
        return len(set(map(id, self.by_seed))) > 1


def contenders(encoder: FrozenEncoder, options: TaskOptions, *, words: bool = False) -> list[Contender]:
    """Return the model first, then random weights (where baselines are on and can be drawn), then those of others.

    Args:
        encoder: The model.
        options: `baselines`, `seed`, `seeds`, `against`.
        words: Only encoders that read words.
    """
    seeds = options.every_seed
    found = [Contender(encoder.title, False, encoder, (encoder,) * len(seeds))]
    if options.baselines:
        try:
            drawn = tuple(encoder.random_like(seed) for seed in seeds)
        except TaskError:  # a finished function of another's has no random twin
            drawn = ()
        if drawn:
            name = "random" if encoder.title == "umif" else f"random {encoder.title}"
            found.append(Contender(name, True, drawn[0], drawn))
    for rival in options.against:
        if rival.tokenizer is not None or not words:
            found.append(Contender(rival.title, True, rival, (rival,) * len(seeds)))
    return found


def reader_of(encoder: FrozenEncoder) -> Encoder:
    """Return the encoder as one that reads words.

    Raises:
        TaskError: it reads none.
    """
    if not isinstance(encoder, Encoder) or encoder.tokenizer is None:
        raise TaskError("this encoder reads no words", where=encoder.name, fix="leave it out of tasks that need words")
    return encoder
