"""What a check of a corpus is: one registered function that looks at a `Scene` and reports to an `Issue`.

    @check("constant", "Pictures that show nothing", severity="defect", decision="exclude")
    def constant(scene: Scene, issue: Issue) -> None:
        for row in np.flatnonzero(looks_constant(scene.measures)):
            issue.add(scene.image(row), ...)

A check streams the rows it needs; an issue keeps counts, a few examples of each dataset, and what is to be listed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np

from umif.corpus.image_hash import near_pairs
from umif.corpus.quality_pixels import looks_constant, same_picture
from umif.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus.store import Corpus

# defect: certain; suspect: a look at it decides; note: worth knowing.
Severity = Literal["defect", "suspect", "note"]
Decision = Literal["exclude", "review"]
_EXAMPLES_OF_A_DATASET, _BATCH = 6, 2048
# Hashes of one picture scaled or encoded anew differ by this at most, in nearly all cases.
_NEAR = 4
# Pairs of thumbnails compared at a time: about 10 MB.
_THUMBS = 1024
_IMAGE_COLUMNS = (
    "image", "dataset", "sha256", "patient", "split", "official_split", "height", "width", "original_height",
    "original_width",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that a check found: its id, what is wrong with it, and the pictures that show it."""

    item: str
    dataset: str
    detail: str
    image_rows: tuple[int, ...] = ()


@dataclass(slots=True)
class Issue:
    """What one check found.

    Attributes:
        check, title, severity, decision, what: As registered. `decision` is what new lines of the quarantine list say;
            `None` lists nothing.
        count: Number of things found, and `entries` of lines that report them (a label that nobody knows is one).
        datasets: The same by dataset.
        examples: A few of each dataset.
        listed: (item, reason) for the quarantine list.
    """

    check: str
    title: str
    severity: Severity
    decision: Decision | None
    what: str
    count: int = 0
    entries: int = 0
    datasets: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    listed: list[tuple[str, str]] = field(default_factory=list)

    def add(
        self, item: str, dataset: str, detail: str, *image_rows: SupportsIndex, count: int = 1, listed: bool = True
    ) -> None:
        """Report `item`, an image's or pair's id; with `listed=False` it is none, and stays out of the list."""
        shown = sum(example.dataset == dataset for example in self.examples)
        if shown < _EXAMPLES_OF_A_DATASET:
            self.examples.append(Example(item, dataset, detail, tuple(int(row) for row in image_rows)))
        self.count += count
        self.entries += 1
        self.datasets[dataset] += count
        if listed and self.decision is not None:
            self.listed.append((item, f"{self.check}: {detail}"))


class Scene:
    """A corpus as checks see it: its rows, the measures of its pictures, its ledger. Pictures are not held."""

    def __init__(self, corpus: Corpus, measures: NDArray[np.void]) -> None:
        self.corpus = corpus
        self.measures = measures

    @cached_property
    def images(self) -> dict[str, NDArray[Any]]:
        """Columns of the images that say who and where, one value an image."""
        table = self.corpus.images_table(_IMAGE_COLUMNS)
        return {name: table.column(name).to_numpy() for name in _IMAGE_COLUMNS}

    def named(self, row: SupportsIndex) -> tuple[str, str]:
        """Return the id and the dataset of an image."""
        return str(self.images["image"][row]), str(self.images["dataset"][row])

    def pairs(self, columns: Sequence[str], where: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yield the pairs in row order, a few thousand at a time; only those of a condition if given."""
        for batch in self.corpus.pair_batches(columns, _BATCH, where):
            yield batch.to_pylist()

    def ledger(self, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of the build's ledger of one stage: read, image or region."""
        if not self.corpus.ledger.exists():
            return
        with self.corpus.ledger.open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if row["stage"] == stage:
                    yield row

    @cached_property
    def same_files(self) -> NDArray[np.int64]:
        """For each image the first image whose raw file has the same bytes; itself where it is the first."""
        _, first, place = np.unique(self.images["sha256"], return_index=True, return_inverse=True)
        return np.asarray(first[place], dtype=np.int64)

    @cached_property
    def near(self) -> NDArray[np.int64]:
        """Pairs of images that show the same picture though their files differ, (n, 2), ascending."""
        seen = self.measures["readable"] & ~looks_constant(self.measures)
        rows = np.flatnonzero(seen & (self.same_files == np.arange(len(seen))))
        found = [np.zeros((0, 2), dtype=np.int64)]
        for left, right in near_pairs(self.measures["hash"][rows], _NEAR):
            for start in range(0, len(left), _THUMBS):
                pair = rows[np.stack([left[start : start + _THUMBS], right[start : start + _THUMBS]], axis=1)]
                thumbs = self.measures["thumb"]
                found.append(pair[same_picture(thumbs[pair[:, 0]], thumbs[pair[:, 1]])])
        pairs = np.concatenate(found)
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


Check = tuple[Issue, "Callable[[Scene, Issue], None]"]
_CHECKS: dict[str, tuple[tuple[str, str, Severity, Decision | None, str], Callable[[Scene, Issue], None]]] = {}


def check(
    name: str, title: str, *, severity: Severity, decision: Decision | None = None
) -> Callable[[Callable[[Scene, Issue], None]], Callable[[Scene, Issue], None]]:
    """Register a check; the first paragraph of its docstring is what the page says of it.

    Raises:
        RegistryError: a check of that name is registered.
    """

    def register(run: Callable[[Scene, Issue], None]) -> Callable[[Scene, Issue], None]:
        if name in _CHECKS:
            raise RegistryError(f"the check {name!r} is registered twice", fix="give it another name")
        what = " ".join((run.__doc__ or "").split("\n\n")[0].split())
        _CHECKS[name] = ((name, title, severity, decision, what), run)
        return run

    return register


def checks() -> list[Check]:
    """Return a fresh issue and the function of every registered check, in the order of registration."""
    return [(Issue(*about), run) for about, run in _CHECKS.values()]
