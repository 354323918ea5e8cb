"""Whether two films are one: laid over each other as well as can be, does the fine detail agree?

Films of different patients resemble each other in all that is coarse, so the answer rests on detail of a few pixels
at 128 pixels a side (ribs' edges, vessels, marks), after the one film was moved onto the other by an affine map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.film_hash import MIDDLE, shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.corpus.film_hash import Window

SIDE = 128  # pixels
# Of real films cropped, turned, rescaled, darkened and compressed at once 99 % agree by 0.776 or more; of the pairs of
# such films with their nearest others 98 % by at most 0.61 (docs/audit.md).
SAME_FILM = 0.76
_HOPELESS = 0.3  # agreement of coarse detail below which the fine one is not tried
_LEAST_SHARED = 0.3  # share of the film that both must show
_STEPS, _SMALLEST_GAIN = 25, 1e-4


@dataclass(frozen=True, slots=True)
class Film:
    """A film at 128 × 128 with its coarse and fine detail, ready to be compared with many."""

    pixels: NDArray[np.float32]
    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]

    @classmethod
    def of(cls, film_HW: NDArray[np.uint8]) -> Film:
        """Return the film made ready."""
        pixels = shrink(film_HW, SIDE)
        return cls(pixels, _local_contrast(pixels, 8.0, 9.6, 4.0), _fine(pixels))


def agreement(left: Film, right: Film, window: Window) -> float:
    """Return the correlation of fine detail of two films laid over each other; 0 where they do not come to lie.

    Args:
        left: Seen through the middle window.
        right: Seen through `window`, which shows about the same.
        window: Where to begin.
    """
    # The map from the left film's pixels to the right film's, by the two windows.
    start = type(window)(window.size / MIDDLE, window.angle, window.right, window.down)
    matrix = start.matrix(SIDE, SIDE)
    coarse, matrix = _align(left.coarse, right.coarse, matrix)
    if coarse < _HOPELESS:
        return 0.0
    _, matrix = _align(left.fine, right.fine, matrix)
    flags = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(right.pixels, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR | flags)
    inside = cv2.warpAffine(np.ones((SIDE, SIDE), np.uint8), matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST | flags)
    shared = cv2.erode(inside, np.ones((7, 7), np.uint8)) > 0
    if shared.mean() < _LEAST_SHARED:
        return 0.0
    return _correlation(left.fine[shared], _fine(moved)[shared])


def _local_contrast(film_HW: NDArray[np.float32], blur: float, spread: float, flat: float) -> NDArray[np.float32]:
    """Return the film less its blurred self, over its own local strength: brightness and contrast cancel out."""
    detail = film_HW - cv2.GaussianBlur(film_HW, (0, 0), blur, borderType=cv2.BORDER_REFLECT)
    variance = cv2.GaussianBlur(detail * detail, (0, 0), spread, borderType=cv2.BORDER_REFLECT)
    contrast: NDArray[np.float32] = detail / np.sqrt(variance + flat)
    return contrast


def _fine(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    # Slightly blurred, so that a sharp copy and a soft one still agree.
    return _local_contrast(cv2.GaussianBlur(pixels, (0, 0), 1.0), 4.0, 6.0, 1.0)


def _align(
    left: NDArray[np.float32], right: NDArray[np.float32], matrix: NDArray[np.float32]
) -> tuple[float, NDArray[np.float32]]:
    """Return the correlation reached and the map; where the search runs away, the map that it began with."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _SMALLEST_GAIN)
    try:
        reached, better = cv2.findTransformECC(left, right, matrix.copy(), cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:
        return 0.0, matrix
    return float(reached), better


def _correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    left, right = left - left.mean(), right - right.mean()
    strength = float(np.sqrt((left * left).sum() * (right * right).sum()))
    return float((left * right).sum()) / strength if strength > 0 else 0.0
