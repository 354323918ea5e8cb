"""What heads that draw or box things train on: every patch of the encoder and of its baselines, behind one interface.

Shape legend: N images, K blocks, P patches, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from umif.encoder.dense import PatchFeatures, PatchStore
from umif.errors import TaskError
from umif.tasks.contenders import contenders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import TaskOptions

    Progress = Callable[[int, int], None]

_BATCH = 64


@dataclass(frozen=True, slots=True)
class DenseVariant:
    """One set of patch features: what it is called in tables, and how it is had for rows of the corpus.

    Attributes:
        encoder: `umif`, `random`, `pixels`, or a rival's name.
        baseline: Whether it is one.
        extract: Image rows and progress → their features; extracted once, then read from disk.
        extra: What the row of the table shall tell (the blocks).
    """

    encoder: str
    baseline: bool
    extract: Callable[[NDArray[np.int64], Progress], PatchFeatures]
    extra: dict[str, Any]


def spaced_blocks(depth: int, count: int) -> tuple[int, ...]:
    """Return `count` equally spaced blocks (1-based) that end with the last; fewer where the network has fewer.

    Example:
        >>> spaced_blocks(12, 4), spaced_blocks(6, 4), spaced_blocks(2, 4)
        ((3, 6, 9, 12), (2, 3, 4, 6), (1, 2))
    """
    count = min(count, depth)
    return tuple(round(depth * (index + 1) / count) for index in range(count))


def dense_variants(encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions, blocks: int) -> Iterator[DenseVariant]:
    """Yield the encoder, random weights of its shape, encoders of others that have patches, and the pixels themselves.

    Each is read after equally spaced blocks of its own; of a network whose last map alone can be had, after that.

    Args:
        encoder: What is evaluated.
        corpus: Where the images are.
        options: `baselines`, `seed` and `against` count here.
        blocks: How many blocks' patches a head reads.

    Raises:
        TaskError: the encoder that is evaluated has no patches.
    """
    if "patches" not in encoder.readouts:
        raise TaskError("gives one vector a picture, so it has no patches", where=encoder.name, fix="choose linear")

    def extractor(
        one: FrozenEncoder, numbers: tuple[int, ...]
    ) -> Callable[[NDArray[np.int64], Progress], PatchFeatures]:
        return lambda rows, progress: one.corpus_patches(corpus, rows, numbers, progress=progress)

    for each in contenders(encoder, options):
        if "patches" in each.encoder.readouts:
            numbers = spaced_blocks(each.encoder.depth, blocks)
            yield DenseVariant(each.name, each.baseline, extractor(each.encoder, numbers), {"blocks": list(numbers)})
    if options.baselines:
        yield DenseVariant("pixels", True, lambda rows, progress: pixel_patches(encoder, corpus, rows, progress), {})


def pixel_patches(
    encoder: FrozenEncoder, corpus: Corpus, image_rows: NDArray[np.int64], progress: Progress = lambda done, total: None
) -> PatchFeatures:
    """Return the grey values of every patch, in [0, 1], as if they were features after one block.

    They are cut as the encoder cuts its patches, from the picture as the encoder sees it, so a head on them sees all
    that the encoder sees and nothing that it made of it. They lie in a temporary folder.

    Shapes: `take` gives (n, 1, P, pixels of a patch).
    """
    rows, columns = encoder.grid
    high, wide = encoder.image_size // rows, encoder.image_size // columns
    key = {"pixels": encoder.preprocessing.to_json(), "corpus": corpus.fingerprint}
    store = PatchStore(None, key, (1, rows * columns, high * wide))
    wanted = np.unique(np.asarray(image_rows, dtype=np.int64))

    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(wanted), _BATCH):
            jpegs = corpus.take_jpegs(wanted[start : start + _BATCH])
            views = np.stack([encoder.preprocessing.jpeg(data) for data in jpegs]).astype(np.float32) / np.float32(255)
            # A network whose stride does not divide its square leaves a margin at the lower right.
            views = views[:, : rows * high, : columns * wide]
            cut = views.reshape(len(jpegs), rows, high, columns, wide).swapaxes(2, 3)
            yield cut.reshape(len(jpegs), 1, rows * columns, high * wide)
            progress(min(start + _BATCH, len(wanted)), len(wanted))

    store.add(wanted, batches())
    return PatchFeatures(store.parts(), (0,), encoder.grid, keep=store)
