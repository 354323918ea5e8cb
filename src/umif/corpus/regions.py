"""Regions of a corpus drawn at any size.

A region is kept as geometry in fractions of the picture, or as a mask, and is drawn when it is needed. Drawing keeps
the area: each pixel's covered share is computed, and as many pixels as the region covers in all are painted, the
most covered ones first. So a region's share of the picture is the same at 224 pixels and at 2,048, to half a pixel,
which neither sampling at pixel centres nor a fixed threshold gives for a small box, and nothing drawn is ever empty.

Shapes: H height and W width in pixels of the picture drawn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from umif.errors import CorpusError, ShapeError
from umif.language import vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Coverage = NDArray[np.float64]

# For a region whose finding the vocabulary does not know.
UNKNOWN_COLOUR = (128, 128, 128)
# Scan lines per pixel row; along x a polygon's coverage is exact.
_SCAN_LINES = 16
_ELLIPSE_CORNERS = 256
# Areas that decide what lies on top are taken on one grid, whatever size is drawn.
_AREA_GRID = 64
# Stored fractions are float32: differences below this share of a pixel are rounding, not geometry.
_SLACK = 1e-3


def draw_regions(regions: Sequence[Mapping[str, Any]], height: int, width: int) -> NDArray[np.uint8]:
    """Return an RGB picture of the regions in their findings' colours on black.

    Larger regions are painted first, so that a smaller one inside stays visible; of two of one area the later listed
    lies on top. The order is that of the areas in the picture itself, so it is the same at any size of drawing. A
    region whose finding is null is painted in `UNKNOWN_COLOUR`.

    Args:
        regions: Values of the column `regions` of a pair (`corpus/schema.py`).
        height: Of the picture to draw, pixels.
        width: Of the picture to draw, pixels.

    Shapes:
        Returns: (H, W, 3) uint8.

    Raises:
        CorpusError: a region holds no geometry of its shape, or a mask that cannot be decoded.
    """
    masks = [region_mask(region, height, width) for region in regions]
    areas = [_area(region) for region in regions] if len(regions) > 1 else [0.0]
    order = sorted(range(len(masks)), key=lambda i: -areas[i])
    # Numbers are painted and turned into colours once: five times faster than painting colours.
    number = np.zeros((height, width), dtype=np.int32)
    for place, index in enumerate(order, start=1):
        np.copyto(number, place, where=masks[index])
    colours = [(0, 0, 0), *(finding_colour(regions[index].get("finding")) for index in order)]
    return np.take(np.array(colours, dtype=np.uint8), number, axis=0)


def _area(region: Mapping[str, Any]) -> float:
    """Return a region's share of the picture, whatever size it will be drawn at."""
    shape = region["shape"]
    if shape == "mask":
        return float(decode_mask(region["mask"]).mean())
    if shape == "rle":
        height, width = region["size"]
        return float(sum(region["runs"][1::2]) / (height * width))
    # Rounded, so that one geometry listed twice, or stored twice as float32, is one area.
    return round(float(_coverage(region, _AREA_GRID, _AREA_GRID).mean()), 7)


def finding_colour(finding: str | None) -> tuple[int, int, int]:
    """Return the colour (R, G, B) of a finding's id, `UNKNOWN_COLOUR` for one that the vocabulary does not hold."""
    return UNKNOWN_COLOUR if finding is None else _colours().get(finding, UNKNOWN_COLOUR)


def region_mask(region: Mapping[str, Any], height: int, width: int) -> Mask:
    """Return which pixels belong to the region.

    Shapes:
        Returns: (H, W) bool.

    Raises:
        CorpusError: the region holds no geometry of its shape, or a mask that cannot be decoded.
    """
    if height < 1 or width < 1:
        raise ShapeError(f"a picture of {width} × {height} pixels cannot be drawn", where="region_mask")
    shape = region["shape"]
    field = {"box": "box", "ellipse": "box", "polygon": "points", "rle": "runs", "mask": "mask"}.get(shape)
    if field is None or region.get(field) is None:
        raise CorpusError(f"a region of shape {shape!r} holds no geometry", where=f"regions.{field or 'shape'}")
    if shape == "mask":
        mask = decode_mask(region["mask"])
        return mask if mask.shape == (height, width) else fill(resample(mask, height, width))
    if shape == "rle":
        return fill(resample(decode_runs(region["runs"], *region["size"]), height, width))
    return fill(_coverage(region, height, width))


def _coverage(region: Mapping[str, Any], height: int, width: int) -> Coverage:
    """Return the covered share of each pixel, for the shapes that are kept as geometry."""
    if region["shape"] == "box":
        return _box_coverage(region["box"], height, width)
    if region["shape"] == "ellipse":
        return _polygon_coverage(_ellipse_corners(region["box"]), height, width)
    return _polygon_coverage(np.asarray(region["points"], dtype=np.float64).reshape(-1, 2), height, width)


def fill(coverage: Coverage) -> Mask:
    """Return as many pixels as `coverage` adds up to (one at least, if any is covered), the most covered first.

    Shapes:
        coverage: (H, W), covered share of each pixel, 0 to 1. Returns: (H, W) bool.
    """
    mask: Mask = coverage > 1 - _SLACK
    partly = np.flatnonzero((coverage > _SLACK) & ~mask)
    wanted = round(float(coverage.sum())) - int(np.count_nonzero(mask))
    if not mask.any() and wanted < 1 and coverage.any():
        wanted, partly = 1, np.flatnonzero(coverage)
    # Rounded before ranking, so that equal shares stay equal and their order is that of the pixels.
    order = np.argsort(-np.round(coverage.ravel()[partly], 4), kind="stable")
    mask.ravel()[partly[order[: max(wanted, 0)]]] = True
    return mask


def decode_runs(runs: Sequence[int], height: int, width: int) -> Mask:
    """Return the mask of alternating background and foreground run lengths, column by column (COCO's order).

    Shapes:
        Returns: (height, width) bool. Runs that end early leave the rest background.
    """
    lengths = np.asarray(runs, dtype=np.int64)
    if (lengths < 0).any() or int(lengths.sum()) > height * width:
        raise CorpusError(f"runs of {int(lengths.sum())} pixels do not fit {width} × {height}", where="regions.runs")
    flat = np.zeros(height * width, dtype=bool)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    flat[: len(values)] = values
    return flat.reshape(width, height).T


def encode_mask(mask_HW: Mask) -> bytes:
    """Return the mask as a 1-bit PNG."""
    done, data = cv2.imencode(".png", mask_HW.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    if not done:
        raise CorpusError(f"a mask of shape {mask_HW.shape} cannot be encoded", where="regions.mask")
    return bytes(data)


def decode_mask(data: bytes) -> Mask:
    """Return the mask of a 1-bit PNG; the inverse of `encode_mask`."""
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if pixels is None:
        raise CorpusError("a stored mask cannot be decoded", where="regions.mask", fix="prepare the corpus again")
    return np.asarray(pixels, dtype=np.uint8) > 0


def resample(mask_HW: Mask, height: int, width: int) -> Coverage:
    """Return each target pixel's covered share, exact for any size up or down.

    Shapes:
        mask_HW: any size. Returns: (height, width), 0 to 1.
    """
    if mask_HW.shape == (height, width):
        return mask_HW.astype(np.float64)
    # Only the part that holds anything is multiplied: lesions are small, grids are not.
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return np.zeros((height, width))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    part = mask_HW[top:bottom, left:right].astype(np.float32)
    down = _overlap(mask_HW.shape[0], height)[:, top:bottom]
    across = _overlap(mask_HW.shape[1], width)[:, left:right]
    return np.clip((down @ part @ across.T).astype(np.float64), 0, 1)


@lru_cache(maxsize=32)
def _overlap(size: int, target: int) -> NDArray[np.float32]:
    """Return (target, size): the share of each target pixel that each source pixel covers along one axis."""
    scale = size / target
    low = np.arange(target)[:, None] * scale
    source = np.arange(size)[None, :]
    shared = np.minimum(low + scale, source + 1) - np.maximum(low, source)
    return np.asarray(np.clip(shared, 0, None) / scale, dtype=np.float32)


@lru_cache(maxsize=1)
def _colours() -> dict[str, tuple[int, int, int]]:
    return {entry.id: entry.colour for entry in vocabulary().entries}


def _box_coverage(box: Sequence[float], height: int, width: int) -> Coverage:
    left, top, box_width, box_height = (float(value) for value in box)

    def along(start: float, length: float, size: int) -> Coverage:
        pixel = np.arange(size)
        shared = np.minimum((start + length) * size, pixel + 1) - np.maximum(start * size, pixel)
        return np.asarray(np.clip(shared, 0, 1), dtype=np.float64)

    return np.outer(along(top, box_height, height), along(left, box_width, width))


def _ellipse_corners(box: Sequence[float]) -> NDArray[np.float64]:
    left, top, width, height = (float(value) for value in box)
    angle = np.arange(_ELLIPSE_CORNERS) * (2 * np.pi / _ELLIPSE_CORNERS)
    # Corners a little outside the ellipse, so that the polygon has the ellipse's area.
    step = 2 * np.pi / _ELLIPSE_CORNERS
    reach = 0.5 * np.sqrt(step / np.sin(step))
    across, down = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)
    return np.stack([left + width * across, top + height * down], axis=1)


def _polygon_coverage(corners: NDArray[np.float64], height: int, width: int) -> Coverage:
    """Return each pixel's covered share by the even-odd rule; corners are fractions, (n, 2) as x, y."""
    x, y = corners[:, 0] * width, corners[:, 1] * height * _SCAN_LINES
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    # Scan line k lies at k + ½; an edge meets those from its upper end up to, not including, its lower end.
    first = np.clip(np.ceil(np.minimum(y, y_next) - 0.5), 0, height * _SCAN_LINES).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y, y_next) - 0.5), 0, height * _SCAN_LINES).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(x)), count)
    line = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    slope = (x_next - x)[edge] / (y_next - y)[edge]
    at = np.clip(x[edge] + (line + 0.5 - y[edge]) * slope, 0, width)
    order = np.lexsort((at, line))
    line, at = line[order], at[order]
    # Each line meets the outline an even number of times: it enters and leaves in turn.
    sign = np.where(np.arange(len(at)) % 2 == 0, 1.0, -1.0) / _SCAN_LINES
    cell = np.floor(at).astype(np.int64)
    beyond = at - cell
    change = np.zeros((height, width + 2))
    np.add.at(change, (line // _SCAN_LINES, cell), sign * (1 - beyond))
    np.add.at(change, (line // _SCAN_LINES, cell + 1), sign * beyond)
    return np.clip(np.cumsum(change, axis=1)[:, :width], 0, 1)
