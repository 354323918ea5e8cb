"""From a stored picture to the network's square, in one affine warp; a mask moves with its image.

An `Augmentation` is plain data: where each source point goes, and what happens to its brightness. It is drawn once per
image and applied to the image and to its masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from umif.config import Config

if TYPE_CHECKING:
    import numpy.typing as npt

# Draws per call, whatever comes out, so that a generator's later draws do not depend on this config.
DRAWS = 8
_MID_GREY = 127.5
_GREYS = np.arange(256, dtype=np.float64)


class AugmentConfig(Config):
    """What may happen to a picture on its way into the network.

    Source: UmiF, appendix (random resized crop); ranges are our choice. No flip by default: reports say left and right.
    """

    enabled: bool = Field(True, description="False: always the evaluation view")
    scale: tuple[float, float] = Field((0.6, 1.0), description="Share of the picture's area that the crop keeps")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Width / height of the crop, source pixels")
    rotation_degrees: float = Field(5.0, ge=0, le=180, description="Largest rotation either way, degrees")
    brightness: float = Field(0.1, ge=0, le=1, description="Largest shift either way, share of the grey range")
    contrast: float = Field(0.2, ge=0, lt=1, description="Largest change of the slope around mid-grey, either way")
    horizontal_flip: bool = Field(False, description="Mirror every other picture; wrong where text says left or right")

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be (low, high) with 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("ratio must be (low, high) with 0 < low <= high")
        return self


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One draw of the geometry and of the grey scale.

    Attributes:
        matrix: float64 (2, 3): (x, y, 1) of the source → (x, y) of the output, pixel centres at whole numbers.
        out_size: Side of the output, pixels.
        gain: Grey values are multiplied by this …
        bias: … and this is added, in grey values (0…255).
        upright: True if the sides stay parallel to the axes and the whole picture is kept.
    """

    matrix: npt.NDArray[np.float64]
    out_size: int
    gain: float = 1.0
    bias: float = 0.0
    upright: bool = False


def centre_view(height: int, width: int, out_size: int) -> Augmentation:
    """Return the evaluation view: the whole picture, stretched to the square, so that no finding is cut off."""
    matrix = _matrix((width / 2, height / 2), (out_size / width, out_size / height), 0.0, out_size)
    return Augmentation(matrix=matrix, out_size=out_size, upright=True)


def draw_augmentation(
    config: AugmentConfig, height: int, width: int, out_size: int, rng: np.random.Generator
) -> Augmentation:
    """Draw a crop, a rotation about its centre, brightness and contrast; always `DRAWS` numbers from `rng`.

    The crop keeps its drawn area: where a long picture has no room for the drawn ratio, the ratio gives way.

    Shapes: the picture that it is for: (height, width). Units: pixels.
    """
    area, ratio, across, down, angle, shift, slope, mirror = rng.random(DRAWS).tolist()
    if not config.enabled:
        return centre_view(height, width, out_size)
    crop_width, crop_height = _crop_size(config, height, width, area, ratio)
    centre = (
        across * (width - crop_width) + crop_width / 2,
        down * (height - crop_height) + crop_height / 2,
    )
    sign = -1.0 if config.horizontal_flip and mirror < 0.5 else 1.0
    gain = 1.0 + config.contrast * (2 * slope - 1)
    return Augmentation(
        matrix=_matrix(
            centre,
            (sign * out_size / crop_width, out_size / crop_height),
            math.radians(config.rotation_degrees * (2 * angle - 1)),
            out_size,
        ),
        out_size=out_size,
        gain=gain,
        bias=_MID_GREY * (1.0 - gain) + 255.0 * config.brightness * (2 * shift - 1),
    )


def warp_image(pixels_HW: npt.NDArray[np.uint8], augmentation: Augmentation) -> npt.NDArray[np.uint8]:
    """Return the (S, S) view of a grey picture; outside of the picture is black.

    Where the view shrinks the picture to half or less, it is averaged down first: a warp alone would skip pixels and
    alias. Brightness and contrast are one look-up.
    """
    size = (augmentation.out_size, augmentation.out_size)
    if augmentation.upright:
        # Area averaging only where it averages: enlarging with it would give blocks.
        height, width = pixels_HW.shape
        shrinks = height >= augmentation.out_size and width >= augmentation.out_size
        view = cv2.resize(pixels_HW, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    else:
        smaller_HW, matrix = shrink_first(pixels_HW, augmentation.matrix)
        view = cv2.warpAffine(smaller_HW, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if augmentation.gain != 1.0 or augmentation.bias != 0.0:
        view = cv2.LUT(view, _exposure(augmentation.gain, augmentation.bias))
    return np.asarray(view, dtype=np.uint8)


def warp_mask(mask: npt.NDArray[np.uint8], augmentation: Augmentation) -> npt.NDArray[np.uint8]:
    """Return the (S, S) or (S, S, 3) view of a mask under the image's geometry; no new colours, outside is 0."""
    size = (augmentation.out_size, augmentation.out_size)
    view = cv2.warpAffine(
        mask, augmentation.matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(view, dtype=np.uint8)


def _exposure(gain: float, bias: float) -> npt.NDArray[np.uint8]:
    """Look-up table of brightness and contrast. Shapes: returns (256,)."""
    table = np.rint(_GREYS * gain + bias)
    return np.minimum(np.maximum(table, 0.0), 255.0).astype(np.uint8)


def _crop_size(
    config: AugmentConfig, height: int, width: int, area_draw: float, ratio_draw: float
) -> tuple[float, float]:
    low, high = config.scale
    area = height * width * (low + (high - low) * area_draw)
    # A crop of this area fits in width if ratio <= width² / area, and in height if ratio >= area / height².
    fits = (area / height**2, width**2 / area)
    bottom, top = (min(max(bound, fits[0]), fits[1]) for bound in config.ratio)
    ratio = math.exp(math.log(bottom) + (math.log(top) - math.log(bottom)) * ratio_draw)
    return min(math.sqrt(area * ratio), float(width)), min(math.sqrt(area / ratio), float(height))


def _matrix(
    centre: tuple[float, float], scale: tuple[float, float], angle: float, out_size: int
) -> npt.NDArray[np.float64]:
    """Turn about `centre` by `angle` (radians), scale each axis, put `centre` into the middle of the output."""
    (across, down), cos, sin = scale, math.cos(angle), math.sin(angle)
    matrix = np.empty((2, 3))
    linear = matrix[:, :2]
    linear[0, 0], linear[0, 1], linear[1, 0], linear[1, 1] = across * cos, across * -sin, down * sin, down * cos
    # Edges are continuous coordinates, pixel centres half a pixel inside.
    matrix[:, 2] = out_size / 2 - 0.5 - linear @ (np.array(centre) - 0.5)
    return matrix


def shrink_first(
    pixels_HW: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Average a picture down where `matrix` shrinks it to half or less, and return what is left of the matrix."""
    # Source pixels per output pixel along each source axis: lengths of the linear part's columns, inverted.
    factors = [max(1, int(1.0 / math.hypot(matrix[0, axis], matrix[1, axis]) + 1e-9)) for axis in (0, 1)]
    if factors == [1, 1]:
        return pixels_HW, matrix
    height, width = pixels_HW.shape
    new_width, new_height = max(1, width // factors[0]), max(1, height // factors[1])
    smaller = cv2.resize(pixels_HW, (new_width, new_height), interpolation=cv2.INTER_AREA)
    grow = np.diag([width / new_width, height / new_height])
    # Source x = (small x + 0.5) · grow − 0.5.
    linear = matrix[:, :2] @ grow
    offset = matrix[:, 2] + matrix[:, :2] @ (grow.diagonal() * 0.5 - 0.5)
    return smaller, np.column_stack([linear, offset])
