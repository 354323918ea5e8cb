"""Sample values of any type → uint8 grey, and colours → luminance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.errors import ImageError

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows are handled in blocks of about this many pixels, so that float64 copies stay small.
_BLOCK_PIXELS = 1 << 20
# ITU-R BT.601, as JPEG's Y; 16-bit fixed point like Pillow's, so that grey stored as RGB comes back unchanged.
_LUMA = np.array([19595, 38470, 7471], dtype=np.int64)


def to_uint8(
    values: npt.NDArray[Any], *, invert: bool = False, low: float | None = None, high: float | None = None
) -> npt.NDArray[np.uint8]:
    """Stretch `values` from their own range (or from [low, high]) to 0…255, rounding to nearest.

    The range is the picture's own because bit depths in headers cannot be trusted: most 16-bit files hold 12 bits.
    A constant picture becomes 0 throughout. `invert` is for scales on which the largest value is black; it is applied
    after the stretch, so within the range that is used.

    Shapes: values: (H, W) or (N,), any real type. Returns: the same, uint8.

    Raises:
        ImageError: `non_finite`: NaN or infinity among the values.
    """
    bottom = float(values.min()) if low is None else float(low)
    top = float(values.max()) if high is None else float(high)
    if not (np.isfinite(bottom) and np.isfinite(top)) or (values.dtype.kind == "f" and not _finite(values)):
        raise ImageError("holds NaN or infinite values", reason="non_finite")
    result = np.zeros(values.shape, dtype=np.uint8)
    if top <= bottom:
        return result
    # Halves, because the span of float64's extremes does not fit into a float64.
    span = top / 2 - bottom / 2
    for rows in row_blocks(values):
        block = (values[rows].astype(np.float64) / 2 - bottom / 2) / span
        np.clip(block, 0.0, 1.0, out=block)
        if invert:
            np.subtract(1.0, block, out=block)
        block *= 255.0
        result[rows] = np.rint(block, out=block)
    return result


def luminance(colours: npt.NDArray[Any], alpha: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
    """Return the grey of RGB samples, over black where a varying `alpha` lets it show.

    A constant alpha carries nothing (also where it is 0 throughout) and is left out.

    Shapes: colours: (H, W, 3) or (H, W, 1) or (H, W), unsigned; alpha: (H, W). Returns: (H, W), same type.
    """
    grey = np.empty(colours.shape[:2], dtype=colours.dtype)
    varies = alpha is not None and alpha.min() != alpha.max()
    full = np.iinfo(colours.dtype).max
    for rows in row_blocks(grey):
        if colours.ndim == 3 and colours.shape[2] == 3:
            block = (colours[rows].astype(np.int64) @ _LUMA + 0x8000) >> 16
        else:
            block = colours[rows].reshape(grey[rows].shape).astype(np.int64)
        if varies and alpha is not None:
            block = (block * alpha[rows].astype(np.int64) + full // 2) // full
        grey[rows] = block
    return grey


def _finite(values: npt.NDArray[Any]) -> bool:
    return all(bool(np.isfinite(values[rows]).all()) for rows in row_blocks(values))


def row_blocks(values: npt.NDArray[Any]) -> list[slice]:
    """Return slices of rows of about a million values each."""
    rows = max(1, _BLOCK_PIXELS // max(1, values.shape[1] if values.ndim > 1 else 1))
    return [slice(first, first + rows) for first in range(0, values.shape[0], rows)]
