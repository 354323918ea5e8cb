"""Pictures of a page: put over one another, and carried inside it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def overlay(picture_HW3: NDArray[np.uint8], mask_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay the coloured parts of a mask over a picture, half transparent.

    Shapes: both (H, W, 3) uint8, as is the result.
    """
    inside = mask_HW3.any(axis=2, keepdims=True)
    return np.where(inside, 0.55 * picture_HW3 + 0.45 * mask_HW3, picture_HW3).round().astype(np.uint8)


def data_uri(picture_HW3: NDArray[np.uint8]) -> str:
    """Return a picture as a JPEG data URI."""
    _, data = cv2.imencode(".jpg", picture_HW3[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
