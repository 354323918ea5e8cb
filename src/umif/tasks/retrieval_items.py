"""What retrieval searches: a dataset's test images, their own texts, and which findings both are known to show.

Shape legend: N images, T texts, F findings, M (text, image) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.quarantine import quarantined, read_quarantine
from umif.tasks.metrics import UNKNOWN
from umif.tasks.problems import MIN_PATIENTS, ids_sha256
from umif.tasks.ranking import Owners

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

_NOT_A_CLASS = "no_finding"  # the complement of all others
# Each image shows exactly one of these, and is a negative of the other four, whatever its other labels say.
FIVE_BY_200 = "chexpert-5x200"
FIVE = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")


@dataclass(frozen=True, slots=True)
class Links:
    """Which query is answered by which candidates.

    Shapes: left_M and right_M int64, positions of a query and of a candidate that answers it, by query.
    """

    left_M: NDArray[np.int64]
    right_M: NDArray[np.int64]
    n_left: int
    n_right: int

    @property
    def turned(self) -> Links:
        """The candidates as queries."""
        order = np.lexsort((self.left_M, self.right_M))
        return Links(self.right_M[order], self.left_M[order], self.n_right, self.n_left)

    @property
    def answers_Q(self) -> NDArray[np.int64]:
        """How many candidates answer each query. Shape (Q,)."""
        return np.bincount(self.left_M, minlength=self.n_left)

    def relevant(self, some: slice) -> NDArray[np.bool_]:
        """Which candidates answer which of some queries. Shape (q, N)."""
        relevant_qN = np.zeros((some.stop - some.start, self.n_right), dtype=bool)
        these = slice(*np.searchsorted(self.left_M, [some.start, some.stop]))
        relevant_qN[self.left_M[these] - some.start, self.right_M[these]] = True
        return relevant_qN


@dataclass(frozen=True, slots=True)
class Shelf:
    """The test images of one dataset, in the corpus's order, with their texts.

    A text that occurs more than once, case and white space apart, is one item: whoever has it, has the same text.

    Shapes: rows_N int64, images_N and patients_N str; labels_NF int8, 1, 0 or −1 (unknown); text_M and image_M int64,
    positions of a text and of an image that has it, by text, then image, each pair once.
    """

    dataset: str
    rows_N: NDArray[np.int64]
    images_N: NDArray[np.str_]
    patients_N: NDArray[np.str_]
    classes: tuple[str, ...]
    labels_NF: NDArray[np.int8]
    texts: tuple[str, ...]
    text_M: NDArray[np.int64]
    image_M: NDArray[np.int64]

    def keep(self, positions: NDArray[np.int64]) -> Shelf:
        """Return the shelf of some of its images, ascending, without texts that none of these has."""
        place_N = np.full(len(self.rows_N), -1)
        place_N[positions] = np.arange(len(positions))
        kept_M = place_N[self.image_M] >= 0
        used, text_M = np.unique(self.text_M[kept_M], return_inverse=True)
        return Shelf(
            dataset=self.dataset,
            rows_N=self.rows_N[positions],
            images_N=self.images_N[positions],
            patients_N=self.patients_N[positions],
            classes=self.classes,
            labels_NF=self.labels_NF[positions],
            texts=tuple(self.texts[place] for place in used),
            text_M=text_M.astype(np.int64),
            image_M=place_N[self.image_M[kept_M]],
        )

    @property
    def with_texts(self) -> Shelf:
        """The images that have a text."""
        return self.keep(np.unique(self.image_M))

    @property
    def with_findings(self) -> Shelf:
        """The images of which some finding is known."""
        return self.keep(np.flatnonzero((self.labels_NF != UNKNOWN).any(1)))

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(np.unique(self.patients_N))

    @property
    def sha256(self) -> str:
        """Hash over the ids of the images, sorted."""
        return ids_sha256(self.images_N)

    @property
    def image_owners(self) -> Owners:
        """Whose each image is."""
        return Owners(np.arange(len(self.rows_N)), self.patients_N)

    @property
    def text_owners(self) -> Owners:
        """Whose each text is: all patients' whose images have it."""
        pairs = sorted(set(zip(self.text_M.tolist(), self.patients_N[self.image_M].tolist(), strict=True)))
        return Owners(np.array([text for text, _ in pairs]), np.array([patient for _, patient in pairs], dtype=np.str_))

    @property
    def text_labels_TF(self) -> NDArray[np.int8]:
        """What a text's images show: a state on which all that know it agree, else unknown. Shape (T, F)."""
        labels_TF = np.full((len(self.texts), len(self.classes)), UNKNOWN, dtype=np.int8)
        low_TF = np.full(labels_TF.shape, 2, dtype=np.int8)
        high_TF = labels_TF.copy()
        of_images_MF = self.labels_NF[self.image_M]
        np.minimum.at(low_TF, self.text_M, np.where(of_images_MF == UNKNOWN, 2, of_images_MF).astype(np.int8))
        np.maximum.at(high_TF, self.text_M, of_images_MF)
        return np.where(low_TF == high_TF, low_TF, UNKNOWN).astype(np.int8)

    @property
    def links(self) -> Links:
        """Which text is which images'."""
        return Links(self.text_M, self.image_M, len(self.texts), len(self.rows_N))


def shelves_of(corpus: Corpus, enough: int = MIN_PATIENTS) -> list[Shelf]:
    """Return the test images of each dataset, by its name, without what the quarantine list excludes.

    Args:
        corpus: Whose images.
        enough: Findings are those that test images of so many patients show, and of so many are known not to show; 1 =
            whatever has any known state.

    Raises:
        CorpusError: the quarantine list cannot be read.
    """
    no_image, no_pair = quarantined(corpus, read_quarantine(corpus.path))
    images = corpus.images_table(["image", "dataset", "patient", "split", "findings"]).to_pylist()
    by_dataset: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        if image["split"] == "test" and not no_image[row]:
            by_dataset.setdefault(image["dataset"], []).append(row)
    own: dict[int, list[str]] = {}
    for place, pair in enumerate(corpus.pairs_table(["image_row", "text", "split"]).to_pylist()):
        if pair["split"] == "test" and not no_pair[place] and (pair["text"] or "").strip():
            own.setdefault(pair["image_row"], []).append(pair["text"])
    return [
        _shelf(name, rows, [images[row] for row in rows], [own.get(row, []) for row in rows], enough)
        for name, rows in sorted(by_dataset.items())
    ]


def _shelf(dataset: str, rows: list[int], images: list[dict[str, Any]], own: list[list[str]], enough: int) -> Shelf:
    first: dict[str, tuple[int, str]] = {}
    pairs: set[tuple[int, int]] = set()
    for image, texts in enumerate(own):
        for text in texts:
            place, _ = first.setdefault(" ".join(text.split()).casefold(), (len(first), text))
            pairs.add((place, image))
    ordered = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    patients_N = np.array([image["patient"] for image in images], dtype=np.str_)
    classes, labels_NF = _five(images) if dataset == FIVE_BY_200 else _findings(images)
    able = [column for column in range(len(classes)) if _enough(labels_NF[:, column], patients_N, enough)]
    return Shelf(
        dataset=dataset,
        rows_N=np.array(rows, dtype=np.int64),
        images_N=np.array([image["image"] for image in images], dtype=np.str_),
        patients_N=patients_N,
        classes=tuple(classes[column] for column in able),
        labels_NF=labels_NF[:, able],
        texts=tuple(text for _, text in first.values()),
        text_M=ordered[:, 0],
        image_M=ordered[:, 1],
    )


def _findings(images: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Present is 1, absent is 0; all else, and what contradicts itself, is unknown."""
    stated: dict[str, dict[int, set[str]]] = {}
    for place, image in enumerate(images):
        for label in image["findings"]:
            if label["finding"] not in (None, _NOT_A_CLASS) and label["state"] != "not_mentioned":
                stated.setdefault(label["finding"], {}).setdefault(place, set()).add(label["state"])
    classes = tuple(sorted(stated))
    labels_NF = np.full((len(images), len(classes)), UNKNOWN, dtype=np.int8)
    for column, name in enumerate(classes):
        for place, states in stated[name].items():
            if states in ({"present"}, {"absent"}):
                labels_NF[place, column] = 1 if states == {"present"} else 0
    return classes, labels_NF


def _five(images: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    labels_NF = np.full((len(images), len(FIVE)), UNKNOWN, dtype=np.int8)
    for place, image in enumerate(images):
        there = {label["finding"] for label in image["findings"] if label["state"] == "present"} & set(FIVE)
        if len(there) == 1:
            labels_NF[place] = [int(name in there) for name in FIVE]
    return FIVE, labels_NF


def _enough(labels_N: NDArray[np.int8], patients_N: NDArray[np.str_], enough: int) -> bool:
    counts = [len(np.unique(patients_N[labels_N == state])) for state in (0, 1)]
    return any(counts) if enough == 1 else min(counts) >= enough
