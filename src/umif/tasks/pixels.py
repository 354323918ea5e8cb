"""The humblest baseline: the picture itself, scaled down. On small data it is a strong rival."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from umif.corpus import Corpus

SIDE = 32
_BATCH = 256


def pixel_features(
    corpus: Corpus,
    image_rows: NDArray[np.int64],
    *,
    side: int = SIDE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Return each picture as `side` × `side` grey values in [0, 1], averaged over areas. Shape (N, side²)."""
    features = np.empty((len(image_rows), side * side), dtype=np.float32)
    for start in range(0, len(image_rows), _BATCH):
        rows = image_rows[start : start + _BATCH]
        for index, data in enumerate(corpus.take_jpegs(rows), start=start):
            small = cv2.resize(decode_jpeg_grey(data), (side, side), interpolation=cv2.INTER_AREA)
            features[index] = small.reshape(-1) / np.float32(255)
        progress(min(start + _BATCH, len(image_rows)), len(image_rows))
    return features
