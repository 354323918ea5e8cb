"""All that must survive a crash, in one typed place.

There is no generator's state in it and no loader's position but the step: what step k sees is a pure function of
(corpus, seed, k).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umif.errors import CheckpointError
from umif.models.umif import HOW_IT_RUNS
from umif.train.checkpoint import load_state, save_checkpoint, save_checkpoint_together
from umif.train.durable import DISK, Disk
from umif.train.optim import load_optimizer_tensors, optimizer_tensors, trainable
from umif.train.parts import SavedTensors
from umif.train.shard import own_part, own_rows, placed, release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from umif.models.umif import UmiF
    from umif.train.distributed import Processes

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

    def save(self, run: Path, *, keep: int = 2, disk: Disk = DISK) -> Path:
        """Write a checkpoint from one process; see `save_checkpoint`."""
        return save_checkpoint(run, self.step, self._tensors(), self.to_json(), keep=keep, disk=disk)

    def save_together(self, run: Path, processes: Processes, *, keep: int = 2, disk: Disk = DISK) -> Path:
        """Write a checkpoint from all processes, which share the weights; see `save_checkpoint_together`."""
        release(self.model)
        parts = {name: own_part(group, processes) for name, group in self._tensors().items()}
        return save_checkpoint_together(run, self.step, parts, self.to_json(), processes, keep=keep, disk=disk)

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
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
            self.model.load_state_dict(_read(SavedTensors(checkpoint, "model"), self.model.state_dict()))
        except RuntimeError as error:
            raise CheckpointError(f"the weights do not fit the model: {error}", where=checkpoint) from None
        moments = SavedTensors(checkpoint, "optimizer")
        owners = trainable(self.model)
        like = {name: owners[owner] for name in moments.names if (owner := name.partition("/")[2]) in owners}
        load_optimizer_tensors(self.model, self.optimizer, _read(moments, like))
        for name in _COUNTERS:
            setattr(self, name, saved[name])


def _read(saved: SavedTensors, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read saved tensors to where those of the same names in `like` lie, and of a sharded one its own rows alone."""
    found: dict[str, torch.Tensor] = {}
    for name in saved.names:
        tensor, shape = like.get(name), saved.shape(name)
        if tensor is None or shape not in ((), tensor.shape):
            found[name] = saved.whole(name)  # fits nowhere, and is refused by whoever it is for
            continue
        rows = own_rows(tensor) if shape else None
        found[name] = placed(saved.whole(name) if rows is None else saved.rows(name, *rows), tensor)
    return found
