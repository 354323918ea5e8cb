"""What the quarantine list excludes is neither fitted on nor tested on, and results say which list it was."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from planted_corpus import planted_corpus
from umif.corpus import Corpus
from umif.corpus.quarantine import QUARANTINE, excluded_images, kept_texts, read_quarantine
from umif.errors import CorpusError
from umif.tasks.problems import find_problem, select

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=80).path


@pytest.fixture
def corpus(prepared: Path, tmp_path: Path) -> Corpus:
    """A corpus of its own, whose list the test may change."""
    return Corpus.open(shutil.copytree(prepared, tmp_path / "corpus"))


def exclude(corpus: Corpus, *items: str, decision: str = "exclude") -> None:
    (corpus.path / QUARANTINE).write_text("item,decision\n" + "".join(f"{item},{decision}\n" for item in items))


def test_excluded_images_are_in_no_split_of_a_problem(corpus: Corpus) -> None:
    before = select(find_problem("findings"), corpus)
    gone = [str(before.images_N[before.of(split)[0]]) for split in ("train", "val", "test")]
    exclude(corpus, *gone)
    after = select(find_problem("findings"), corpus)
    assert set(before.images_N) - set(after.images_N) == set(gone)
    assert after.classes == before.classes
    kept = np.isin(before.images_N, after.images_N)
    np.testing.assert_array_equal(after.labels_NF, before.labels_NF[kept])
    np.testing.assert_array_equal(after.rows_N, before.rows_N[kept])  # still the corpus's own rows
    exclude(corpus, *gone, decision="review")
    assert list(select(find_problem("findings"), corpus).images_N) == list(before.images_N)


def test_excluded_labels_state_nothing_and_excluded_reports_leave_labels_alone(corpus: Corpus) -> None:
    before = select(find_problem("findings"), corpus)
    one, other = str(before.images_N[0]), str(before.images_N[1])
    exclude(corpus, f"{one}#class", f"{other}#report")
    after = select(find_problem("findings"), corpus)
    assert set(before.images_N) - set(after.images_N) == {one}
    images, labels = excluded_images(corpus)
    assert (images.sum(), labels.sum()) == (0, 1)


def test_the_texts_of_a_vocabulary_are_without_what_is_excluded(corpus: Corpus) -> None:
    assert list(kept_texts(corpus, "train")) == list(corpus.texts("train"))
    table = corpus.pairs_table(["pair", "image", "kind", "split", "text"]).to_pylist()
    reports = [row for row in table if row["kind"] == "report" and row["split"] == "train"]
    exclude(corpus, reports[1]["pair"], reports[4]["image"])
    expected = [row["text"] for number, row in enumerate(reports) if number not in (1, 4)]
    assert list(kept_texts(corpus, "train")) == expected


def test_a_list_that_names_what_is_not_there_stops_an_evaluation(corpus: Corpus) -> None:
    exclude(corpus, "planted-films/none.png")
    with pytest.raises(CorpusError, match=r"quarantine\.csv:2"):
        select(find_problem("findings"), corpus)
    assert read_quarantine(corpus.path).excluded == {"planted-films/none.png": 2}
