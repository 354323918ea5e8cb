"""What a classification task asks of a corpus: which images are positive, which negative, and which are left out.

The built-in problems are a data file, `problems.yaml`. A problem is fitted on the corpus's train patients, chosen on
its val patients and tested on its test patients; the corpus keeps every patient in one split.

Shape legend: N images, F classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.quarantine import excluded_images
from umif.errors import TaskError
from umif.tasks.definitions import (
    Condition,
    Problem,
    PromptSides,
    built_in_problems,
    find_problem,
    read_problems,
)
from umif.tasks.labels import labels_of
from umif.tasks.metrics import UNKNOWN
from umif.tasks.published import LEFT_OUT, image_splits, missing_splits, overlap, published
from umif.tasks.slices import age_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.tasks.published import Splits

__all__ = [
    "MIN_PATIENTS",
    "Cases",
    "Condition",
    "Problem",
    "PromptSides",
    "applicable",
    "built_in_problems",
    "chosen_cases",
    "find_problem",
    "ids_sha256",
    "read_problems",
    "select",
]

# Below so many positive or negative patients in train or test, a class says nothing: its interval spans everything.
MIN_PATIENTS = 5
_COLUMNS = ("image", "dataset", "patient", "split", "view", "sex", "age_years", "findings")


@dataclass(frozen=True, slots=True)
class Cases:
    """The images of one problem, in the corpus's order.

    Shapes: rows_N int64, rows of the corpus's images; labels_NF int8: 1, 0 or −1 (unknown); images_N, datasets_N,
    patients_N, splits_N and own_splits_N (the corpus's, whichever are in use) str. `classes` are finding ids, or the
    problem's own name; `splits` says whose splits are in use; `groups` are what results are sliced by (sex, age, view,
    dataset; an empty string is not known); `notes` is what every row shall tell.
    """

    problem: Problem
    classes: tuple[str, ...]
    labels_NF: NDArray[np.int8]
    rows_N: NDArray[np.int64]
    images_N: NDArray[np.str_]
    datasets_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]
    splits_N: NDArray[np.str_]
    own_splits_N: NDArray[np.str_]
    splits: Splits = "clean"
    groups: dict[str, NDArray[np.str_]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def keep(self, columns: Sequence[int]) -> Cases:
        """Return the cases of some classes: the images that one of these knows."""
        labels_NF = self.labels_NF[:, list(columns)]
        known = np.flatnonzero((labels_NF != UNKNOWN).any(axis=1))
        return replace(
            self,
            groups={by: group_N[known] for by, group_N in self.groups.items()},
            classes=tuple(self.classes[column] for column in columns),
            labels_NF=labels_NF[known],
            rows_N=self.rows_N[known],
            images_N=self.images_N[known],
            datasets_N=self.datasets_N[known],
            patients_N=self.patients_N[known],
            splits_N=self.splits_N[known],
            own_splits_N=self.own_splits_N[known],
        )

    def of(self, split: str) -> NDArray[np.int64]:
        """Positions of the images of one split. Shape (n,)."""
        return np.flatnonzero(self.splits_N == split)

    @property
    def data(self) -> str:
        """Datasets and problem, for tables."""
        what = self.problem.title
        if self.problem.kind == "findings":
            named, there = len(self.problem.findings), len(self.classes)
            what = f"{there} findings" if not named else f"{what} ({f'{there} of ' if there < named else ''}{named})"
        return f"{', '.join(np.unique(self.datasets_N))}: {what}"

    @property
    def overlap(self) -> dict[str, int] | None:
        """What of the test set is met elsewhere (`published.overlap`); `None` for clean splits, which have none."""
        return None if self.splits == "clean" else overlap(self.splits_N, self.own_splits_N, self.patients_N)

    @property
    def split_sha256(self) -> str:
        """Hash over the ids of the test images, sorted."""
        return ids_sha256(self.images_N[self.of("test")])

    @property
    def test_patients(self) -> int:
        """Number of patients in the test set."""
        return len(np.unique(self.patients_N[self.of("test")]))


def ids_sha256(ids: Sequence[str] | NDArray[np.str_]) -> str:
    """SHA-256 over ids, sorted, one a line."""
    return hashlib.sha256("\n".join(sorted(str(name) for name in ids)).encode()).hexdigest()


def select(problem: Problem, corpus: Corpus, splits: Splits = "clean") -> Cases:
    """Return the images of `problem` with their labels and splits, without what the quarantine list excludes.

    Args:
        problem: What is asked.
        corpus: Whose images.
        splits: `clean` = the corpus's own; `paper` = those of published work, images without any left out.

    Raises:
        CorpusError: the quarantine list cannot be read.
        TaskError: train, val or test lack one of the two sides, or nobody has published splits; what is missing is
            named.
    """
    found = [(row, image) for row, image in _images(corpus, splits) if problem.about(image)]
    if splits == "paper" and not found:
        raise missing_splits(
            problem.datasets or corpus.images_table(["dataset"]).column("dataset").unique().to_pylist()
        )
    classes, labels_NF = labels_of(problem, [image for _, image in found], published=splits == "paper")

    def column(name: str) -> NDArray[np.str_]:
        return np.array([image[name] for _, image in found], dtype=np.str_)

    cases = Cases(
        problem=problem,
        classes=classes,
        labels_NF=labels_NF,
        rows_N=np.array([row for row, _ in found], dtype=np.int64),
        images_N=column("image"),
        datasets_N=column("dataset"),
        patients_N=column("patient"),
        splits_N=column("split"),
        own_splits_N=column("own_split"),
        splits=splits,
        groups={
            "sex": np.array([image["sex"] or "" for _, image in found], dtype=np.str_),
            "age": np.array([age_group(image["age_years"]) for _, image in found], dtype=np.str_),
            "view": np.array([(image["view"] or "").upper() for _, image in found], dtype=np.str_),
            "dataset": column("dataset"),
        },
        notes=_notes(problem, splits, np.unique(column("dataset")).tolist()),
    )
    lacking = {name: what for index, name in enumerate(classes) if (what := _lacking(cases, index)) is not None}
    able = [index for index, name in enumerate(classes) if name not in lacking]
    # Where none is able, all stay, so that the error can say what they lack. Exclusive classes stay together: accuracy
    # over fewer of them would be another number.
    cases = cases.keep(range(len(classes)) if problem.kind == "classes" else able or range(len(classes)))
    _check_splits(cases)
    if problem.findings and lacking:
        if 2 * len(able) < len(classes):
            raise TaskError(
                f"{len(able)} of its {len(classes)} findings have enough patients ({next(iter(lacking.values()))})",
                where=f"problem {problem.name}",
                fix="a mean over fewer than half of them would not be what its name says: prepare more of the data",
            )
        cases = replace(cases, notes={**cases.notes, "classes_left_out": lacking})
    return cases


def _notes(problem: Problem, splits: Splits, datasets: Sequence[str]) -> dict[str, Any]:
    """What rows tell of published splits, and of how labels were read with them."""
    if splits == "clean":
        return {}
    rules = {name: rule.note for name in datasets if (rule := published(name, "classification")) is not None}
    labels = {} if problem.published is None else {"published_labels": problem.published.model_dump(mode="json")}
    return {"published_splits": rules, **labels}


def applicable(corpus: Corpus, splits: Splits = "clean") -> list[Problem]:
    """Return the built-in problems that a corpus can carry on some splits."""
    able = []
    for problem in built_in_problems():
        try:
            select(problem, corpus, splits)
        except TaskError:
            continue
        able.append(problem)
    return able


def chosen_cases(corpus: Corpus, names: Sequence[str], splits: Splits = "clean") -> list[Cases]:
    """Return the cases of the problems named; of every one that the corpus can carry if none is named.

    Raises:
        TaskError: a named problem is unknown or cannot be carried, or none can.
    """
    if names:
        return [select(find_problem(name), corpus, splits) for name in names]
    cases = [select(problem, corpus, splits) for problem in applicable(corpus, splits)]
    if not cases:
        raise TaskError(
            f"no classification problem can be carried by this corpus on {splits} splits",
            where=corpus.path,
            fix=f"it needs {MIN_PATIENTS} positive and negative patients of something in train and in test, and some "
            "in val: prepare more images, or name a problem to be told what it lacks",
        )
    return cases


def _images(corpus: Corpus, splits: Splits) -> list[tuple[int, dict[str, Any]]]:
    """Return the images that are in a split and not in quarantine, with their rows; excluded labels state nothing."""
    no_image, no_labels = excluded_images(corpus)
    images = corpus.images_table(_COLUMNS).to_pylist()
    for row in np.flatnonzero(no_labels):
        images[row]["findings"] = []
    places = image_splits(corpus, splits)
    for image, place in zip(images, places, strict=True):
        image["own_split"], image["split"] = image["split"], str(place)
    return [(row, images[row]) for row in np.flatnonzero(~no_image & (places != LEFT_OUT)).tolist()]


def _lacking(cases: Cases, column: int) -> str | None:
    """Say which split has too few patients of which state of a class, `None` if all have enough."""
    for split, needed in (("train", MIN_PATIENTS), ("test", MIN_PATIENTS)):
        inside = cases.of(split)
        for word, state in (("positive", 1), ("negative", 0)):
            there = inside[cases.labels_NF[inside, column] == state]
            count = len(np.unique(cases.patients_N[there]))
            if count < needed:
                return f"{count} {word} patients in {split}, at least {needed} are needed"
    return None


def _check_splits(cases: Cases) -> None:
    """Refuse what cannot be carried out.

    Raises:
        TaskError: naming what is missing.
    """
    problem = cases.problem
    fix = "prepare more of the data, or choose another problem"
    if not len(cases.rows_N):
        about = f" of {', '.join(problem.datasets)}" if problem.datasets else ""
        raise TaskError(f"no image{about} has the labels that it asks for", where=f"problem {problem.name}", fix=fix)
    found = [(name, _lacking(cases, column)) for column, name in enumerate(cases.classes)]
    lacking = [(name, what) for name, what in found if what is not None]
    if len(lacking) == len(cases.classes) or (lacking and problem.kind == "classes"):
        name, what = lacking[0]
        of_class = f"{name}: " if len(cases.classes) > 1 else ""
        raise TaskError(f"{of_class}{what}", where=f"problem {problem.name}", fix=fix)
    val_NF = cases.labels_NF[cases.of("val")]
    if not any({0, 1} <= set(val_NF[:, column].tolist()) for column in range(len(cases.classes))):
        raise TaskError(
            "the val split lacks positives or negatives, so regularisation cannot be chosen",
            where=f"problem {problem.name}",
            fix="prepare with a larger val_share",
        )
