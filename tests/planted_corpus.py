"""A small corpus whose pictures show one finding plainly, boxed, and another not at all."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from umif.config import REGISTRY
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.readers.base import Card, Finding, LabelState, Question, Reader, Record, Region, Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

VISIBLE, INVISIBLE = "Edema", "Pneumothorax"
BOX = (6.0, 4.0, 24.0, 22.0)  # of the visible one: left, top, width, height


def draw_film(rng: np.random.Generator, *, visible: bool) -> NDArray[np.uint8]:
    """Noise on grey; a bright patch in the upper left corner where the finding is there."""
    film = rng.normal(110, 12, (48, 64))
    if visible:
        film[4:26, 6:30] += 70
    return np.clip(film, 0, 255).astype(np.uint8)


def write_films(root: Path, patients: int = 150, seed: int = 0) -> Path:
    """Write one or two films of each patient with the labels of both findings."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        for number in range(1 + int(rng.random() < 0.3)):
            visible, invisible = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
            name = f"{patient:04d}_{number}.png"
            cv2.imwrite(str(root / name), draw_film(rng, visible=visible))
            rows.append({"image": name, "patient": f"{patient:04d}", "findings": [visible, invisible]})
    (root / "labels.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


class PlantedFilms(Reader):
    """Reads what `write_films` wrote."""

    card: ClassVar[Card] = Card(
        licence="none needed: drawn", citation=None, images=None, kinds=("class", "report", "segment")
    )

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        for number, row in enumerate(json.loads(self.require("labels.json").read_text(encoding="utf-8"))):
            states = [LabelState.PRESENT if there else LabelState.ABSENT for there in row["findings"]]
            findings = zip((VISIBLE, INVISIBLE), states, strict=True)
            yield Record(
                image=self.root / row["image"],
                image_id=row["image"],
                patient=row["patient"],
                view="PA" if number % 2 else "AP",
                findings=tuple(Finding(name, state) for name, state in findings),
                regions=(Region(VISIBLE, "box", box=BOX),) if row["findings"][0] else (),
                questions=(
                    Question("Is there edema?", "yes" if row["findings"][0] else "no", "closed", "presence"),
                    Question("What is seen?", "edema" if row["findings"][0] else "nothing", "open", "finding"),
                ),
                texts=(Text("report", "Edema." if row["findings"][0] else "No edema.", "template"),),
            )


@contextmanager
def registered(kind: str, name: str, entry: Any) -> Iterator[None]:
    """Register `entry` for a while; suites that go through all entries of a kind never see it."""
    REGISTRY.names(kind)
    REGISTRY.register(kind, name)(entry)
    try:
        yield
    finally:
        del REGISTRY._entries[kind][name]  # type: ignore[index]


def planted_corpus(folder: Path, patients: int = 150, split_seed: int = 0) -> Corpus:
    """Write the films and prepare their corpus in `folder`."""
    config = PrepareConfig(shorter_side=40, val_share=0.2, test_share=0.3, split_seed=split_seed)
    films = write_films(folder / "films", patients)
    with registered("reader", "planted-films", PlantedFilms):
        prepare(folder / "corpus", [("planted-films", films)], config)
    return Corpus.open(folder / "corpus")
