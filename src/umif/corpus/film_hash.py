"""64-bit hashes by which films of one body part can be told apart, cropped and turned a little or not.

All chest films share their lowest spatial frequencies, so a hash of those calls every other film near. Here a film is
seen through its local contrast, the mean film is taken off, and the directions in which films differ are whitened
before signs are taken: two films of different patients then agree in about half of their bits.

The left side of a search is hashed once a film, through a window on its middle (80 % of each side). The right side is
hashed through many windows: smaller, larger, shifted and turned. One of them shows nearly what the left window shows,
whichever of the two films was cropped out of the other; and windows keep clear of the black corners of turned films.

Shape legend: N films, V windows, W×W pixels of a window, P = W², B = 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BITS = 64
SIDE, WINDOW_SIDE = 44, 32  # pixels of the shrunken film and of a window: about one to one
MIDDLE = 0.8  # side of the left window, as a share of the film's
# A film cropped to 90 % of each side shows the left window at 0.80 / 0.90 of its own size; the other way round 0.72.
_SIZES = (0.72, 0.76, 0.80, 0.845, 0.889)
_ANGLES = (-4.5, -2.25, 0.0, 2.25, 4.5)  # degrees
_SHIFT = 0.025  # between neighbouring windows, share of the side
_BLUR, _SPREAD = 5.0, 6.0  # pixels: what is local, and over how far its strength is evened out
_WHITENING = 0.7  # 1 would raise the noise of weak directions as far as the signal of strong ones
_FLAT = 4.0  # grey values squared: below this variance a place counts as flat
_FEW = 1000  # windows that a basis is fitted on, at least


@dataclass(frozen=True, slots=True)
class Window:
    """A square on the film: its side (share of the film's), its turn (degrees), its centre's shift (share)."""

    size: float
    angle: float
    right: float
    down: float

    def matrix(self, side: int, of: int) -> NDArray[np.float32]:
        """Return the affine map (2, 3) from pixels of a window of `side` to pixels of a film of side `of`."""
        scale = self.size * of / side
        angle = np.deg2rad(self.angle)
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        middle = (side - 1) / 2
        x, y = (of - 1) / 2 + self.right * of, (of - 1) / 2 + self.down * of
        rows = [[cosine, -sine, x - middle * (cosine - sine)], [sine, cosine, y - middle * (sine + cosine)]]
        return np.array(rows, dtype=np.float32)


def _windows() -> tuple[Window, ...]:
    found = []
    for size, angle in product(_SIZES, _ANGLES):
        reach = 0.0 if size == MIDDLE else abs(1 - size / MIDDLE) / 2
        count = 0 if size == MIDDLE else max(1, round(reach / _SHIFT))
        shifts = [number * _SHIFT for number in range(-count, count + 1)]
        found += [Window(size, angle, right, down) for right, down in product(shifts, shifts)]
    return tuple(found)


LEFT_WINDOW = Window(MIDDLE, 0.0, 0.0, 0.0)
WINDOWS = _windows()


def shrink(film_HW: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Return the film squeezed to a square: some copies of datasets have lost the aspect ratio."""
    small: NDArray[np.float32] = cv2.resize(film_HW, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small


def look_through(film_HW: NDArray[np.uint8], windows: Sequence[Window]) -> NDArray[np.float32]:
    """Return what each window shows of a film, in local contrast, as rows. Shapes: (H, W) → (V, P).

    The contrast is taken within the window: what lies outside differs between a film and its cropped copy.
    """
    small = shrink(film_HW, SIDE)
    views_VWW = np.stack([_view(small, window) for window in windows])
    detail = views_VWW - _smoothed(views_VWW, _BLUR)
    contrast: NDArray[np.float32] = detail / np.sqrt(_smoothed(detail * detail, _SPREAD) + _FLAT)
    return contrast.reshape(len(windows), -1)


def _view(small: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    view: NDArray[np.float32] = cv2.warpAffine(
        small,
        window.matrix(WINDOW_SIDE, SIDE),
        (WINDOW_SIDE, WINDOW_SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return view


def _smoothed(views_VWW: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Blur all views at once: two products with one matrix, many times as quick as a call for each."""
    blur = _blur_matrix(width)
    smooth: NDArray[np.float32] = blur.T @ (views_VWW @ blur)
    return smooth


@cache
def _blur_matrix(width: float) -> NDArray[np.float32]:
    identity = np.eye(WINDOW_SIDE, dtype=np.float32)
    reach = 2 * round(3 * width) + 1
    blur: NDArray[np.float32] = cv2.GaussianBlur(identity, (reach, 1), width, borderType=cv2.BORDER_REFLECT)
    return blur


@dataclass(frozen=True, slots=True)
class Basis:
    """What films are compared in: the mean film, and 64 directions of which the signs are kept.

    Shapes: mean_P (P,); directions_PB (P, B).
    """

    mean_P: NDArray[np.float32]
    directions_PB: NDArray[np.float32]

    @classmethod
    def fit(cls, films: Sequence[NDArray[np.uint8]]) -> Self:
        """Fit the basis on some films; of few films, other windows stand in for more.

        The whitened directions are mixed by a fixed rotation, so that no bit is weaker than the others.

        Shapes: films: N ≥ 1 of (H, W).
        """
        repeats = min(len(WINDOWS), -(-_FEW // len(films)) - 1)
        others = [WINDOWS[place] for place in np.linspace(0, len(WINDOWS) - 1, repeats).astype(int)]
        views = np.concatenate([look_through(film, [LEFT_WINDOW, *others]) for film in films]).astype(np.float64)
        mean = views.mean(axis=0)
        values, vectors = np.linalg.eigh((views - mean).T @ (views - mean))
        strongest = np.sqrt(np.maximum(values[::-1][:BITS], 1e-6 * max(values[-1], 1e-9)))
        whitened = vectors[:, ::-1][:, :BITS] / strongest**_WHITENING
        rotation, _ = np.linalg.qr(keyed_rng(0, "film hash").normal(size=(BITS, BITS)))
        return cls(mean.astype(np.float32), (whitened @ rotation).astype(np.float32))

    def hash(self, views_VP: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Return the hash of each view. Shapes: (V, P) → (V,)."""
        signs = (views_VP - self.mean_P) @ self.directions_PB > 0
        packed = np.packbits(signs, axis=1).view(">u8").ravel()
        return packed.astype(np.uint64)
