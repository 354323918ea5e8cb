"""A small corpus with every kind of pair, for the loader's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import umif
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.imaging import AugmentConfig
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region, Text
from umif.tokens.loader import DataConfig, StepDataset
from umif.tokens.text import TextTokenizer, vocabulary_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

IMAGES = 40


class PairsReader(Reader):
    """Pictures with a bright disc each; picture i is (64 + i) × (90 + i) pixels.

    Every second has a report, every fifth a caption, every second labels, every fourth the disc as a region; one in
    ten is the test split's. Of the labelled ones every sixth image has uncertain labels only.
    """

    card = Card(licence="CC0-1.0", citation="none", images=IMAGES)

    def records(self) -> Iterator[Record]:
        for index in range(IMAGES):
            height, width, centre, radius = disc_of(index)
            pixels = np.full((height, width), 30, dtype=np.uint8)
            cv2.circle(pixels, centre, radius, 230, -1)
            file = self.root / f"{index:03d}.png"
            cv2.imwrite(str(file), pixels)
            texts = [Text("report", f"Case {index}: round opacity, no effusion.", "report")] if index % 2 == 0 else []
            if index % 5 == 0:
                texts.append(Text("caption", f"Radiograph number {index} with an arrow.", "caption"))
            yield Record(
                image=file,
                image_id=file.name,
                patient=f"p{index}",
                split="test" if index % 10 == 8 else "train",
                texts=tuple(texts),
                findings=labels_of_image(index),
                regions=disc_region(index) if index % 4 == 0 else (),
                where=f"records:{index + 1}",
            )


def disc_of(index: int) -> tuple[int, int, tuple[int, int], int]:
    """Height, width, centre (x, y) and radius of a picture's disc."""
    return 64 + index, 90 + index, (35 + index % 7, 30 + index % 5), 14


def disc_region(index: int) -> tuple[Region, ...]:
    _, _, (x, y), radius = disc_of(index)
    side = 2.0 * radius + 1
    return (Region(finding="Nodule", shape="ellipse", box=(float(x - radius), float(y - radius), side, side)),)


def labels_of_image(index: int) -> tuple[Finding, ...]:
    if index % 2:
        return ()
    if index % 6 == 0:
        return (Finding("Pneumonia", LabelState.UNCERTAIN), Finding("Edema", LabelState.NOT_MENTIONED))
    return (
        Finding("Pneumonia", LabelState.PRESENT),
        Finding("Pleural Effusion", LabelState.ABSENT),
        Finding("Nodule", LabelState.UNCERTAIN),
        Finding("Toyosis", LabelState.PRESENT),
    )


@pytest.fixture(scope="session")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "toy-pairs" not in umif.config.REGISTRY.names("reader"):
        umif.register("reader", "toy-pairs")(PairsReader)
    root = tmp_path_factory.mktemp("toy_pairs")
    (root / "raw").mkdir()
    config = PrepareConfig(shorter_side=64, val_share=0.0, test_share=0.0)
    prepare(root / "corpus", [("toy-pairs", root / "raw")], config, workers=1, progress=False)
    return root / "corpus"


@pytest.fixture(scope="session")
def corpus(corpus_path: Path) -> Corpus:
    return Corpus.open(corpus_path)


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> TextTokenizer:
    return TextTokenizer.train(vocabulary_texts(corpus), vocab_size=800)


@pytest.fixture
def make_dataset(corpus_path: Path, tokenizer: TextTokenizer) -> Callable[..., StepDataset]:
    """Return a function that makes a dataset of small pictures; keywords change its config."""

    def make(*, seed: int = 0, rank: int = 0, world_size: int = 1, plain: bool = False, **changes: Any) -> StepDataset:
        settings: dict[str, Any] = {"image_size": 32, "patch_size": 8, "pairs_per_kind": 6, **changes}
        if plain:
            settings["augment"] = AugmentConfig(enabled=False)
        return StepDataset(corpus_path, tokenizer, DataConfig(**settings), seed, rank, world_size)

    return make
