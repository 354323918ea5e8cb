"""One annotation of COCO's JSON → its regions: polygons or run lengths where there is an outline, else its box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umif.errors import TableError
from umif.readers.base import Region

if TYPE_CHECKING:
    from pathlib import Path

    from umif.readers.base import Reader

_LARGEST = 1e9
_MOST_PIXELS = 2**31
_BASE, _BITS = 48, 5  # of COCO's compressed counts: characters from '0' on, five bits each


def get(entry: Any, key: str, where: str) -> Any:
    """Return the value of a key that must be there.

    Raises:
        TableError: it is not.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise TableError(f"the entry has no {key!r}", where=where, fix="expected COCO's layout")
    return entry[key]


def entries(path: Path, data: dict[str, Any], key: str) -> list[Any]:
    """Return one of the lists that a file holds.

    Raises:
        TableError: it is no list.
    """
    if not isinstance(data[key], list):
        raise TableError(f"{key!r} holds no list", where=path, fix="expected COCO's layout")
    return list(data[key])


def whole(entry: Any, key: str, where: str) -> int:
    """Return a whole number, also where a tool wrote it as `"7"` or `7.0`.

    Raises:
        TableError: it is none.
    """
    value = get(entry, key, where)
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TableError(f"{key!r} is {_short(value)} where a whole number belongs", where=where)
    return value


def read_regions(
    reader: Reader, annotation: dict[str, Any], finding: str, image: dict[str, Any], where: str
) -> list[Region]:
    """Return the regions of one annotation; a polygon of several parts is one region for each.

    Coordinates are in the frame that the image's entry states; without one it is the file's own size.

    Raises:
        TableError: an outline or box outside COCO's encoding.
    """
    frame = _frame(image, where)
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return _runs(reader, outline, finding, frame, where)
    if not isinstance(outline, list | None):
        raise TableError(f"the segmentation is {_short(outline)}", where=where, fix="expected polygons or run lengths")
    polygons = [_polygon(part, where) for part in outline or ()]
    whole_ones = [points for points in polygons if len(set(points)) > 2]
    if len(whole_ones) < len(polygons):
        reader.note("polygon of fewer than three corners")
    if whole_ones:
        return [Region(finding, "polygon", points=points, frame=frame) for points in whole_ones]
    return _box(reader, annotation.get("bbox"), finding, frame, where)


def _frame(image: dict[str, Any], where: str) -> tuple[int, int] | None:
    if image.get("width") is None or image.get("height") is None:
        return None
    frame = whole(image, "width", where), whole(image, "height", where)
    if min(frame) <= 0 or frame[0] * frame[1] > _MOST_PIXELS:
        raise TableError(f"the image is {frame[0]} by {frame[1]} pixels large", where=where)
    return frame


def _polygon(part: Any, where: str) -> tuple[tuple[float, float], ...]:
    if not isinstance(part, list) or len(part) % 2:
        raise TableError(f"a polygon is {_short(part)}", where=where, fix="expected [x1, y1, x2, y2, …]")
    numbers = [_number(value, where) for value in part]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _box(reader: Reader, box: Any, finding: str, frame: tuple[int, int] | None, where: str) -> list[Region]:
    if box is None or box == [] or (isinstance(box, list) and all(side is None for side in box)):
        reader.note("annotation without an outline or a box")
        return []
    if not isinstance(box, list) or len(box) != 4:
        raise TableError(f"the bbox is {_short(box)}", where=where, fix="expected [x, y, width, height]")
    x, y, width, height = (_number(side, where) for side in box)
    if width <= 0 or height <= 0:
        reader.note("box without extent")
        return []
    return [Region(finding, "box", box=(x, y, width, height), frame=frame)]


def _runs(
    reader: Reader, outline: dict[str, Any], finding: str, frame: tuple[int, int] | None, where: str
) -> list[Region]:
    size, counts = get(outline, "size", where), get(outline, "counts", where)
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise TableError(f"the size of the run lengths is {_short(size)}", where=where, fix="expected [height, width]")
    height, width = size
    if frame not in (None, (width, height)):
        assert frame is not None
        raise TableError(
            f"the run lengths are of {width} × {height} pixels, their image of {frame[0]} × {frame[1]}",
            where=where,
            fix="size is [height, width]; mend it, or the image's width and height",
        )
    runs = decode_counts(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise TableError("the run lengths are no whole numbers from 0 on", where=where)
    if sum(runs) != height * width:
        raise TableError(
            f"the run lengths add up to {sum(runs)}, not to {height} × {width} pixels",
            where=where,
            fix="they run down the columns, the background first",
        )
    if not any(runs[1::2]):
        reader.note("run lengths without foreground")
        return []
    return [Region(finding, "rle", runs=tuple(runs), frame=(width, height))]


def decode_counts(text: str, where: str) -> list[int]:
    """Return the run lengths of COCO's compressed counts.

    Each number is written in groups of five bits, the lowest first, one character each; from the fourth number on it
    is the difference to the number two before it.

    Source: `rleFrString` of the COCO API.

    Raises:
        TableError: the text ends within a number or holds other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _BASE
        if not 0 <= code < 64 or shift > 60:
            raise TableError(f"the counts hold {character!r}", where=where, fix="expected COCO's compressed counts")
        value |= (code & 31) << shift
        shift += _BITS
        if code & 32:  # more groups follow
            continue
        if code & 16:  # negative
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise TableError("the counts end within a number", where=where)
    return runs


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise TableError(f"{_short(value)} stands where a number belongs", where=where)
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}…"
