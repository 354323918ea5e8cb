"""Names that a user gives become evaluations, and an encoder's features are one more way to find twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from leaky_corpora import OtherFilms, listed_corpus, rows_tested, rows_trained
from umif.corpus.audit import Evaluation, audit_corpus
from umif.errors import CorpusError, InputError
from umif.imaging import decode_jpeg_grey
from umif.tasks.audit import audit, feature_search

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.corpus import Corpus


class TinyPictures:
    """An encoder whose features are the picture at 6 × 6: near for altered copies, and for many others."""

    def encode_corpus(self, corpus: Corpus, rows: NDArray[np.int64], *, progress: Any) -> NDArray[np.float32]:
        films = [decode_jpeg_grey(jpeg) for jpeg in corpus.take_jpegs(rows)]
        progress(len(films), len(films))
        small = np.stack([cv2.resize(film, (6, 6), interpolation=cv2.INTER_AREA).ravel() for film in films])
        features: NDArray[np.float32] = (small - small.mean(axis=1, keepdims=True)).astype(np.float32)
        return features


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    folder = tmp_path_factory.mktemp("by features")
    trained = listed_corpus(folder, "trained", rows_trained())
    return trained, listed_corpus(folder, "tested", rows_tested(), OtherFilms)


def test_features_find_altered_copies_and_nothing_else(corpora: tuple[Corpus, Corpus]) -> None:
    encoder: Any = TinyPictures()
    evaluations = [Evaluation("tested", corpora[1])]
    search = feature_search(encoder)
    report = audit_corpus(corpora[0], evaluations, trained=("val",), sight=False, features=search, shortcuts=False)
    (leak,) = [leak for leak in report.leaks if leak.how == "features"]
    pairs = [(example.left, example.right) for example in leak.examples]
    assert pairs == [("trained/003.png", "tested/100.png"), ("trained/004.png", "tested/101.png")]
    assert report.checks[-1] == "features"


def test_a_task_means_the_own_test_images_and_a_folder_its_corpus(corpora: tuple[Corpus, Corpus]) -> None:
    _, evaluations = audit(
        corpora[1].path, ["zero-shot", corpora[0].path], trained=("test",), tested=("val",), sight=False
    )
    assert [(each.name, each.corpus.fingerprint, each.splits) for each in evaluations] == [
        ("zero-shot", corpora[1].fingerprint, ("test",)),
        ("trained", corpora[0].fingerprint, ("val",)),
    ]


def test_a_folder_without_a_corpus_and_an_unknown_name_are_told_apart(
    corpora: tuple[Corpus, Corpus], tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match="holds no"):
        audit(corpora[0], [tmp_path], trained=("val",))
    with pytest.raises(InputError, match="neither a corpus nor a task"):
        audit(corpora[0], ["lineer"], trained=("val",))
