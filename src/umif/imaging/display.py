"""DICOM's grey scale: stored values → modality → values of interest → uint8.

Source: DICOM PS3.3, C.11.1 (modality), C.11.2 (VOI), C.7.5.1.1.2 (padding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.imaging.intensity import row_blocks, to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt
    from pydicom.dataset import Dataset

    Floats = npt.NDArray[np.float64]
    Stage = Callable[[Floats], Floats]


def display(stored: npt.NDArray[Any], header: Dataset, *, invert: bool) -> npt.NDArray[np.uint8]:
    """Turn the stored values of a MONOCHROME picture into grey values.

    A step that would wipe the picture out (a window beside all values, a slope of 0) is left out: headers copied from
    other files occur, and the range of the picture itself makes a sound picture then.

    Shapes: stored: (H, W), any real type. Returns: (H, W) uint8.

    Raises:
        ImageError: `non_finite`.
    """
    padding = _padding(header)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        return _display_by_table(stored, header, padding, invert=invert)
    kept = stored[~_is_padding(stored, padding)] if padding is not None else stored
    kept = kept if kept.size else stored
    blocks = [kept.reshape(-1)[rows].astype(np.float64) for rows in row_blocks(kept.reshape(-1))]
    stage, low, high = _stage_and_range(blocks, header)
    del blocks
    result = np.zeros(stored.shape, dtype=np.uint8)
    for rows in row_blocks(stored):
        values = stage(stored[rows].astype(np.float64))
        block = to_uint8(values, invert=invert, low=low, high=high)
        if padding is not None:
            block[_is_padding(stored[rows], padding)] = 0
        result[rows] = block
    return result


def _display_by_table(
    stored: npt.NDArray[Any], header: Dataset, padding: tuple[int, int] | None, *, invert: bool
) -> npt.NDArray[np.uint8]:
    """Work the chain out once per possible value: 65,536 at most, however large the picture."""
    first = int(stored.min())
    possible = np.arange(first, int(stored.max()) + 1)
    counts = np.zeros(len(possible), dtype=np.int64)
    for rows in row_blocks(stored):
        counts += np.bincount(stored[rows].astype(np.intp).reshape(-1) - first, minlength=len(possible))
    occurs = counts > 0
    is_padding = _is_padding(possible, padding)
    # A picture of nothing but padding is a constant one.
    shown = possible[occurs & ~is_padding] if (occurs & ~is_padding).any() else possible[:1]
    stage, low, high = _stage_and_range([shown.astype(np.float64)], header)
    table = to_uint8(stage(possible.astype(np.float64)), invert=invert, low=low, high=high)
    table[is_padding] = 0
    result = np.empty(stored.shape, dtype=np.uint8)
    for rows in row_blocks(stored):
        result[rows] = table.take(stored[rows].astype(np.intp) - first)
    return result


def _stage_and_range(blocks: Iterable[Floats], header: Dataset) -> tuple[Stage, float, float]:
    """Return the last stage that leaves more than one value, and the range of its values."""

    def rescaled(values: Floats) -> Floats:
        return modality_values(values, header)

    def windowed(values: Floats) -> Floats:
        return voi_values(modality_values(values, header), header)

    def unchanged(values: Floats) -> Floats:
        return values

    stages: tuple[Stage, ...] = (windowed, rescaled, unchanged)
    for stage in stages:
        ranges = [(float(values.min()), float(values.max())) for values in map(stage, blocks)]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        # Not "high > low": values that are not finite are for `to_uint8` to refuse.
        if high != low:
            return stage, low, high
    return unchanged, low, high


def modality_values(stored: Floats, header: Dataset) -> Floats:
    """Apply the modality LUT, or rescale slope and intercept, if the header has them."""
    sequence = header.get("ModalityLUTSequence")
    if sequence:
        return _look_up(stored, sequence[0], header)
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if slope is None or intercept is None:
        return stored
    return stored * slope + intercept


def voi_values(values: Floats, header: Dataset) -> Floats:
    """Apply the first VOI LUT, else the first window, if the header has them; windows give 0…1.

    A window without a width (0, or a text that is no number) counts as absent.
    """
    sequence = header.get("VOILUTSequence")
    if sequence and "LUTDescriptor" in sequence[0] and "LUTData" in sequence[0]:
        return _look_up(values, sequence[0], header)
    centre, width = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return values
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        # Beyond ±700 float64's exponential overflows, and the curve is flat long before.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width <= 1.0:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _look_up(values: Floats, item: Dataset, header: Dataset) -> Floats:
    """Map values by a LUT; those before its first entry get the first, those behind its last the last."""
    entries, first = int(item.LUTDescriptor[0]) or 2**16, int(item.LUTDescriptor[1])
    data = item.LUTData
    if isinstance(data, bytes):
        # Entries of 8 bits may be packed two to a word.
        little = header.file_meta.TransferSyntaxUID.is_little_endian
        kind = np.dtype(np.uint8) if len(data) < 2 * entries else np.dtype("<u2" if little else ">u2")
        table = np.frombuffer(data, dtype=kind)
    else:
        table = np.atleast_1d(np.asarray(data))
    table = table[:entries].astype(np.float64)
    index = np.clip(np.rint(values) - first, 0, len(table) - 1)
    result: Floats = table[index.astype(np.int64)]
    return result


def _padding(header: Dataset) -> tuple[int, int] | None:
    """Return the first and last stored value that mean "no picture here"."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = header.get("PixelPaddingRangeLimit")
    other = limit if isinstance(limit, int) else value
    return min(value, other), max(value, other)


def _is_padding(stored: npt.NDArray[Any], padding: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    if padding is None:
        return np.zeros(stored.shape, dtype=bool)
    result: npt.NDArray[np.bool_] = (stored >= padding[0]) & (stored <= padding[1])
    return result


def _number(header: Dataset, keyword: str) -> float | None:
    """Return a number of the header, the first where there are several; `None` if it is absent, empty or no number."""
    try:
        value = header.get(keyword)
        if value is not None and not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
            value = next(iter(value), None)
        return None if value is None or value == "" else float(value)
    except (ValueError, TypeError, OverflowError):
        return None
