"""One picture of test images with what is there and what is found, for a look at what a number stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.errors import StorageError
from umif.imaging import decode_jpeg_grey
from umif.rng import keyed_rng
from umif.train.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.tasks.detection_cases import BoxCases
    from umif.tasks.detection_metrics import Detections

    Picture = NDArray[np.uint8]

_WITH, _WITHOUT, _COLUMNS = 9, 3, 4
_SIDE, _LINE, _GAP = 256, 20, 6
_MOST_FOUND = 6
# BGR. Blue and orange can be told apart by the colour-blind.
_THERE, _FOUND, _WORDS = (235, 160, 60), (40, 150, 255), (230, 230, 230)
_FONT, _FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def write_sheet(
    path: Path, corpus: Corpus, cases: BoxCases, found: Sequence[Detections], least_score: float, seed: int
) -> None:
    """Draw nine test images with a box and three without (fewer where there are fewer) and write them as PNG.

    Args:
        path: Of the file.
        corpus: Where the pictures are.
        cases: The problem's.
        found: Predictions on its test images, in the order of the cases.
        least_score: Predictions below are not drawn.
        seed: Draws the images.

    Raises:
        StorageError: the disk refused.
    """
    test = cases.of("test")
    order = keyed_rng(seed, "detection sheet").permutation(len(test))
    boxed = cases.has_box_N[test][order]
    chosen = [*order[boxed][:_WITH], *order[~boxed][:_WITHOUT]]
    jpegs = corpus.take_jpegs(cases.rows_N[test[chosen]])
    tiles = [_tile(jpeg, cases, int(test[at]), found[at], least_score) for jpeg, at in zip(jpegs, chosen, strict=True)]
    _, data = cv2.imencode(".png", _mounted(tiles))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data.tobytes())
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=path, fix="make room") from error


def _tile(jpeg: bytes, cases: BoxCases, position: int, found: Detections, least_score: float) -> Picture:
    """One image in its own proportions on a square, with what is said of it below."""
    grey = decode_jpeg_grey(jpeg)
    scale = _SIDE / max(grey.shape)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    picture = cv2.cvtColor(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    truth = cases.truths[position]
    several = len(cases.classes) > 1
    for box, index in zip(truth.boxes_G4, truth.classes_G, strict=True):
        top = _draw(picture, box, _THERE, 2)[1]
        _write(picture, cases.classes[index] if several else "", box, max(10, top + 12), _THERE)
    best = np.argsort(-found.scores_M, kind="stable")[:_MOST_FOUND]
    best = best[found.scores_M[best] >= least_score]
    for rank, at in enumerate(best):
        bottom = _draw(picture, found.boxes_M4[at], _FOUND, 1)[3]
        name = cases.classes[found.classes_M[at]] + " " if several else ""
        # In three lines by turns: boxes of several classes often lie on one another.
        line = min(height - 4, bottom - 4) - 11 * (rank % 3)
        _write(picture, f"{name}{found.scores_M[at]:.2f}", found.boxes_M4[at], line, _FOUND)
    tile = np.zeros((_SIDE + _LINE, _SIDE, 3), dtype=np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    tile[top : top + height, left : left + width] = picture
    words = f"{len(truth.boxes_G4)} drawn, {len(best)} found"
    cv2.putText(tile, words, (4, _SIDE + 14), _FONT, _FONT_SIZE, _WORDS, 1, cv2.LINE_AA)
    return tile


def _draw(picture: Picture, box: NDArray[np.float64], colour: tuple[int, int, int], wide: int) -> tuple[int, ...]:
    """Draw a box; return its corners in pixels of the picture."""
    height, width = picture.shape[:2]
    corners = tuple(
        min(max(round(value * side), 0), side - 1) for value, side in zip(box, (width, height) * 2, strict=True)
    )
    cv2.rectangle(picture, corners[:2], corners[2:], colour, wide)
    return corners


def _write(picture: Picture, words: str, box: NDArray[np.float64], line: int, colour: tuple[int, int, int]) -> None:
    if words:
        (wide, high), _ = cv2.getTextSize(words, _FONT, _FONT_SIZE, 1)
        left = max(0, min(round(box[0] * picture.shape[1]) + 2, picture.shape[1] - wide - 2))
        cv2.rectangle(picture, (left, line - high - 1), (left + wide + 1, line + 2), (24, 24, 24), cv2.FILLED)
        cv2.putText(picture, words, (left + 1, line), _FONT, _FONT_SIZE, colour, 1, cv2.LINE_AA)


def _mounted(tiles: Sequence[Picture]) -> Picture:
    rows = -(-len(tiles) // _COLUMNS)
    columns = min(_COLUMNS, len(tiles))
    high, wide = tiles[0].shape[0] + _GAP, tiles[0].shape[1] + _GAP
    sheet = np.full((_LINE + rows * high, max(columns * wide, 480), 3), 24, dtype=np.uint8)
    x = 4
    for words, colour in (("drawn in the data", _THERE), ("found, with score, at one false box an image", _FOUND)):
        cv2.putText(sheet, words, (x, 14), _FONT, _FONT_SIZE, colour, 1, cv2.LINE_AA)
        x += 150
    for number, tile in enumerate(tiles):
        top, left = _LINE + number // _COLUMNS * high, number % _COLUMNS * wide
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
