"""Questions of images go into the corpus and change nothing of the corpora that have none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lance
import pytest
from toy_dataset import ToyReader, write_toy

from umif.config import REGISTRY
from umif.corpus import Corpus, PrepareConfig, assemble, prepare
from umif.errors import ReaderContractError
from umif.readers.base import Question, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

ASKED = (
    Question("Is there an effusion?", "yes", "closed", "PRES", "test"),
    Question("Which side?", "left", "open", None, "train"),
)
STORED = [
    {
        "question": "Is there an effusion?", "answer": "yes", "answer_type": "closed", "question_type": "PRES",
        "official_split": "test",
    },
    {
        "question": "Which side?", "answer": "left", "answer_type": "open", "question_type": None,
        "official_split": "train",
    },
]  # fmt: skip


class AskingReader(ToyReader):
    """The toy dataset with questions about its second image."""

    questions: tuple[Question, ...] = ASKED

    def records(self) -> Iterator[Record]:
        for record in super().records():
            yield replace(record, questions=self.questions) if record.image_id == "001.png" else record


@pytest.fixture(autouse=True)
def _toy_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    REGISTRY.names("reader")
    monkeypatch.setitem(REGISTRY._entries["reader"], "toy", AskingReader)


def build(out: Path, raw: Path) -> Corpus:
    prepare(out, [("toy", raw)], PrepareConfig(shorter_side=32), workers=1, progress=False)
    return Corpus.open(out)


def test_questions_are_stored_with_their_image(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 4)
    corpus = build(tmp_path / "corpus", tmp_path / "raw")
    assert corpus.take_questions([2, 1, 1]) == [[], STORED, STORED]
    assert "questions" not in corpus.images_table().column_names, "they are read only when asked for"
    # An image with questions alone has no pair.
    assert corpus.manifest.pairs["report"] == 2


def test_other_questions_make_another_corpus_and_none_the_one_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path / "raw", 4)
    asked = build(tmp_path / "asked", tmp_path / "raw").manifest
    monkeypatch.setattr(AskingReader, "questions", ASKED[:1])
    fewer = build(tmp_path / "fewer", tmp_path / "raw").manifest
    monkeypatch.setattr(AskingReader, "questions", ())
    none = build(tmp_path / "none", tmp_path / "raw").manifest
    assert len({manifest.fingerprint for manifest in (asked, fewer, none)}) == 3
    assert len({manifest.inputs for manifest in (asked, fewer, none)}) == 3
    # As it was when there was no such column: neither rows nor records name it.
    fed: list[dict[str, Any]] = []
    monkeypatch.setattr(assemble, "_feed", lambda _digest, row: fed.append(row))
    build(tmp_path / "again", tmp_path / "raw")
    assert fed
    assert not any("questions" in row for row in fed)
    assert "questions=" not in repr(next(iter(AskingReader(tmp_path / "raw").read())))


def test_corpus_of_before_is_read_as_one_without_questions(tmp_path: Path) -> None:
    write_toy(tmp_path / "raw", 4)
    build(tmp_path / "corpus", tmp_path / "raw")
    lance.dataset(str(tmp_path / "corpus" / "images.lance")).drop_columns(["questions"])
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.take_questions([1, 0]) == [[], []]
    assert len(corpus.images_table()) == 4


def test_shards_of_before_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy(tmp_path / "raw", 4)
    monkeypatch.setattr(AskingReader, "questions", ())
    expected = build(tmp_path / "new", tmp_path / "raw").manifest
    read = assemble._read

    def read_old(folder: Path, shard: Any, name: str) -> pa.Table:
        table = read(folder, shard, name)
        return table.drop_columns(["questions"]) if name == "images" and "questions" in table.column_names else table

    monkeypatch.setattr(assemble, "_read", read_old)
    corpus = build(tmp_path / "old", tmp_path / "raw")
    assert corpus.manifest.fingerprint == expected.fingerprint
    assert corpus.take_questions([0]) == [[]]


@pytest.mark.parametrize("change", [{"split": "dev"}, {"answer_type": "multiple choice"}])
def test_values_that_the_schema_does_not_know_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    write_toy(tmp_path / "raw", 4)
    monkeypatch.setattr(AskingReader, "questions", (replace(ASKED[0], **change),))
    with pytest.raises(ReaderContractError, match="question"):
        build(tmp_path / "corpus", tmp_path / "raw")
