"""The contract of a downstream task, and the row of a results table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.corpus.store import Corpus
    from umif.encoder import Encoder, FrozenEncoder
    from umif.tasks.published import Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One number of a results table, with its 95 % patient-bootstrap interval.

    Attributes:
        task: Registered name of the task, with its variant (`linear`, `zero-shot`).
        data: Dataset and problem (`nih-chestxray14: pneumonia vs no finding`).
        protocol: Which split and rules were used.
        labels: Share of the training patients' labels, in percent.
        metric: What `value` is (`macro AUC`).
        low, high: 95 % interval; `None` where it has no meaning.
        encoder: Which features: `umif`, `random`, `pixels 32×32`, …, with the readout (`cls`, `patches 4×4`).
        baseline: Whether the row is a baseline.
        split_sha256: Hash over the test images' ids, so that two rows are known to share a test set.
        n_patients: Patients in the test set.
        extra: Anything more (chosen regularisation, counts, per-class values).
    """

    task: str
    data: str
    protocol: str
    labels: float
    metric: str
    value: float
    low: float | None
    high: float | None
    encoder: str
    baseline: bool
    split_sha256: str
    n_patients: int
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Result:
        """Return the row that `to_json` gave.

        Raises:
            KeyError: a column is missing.
        """
        needed = [one.name for one in fields(cls) if one.name != "extra"]
        return cls(**{name: row[name] for name in needed}, extra=dict(row.get("extra", {})))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a user can choose on the command line for any task.

    `splits` are `clean` (the corpus's own, by patient) or `paper` (those of published work).

    `labels` are percentages; `baselines` turns random initialisation and pixels on; `seed` draws label subsets, and
    `seeds` says how many in a row are taken: whatever is drawn or trained is so once for each, and rows give the mean.
    `against` are encoders of others, evaluated beside the model by the same code on the same test set.
    `problems` names some of a task's problems, empty = all that the data can carry; `block` is the block (1-based)
    whose patches are pooled, `None` = the task's own choice; `progress` shows a bar on standard error after 2 s; `full`
    trains heads on all images and for as long as papers do, rather than within about a minute.
    `settings` are those of single tasks, `task.key=value`, such as `vqa.steps=1000`.
    """

    labels: tuple[float, ...] = (100.0,)
    seed: int = 0
    baselines: bool = True
    problems: tuple[str, ...] = ()
    splits: Splits = "clean"
    bootstrap: int = 1000
    block: int | None = None
    progress: bool = True
    full: bool = False
    settings: tuple[str, ...] = ()
    seeds: int = 1
    against: tuple[FrozenEncoder, ...] = ()

    @property
    def every_seed(self) -> range:
        """The seeds: `seed` and those after it."""
        return range(self.seed, self.seed + self.seeds)

    def to_json(self) -> dict[str, Any]:
        """Return what decides the rows, as plain JSON values; encoders of others by their weights."""
        chosen = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("progress", "against")}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}
        rivals = [[one.title, one.weights_sha256, one.preprocessing.to_json()] for one in self.against]
        return {**plain, "against": rivals}


class Task(ABC):
    """Base of all tasks; register with `@umif.register("task", name)`. A task sees the encoder only, never a model."""

    summary: ClassVar[str] = ""
    # Whether it needs an encoder that reads words; encoders of others have none, so it leaves them out.
    reads_words: ClassVar[bool] = False

    @abstractmethod
    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate `encoder` on `corpus`; rows in a deterministic order.

        Raises:
            TaskError: the data cannot carry the task (one class only, no test patients, no labels).
        """
