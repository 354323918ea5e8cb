"""A reader's regions, in pixels of some frame, turned into what the corpus stores.

Box, ellipse and polygon become fractions; runs keep their own grid; a mask picture is placed in its frame, cut to one
bit and kept at the stored picture's size. Whatever does not fit is refused with a reason, never bent into shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from umif.corpus.regions import encode_mask, fill, resample

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus.regions import Mask
    from umif.readers.base import Region

# Cut-out masks whose frame was resized are placed by rounded numbers; they may stick out by this much, not more.
_OVERHANG_PIXELS = 2


class RegionProblem(Exception):  # noqa: N818 - it ends as a line of the ledger, not as an error
    """Why a region is left out: a short stable reason to count by, and one sentence about this region."""

    def __init__(self, reason: str, what: str) -> None:
        self.reason = reason
        self.what = what
        super().__init__(reason, what)


def stored_region(
    region: Region,
    finding: str | None,
    *,
    root: Path,
    original: tuple[int, int],
    stored: tuple[int, int],
) -> tuple[dict[str, Any], str]:
    """Return the region as a row of `schema.REGION`, and a hash of its geometry.

    Args:
        region: With its `mask_path` relative to `root`.
        finding: The vocabulary's id, or `None`.
        root: The dataset's folder.
        original: (height, width) of the raw picture; the frame of a region that names none.
        stored: (height, width) of the stored picture; a mask is kept at this size.

    Raises:
        RegionProblem: the region is empty, lies outside the picture, or its mask has another size or is unreadable.
    """
    width, height = region.frame or (original[1], original[0])
    if width < 1 or height < 1:
        raise RegionProblem("empty frame", f"the frame is {width} × {height}")
    row: dict[str, Any] = dict.fromkeys(("box", "points", "runs", "size", "mask"))
    row |= {"raw": region.finding, "finding": finding, "shape": region.shape}
    geometry: Any
    if region.shape in ("box", "ellipse"):
        row["box"] = geometry = _box(region, width, height)
    elif region.shape == "polygon":
        row["points"] = geometry = _points(region, width, height)
    elif region.shape == "rle":
        row["runs"], row["size"] = _runs(region, width, height), [height, width]
        geometry = [row["size"], row["runs"]]
    elif region.shape == "mask":
        mask = _drawn_mask(region, root, (height, width), stored)
        row["mask"] = encode_mask(mask)
        geometry = [list(mask.shape), hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()]
    else:
        raise RegionProblem("unknown shape", f"the shape {region.shape!r} is none of box, ellipse, polygon, rle, mask")
    digest = hashlib.sha256(json.dumps([region.shape, region.finding, finding, geometry]).encode()).hexdigest()
    return row, digest


def _box(region: Region, width: int, height: int) -> list[float]:
    if region.box is None or not all(map(math.isfinite, region.box)):
        raise RegionProblem("no geometry", f"the {region.shape} is {region.box}")
    left, top, box_width, box_height = region.box
    if box_width <= 0 or box_height <= 0:
        raise RegionProblem("empty region", f"the {region.shape} is {box_width} × {box_height} pixels")
    _inside(left, top, left + box_width, top + box_height, width, height)
    return [left / width, top / height, box_width / width, box_height / height]


def _points(region: Region, width: int, height: int) -> list[float]:
    points = region.points
    if len(points) < 3 or not all(math.isfinite(value) for point in points for value in point):
        raise RegionProblem("no geometry", f"the polygon has {len(points)} finite corners; three are needed")
    x, y = [point[0] for point in points], [point[1] for point in points]
    _inside(min(x), min(y), max(x), max(y), width, height)
    return [value for point in points for value in (point[0] / width, point[1] / height)]


def _inside(left: float, top: float, right: float, bottom: float, width: int, height: int) -> None:
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        spot = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
        raise RegionProblem("outside the picture", f"the region ({spot}) lies outside {width} × {height} pixels")


def _runs(region: Region, width: int, height: int) -> list[int]:
    runs = list(region.runs)
    if any(run < 0 for run in runs) or sum(runs) > width * height:
        raise RegionProblem("mask of another size", f"the runs cover {sum(runs)} pixels of {width} × {height}")
    if not any(runs[1::2]):
        raise RegionProblem("empty region", "the runs hold no foreground")
    return runs


def _drawn_mask(region: Region, root: Path, frame: tuple[int, int], stored: tuple[int, int]) -> Mask:
    """Return the region's mask at the stored size: read, cut to one bit, placed in its frame, resized."""
    if region.mask_path is None:
        raise RegionProblem("no geometry", "the region names no mask file")
    height, width = frame
    left, top = region.offset
    placed = region.frame is not None or region.offset != (0, 0)
    part = _read_mask(root / region.mask_path, region, frame, placed=placed)
    right, bottom = left + part.shape[1], top + part.shape[0]
    if left < 0 or top < 0 or right > width + _OVERHANG_PIXELS or bottom > height + _OVERHANG_PIXELS:
        raise RegionProblem(
            "mask of another size",
            f"the mask ({part.shape[1]} × {part.shape[0]} at {left}, {top}) sticks out of {width} × {height} pixels",
        )
    whole = np.zeros(frame, dtype=bool)
    whole[top:bottom, left:right] = part[: max(height - top, 0), : max(width - left, 0)]
    if not whole.any():
        raise RegionProblem("empty mask", "no pixel of the mask belongs to the region")
    return fill(resample(whole, *stored))


def _read_mask(file: Path, region: Region, frame: tuple[int, int], *, placed: bool) -> Mask:
    height, width = frame
    try:
        data = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that the check below refuses
            with Image.open(BytesIO(data), formats=("PNG", "JPEG", "TIFF", "BMP", "GIF")) as picture:
                # The header's size is checked before a pixel is decoded, which bounds what the mask can cost.
                size = picture.size
                fits = size[0] <= width + _OVERHANG_PIXELS and size[1] <= height + _OVERHANG_PIXELS
                if not (fits if placed else size == (width, height)):
                    raise RegionProblem(
                        "mask of another size",
                        f"the mask is {size[0]} × {size[1]}, its frame {width} × {height} pixels",
                    )
                return _belongs(picture, region.mask_value)
    except FileNotFoundError:
        raise RegionProblem("missing mask", "there is no such mask file") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise RegionProblem("unreadable mask", f"the mask cannot be read: {type(error).__name__}") from None


def _belongs(picture: Image.Image, value: int | None) -> Mask:
    """Return which pixels are of grey value `value`, or, without one, other than black (and not transparent)."""
    if value is not None:
        # A palette's numbers are labels; only colour pictures are turned to grey.
        grey = picture if picture.mode in ("P", "L", "1", "I", "I;16", "I;16B", "F") else picture.convert("L")
        pixels = np.asarray(grey)
        return np.asarray((pixels.astype(np.uint8) * 255 if grey.mode == "1" else pixels) == value)
    if picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGBA" if picture.mode == "PA" or "transparency" in picture.info else "RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return np.asarray(pixels != 0)
    if picture.mode in ("RGBA", "LA"):
        return np.asarray((pixels[..., :-1] != 0).any(axis=-1) & (pixels[..., -1] != 0))
    return np.asarray((pixels != 0).any(axis=-1))
