"""From anything that holds a radiograph to the grey square that the network reads.

A file or an array goes the way of the corpus: made smaller to the corpus's shorter side, then the evaluation view at
the network's size. So a file and its row in a corpus give features that differ by the JPEG's noise alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from umif.errors import ImageError, InputError
from umif.imaging import centre_view, decode_jpeg_grey, read_image, resize_shorter_side, to_uint8, warp_image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ImageInput: TypeAlias = "str | Path | NDArray[Any] | Tensor"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the network's input.

    Attributes:
        image_size: Side of the square that the network reads, pixels.
        shorter_side: Shorter side that the corpus stores, pixels; a larger picture is made that small first.
    """

    image_size: int
    shorter_side: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"image_size": self.image_size, "shorter_side": self.shorter_side}

    def file_or_array(self, source: ImageInput, name: str = "array") -> NDArray[np.uint8]:
        """Return the network's input of one file (PNG, JPEG, TIFF, DICOM) or one grey array. Shape (S, S).

        An array of 8-bit numbers is taken as it is; of any other kind, its own range becomes black to white.

        Raises:
            ImageError: no readable radiograph; the file, or the position of the array, is named.
            InputError: there is no such file, or the input is of no kind that holds a picture.
        """
        if isinstance(source, (str, Path)):
            pixels = _file_pixels(Path(source))
        elif isinstance(source, (np.ndarray, Tensor)):
            pixels = _array_pixels(np.asarray(source), name)
        else:
            raise InputError(
                f"a {type(source).__name__} holds no radiograph", where=name, fix="give a path or a (H, W) array"
            )
        return self.view(resize_shorter_side(pixels, self.shorter_side))

    def jpeg(self, data: bytes) -> NDArray[np.uint8]:
        """Return the network's input of one picture as the corpus stores it. Shape (S, S)."""
        return self.view(decode_jpeg_grey(data))

    def view(self, pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the evaluation view: the whole picture, stretched to the square. Shape (S, S)."""
        height, width = pixels_HW.shape
        return warp_image(pixels_HW, centre_view(height, width, self.image_size))


def as_list(inputs: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    """Return the inputs as a list; a path or a (H, W) array alone is one input.

    Raises:
        InputError: neither a picture nor several.
    """
    if isinstance(inputs, (str, Path)):
        return [inputs]
    if isinstance(inputs, (np.ndarray, Tensor)):
        return [inputs] if inputs.ndim == 2 else list(inputs)
    try:
        return list(inputs)
    except TypeError:
        raise InputError(
            f"a {type(inputs).__name__} holds no radiographs", fix="give paths, (H, W) arrays, or a list of them"
        ) from None


def _file_pixels(path: Path) -> NDArray[np.uint8]:
    if path.is_dir():
        raise InputError("is a folder, not a picture", where=path, fix="give the files in it")
    if not path.exists():
        raise InputError("there is no such file", where=path, fix="check the path")
    try:
        return read_image(path).pixels
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from None


def _array_pixels(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if array.ndim != 2 or 0 in array.shape:
        raise ImageError(
            f"an array of shape {array.shape} is no radiograph",
            reason="unsupported",
            where=name,
            fix="give (height, width), one grey value a pixel",
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
        raise ImageError(f"an array of {array.dtype} is no radiograph", reason="unsupported", where=name)
    if not np.isfinite(array).all():
        raise ImageError("holds NaN or infinity", reason="non_finite", where=name, fix="mend the array")
    return to_uint8(array)
