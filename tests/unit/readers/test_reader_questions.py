"""Readers of questions and answers: VQA-RAD and SLAKE."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from umif.readers.base import Question
from umif.readers.question_text import OTHER_PART, REPEATED, plain_question
from umif.readers.slake import Slake
from umif.readers.vqa_rad import PUBLIC, VqaRad, modality_said

if TYPE_CHECKING:
    from pathlib import Path

BASE: dict[str, Any] = {
    "qid": 1, "image_name": "a.jpg", "image_organ": "CHEST", "answer": "Yes", "answer_type": "CLOSED",
    "question_type": "PRES", "question": "Is it?", "phrase_type": "freeform",
}  # fmt: skip


def write_parts(root: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> None:
    for name, rows in (("trainset", train), ("testset", test)):
        (root / f"{name}.json").write_text(json.dumps([BASE | row for row in rows]))
    for row in train + test:
        (root / (BASE | row)["image_name"]).write_bytes(b"")


def test_numbers_marks_and_blanks_become_plain_questions(tmp_path: Path) -> None:
    row = {"question": "Are there >12 of ribs? -yes/no ", "answer": 12, "answer_type": "CLOSED ", "question_type": ""}
    write_parts(tmp_path, [row], [{"image_name": "b.jpg"}])
    records = list(VqaRad(tmp_path).read())
    assert records[0].questions == (Question("Are there >12 of ribs?", "12", "closed", None, "train"),)
    assert [record.split for record in records] == ["train", "test"]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [("How big is it? -open", "How big is it?"), ("Is it? - yes/no", "Is it?"), ("Air-filled or open", None)],
)
def test_marks_of_a_question(raw: str, plain: str | None) -> None:
    assert plain_question(raw) == (plain or raw)


def test_image_in_both_parts_has_no_split_and_its_questions_keep_theirs(tmp_path: Path) -> None:
    write_parts(tmp_path, [{}, {"answer": "yes"}, {"question": "Where?"}], [{}])
    reader = VqaRad(tmp_path)
    (record,) = reader.read()
    assert record.split is None
    assert [question.split for question in record.questions] == ["train", "train", "test"]
    assert reader.account.notes == {REPEATED: 1, OTHER_PART: 1, "file that is no picture": 2}


def test_release_is_split_by_its_phrase_types(tmp_path: Path) -> None:
    rows = [BASE | {"phrase_type": phrase, "question": f"{phrase}?"} for phrase in ("freeform", "para", "test_para")]
    (tmp_path / PUBLIC).write_text(json.dumps(rows))
    (tmp_path / "VQA_RAD Image Folder").mkdir()
    (tmp_path / "VQA_RAD Image Folder" / "a.jpg").write_bytes(b"")
    (record,) = VqaRad(tmp_path).read()
    assert [question.split for question in record.questions] == ["train", "train", "test"]
    assert record.where == f"{PUBLIC}:entry 1"


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("What modality is this?", "CT with contrast", "other"),
        ("Is this a CT?", "yes", "other"),
        ("Is this a CT?", "No", None),
        ("Is this a plain film?", "yes", "radiograph"),
        ("Is this xray suggestive of dissection?", "No", "radiograph"),
        ("Was this image taken with an MRI or CT scanner?", "CT", "other"),
        ("Does this CXR display pneumoperitoneum?", "No", "radiograph"),
        ("What test might reveal the diagnosis?", "head CT", None),
        ("Is this an axial image?", "no", None),
        ("Is there contrast?", "yes", None),
    ],
)
def test_how_an_image_was_taken_by_what_its_questions_say(question: str, answer: str, said: str | None) -> None:
    assert modality_said(question, answer) == said


def test_vqa_rad_on_the_real_questions(real_data: Path) -> None:
    root = real_data / "vqa-rad"
    reader = VqaRad(root)
    records = list(reader.read())
    assert (reader.account.seen, reader.account.yielded) == (252, 88)
    assert reader.account.excluded["HEAD image, which is CT or MR"] == 77
    rows = {name: json.loads((root / "data_RAD" / f"{name}set.json").read_bytes()) for name in ("train", "test")}
    chest = {row["image_name"] for part in rows.values() for row in part if row["image_organ"] == "CHEST"}
    assert {record.image_id for record in records} == chest
    expected: Counter[Any] = Counter()
    for part, entries in rows.items():
        # Counted as a set, without capitals: what the reader keeps of repeated questions.
        plain = {
            (row["image_name"], row["question"].split(" -")[0].strip().lower(), str(row["answer"]).strip().lower())
            for row in entries
            if row["image_name"] in chest
        }
        expected[part] = len({(name, " ".join(ask.split()), " ".join(reply.split())) for name, ask, reply in plain})
    assert Counter(question.split for record in records for question in record.questions) == expected
    assert sum(expected.values()) == 896
    types = Counter(question.answer_type for record in records for question in record.questions)
    assert set(types) == {"open", "closed"}


def test_slake_keeps_english_questions_of_radiographs(tmp_path: Path) -> None:
    row = {
        "img_name": "xmlab1/source.jpg", "question": "Is it?", "answer": "Left", "q_lang": "en", "modality": "X-Ray",
        "answer_type": "CLOSED", "content_type": "Position", "qid": 1,
    }  # fmt: skip
    (tmp_path / "imgs" / "xmlab1").mkdir(parents=True)
    (tmp_path / "imgs" / "xmlab1" / "source.jpg").write_bytes(b"")
    (tmp_path / "train.json").write_text(json.dumps([row, row | {"q_lang": "zh"}]))
    (tmp_path / "validation.json").write_text("[]")
    reader = Slake(tmp_path)
    (record,) = reader.read()
    assert record.questions == (Question("Is it?", "Left", "closed", "Position", "train"),)
    assert (record.image_id, record.split) == ("imgs/xmlab1/source.jpg", "train")
    assert reader.account.notes == {"question in another language: zh": 1, "file that is no picture": 2}
