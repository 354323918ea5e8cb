"""A small corpus of questions whose answers stand in the picture alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from planted_corpus import registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.encoder import Encoder
from umif.models import ModelConfig, build_model
from umif.readers.base import Card, Question, Reader, Record
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIDE = 32
# Corner of the bright square → what is asked and answered.
PLACES = {
    "left upper zone": (2, 2),
    "right upper zone": (2, 18),
    "left lower zone": (18, 2),
    "right lower zone": (18, 18),
}
NAME = "asked-films"


def write_asked(root: Path, patients: int = 120, seed: int = 0, official: bool = False) -> Path:
    """Write one film of each patient with a bright square in one corner, and two questions about it."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        place = list(PLACES)[patient % len(PLACES)]
        film = rng.normal(90, 8, (SIDE, SIDE))
        top, left = PLACES[place]
        film[top : top + 12, left : left + 12] += 120
        name = f"{patient:04d}.png"
        cv2.imwrite(str(root / name), np.clip(film, 0, 255).astype(np.uint8))
        questions = [
            ["Where is the opacity?", f"The {place}.", "open", "place"],
            ["Is it in the upper zone?", "Yes" if "upper" in place else "No.", "closed", "height"],
        ]
        parts = ["train", "test" if patient % 4 == 0 else "train"] if official else [None, None]
        rows.append({"image": name, "questions": [[*one, part] for one, part in zip(questions, parts, strict=True)]})
    (root / "asked.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


class AskedFilms(Reader):
    """Reads what `write_asked` wrote."""

    card: ClassVar[Card] = Card(licence="none needed: drawn", citation=None, images=None, kinds=("question",))

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        for row in json.loads(self.require("asked.json").read_text(encoding="utf-8")):
            yield Record(
                image=self.root / row["image"],
                image_id=row["image"],
                patient=row["image"],
                questions=tuple(Question(*one) for one in row["questions"]),
            )


def asked_corpus(folder: Path, patients: int = 120, **kind: Any) -> Corpus:
    """Write the films and prepare their corpus in `folder`."""
    return prepare_asked(folder, write_asked(folder / "films", patients, **kind))


def prepare_asked(folder: Path, films: Path) -> Corpus:
    """Prepare the corpus of films that were written."""
    with registered("reader", NAME, AskedFilms):
        config = PrepareConfig(shorter_side=SIDE, val_share=0.15, test_share=0.25)
        prepare(folder / "corpus", [(NAME, films)], config)
    return Corpus.open(folder / "corpus")


def tiny_encoder(seed: int = 3) -> Encoder:
    """Return two untrained blocks of width 48 that read 32 pixels, with a tokeniser that knows the questions' words."""
    words = [*PLACES, "where is the opacity", "is it in the upper zone", "yes", "no", "edema seen nothing"]
    tokenizer = TextTokenizer.train(words, vocab_size=150)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224",
        image_size=SIDE,
        depth=2,
        width=48,
        heads=3,
        vocab_size=tokenizer.vocab_size,
        random_init="spread",
    )
    return Encoder.of_model(build_model(config, seed=seed), tokenizer=tokenizer, shorter_side=SIDE, device="cpu")
