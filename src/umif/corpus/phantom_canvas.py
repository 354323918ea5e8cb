"""Drawing in body coordinates: smooth outlines, bands and fields on one small picture.

Shapes: S = size of the picture, N = points of an outline.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Picture = NDArray[np.float32]
    Points = NDArray[np.float64]

# Outlines are handed to OpenCV in sixteenths of a pixel.
_SHIFT = 4


class Canvas:
    """A square picture and the map from body coordinates (fractions, x right and y down) to its pixels.

    Args:
        size: Pixels along a side.
        rotation_degrees: Of the body, clockwise, about the middle of the chest.
        scale: Of the body.
        shift: Of the body, as fractions of the picture.
    """

    def __init__(
        self, size: int, rotation_degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.size = size
        self.scale = scale
        angle = math.radians(rotation_degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) * scale
        centre = np.array([0.5, 0.5])
        offset = centre + np.array(shift) - turn @ centre
        self._fine_turn = turn.T * (size << _SHIFT)
        self._fine_offset = (offset * size - 0.5) * (1 << _SHIFT)
        back = np.linalg.inv(turn)
        rows, columns = _pixel_grid(size)
        x, y = columns - np.float32(offset[0]), rows - np.float32(offset[1])
        a, b, c, d = (np.float32(value) for value in back.ravel())
        self.u: Picture = a * x + b * y
        self.v: Picture = c * x + d * y
        # v along the middle column, (S, 1): enough for slow changes from head to foot, and much less to compute with.
        self.down: Picture = np.ascontiguousarray(self.v[:, size // 2 : size // 2 + 1])

    def fill(self, *outlines: Points) -> Picture:
        """Return the share of each pixel that the outlines cover, smooth at their edges.

        Shapes: (N, 2) each → (S, S).
        """
        layer = np.zeros((self.size, self.size), dtype=np.uint8)
        self.fill_on(layer, outlines, 255)
        return unit(layer)

    def fill_on(self, layer: NDArray[np.uint8], outlines: Sequence[Points] | Points, grey: int) -> None:
        """Fill the outlines on a layer; later ones cover earlier ones."""
        for outline in self._fixed(outlines):
            cv2.fillPoly(layer, [outline], grey, lineType=cv2.LINE_AA, shift=_SHIFT)

    def stroke_on(
        self,
        layer: NDArray[np.uint8],
        lines: Sequence[Points] | Points,
        grey: float,
        width: float,
        *,
        closed: bool = False,
    ) -> None:
        """Draw lines on a layer, `width` a fraction of the picture; a line thinner than a pixel is fainter."""
        self._draw_lines(layer, self._fixed(lines), grey, width, closed=closed)

    def bands_on(self, layer: NDArray[np.uint8], outlines: Points, greys: tuple[int, int], edge: float) -> None:
        """Fill bands as `band` outlines them with the first grey, and draw both edges with the second.

        Shapes: outlines (bands, 2N, 2).
        """
        fixed = self._fixed(outlines)
        for outline in fixed:
            cv2.fillPoly(layer, [outline], greys[0], lineType=cv2.LINE_AA, shift=_SHIFT)
        half = outlines.shape[1] // 2
        edges = [line for outline in fixed for line in (outline[:half], outline[half:])]
        self._draw_lines(layer, edges, greys[1], edge, closed=False)

    def stroke(self, lines: Sequence[Points] | Points, width: float) -> Picture:
        """Return lines of full brightness. Shapes: (N, 2) each → (S, S)."""
        layer = np.zeros((self.size, self.size), dtype=np.uint8)
        self.stroke_on(layer, lines, 255, width)
        return unit(layer)

    def layer(self) -> NDArray[np.uint8]:
        """Return an empty layer to draw on. Shapes: (S, S)."""
        return np.zeros((self.size, self.size), dtype=np.uint8)

    def blur(self, picture: Picture, sigma: float) -> Picture:
        """Return the picture blurred by `sigma` (a fraction of the picture); wide blurs are made on a smaller grid."""
        pixels = sigma * self.size
        if pixels < 0.3:
            return picture
        step = max(1, int(pixels // 2))
        if step == 1:
            return np.asarray(cv2.GaussianBlur(picture, (0, 0), pixels), dtype=np.float32)
        small = max(8, self.size // step)
        little = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        little = cv2.GaussianBlur(little, (0, 0), pixels * small / self.size, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(little, (self.size, self.size), interpolation=cv2.INTER_LINEAR), dtype=np.float32)

    def soften(self, layer: NDArray[np.uint8], sigma: float) -> Picture:
        """Return a drawn layer as 0 to 1, blurred a little (in bytes, which is quicker). Shapes: (S, S)."""
        pixels = sigma * self.size
        return unit(cv2.GaussianBlur(layer, (0, 0), pixels) if pixels >= 0.3 else layer)

    def texture(self, rng: np.random.Generator, *bumps: tuple[int, float]) -> Picture:
        """Return a smooth random field: the sum over (bumps along a side, standard deviation), coarse ones first."""
        field = np.zeros((2, 2), dtype=np.float32)
        for cells, deviation in bumps:
            drawn = rng.standard_normal((cells, cells), dtype=np.float32) * np.float32(1.3 * deviation)
            field = drawn + cv2.resize(field, (cells, cells), interpolation=cv2.INTER_CUBIC)
        return np.asarray(cv2.resize(field, (self.size, self.size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)

    def _draw_lines(
        self, layer: NDArray[np.uint8], lines: list[NDArray[np.int32]], grey: float, width: float, *, closed: bool
    ) -> None:
        exact = width * self.size * self.scale
        thickness = max(1, round(exact))
        shade = round(grey * min(1.0, exact / thickness))
        if shade > 0:
            cv2.polylines(layer, lines, closed, shade, thickness, lineType=cv2.LINE_AA, shift=_SHIFT)

    def _fixed(self, outlines: Sequence[Points] | Points) -> list[NDArray[np.int32]]:
        """Return outlines in OpenCV's fixed-point pixels; all are moved at once, since there are hundreds of them."""
        if isinstance(outlines, np.ndarray):
            pixels = outlines @ self._fine_turn + self._fine_offset
            return list(np.rint(pixels).astype(np.int32)[:, :, None])
        if not outlines:
            return []
        fixed = np.rint(np.concatenate(outlines) @ self._fine_turn + self._fine_offset).astype(np.int32)[:, None]
        pieces, start = [], 0
        for outline in outlines:
            pieces.append(fixed[start : start + len(outline)])
            start += len(outline)
        return pieces


def smooth(points: Sequence[tuple[float, float]] | Points, *, closed: bool, steps: int = 6) -> Points:
    """Return a Catmull-Rom curve through the points.

    Shapes: (N, 2) → (M, 2), M = `steps` per stretch.
    """
    corners = np.asarray(points, dtype=np.float64)
    count = len(corners)
    index = np.arange(-1, count + 2)
    padded = corners[index % count if closed else np.clip(index, 0, count - 1)]
    stretches = count if closed else count - 1
    quads = np.stack([padded[k : k + stretches] for k in range(4)])
    curve: Points = np.tensordot(quads, _spline_weights(steps), axes=(0, 1)).transpose(0, 2, 1).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, corners[-1:]])


def mirror(points: Points) -> Points:
    """Return the points on the other side of the body."""
    mirrored: Points = points * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])
    return mirrored


def ellipse(x: float, y: float, wide: float, tall: float, corners: int = 20) -> Points:
    """Return the outline of an ellipse with half axes `wide` and `tall`. Shapes: (corners, 2)."""
    outline: Points = _circle(corners) * np.array([wide, tall]) + np.array([x, y])
    return outline


def band(centre: Points, width: float | NDArray[np.float64]) -> Points:
    """Return the outlines of bands around lines.

    Shapes: (…, N, 2) and () or (N,) → (…, 2N, 2), down one edge and back along the other.
    """
    along = np.empty_like(centre)
    along[..., 1:-1, :] = centre[..., 2:, :] - centre[..., :-2, :]
    along[..., 0, :] = centre[..., 1, :] - centre[..., 0, :]
    along[..., -1, :] = centre[..., -1, :] - centre[..., -2, :]
    length = np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-9)
    across = along[..., ::-1] * np.array([-0.5, 0.5]) * (np.asarray(width) / length)[..., None]
    return np.concatenate([centre + across, (centre - across)[..., ::-1, :]], axis=-2)


def ramp(values: Picture, low: float, high: float) -> Picture:
    """Return 0 below `low`, 1 above `high` and a smooth step between."""
    share: Picture = values * np.float32(1 / (high - low))
    share -= np.float32(low / (high - low))
    np.clip(share, 0, 1, out=share)
    bend = share * np.float32(-2)
    bend += np.float32(3)
    share *= share
    share *= bend
    return share


def unit(layer: NDArray[np.uint8]) -> Picture:
    """Return a layer as 0 to 1. Shapes: (S, S) uint8 → (S, S)."""
    return np.multiply(layer, np.float32(1 / 255), dtype=np.float32)


@lru_cache(maxsize=4)
def _pixel_grid(size: int) -> tuple[Picture, Picture]:
    """Return rows (S, 1) and columns (1, S) of the pixels' middles as fractions."""
    middles = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return middles[:, None], middles[None, :]


@lru_cache(maxsize=4)
def _spline_weights(steps: int) -> Points:
    t = np.arange(steps) / steps
    cubic = np.array([[-1, 2, -1, 0], [3, -5, 0, 2], [-3, 4, 1, 0], [1, -1, 0, 0]]) / 2
    return np.stack([t**3, t**2, t, np.ones_like(t)], axis=1) @ cubic.T


@lru_cache(maxsize=8)
def _circle(corners: int) -> Points:
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)
