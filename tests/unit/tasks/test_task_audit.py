"""Names that a user gives become evaluations, and an encoder's features are one more way to find twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from leaky_corpora import OtherFilms, film, listed_corpus, rows_tested, rows_trained, write_films
from planted_corpus import registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.corpus.audit import Evaluation, audit_corpus
from umif.errors import CorpusError, InputError
from umif.imaging import decode_jpeg_grey
from umif.tasks.audit import audit, feature_search

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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


def in_one_way(film: NDArray[np.uint8], way: str) -> NDArray[np.uint8]:
    """Return the film altered in one way that copies of datasets are altered in."""
    height, width = film.shape
    copy: Any = np.clip(255 * (film / 255) ** 1.3 * 0.85 + 5, 0, 255)
    if way == "rescaled":
        copy = cv2.resize(film, (round(width * 0.6), round(height * 0.6)), interpolation=cv2.INTER_AREA)
    elif way == "encoded anew":
        copy = cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    elif way == "cropped by a tenth":
        copy = film[height // 20 : height // 20 + round(0.9 * height), width // 10 :]
    elif way == "turned":
        copy = cv2.warpAffine(film, cv2.getRotationMatrix2D((width / 2, height / 2), 4.0, 1.0), (width, height))
    altered: NDArray[np.uint8] = copy.astype(np.uint8)
    return altered


WAYS = ("rescaled", "encoded anew", "cropped by a tenth", "turned", "other intensity")


@pytest.fixture(scope="module")
def one_way(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus]:
    """Films to train on, and of each way one altered copy of the film of that number among new films."""
    folder = tmp_path_factory.mktemp("one way")
    trained = listed_corpus(folder, "trained", rows_trained())
    rows = [film(100 + number, "test", seed=number) for number in range(len(WAYS))]
    write_films(folder / "copies", rows)
    new = [film(200 + number, "test") for number in range(3)]
    tested = write_films(folder / "tested films", rows + new)
    for number, way in enumerate(WAYS):
        picture = cv2.imread(str(folder / "copies" / rows[number]["image"]), cv2.IMREAD_GRAYSCALE).astype(np.uint8)
        cv2.imwrite(str(tested / rows[number]["image"]), in_one_way(picture, way))
    with registered("reader", "tested", OtherFilms):
        prepare(folder / "tested", [("tested", tested)], PrepareConfig(shorter_side=160), workers=1, progress=False)
    return trained, Corpus.open(folder / "tested")


@pytest.mark.parametrize("how", ["near-duplicate", "features"])
def test_a_copy_altered_in_any_one_way_is_found_by_hash_and_by_features(
    one_way: tuple[Corpus, Corpus], how: str
) -> None:
    encoder: Any = TinyPictures()
    report = audit_corpus(
        one_way[0],
        [Evaluation("tested", one_way[1])],
        trained=("val",),
        sight=how == "near-duplicate",
        features=feature_search(encoder) if how == "features" else None,
        shortcuts=False,
    )
    (leak,) = [leak for leak in report.leaks if leak.how == how]
    found = {example.right: example.left for example in leak.examples}
    assert found == {f"tested/{100 + number}.png": f"trained/{number:03d}.png" for number in range(len(WAYS))}
