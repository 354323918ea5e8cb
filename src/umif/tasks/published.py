"""Two sets of splits for whatever is tested on: clean ones, and those of published work.

`clean` is the corpus's own: no patient, over all datasets, is on two sides. `paper` is what numbers in papers were
taken on (`published.yaml`): often by image, so that patients are torn, and unaware of what the run was trained on. How
much of the test set is met elsewhere is counted and told beside every number.

Shape legend: N images of a corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from umif.config import Config, parse_config
from umif.corpus.quarantine import excluded_images
from umif.errors import ConfigError, TaskError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

FILE = Path(__file__).with_name("published.yaml")
Splits = Literal["clean", "paper"]
Use = Literal["classification", "regions", "questions"]
SPLITS_NAMES: tuple[Splits, ...] = ("clean", "paper")
LEFT_OUT = ""
_COLUMNS = ("image", "dataset", "patient", "view", "official_split")


class PublishedSplit(Config):
    """One line of the data file: how published work splits a dataset for one use."""

    dataset: str = Field(description="Reader")
    use: Use = Field(description="What is tested")
    unit: Literal["image", "patient", "question"] = Field(description="What is drawn")
    parts: dict[Literal["train", "val", "test", "any"], Literal["train", "val", "test"]] = Field(
        alias="from", min_length=1, description="The dataset's own part → split"
    )
    val: float = Field(0.0, ge=0, lt=1, description="Share of the training part that is drawn as val")
    test: float = Field(0.0, ge=0, lt=1, description="Share of the training part that is drawn as test")
    val_most: int | None = Field(None, ge=1, description="Largest number drawn as val")
    views: tuple[str, ...] = Field((), description="Views that are kept; empty = all")
    note: str = Field(min_length=1, description="What the published rows are, and what differs")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError("nothing is left to train on")
        if (self.use == "questions") != (self.unit == "question"):
            raise ValueError("questions are drawn for questions, and for nothing else")
        return self


@dataclass(frozen=True, slots=True)
class SplitQuestion:
    """A question of a corpus and the split that it is in."""

    image_row: int
    patient: str
    question: str
    answer: str
    answer_type: str | None
    question_type: str | None
    split: str


@cache
def published_splits() -> tuple[PublishedSplit, ...]:
    """Return the lines of the data file.

    Raises:
        ConfigError: the file is damaged, or has two lines for one use of a dataset.
    """
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found = tuple(parse_config(PublishedSplit, entry, where=f"{FILE}, {n}") for n, entry in enumerate(entries, 1))
    named = [(one.dataset, one.use) for one in found]
    if len(set(named)) < len(named):
        raise ConfigError("two lines for one use of a dataset", where=FILE)
    return found


def published(dataset: str, use: Use) -> PublishedSplit | None:
    """Return how published work splits a dataset; `None` where this is not known."""
    return next((one for one in published_splits() if (one.dataset, one.use) == (dataset, use)), None)


def checked_splits(name: str) -> Splits:
    """Return the name of a set of splits as that.

    Raises:
        TaskError: there is no such set of splits.
    """
    for known in SPLITS_NAMES:
        if name == known:
            return known
    raise TaskError(f"there are no splits {name!r}", fix=f"choose {' or '.join(SPLITS_NAMES)}")


def image_splits(corpus: Corpus, splits: Splits, use: Use = "classification") -> NDArray[np.str_]:
    """Return the split of every image of a corpus, `""` where it is in none. Shape (N,).

    Images of datasets without a published split are in none of the paper's.

    Raises:
        TaskError: there is no such set of splits.
    """
    if checked_splits(splits) == "clean":
        return np.array(corpus.images_table(["split"]).column("split").to_pylist(), dtype=np.str_)
    rows = corpus.images_table(_COLUMNS).to_pylist()
    found = np.full(len(rows), LEFT_OUT, dtype="<U5")
    for dataset in sorted({row["dataset"] for row in rows}):
        rule = published(dataset, use)
        if rule is not None and rule.unit != "question":
            places = [place for place, row in enumerate(rows) if row["dataset"] == dataset and _has_view(rule, row)]
            chosen = [rows[place] for place in places]
            units = [row["image" if rule.unit == "image" else "patient"] for row in chosen]
            found[places] = _drawn(rule, units, [row["official_split"] for row in chosen])
    return found


def split_questions(corpus: Corpus, splits: Splits, datasets: Sequence[str] | None = None) -> list[SplitQuestion]:
    """Return the questions of a corpus with their splits, in the order of its images; not those of excluded images.

    `clean` puts a question where its image's patient is; `paper` where the dataset puts the question, so one image may
    have some on both sides.

    Raises:
        TaskError: there are no such splits, or no questions in them.
    """
    clean = image_splits(corpus, "clean")
    excluded, _ = excluded_images(corpus)
    rows = [row for row in corpus.image_rows(datasets=datasets) if not excluded[row]]
    images = corpus.images_table(["image", "dataset", "patient"]).to_pylist()
    asked = [
        (int(row), question) for row, some in zip(rows, corpus.take_questions(rows), strict=True) for question in some
    ]
    if checked_splits(splits) == "clean":
        places = [str(clean[row]) for row, _ in asked]
    else:
        places = _question_places([(images[row], question) for row, question in asked])
    found = [
        SplitQuestion(
            image_row=row,
            patient=images[row]["patient"],
            question=question["question"],
            answer=question["answer"],
            answer_type=question["answer_type"],
            question_type=question["question_type"],
            split=place,
        )
        for (row, question), place in zip(asked, places, strict=True)
        if place != LEFT_OUT
    ]
    if not found:
        raise TaskError(
            f"no question is in the {splits} splits",
            where=corpus.path,
            fix=f"published splits of questions are known for {', '.join(sorted(_known('questions')))}",
        )
    return found


def overlap(splits_N: NDArray[np.str_], clean_N: NDArray[np.str_], patients_N: NDArray[np.str_]) -> dict[str, int]:
    """Count what of a test set is met elsewhere.

    Args:
        splits_N: The splits in use.
        clean_N: The corpus's own.
        patients_N: Patient keys.

    Returns:
        Patients in test, those of them also in train, those also in val; and images in test, those of them that are in
        the corpus's own training split, which a run on this corpus has seen.

    Shapes: all (N,), N images.
    """
    test = splits_N == "test"
    tested = set(patients_N[test])
    return {
        "test_patients": len(tested),
        "test_patients_in_train": len(tested & set(patients_N[splits_N == "train"])),
        "test_patients_in_val": len(tested & set(patients_N[splits_N == "val"])),
        "test_images": int(test.sum()),
        "test_images_in_own_train": int((clean_N[test] == "train").sum()),
    }


def missing_splits(datasets: Sequence[str], use: Use = "classification") -> TaskError:
    """Return the error for datasets of which no published split is known."""
    return TaskError(
        f"no published split is known for {', '.join(sorted(datasets)) or 'this corpus'}",
        where="splits paper",
        fix=f"use clean splits, or data of {', '.join(sorted(_known(use)))}",
    )


def _known(use: Use) -> Iterator[str]:
    return (one.dataset for one in published_splits() if one.use == use)


def _has_view(rule: PublishedSplit, row: dict[str, Any]) -> bool:
    return not rule.views or (row["view"] or "").casefold() in {view.casefold() for view in rule.views}


def _question_places(asked: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    places = np.full(len(asked), LEFT_OUT, dtype="<U5")
    for dataset in sorted({image["dataset"] for image, _ in asked}):
        rule = published(dataset, "questions")
        if rule is not None:
            own = [place for place, (image, _) in enumerate(asked) if image["dataset"] == dataset]
            # Questions have no ids: the image and the words name one; repeated ones go together.
            units = [f"{asked[place][0]['image']} {asked[place][1]['question']}" for place in own]
            places[own] = _drawn(rule, units, [asked[place][1]["official_split"] for place in own])
    return [str(place) for place in places]


def _drawn(rule: PublishedSplit, units: Sequence[str], official: Sequence[str | None]) -> NDArray[np.str_]:
    """Return the split of each thing: by its official part, and drawn by unit from what is left to train on."""
    parts: dict[str, str] = {str(part): split for part, split in rule.parts.items()}
    found = np.array([parts.get(part or "", parts.get("any", LEFT_OUT)) for part in official], dtype="<U5")
    named = np.array(units, dtype=np.str_)
    training = np.unique(named[found == "train"])
    order = keyed_rng(0, f"published split of {rule.dataset}, {rule.use}").permutation(len(training))
    # An official val part is used as it is.
    n_val = 0 if (found == "val").any() else round(rule.val * len(training))
    n_val = n_val if rule.val_most is None else min(n_val, rule.val_most)
    n_test = round(rule.test * len(training))
    for split, chosen in (("test", order[:n_test]), ("val", order[n_test : n_test + n_val])):
        found[(found == "train") & np.isin(named, training[chosen])] = split
    return found
