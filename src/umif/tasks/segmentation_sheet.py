"""One picture of test images, what is there and what was drawn, for a look at what a number stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.regions import finding_colour
from umif.errors import StorageError
from umif.imaging import decode_jpeg_grey
from umif.train.durable import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    Masks = NDArray[np.bool_]

CASES = 8
_HEADINGS = ("test image", "there", "drawn")
_GAP, _LINE, _SETS = 4, 18, 2
# One class has this colour (R, G, B); several have those of the vocabulary.
_PLAIN = (255, 150, 40)
_FONT, _FONT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def choose_cases(positive_N: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return up to eight positions: three quarters of them with something there, the rest without.

    Where there are too few of either, the other fills up.
    """
    order = rng.permutation(len(positive_N))
    with_it, without = order[positive_N[order]], order[~positive_N[order]]
    count = min(len(with_it), max(CASES * 3 // 4, CASES - len(without)))
    return np.concatenate([with_it[:count], without[: CASES - count]]).astype(np.int64)


def draw_sheet(
    jpegs: Sequence[bytes],
    true_NFSS: Masks,
    drawn_NFSS: Masks,
    values_NF: NDArray[np.float64],
    classes: Sequence[str],
) -> Picture:
    """Return two columns of cases, each the picture alone, with what is there and with what was drawn.

    Below a case stand the Dice of its classes, in their colours.

    Shapes: masks (N, F, S, S); values (N, F), NaN where unknown; returns (H, W, 3) uint8, RGB.
    """
    side = true_NFSS.shape[-1]
    colours = [_PLAIN] if len(classes) == 1 else [finding_colour(name) for name in classes]
    strips = []
    for index, jpeg in enumerate(jpegs):
        grey_SS = cv2.resize(decode_jpeg_grey(jpeg), (side, side), interpolation=cv2.INTER_AREA)
        plain = np.repeat(grey_SS[:, :, None], 3, axis=2)
        panels = [plain, *(_tinted(plain, masks[index], colours) for masks in (true_NFSS, drawn_NFSS))]
        strips.append(np.concatenate([_padded(panel) for panel in panels], axis=1))
    captions = [_caption(row, classes, colours, 3 * (side + _GAP)) for row in values_NF]
    cells = [np.concatenate([strip, caption]) for strip, caption in zip(strips, captions, strict=True)]
    while len(cells) % _SETS:
        cells.append(np.zeros_like(cells[0]))
    rows = [np.concatenate(cells[start : start + _SETS], axis=1) for start in range(0, len(cells), _SETS)]
    heading = np.zeros((_LINE, rows[0].shape[1], 3), dtype=np.uint8)
    for column in range(3 * _SETS):
        _write(heading, _HEADINGS[column % 3], column * (side + _GAP) + 2, (230, 230, 230))
    return np.concatenate([heading, *rows])


def write_sheet(path: Path, sheet: Picture) -> None:
    """Write a sheet as PNG.

    Raises:
        StorageError: the disk refused.
    """
    _, data = cv2.imencode(".png", sheet[:, :, ::-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data.tobytes())
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=path, fix="make room") from error


def _tinted(picture: Picture, masks_FSS: Masks, colours: Sequence[tuple[int, int, int]]) -> Picture:
    """Lay classes over a picture, the largest first, each with a full outline so that the film stays visible."""
    tinted = picture.copy()
    for index in np.argsort(-masks_FSS.sum(axis=(1, 2)), kind="stable"):
        mask = masks_FSS[index]
        tinted[mask] = (0.65 * tinted[mask] + 0.35 * np.array(colours[index])).round().astype(np.uint8)
        edge = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        tinted[edge] = colours[index]
    return tinted


def _padded(panel: Picture) -> Picture:
    return np.pad(panel, ((_GAP, 0), (0, _GAP), (0, 0)))


def _caption(
    values_F: NDArray[np.float64], classes: Sequence[str], colours: Sequence[tuple[int, int, int]], width: int
) -> Picture:
    line = np.zeros((_LINE, width, 3), dtype=np.uint8)
    left = 2
    for value, name, colour in zip(values_F, classes, colours, strict=True):
        if np.isnan(value):
            continue
        words = f"Dice {value:.2f}" if len(classes) == 1 else f"{name} {value:.2f}"
        _write(line, words, left, colour)
        left += cv2.getTextSize(words, _FONT, _FONT_SIZE, 1)[0][0] + 12
    return line


def _write(picture: Picture, words: str, left: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, words, (left, _LINE - 5), _FONT, _FONT_SIZE, colour, 1, cv2.LINE_AA)
