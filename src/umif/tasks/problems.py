"""What a classification task asks of a corpus: which images are positive, which negative, and which are left out.

The built-in problems are a data file, `problems.yaml`. A problem is fitted on the corpus's train patients, chosen on
its val patients and tested on its test patients; the corpus keeps every patient in one split.

Shape legend: N images, F classes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from umif.config import Config, parse_config
from umif.corpus.quarantine import excluded_images
from umif.corpus.schema import LABEL_STATES
from umif.errors import ConfigError, TaskError, nearest
from umif.tasks.metrics import UNKNOWN
from umif.tasks.published import LEFT_OUT, image_splits, missing_splits, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.tasks.published import Splits

BUILT_IN = Path(__file__).with_name("problems.yaml")
# Below so many positive or negative patients in train or test, a class says nothing: its interval spans everything.
MIN_PATIENTS = 5
_COLUMNS = ("image", "dataset", "patient", "split", "view", "sex", "findings")
# The complement of all others, so it is no class of its own beside them.
_NOT_A_CLASS = "no_finding"


class Condition(Config):
    """What an image must have; all keys that are given must hold."""

    finding: str | None = Field(None, description="Vocabulary id of a label")
    raw: str | None = Field(None, description="The dataset's own spelling of a label, case apart")
    state: Literal["present", "absent", "uncertain"] = Field("present", description="State of that label")
    sex: Literal["F", "M"] | None = Field(None, description="Sex of the patient")
    view: str | None = Field(None, description="View as the dataset spells it, case apart")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.finding is self.raw is self.sex is self.view is None:
            raise ValueError("a condition needs finding, raw, sex or view")
        return self

    def holds(self, image: dict[str, Any]) -> bool:
        """Whether a row of the corpus's images has all that is asked for."""
        if self.sex is not None and image["sex"] != self.sex:
            return False
        if self.view is not None and (image["view"] or "").casefold() != self.view.casefold():
            return False
        return (self.finding is self.raw is None) or any(self._names(label) for label in image["findings"])

    def _names(self, label: dict[str, Any]) -> bool:
        return (
            label["state"] == self.state
            and (self.finding is None or label["finding"] == self.finding)
            and (self.raw is None or label["raw"].casefold() == self.raw.casefold())
        )


class PromptSides(Config):
    """Whose prompts describe the two sides: finding ids, or `not <finding id>` for the negated ones."""

    positive: tuple[str, ...] = Field(min_length=1, description="Prompts of the positive side")
    negative: tuple[str, ...] = Field(min_length=1, description="Prompts of the negative side")


class Problem(Config):
    """One classification problem, or, of kind `findings`, one class for every finding with enough of both states."""

    name: str = Field(min_length=1, description="What the problem is called on the command line")
    title: str = Field(min_length=1, description="What it asks, for tables")
    kind: Literal["two-sided", "findings"] = Field("two-sided", description="One class, or one per finding")
    datasets: tuple[str, ...] = Field((), description="Datasets it is about; empty = all of a corpus")
    positive: tuple[Condition, ...] = Field((), description="Positive images: any of these")
    negative: tuple[Condition, ...] = Field((), description="Negative images: any of these")
    zero_shot: PromptSides | None = Field(None, description="Prompts of both sides, where words can ask it")

    @model_validator(mode="after")
    def _has_sides(self) -> Self:
        if (self.kind == "two-sided") != bool(self.positive and self.negative):
            raise ValueError("a two-sided problem needs positive and negative; a findings problem has neither")
        return self


@dataclass(frozen=True, slots=True)
class Cases:
    """The images of one problem, in the corpus's order.

    Shapes: rows_N int64, rows of the corpus's images; labels_NF int8: 1, 0 or −1 (unknown); images_N, datasets_N,
    patients_N, splits_N and own_splits_N (the corpus's, whichever are in use) str. `classes` are finding ids, or the
    problem's own name; `splits` says whose splits are in use.
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

    def keep(self, columns: Sequence[int]) -> Cases:
        """Return the cases of some classes: the images that one of these knows."""
        labels_NF = self.labels_NF[:, list(columns)]
        known = np.flatnonzero((labels_NF != UNKNOWN).any(axis=1))
        return replace(
            self,
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
        what = f"{len(self.classes)} findings" if self.problem.kind == "findings" else self.problem.title
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


@cache
def built_in_problems() -> tuple[Problem, ...]:
    """The problems of `problems.yaml`, in its order."""
    return read_problems(BUILT_IN)


def read_problems(path: str | Path) -> tuple[Problem, ...]:
    """Read a YAML list of problems.

    Raises:
        ConfigError: it is no such list, an unknown key, or a name used twice.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=path) from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("must hold a list of problems", where=path)
    problems = tuple(
        parse_config(Problem, entry, where=f"{path}, problem {number}") for number, entry in enumerate(entries, 1)
    )
    names = [problem.name for problem in problems]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the problem {name!r} occurs twice", where=path, fix="give it another name")
    return problems


def find_problem(name: str) -> Problem:
    """Return the built-in problem `name`.

    Raises:
        TaskError: there is none; the nearest name is offered.
    """
    for problem in built_in_problems():
        if problem.name == name:
            return problem
    raise TaskError(f"no problem is called {name!r}", fix=nearest(name, [p.name for p in built_in_problems()]))


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
    found = [(row, image) for row, image in _images(corpus, splits) if _about(problem, image)]
    if splits == "paper" and not found:
        raise missing_splits(
            problem.datasets or corpus.images_table(["dataset"]).column("dataset").unique().to_pylist()
        )
    if problem.kind == "findings":
        classes, labels_NF = _finding_labels(found)
    else:
        classes, labels_NF = (problem.name,), _side_labels(problem, found)

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
    )
    able = [index for index in range(len(classes)) if _lacking(cases, index) is None]
    # Where none is able, all stay, so that the error can say what they lack.
    cases = cases.keep(able or range(len(classes)))
    _check_splits(cases)
    return cases


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


def _about(problem: Problem, image: dict[str, Any]) -> bool:
    return not problem.datasets or image["dataset"] in problem.datasets


def _side_labels(problem: Problem, found: list[tuple[int, dict[str, Any]]]) -> NDArray[np.int8]:
    """Shape (N, 1)."""
    labels_N1 = np.full((len(found), 1), UNKNOWN, dtype=np.int8)
    for index, (_, image) in enumerate(found):
        positive = any(condition.holds(image) for condition in problem.positive)
        negative = any(condition.holds(image) for condition in problem.negative)
        if positive != negative:
            labels_N1[index, 0] = 1 if positive else 0
    return labels_N1


def _finding_labels(found: list[tuple[int, dict[str, Any]]]) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Present is 1, absent is 0; uncertain, not mentioned and contradictory stay unknown. Shape (N, F)."""
    value = {"present": 1, "absent": 0}
    assert value.keys() < set(LABEL_STATES)
    stated: dict[str, dict[int, set[int]]] = {}
    for index, (_, image) in enumerate(found):
        for label in image["findings"]:
            if label["finding"] not in (None, _NOT_A_CLASS) and label["state"] != "not_mentioned":
                states = stated.setdefault(label["finding"], {}).setdefault(index, set())
                states.add(value.get(label["state"], UNKNOWN))
    classes = tuple(sorted(stated))
    labels_NF = np.full((len(found), len(classes)), UNKNOWN, dtype=np.int8)
    for column, finding in enumerate(classes):
        for index, states in stated[finding].items():
            labels_NF[index, column] = states.pop() if len(states) == 1 else UNKNOWN
    return classes, labels_NF


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
    lacking = [what for column in range(len(cases.classes)) if (what := _lacking(cases, column)) is not None]
    if len(lacking) == len(cases.classes):
        raise TaskError(lacking[0], where=f"problem {problem.name}", fix=fix)
    val_NF = cases.labels_NF[cases.of("val")]
    if not any({0, 1} <= set(val_NF[:, column].tolist()) for column in range(len(cases.classes))):
        raise TaskError(
            "the val split lacks positives or negatives, so regularisation cannot be chosen",
            where=f"problem {problem.name}",
            fix="prepare with a larger val_share",
        )
