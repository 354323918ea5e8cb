"""A small folder in the native layout of SLAKE: two languages, three kinds of images, masks beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from umif.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path


def ask(qid: int, number: int, question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {
        "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": question, "answer": answer,
        "q_lang": "en", "location": "Lung", "modality": "X-Ray", "answer_type": "OPEN", "base_type": "vqa",
        "content_type": "Abnormality", "triple": ["vhead", "_", "_"], "qid": qid, **more,
    }  # fmt: skip


TRAIN = [
    ask(0, 1, "What diseases are included in the picture?", "Lung Cancer"),
    ask(1, 1, "图中包含哪些疾病？", "肺癌", q_lang="zh"),
    ask(2, 1, "What modality is used to take this image?", "X-Ray", content_type="Modality"),
    ask(3, 1, "What modality is used to take this image?", "X-Ray", content_type="Modality"),
    ask(4, 2, "Does the picture contain liver?", "Yes", modality="CT", answer_type="CLOSED"),
    ask(5, 5, "Is the lung healthy?", "No", answer_type="CLOSED"),
]
VALIDATE = [ask(6, 3, "Which is bigger, heart or lung?", "Lung", answer_type="CLOSED", content_type="Size")]
TEST = [ask(7, 4, "Where is the brain?", "Head", modality="MRI")]
REQUIRED = ("train.json", "imgs")
GOLDEN: dict[str, list[tuple[str, str]]] = {"imgs/xmlab1/source.jpg": [], "imgs/xmlab3/source.jpg": []}
EXCLUDED = {
    "image file is missing": 1,
    "mask of organs, not read": 2,
    "modality is CT": 1,
    "modality is MRI": 1,
    "no question": 1,
    "picture outside imgs/": 1,
}
MALFORMED = (
    ("train.json", '"q_lang": "zh"', '"q_lang": "fr"', TableError, "train.json:entry 2"),
    ("train.json", '"modality": "CT"', '"modality": "PET"', TableError, "train.json:entry 5"),
    ("train.json", '"modality": "X-Ray"', '"modality": "CT"', TableError, "train.json:entry 2"),
    ("train.json", "xmlab5/", "../../", TableError, "train.json:entry 6"),
    ("train.json", '"answer_type": "CLOSED"', '"answer_type": "BOTH"', TableError, "train.json:entry 5"),
    ("train.json", '"answer": "Lung Cancer"', '"answer": []', TableError, "train.json:entry 1"),
    ("validate.json", '"question":', '"q":', TableError, "validate.json:entry 1"),
    ("test.json", "[", "", TableError, "test.json"),
)


def build(root: Path) -> None:
    for name, questions in (("train", TRAIN), ("validate", VALIDATE), ("test", TEST)):
        (root / f"{name}.json").write_text(json.dumps(questions, indent=1, ensure_ascii=False), encoding="utf-8")
    grey = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10))
    names = [f"imgs/xmlab{number}/source.jpg" for number in (1, 2, 3, 4, 6)]
    for name in (*names, "imgs/xmlab1/mask.png", "imgs/xmlab3/mask.png", "overview.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        grey.save(root / name)
    (root / "imgs" / "xmlab1" / "detection.json").write_text('[{"Lung": [1, 2, 3, 4]}]')
