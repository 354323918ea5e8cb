"""Questions of a corpus, their splits, and the answers that may be given.

`clean` puts a question where its image is: no image or patient is on two sides. `paper` puts it where the dataset does,
question by question, so that one image may be asked about in training and in the test; how many are is counted.

Shape legend: N questions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.errors import TaskError, nearest
from umif.imaging import decode_jpeg_grey
from umif.rng import keyed_rng
from umif.tasks.answers import is_yes_or_no, normalise_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Preprocessing
    from umif.tasks.published import Splits

# Of an official training part without a val part, this share of the images, with all their questions, is val.
PAPER_VAL_SHARE = 0.1
# An image that shows nothing: mid-grey all over.
BLANK, BLANK_GREY = -1, 128
# Pictures are kept at the network's size up to so many bytes, and decoded again beyond.
_KEPT_BYTES = 512 * 2**20
_COLUMNS = ("image", "dataset", "patient", "split")


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of one dataset that are in a split, in the corpus's order.

    Shapes: all (N,). rows_N int64, rows of the corpus's images; answers_N normalised; closed_N bool; the rest str.

    Attributes:
        dataset: Reader's name.
        counts: What else a row shall tell of the data.
    """

    dataset: str
    rows_N: NDArray[np.int64]
    images_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]
    splits_N: NDArray[np.str_]
    questions_N: NDArray[np.str_]
    answers_N: NDArray[np.str_]
    closed_N: NDArray[np.bool_]
    types_N: NDArray[np.str_]
    counts: dict[str, Any] = field(default_factory=dict)

    def of(self, split: str) -> NDArray[np.int64]:
        """Positions of the questions of one split. Shape (n,)."""
        return np.flatnonzero(self.splits_N == split)

    def ids(self, places: NDArray[np.int64]) -> list[str]:
        """Names of questions: image, question and answer; what a test set is known by."""
        return [f"{self.images_N[n]}\t{self.questions_N[n]}\t{self.answers_N[n]}" for n in places]


class Pictures:
    """The network's input of images of a corpus, decoded once while memory allows; row −1 is a blank picture."""

    def __init__(self, corpus: Corpus, preprocessing: Preprocessing) -> None:
        self._corpus, self._preprocessing = corpus, preprocessing
        side = preprocessing.image_size
        self._kept = {BLANK: np.full((side, side), BLANK_GREY, dtype=np.uint8)}
        self._most = max(1, _KEPT_BYTES // side**2)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the pictures of `rows`. Shape (n, S, S)."""
        missing = [int(row) for row in np.unique(rows) if int(row) not in self._kept]
        made = {}
        if missing:
            for row, jpeg in zip(missing, self._corpus.take_jpegs(missing), strict=True):
                made[row] = self._preprocessing.view(decode_jpeg_grey(jpeg))
        views = np.stack([made[int(row)] if int(row) in made else self._kept[int(row)] for row in rows])
        room = self._most - len(self._kept)
        self._kept.update(list(made.items())[: max(0, room)])
        return views


def chosen_questions(corpus: Corpus, names: Sequence[str], splits: Splits) -> list[Questions]:
    """Return the questions of every dataset that has some, or of those named, one set a dataset.

    Raises:
        TaskError: there is none, a named dataset has none, or the splits cannot carry the task.
    """
    rows = corpus.images_table(_COLUMNS).to_pylist()
    asked: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, questions in enumerate(corpus.take_questions(range(len(rows)))):
        if questions:
            asked.setdefault(rows[number]["dataset"], []).extend((number, one) for one in questions)
    if not asked:
        raise TaskError(
            "the corpus has no questions",
            where=corpus.path,
            fix="prepare data that has some: vqa-rad, slake or phantom, or questions of your own",
        )
    for name in names:
        if name not in asked:
            raise TaskError(f"there are no questions of {name!r}", where=corpus.path, fix=nearest(name, list(asked)))
    return [_questions(name, asked[name], rows, splits, corpus) for name in sorted(names or asked)]


def candidate_answers(questions: Questions, splits: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct answers of some splits, the most frequent first, then by the alphabet."""
    counts = Counter(questions.answers_N[np.isin(questions.splits_N, list(splits))].tolist())
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer)))


def majority_answers(questions: Questions, train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the most frequent training answer to questions of the same type, open or closed alike; shape of `test`.

    A type that training lacks falls back on all open or all closed ones, then on all.
    """

    def keys(place: int) -> tuple[tuple[Any, ...], ...]:
        closed = bool(questions.closed_N[place])
        return (closed, str(questions.types_N[place])), (closed,), ()

    counts: dict[tuple[Any, ...], Counter[str]] = {}
    for place in train:
        for key in keys(place):
            counts.setdefault(key, Counter())[str(questions.answers_N[place])] += 1
    best = {key: min(found, key=lambda answer: (-found[answer], answer)) for key, found in counts.items()}
    return np.array([next(best[key] for key in keys(place) if key in best) for place in test], dtype=np.str_)


def shuffled_rows(questions: Questions, places: NDArray[np.int64], seed: int) -> NDArray[np.int64] | None:
    """Return for each question the image of another patient; questions of one image get the same one.

    Patients are put on a ring in a drawn order and each takes the next one's images. `None` with fewer than two.
    """
    patients = np.unique(questions.patients_N[places])
    if len(patients) < 2:
        return None
    order = keyed_rng(seed, "vqa shuffled images").permutation(patients)
    following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    images = {
        patient: np.unique(questions.rows_N[places[questions.patients_N[places] == patient]]) for patient in following
    }
    found = []
    for place in places:
        patient = str(questions.patients_N[place])
        own, others = images[patient], images[following[patient]]
        found.append(others[int(np.searchsorted(own, questions.rows_N[place])) % len(others)])
    return np.array(found, dtype=np.int64)


def _questions(
    name: str, asked: list[tuple[int, dict[str, Any]]], rows: list[dict[str, Any]], splits: Splits, corpus: Corpus
) -> Questions:
    places = [rows[row]["split"] for row, _ in asked]
    if splits == "paper":
        places = _official_places(asked)
    kept = [
        (row, one, place) for (row, one), place in zip(asked, places, strict=True) if place and one["answer"].strip()
    ]
    answers = [normalise_answer(one["answer"]) for _, one, _ in kept]
    known = [one["answer_type"] for _, one, _ in kept]
    closed = [
        is_yes_or_no(answer) if kind is None else kind == "closed" for answer, kind in zip(answers, known, strict=True)
    ]

    def column(values: list[Any]) -> NDArray[Any]:
        return np.array(values, dtype=np.str_)

    found = Questions(
        dataset=name,
        rows_N=np.array([row for row, _, _ in kept], dtype=np.int64),
        images_N=column([rows[row]["image"] for row, _, _ in kept]),
        patients_N=column([rows[row]["patient"] for row, _, _ in kept]),
        splits_N=column([place for _, _, place in kept]),
        questions_N=column([one["question"] for _, one, _ in kept]),
        answers_N=column(answers),
        closed_N=np.array(closed, dtype=bool),
        types_N=column([one["question_type"] or "" for _, one, _ in kept]),
        counts={"questions_in_no_split": len(asked) - len(kept), "type_told_by_the_answer": known.count(None)},
    )
    _check(found, splits, corpus)
    found.counts.update(_overlap(found))
    return found


def _official_places(asked: list[tuple[int, dict[str, Any]]]) -> list[str]:
    """The dataset's own part of each question, `""` where it has none; val is drawn where there is no such part."""
    places = [one["official_split"] or "" for _, one in asked]
    if "val" not in places:
        training = np.unique([row for (row, _), place in zip(asked, places, strict=True) if place == "train"])
        count = round(PAPER_VAL_SHARE * len(training))
        val = set(keyed_rng(0, "vqa val of the official training part").permutation(training)[:count].tolist())
        places = [
            "val" if place == "train" and row in val else place for (row, _), place in zip(asked, places, strict=True)
        ]
    return places


def _check(questions: Questions, splits: Splits, corpus: Corpus) -> None:
    where = f"{corpus.path}, {questions.dataset}"
    for split in ("train", "val", "test"):
        if not len(questions.of(split)):
            own = "prepare more images, or with a larger val_share and test_share"
            raise TaskError(
                f"no question is in {split} ({splits} splits)",
                where=where,
                fix=own if splits == "clean" else "use clean splits: the dataset has no official parts of questions",
            )
    answers = np.unique(questions.answers_N[questions.of("train")])
    if len(answers) < 2:
        raise TaskError(
            f"every training question is answered by {str(answers[0])!r}, so there is nothing to learn",
            where=where,
            fix="prepare questions with different answers",
        )


def _overlap(questions: Questions) -> dict[str, int]:
    """Count what of the test set is met in training."""
    train, test = questions.of("train"), questions.of("test")

    def asked(places: NDArray[np.int64]) -> list[tuple[str, str]]:
        return [(str(questions.images_N[n]), str(questions.questions_N[n]).casefold()) for n in places]

    images = set(questions.images_N[test].tolist())
    patients = set(questions.patients_N[test].tolist())
    known = set(asked(train))
    return {
        "test_images": len(images),
        "test_images_in_train": len(images & set(questions.images_N[train].tolist())),
        "test_patients_in_train": len(patients & set(questions.patients_N[train].tolist())),
        "test_questions_in_train": sum(one in known for one in asked(test)),
    }
