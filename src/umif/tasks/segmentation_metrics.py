"""How well a drawn mask meets the true one, image by image: overlap, and the distance of the outlines.

Rules for the empty mask, as published work has them where it has any:

* overlap (Dice, IoU): where nothing is there, 1 if nothing was drawn, else 0;
* outlines: where nothing is there, no value (NaN); where something is there and nothing was drawn, the diagonal of the
  picture as distance and 0 as share.

Shape legend: N images, H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.spatial import cKDTree  # type: ignore[import-untyped]

from umif.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Masks = NDArray[np.bool_]

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True, slots=True)
class Outline:
    """How far two outlines lie apart.

    Attributes:
        distance: Mean distance of the pixels of either outline to the other one.
        hd95: The larger of the two directions' 95th percentiles of these distances.
        within: Share of the pixels of both outlines that lie within the tolerance of the other.

    Units: pixels.
    """

    distance: float
    hd95: float
    within: float


def overlaps(drawn_NHW: Masks, true_NHW: Masks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Dice and the IoU of each image.

    Shapes: both (N, H, W) bool; returns (N,) twice.
    Source: Dice 2·|A ∩ B| / (|A| + |B|); IoU |A ∩ B| / |A ∪ B|.
    Raises:
        ShapeError: the shapes differ.

    Example:
        >>> overlaps(np.array([[[True, True, False, False]]]), np.array([[[False, True, True, True]]]))
        (array([0.4]), array([0.25]))
    """
    if drawn_NHW.shape != true_NHW.shape:
        raise ShapeError(f"masks of shape {drawn_NHW.shape} drawn for {true_NHW.shape}")
    both_N, drawn_N, true_N = (
        np.count_nonzero(masks.reshape(len(masks), -1), axis=1).astype(np.float64)
        for masks in (drawn_NHW & true_NHW, drawn_NHW, true_NHW)
    )
    # Where nothing is there: 1 if nothing was drawn, else the product is 0 anyway.
    nothing_N = (drawn_N + true_N) == 0
    dice_N = np.where(nothing_N, 1.0, 2 * both_N / np.maximum(drawn_N + true_N, 1))
    iou_N = np.where(nothing_N, 1.0, both_N / np.maximum(drawn_N + true_N - both_N, 1))
    return dice_N, iou_N


def outline(mask_HW: Masks) -> NDArray[np.int64]:
    """Return the pixels of a mask that have a neighbour (above, below, left, right) outside of it or of the picture.

    Shapes: returns (M, 2), rows and columns.
    """
    inner_HW = cv2.erode(mask_HW.astype(np.uint8), _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(mask_HW & (inner_HW == 0))


def compare_outlines(drawn_HW: Masks, true_HW: Masks, tolerance: float) -> Outline | None:
    """Return how far the outlines lie apart, `None` where nothing is there.

    Args:
        drawn_HW: The mask that was drawn.
        true_HW: The mask that is there.
        tolerance: Distance at which outlines still count as met, pixels.

    Raises:
        ShapeError: the shapes differ.
    """
    if drawn_HW.shape != true_HW.shape:
        raise ShapeError(f"a mask of shape {drawn_HW.shape} drawn for {true_HW.shape}")
    if not true_HW.any():
        return None
    if not drawn_HW.any():
        diagonal = float(np.hypot(*true_HW.shape))
        return Outline(diagonal, diagonal, 0.0)
    drawn_M2, true_M2 = outline(drawn_HW), outline(true_HW)
    there_M = cKDTree(true_M2).query(drawn_M2)[0]
    back_M = cKDTree(drawn_M2).query(true_M2)[0]
    all_M = np.concatenate([there_M, back_M])
    return Outline(
        float(all_M.mean()),
        float(max(np.percentile(there_M, 95), np.percentile(back_M, 95))),
        float((all_M <= tolerance).mean()),
    )
