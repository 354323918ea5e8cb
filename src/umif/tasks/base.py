"""The contract of a downstream task, and the row of a results table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.corpus.store import Corpus
    from umif.encoder import Encoder

Splits = Literal["clean", "paper"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """What a user can choose on the command line for any task.

    `labels` are percentages; `baselines` turns random initialisation and pixels on; `seed` draws label subsets.
    `problems` names some of a task's problems, empty = all that the data can carry; `block` is the block (1-based)
    whose patches are pooled, `None` = the task's own choice; `progress` shows a bar on standard error after 2 s.
    `splits` are `clean` (the corpus's own, by patient) or `paper` (the datasets' own); `settings` are those of single
    tasks, `task.key=value`, such as `vqa.steps=1000`.
    """

    labels: tuple[float, ...] = (100.0,)
    seed: int = 0
    baselines: bool = True
    problems: tuple[str, ...] = ()
    bootstrap: int = 1000
    block: int | None = None
    progress: bool = True
    splits: Splits = "clean"
    settings: tuple[str, ...] = ()


class Task(ABC):
    """Base of all tasks; register with `@umif.register("task", name)`. A task sees the encoder only, never a model."""

    summary: ClassVar[str] = ""

    @abstractmethod
    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate `encoder` on `corpus`; rows in a deterministic order.

        Raises:
            TaskError: the data cannot carry the task (one class only, no test patients, no labels).
        """
