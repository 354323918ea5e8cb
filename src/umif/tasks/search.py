"""Search a corpus by words or by a picture: the images nearest by cosine, with what is known of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from umif.errors import EmptyError, InputError
from umif.readers.folders import PICTURE_SUFFIXES
from umif.tasks.neighbours import NOBODY, nearest, unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.tasks.neighbours import Engine

QueryKind = Literal["auto", "text", "image"]
_COLUMNS = ("image", "dataset", "patient", "split", "view", "findings")


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    Attributes:
        kind: `text`, `file` (a picture on disk) or `image` (one of the corpus's own).
        words: The text, the file's path or the image's id.
        row: Row of the corpus's image, for its own only.
    """

    kind: Literal["text", "file", "image"]
    words: str
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One image that was found.

    Attributes:
        rank: From 1, nearest first.
        cosine: To the query.
        image, row: Its id and its row in the corpus.
        findings: What it is known to show, by vocabulary id or the dataset's own spelling.
        texts: Its own reports and captions.
    """

    rank: int
    cosine: float
    image: str
    row: int
    dataset: str
    patient: str
    split: str
    view: str | None
    findings: tuple[str, ...]
    texts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def read_query(corpus: Corpus, words: str, kind: QueryKind = "auto") -> Query:
    """Tell what a query is: an image's id in the corpus, a picture's file, else a text.

    Raises:
        InputError: it is empty; it is to be an image and there is neither such a file nor such an id; or it looks like
            a file that is not there.
    """
    if not words.strip():
        raise InputError("the query is empty", where="QUERY", fix="give words, a picture's file or an image's id")
    if kind == "text":
        return Query("text", words)
    images = corpus.images_table(["image"]).column("image").to_pylist()
    if words in images:
        return Query("image", words, images.index(words))
    path = Path(words)
    if _is_file(path):
        return Query("file", words)
    if kind == "image" or path.suffix.lower() in PICTURE_SUFFIXES:
        more = "" if kind == "image" else "; for a text that looks so, add --as text"
        fix = f"check the path, or give an image's id, such as {images[0]}{more}"
        raise InputError("there is no such file, nor such an image in the corpus", where=words, fix=fix)
    return Query("text", words)


def search(
    encoder: Encoder,
    corpus: Corpus,
    query: Query,
    k: int = 10,
    *,
    split: str | None = None,
    dataset: str | None = None,
    other_patients: bool = False,
    engine: Engine = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Hit]:
    """Return the `k` images of a corpus that are nearest to a query.

    Words meet pictures where the losses act; pictures meet pictures by their CLS features. An image of the corpus is
    never found by itself.

    Args:
        encoder: Whose features.
        corpus: Where to search.
        query: What for (`read_query`).
        k: How many; fewer where there are not as many.
        split, dataset: Search these only.
        other_patients: For an image of the corpus: leave out all images of its patient.
        engine: As `neighbours.nearest`.
        progress: Called with images encoded and in all.

    Raises:
        InputError: the query is a text and this encoder reads none; FAISS is asked for and absent; `other_patients` of
            a query whose patient is not known.
        ImageError: the picture cannot be read.
        ConfigError: no such split or dataset.
        EmptyError: nothing is left to search.
    """
    if other_patients and query.kind != "image":
        fix = "give an image of the corpus, or leave --other-patients out"
        raise InputError("the query's patient is not known", where="--other-patients", fix=fix)
    if query.kind == "text" and encoder.tokenizer is None:
        raise InputError("this encoder has no tokeniser, so it cannot read words", where=encoder.name)
    rows = corpus.image_rows(split, None if dataset is None else [dataset])
    if query.row is not None:
        rows = rows[~_left_out(corpus, rows, query.row, other_patients)]
    if not len(rows):
        raise EmptyError("there is no image to search", where=corpus.path, fix="choose another split or dataset")
    words = _query_features(encoder, corpus, query)  # first, so that a bad query costs nothing
    features_ND = encoder.encode_corpus(corpus, rows, progress=progress)
    if query.kind == "text":
        features_ND = encoder.unit_vectors(torch.from_numpy(features_ND)).numpy()
    found = nearest(unit_rows(words), unit_rows(features_ND), k, engine=engine)
    places = found.places_Qk[0][found.places_Qk[0] != NOBODY]
    return _hits(corpus, rows[places], found.cosines_Qk[0])


def _query_features(encoder: Encoder, corpus: Corpus, query: Query) -> NDArray[np.float32]:
    if query.row is not None:
        return encoder.encode_corpus(corpus, [query.row])
    if query.kind == "file":
        image_1D: NDArray[np.float32] = encoder.encode_images([query.words]).numpy()
        return image_1D
    text_1D: NDArray[np.float32] = encoder.unit_vectors(encoder.encode_texts([query.words])).numpy()
    return text_1D


def _left_out(corpus: Corpus, rows: NDArray[np.int64], own: int, other_patients: bool) -> NDArray[np.bool_]:
    """Return which images are the query itself or, if these are to be left out, of its patient. Shape (N,)."""
    if not other_patients:
        return np.asarray(rows == own)
    patients = np.array(corpus.images_table(["patient"]).column("patient").to_pylist(), dtype=np.str_)
    return np.asarray(patients[rows] == patients[own])


def _hits(corpus: Corpus, rows: NDArray[np.int64], cosines: NDArray[np.float64]) -> list[Hit]:
    told: dict[int, list[str]] = {int(row): [] for row in rows}
    for pair in corpus.pairs_table(["image_row", "text"]).to_pylist():
        if pair["text"] and pair["image_row"] in told:
            told[pair["image_row"]].append(pair["text"])
    hits = []
    for rank, (row, image) in enumerate(zip(rows.tolist(), corpus.take_images(rows, _COLUMNS), strict=True), 1):
        present = [label["finding"] or label["raw"] for label in image["findings"] if label["state"] == "present"]
        hits.append(
            Hit(
                rank=rank,
                cosine=float(cosines[rank - 1]),
                image=image["image"],
                row=row,
                dataset=image["dataset"],
                patient=image["patient"],
                split=image["split"],
                view=image["view"],
                findings=tuple(dict.fromkeys(present)),
                texts=tuple(dict.fromkeys(told[row])),
            )
        )
    return hits


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long text is no name of a file
        return False
