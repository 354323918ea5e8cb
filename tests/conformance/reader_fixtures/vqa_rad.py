"""A small folder of VQA-RAD as re-released: parts with paraphrases, and a validation part that repeats the test's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path


def ask(qid: int, image: str, organ: str, question: str, answer: Any, **more: Any) -> dict[str, Any]:
    return {
        "qid": qid, "image_name": f"synpic{image}.jpg", "image_organ": organ, "answer": answer,
        "answer_type": "CLOSED", "question_type": "PRES", "question": question, "phrase_type": "freeform", **more,
    }  # fmt: skip


TRAIN = [
    ask(1, "29265", "CHEST", "Are the lungs normal appearing?", "No", question_type="ABN"),
    ask(2, "29265", "CHEST", "Is/Are the lungs normal appearing? -yes/no", "No", phrase_type="frame"),
    ask(3, "29265", "CHEST", "Is there a mass? ", "yes", answer_type="CLOSED "),
    ask(4, "29265", "CHEST", "Is there a mass?", "Yes", phrase_type="para"),
    ask(5, "29265", "CHEST", "How many ribs are there?", 12, answer_type="OPEN", question_type="COUNT, SIZE"),
    ask(6, "54610", "HEAD", "Are regions of the brain infarcted?", "Yes"),
    ask(7, "22794", "ABD", "What imaging modality was used?", "CT", answer_type="OPEN", question_type="MODALITY"),
    ask(8, "22795", "ABD", "Is there free air?", "no"),
    ask(9, "22796", "ABD", "Is this an x-ray?", "yes"),
    ask(10, "100132", "CHEST", "Is this a CT scan?", "no"),
    ask(11, "20000", "CHEST", "Is there a mass?", "no"),
    ask(12, "30000", "CHEST", "Is this an axial image?", "yes", question_type="PLANE"),
]
TEST = [
    ask(20, "29265", "CHEST", "Is there a mass?", "Yes", phrase_type="para"),
    ask(21, "29266", "CHEST", "Is the heart enlarged?", "no"),
]
REQUIRED = ("trainset.json", "testset.json")
GOLDEN: dict[str, list[tuple[str, str]]] = {
    f"synpic{number}.jpg": [] for number in ("100132", "22796", "29265", "29266")
}
EXCLUDED = {
    "ABD image that no question calls a radiograph": 1,
    "CT, MR or ultrasound by what its questions say": 2,
    "HEAD image, which is CT or MR": 1,
    "another copy of the same image is used": 1,
    "image file is missing": 1,
    "no question": 1,
}
MALFORMED = (
    ("trainset.json", '"image_organ": "CHEST"', '"image_organ": "LEG"', TableError, "entry 1"),
    ("trainset.json", '"answer_type": "CLOSED "', '"answer_type": "HALF"', TableError, "trainset.json:entry 3"),
    ("trainset.json", '"answer": 12', '"answer": null', TableError, "trainset.json:entry 5"),
    ("trainset.json", '"answer": "Yes"', '"answer": " "', TableError, "trainset.json:entry 4"),
    ("trainset.json", "synpic54610.jpg", "../synpic54610.jpg", TableError, "trainset.json:entry 6"),
    ("trainset.json", '"phrase_type": "frame"', '"phrase_type": "verse"', TableError, "trainset.json:entry 2"),
    ("testset.json", "[", "{", TableError, "testset.json"),
    ("testset.json", '"question":', '"questions":', TableError, "testset.json:entry 1"),
    ("valset.json", "[", "", TableError, "valset.json"),
)


def build(root: Path) -> None:
    for name, questions in (("trainset", TRAIN), ("testset", TEST), ("valset", TEST)):
        (root / f"{name}.json").write_text(json.dumps(questions, indent=1))
    names = {question["image_name"] for question in TRAIN + TEST} - {"synpic20000.jpg"}
    (root / "images").mkdir()
    (root / "old").mkdir()
    grey = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10))
    for path in (*(f"images/{name}" for name in sorted(names)), "images/synpic1.jpg", "old/synpic29265.jpg"):
        grey.save(root / path)
