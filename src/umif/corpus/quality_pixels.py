"""What is measured of each stored picture, and by which measures a picture looks wrong.

Measuring is done once an image, by worker processes, and kept as a small fixed row (`MEASURES`); judging is done on
rows, so a limit can be changed without reading a picture again. Raise `VERSION` when a measure changes.

The limits of `looks_inverted` and `looks_like_ct` were set on 4,875 real radiographs of chests and limbs, their
inverted copies, and 47 CT slices; docs/quality.md gives the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from umif.corpus.image_hash import perceptual_hash
from umif.errors import UmifError
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Grey = NDArray[np.uint8]
    Flags = NDArray[np.bool_]

VERSION = 1
THUMB = 24
MEASURES = np.dtype(
    [
        ("readable", "?"),
        ("hash", "<u8"),  # `perceptual_hash`
        ("spread", "<f4"),  # standard deviation of grey values, 0 to 127.5
        ("middle", "<f4"),  # spine and heart minus lungs, share of the grey range
        ("upper_corners", "<f4"),  # upper corners minus the whole picture
        ("dark_excess", "<f4"),  # share of dark pixels minus that of bright ones
        ("two_tone", "<f4"),  # share of the variance that one threshold explains
        ("edges", "<f4"),  # share of steep steps between neighbours
        ("midtones", "<f4"),  # share of pixels of middle grey
        ("body", "<f4"),  # share of the largest bright part, filled
        ("margin", "<f4"),  # share of the picture in uniform rows and columns along its edges
        ("margin_grey", "<f4"),  # grey value of the widest such margin
        ("lines", "u1"),  # sides along which a straight line runs from end to end
        ("thumb", "u1", (THUMB, THUMB)),
    ]
)
_SMALL, _LARGE = 64, 128
# JPEG noise: a row of one grey value spreads by less than this after decoding.
_UNIFORM_SPREAD = 2.0
_LINE_ZONE, _LINE_STEP, _LINE_SHARE = 0.12, 25, 0.6


def measure_jpegs(jpegs: Sequence[bytes]) -> NDArray[np.void]:
    """Return one row of `MEASURES` for each stored picture; one that cannot be decoded is not `readable`."""
    rows = np.zeros(len(jpegs), dtype=MEASURES)
    for row, jpeg in zip(rows, jpegs, strict=True):
        try:
            measure(decode_jpeg_grey(jpeg), row)
        except (UmifError, ValueError, cv2.error):
            row["readable"] = False
    return rows


def measure(image_HW: Grey, row: np.void) -> None:
    """Fill one row of `MEASURES`."""
    row["readable"] = True
    row["hash"] = perceptual_hash(image_HW)
    row["spread"] = float(image_HW.std())
    row["thumb"] = cv2.resize(image_HW, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    row["middle"], row["upper_corners"], row["dark_excess"] = _tones(image_HW)
    row["two_tone"], row["edges"], row["midtones"], row["body"] = _slice_signs(image_HW)
    row["margin"], row["margin_grey"] = _margin(image_HW)
    row["lines"] = _lines(image_HW)


def looks_constant(rows: NDArray[np.void]) -> Flags:
    """Which pictures show nothing: a spread under two grey values. Shapes: (N,) → (N,)."""
    return np.asarray(rows["readable"] & (rows["spread"] < 2))


def looks_inverted(rows: NDArray[np.void]) -> Flags:
    """Which pictures have black and white exchanged. Shapes: (N,) → (N,).

    In a radiograph spine and heart are brighter than the lungs beside them, and the air beside neck or limb, in the
    upper corners, is darker than the whole; both are the other way round in an inverted one. A limb that lies to one
    side of a black field also has the first sign wrong: where much is dark, the signs must be the stronger.
    """
    score = rows["middle"] - rows["upper_corners"]
    limit = np.where(rows["dark_excess"] < 0.3, -0.2, -0.45)
    return np.asarray(rows["readable"] & (score < limit) & ~looks_constant(rows))


def looks_like_ct(rows: NDArray[np.void]) -> Flags:
    """Which pictures look like CT slices: two tones, sharp edges, hardly a middle grey, one large body."""
    signs = (rows["two_tone"] > 0.82) & (rows["edges"] > 0.05) & (rows["midtones"] < 0.3) & (rows["body"] > 0.6)
    return np.asarray(rows["readable"] & signs & ~looks_inverted(rows))


def looks_framed(rows: NDArray[np.void]) -> Flags:
    """Which pictures have a frame: uniform margins over a tenth of them, or straight lines along two sides."""
    framed = (rows["margin"] > 0.1) | (rows["lines"] >= 2)
    return np.asarray(rows["readable"] & framed & ~looks_constant(rows))


def same_picture(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Flags:
    """Which pairs of thumbnails show the same picture: a correlation of 0.98 at least.

    Shapes: both (n, 24, 24); returns (n,).
    """
    one, other = (_normalised(thumbs) for thumbs in (left, right))
    return np.asarray((one * other).sum(axis=1) >= 0.98)


def _normalised(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _stretched(image_HW: Grey, side: int, upper: float) -> NDArray[np.float32]:
    """Return the picture at `side` × `side` pixels, its grey range stretched to 0 … 1 but for the extreme percent."""
    small = cv2.resize(image_HW, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    low, high = np.percentile(small, [1, upper])
    return np.asarray(np.clip((small - low) / max(high - low, 1), 0, 1), dtype=np.float32)


def _tones(image_HW: Grey) -> tuple[float, float, float]:
    tone = _stretched(image_HW, _SMALL, 99)
    lungs = np.concatenate([tone[16:40, 10:24].ravel(), tone[16:40, 40:54].ravel()])
    corners = np.concatenate([tone[:8, :8].ravel(), tone[:8, -8:].ravel()])
    dark_excess = (tone < 0.15).mean() - (tone > 0.85).mean()
    return float(tone[10:54, 27:37].mean() - lungs.mean()), float(corners.mean() - tone.mean()), float(dark_excess)


def _slice_signs(image_HW: Grey) -> tuple[float, float, float, float]:
    tone = _stretched(image_HW, _LARGE, 99.5)
    inner = tone[16:112, 16:112]
    limit, _ = cv2.threshold((inner * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    bright = inner * 255 > limit
    share, variance = float(bright.mean()), float(inner.var())
    two_tone = 0.0
    if 0 < share < 1 and variance > 0:
        two_tone = share * (1 - share) * float(inner[bright].mean() - inner[~bright].mean()) ** 2 / variance
    edges = float((np.abs(np.diff(inner, axis=1)) > 0.15).mean())
    return two_tone, edges, float(((inner > 0.35) & (inner < 0.65)).mean()), _body(tone)


def _body(tone: NDArray[np.float32]) -> float:
    """Return the share of the largest bright part, what it encloses included."""
    bright = cv2.morphologyEx((tone > 0.12).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return 0.0
    filled = np.zeros_like(bright)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, -1)
    return float(filled.mean())


def _margin(image_HW: Grey) -> tuple[float, float]:
    """Return the share of the picture in uniform rows and columns along its edges, and the widest margin's grey."""
    height, width = image_HW.shape
    grey = image_HW.astype(np.float32)
    depths, greys = [], []
    for axis in (1, 0):
        mean = cv2.reduce(grey, axis, cv2.REDUCE_AVG).ravel()
        variance = cv2.reduce(grey * grey, axis, cv2.REDUCE_AVG).ravel() - mean**2
        for means, variances in ((mean, variance), (mean[::-1], variance[::-1])):
            uniform = (variances < _UNIFORM_SPREAD**2) & (np.abs(means - means[0]) < _UNIFORM_SPREAD)
            depths.append(len(means) if uniform.all() else int(np.argmin(uniform)))
            greys.append(float(means[0]))
    inside = max(height - depths[0] - depths[1], 0) * max(width - depths[2] - depths[3], 0)
    return 1 - inside / (height * width), greys[int(np.argmax(depths))]


def _lines(image_HW: Grey) -> int:
    """Return along how many sides a thin straight line, brighter or darker than both its sides, runs end to end."""
    grey = image_HW.astype(np.int16)
    return sum(_has_line(lines) for lines in (grey, grey[::-1], grey.T, grey.T[::-1]))


def _has_line(lines: NDArray[np.int16]) -> bool:
    zone = lines[: max(round(len(lines) * _LINE_ZONE), 16)]
    inset = max(zone.shape[1] // 8, 1)  # the line of a frame inside the picture ends before the corners
    zone = zone[:, inset:-inset] if zone.shape[1] > 2 * inset else zone
    for thickness in (2, 3, 5):
        if len(zone) <= 2 * thickness:
            break
        centre, before, after = zone[thickness:-thickness], zone[: -2 * thickness], zone[2 * thickness :]
        step = np.minimum(centre - before, centre - after), np.minimum(before - centre, after - centre)
        if any(((side > _LINE_STEP).mean(axis=1) > _LINE_SHARE).any() for side in step):
            return True
    return False
