"""All that must survive a crash, in one typed place.

There is no generator's state in it and no loader's position but the step: what step k sees is a pure function of
(corpus, seed, k).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umif.errors import CheckpointError
from umif.models.umif import HOW_IT_RUNS
from umif.train.checkpoint import load_state, load_tensors, save_checkpoint
from umif.train.durable import DISK, Disk
from umif.train.optim import load_optimizer_tensors, optimizer_tensors
from umif.train.shard import is_sharded, like, release, whole_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from umif.models.umif import UmiF

    _Groups = dict[str, dict[str, torch.Tensor]]

_COUNTERS = (
    "step",
    "seed",
    "corpus_fingerprint",
    "pairs_seen",
    "bad_samples",
    "nonfinite_in_a_row",
    "nonfinite",
    "collapsed_in_a_row",
    "losses",
)


@dataclass(slots=True)
class TrainState:
    """The state of a run after `step` finished steps.

    Attributes:
        model: Student and teacher.
        optimizer: AdamW with its moments.
        seed: The run's.
        corpus_fingerprint: Of the corpus that the run learns from.
        step: Finished steps.
        pairs_seen: Pairs that went into a loss, over all processes.
        bad_samples: Samples that were dropped.
        nonfinite_in_a_row, nonfinite: Steps with NaN or Inf, just now in a row and in all.
        collapsed_in_a_row: Steps in a row in which features looked collapsed.
        losses: Of the last step.
    """

    model: UmiF
    optimizer: torch.optim.Optimizer
    seed: int
    corpus_fingerprint: str
    step: int = 0
    pairs_seen: int = 0
    bad_samples: int = 0
    nonfinite_in_a_row: int = 0
    nonfinite: int = 0
    collapsed_in_a_row: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    def counters(self) -> dict[str, Any]:
        """Return everything that is no tensor, as JSON values."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def to_json(self) -> dict[str, Any]:
        """Return the counters and the model's config, so that a checkpoint says by itself what network it holds."""
        return {**self.counters(), "model": self.model.config.model_dump(mode="json", exclude=set(HOW_IT_RUNS))}

    def save(self, run: Path, *, keep: int = 2, disk: Disk = DISK, tensors: _Groups | None = None) -> Path:
        """Write a checkpoint; see `save_checkpoint`. `tensors` are those of `gathered`, where the model is sharded."""
        return save_checkpoint(run, self.step, tensors or self._tensors(), self.to_json(), keep=keep, disk=disk)

    def gathered(self, *, keep: bool) -> _Groups | None:
        """Gather a sharded model's tensors where `keep` is set, with every process's part; otherwise `None`."""
        if not is_sharded(self.model):
            return None
        groups = {name: whole_tensors(group, keep=keep) for name, group in self._tensors().items()}
        return groups if keep else None

    def _tensors(self) -> _Groups:
        release(self.model)
        return {"model": self.model.state_dict(), "optimizer": optimizer_tensors(self.model, self.optimizer)}

    def restore(self, checkpoint: Path) -> None:
        """Take everything from a verified checkpoint.

        Raises:
            CheckpointError: it is of another seed, corpus or model, or lacks something.
        """
        saved, mine = load_state(checkpoint), self.to_json()
        for name in ("seed", "corpus_fingerprint", "model"):
            if saved.get(name) != mine[name]:
                raise CheckpointError(f"{name} is {saved.get(name)!r} and should be {mine[name]!r}", where=checkpoint)
        if set(saved) != set(mine):
            raise CheckpointError(f"state.json holds {sorted(saved)} and should hold {sorted(mine)}", where=checkpoint)
        try:
            own = self.model.state_dict()
            loaded = load_tensors(checkpoint, "model")
            self.model.load_state_dict({k: like(v, own[k]) if k in own else v for k, v in loaded.items()})
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit the model: {error}", where=checkpoint) from None
        load_optimizer_tensors(self.model, self.optimizer, load_tensors(checkpoint, "optimizer"))
        for name in _COUNTERS:
            setattr(self, name, saved[name])
