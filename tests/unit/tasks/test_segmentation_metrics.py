"""Overlaps and outlines against scikit-learn, SciPy's distance transform and hand-worked cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion, distance_transform_edt  # type: ignore[import-untyped]
from sklearn.metrics import f1_score, jaccard_score

from umif.errors import ShapeError
from umif.tasks.segmentation_metrics import compare_outlines, outline, overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def pairs(shape: tuple[int, int]) -> st.SearchStrategy[tuple[Mask, Mask]]:
    return st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))


TWO = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(pairs)


def blob(rng: np.random.Generator, side: int = 40) -> Mask:
    rows, columns = np.mgrid[:side, :side]
    centre, radius = rng.uniform(5, side - 5, 2), rng.uniform(2, 12)
    return np.asarray(np.hypot(rows - centre[0], columns - centre[1]) < radius)


def outlines_by_transform(drawn: Mask, true: Mask, tolerance: float) -> tuple[float, float, float]:
    """The same three numbers from distance transforms: how far each pixel of a picture is from an outline."""
    edges = [mask & ~binary_erosion(mask) for mask in (drawn, true)]
    to_edge = [distance_transform_edt(~edge) for edge in edges]
    there, back = to_edge[1][edges[0]], to_edge[0][edges[1]]
    together = np.concatenate([there, back])
    return (
        float(together.mean()),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
        float((together <= tolerance).mean()),
    )


@settings(max_examples=200, deadline=None)
@given(TWO)
def test_overlaps_equal_scikit_learn(masks: tuple[Mask, Mask]) -> None:
    drawn, true = masks
    [dice], [iou] = overlaps(drawn[None], true[None])
    # Where neither mask holds anything scikit-learn is told the rule; every other case is its own arithmetic.
    assert dice == pytest.approx(f1_score(true.ravel(), drawn.ravel(), zero_division=1.0), abs=1e-12)
    assert iou == pytest.approx(jaccard_score(true.ravel(), drawn.ravel(), zero_division=1.0), abs=1e-12)


@pytest.mark.parametrize(
    ("drawn", "true", "dice", "iou"),
    [
        ("....", "....", 1.0, 1.0),
        ("#...", "....", 0.0, 0.0),
        ("....", "#...", 0.0, 0.0),
        ("####", "####", 1.0, 1.0),
        ("##..", ".##.", 0.5, 1 / 3),
        ("##..", "..##", 0.0, 0.0),
        ("####", "#...", 0.4, 0.25),
    ],
)
def test_overlaps_by_hand(drawn: str, true: str, dice: float, iou: float) -> None:
    masks = [np.array([[mark == "#" for mark in text]])[None] for text in (drawn, true)]
    [found_dice], [found_iou] = overlaps(*masks)
    assert (found_dice, found_iou) == pytest.approx((dice, iou))


def test_overlaps_are_taken_image_by_image() -> None:
    rng = np.random.default_rng(1)
    drawn, true = np.stack([blob(rng) for _ in range(6)]), np.stack([blob(rng) for _ in range(6)])
    dice, iou = overlaps(drawn, true)
    alone = [overlaps(a[None], b[None]) for a, b in zip(drawn, true, strict=True)]
    np.testing.assert_array_equal(dice, [one[0][0] for one in alone])
    np.testing.assert_array_equal(iou, [one[1][0] for one in alone])
    # Dice and IoU of one image are one number told in two ways.
    np.testing.assert_allclose(iou, dice / (2 - dice), atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_the_outline_is_what_scipys_erosion_takes_away(mask: Mask) -> None:
    there = np.zeros_like(mask)
    there[tuple(outline(mask).T)] = True
    np.testing.assert_array_equal(there, mask & ~binary_erosion(mask))


@settings(max_examples=200, deadline=None)
@given(TWO.filter(lambda masks: bool(masks[0].any() and masks[1].any())), st.sampled_from([0.0, 1.0, 2.5]))
def test_outlines_equal_distance_transforms(masks: tuple[Mask, Mask], tolerance: float) -> None:
    found = compare_outlines(*masks, tolerance)
    assert found is not None
    expected = outlines_by_transform(*masks, tolerance)
    assert (found.distance, found.hd95, found.within) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_blobs_equal_distance_transforms(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn, true = blob(rng), blob(rng)
    found = compare_outlines(drawn, true, 4.0)
    assert found is not None
    assert (found.distance, found.hd95, found.within) == pytest.approx(
        outlines_by_transform(drawn, true, 4.0), abs=1e-9
    )


def test_a_square_moved_by_three_pixels_by_hand() -> None:
    drawn, true = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    drawn[5, 5], true[5, 8] = True, True
    found = compare_outlines(drawn, true, 3.0)
    assert found is not None
    assert (found.distance, found.hd95, found.within) == (3.0, 3.0, 1.0)
    found = compare_outlines(drawn, true, 2.9)
    assert found is not None
    assert found.within == 0.0


def test_the_same_mask_lies_at_no_distance() -> None:
    mask = blob(np.random.default_rng(0))
    found = compare_outlines(mask, mask, 0.0)
    assert found is not None
    assert (found.distance, found.hd95, found.within) == (0.0, 0.0, 1.0)


def test_empty_masks_follow_the_rule() -> None:
    nothing, all_of_it = np.zeros((3, 4), dtype=bool), np.ones((3, 4), dtype=bool)
    assert compare_outlines(nothing, nothing, 1.0) is None
    assert compare_outlines(all_of_it, nothing, 1.0) is None
    found = compare_outlines(nothing, all_of_it, 1.0)
    assert found is not None
    assert (found.distance, found.hd95, found.within) == (5.0, 5.0, 0.0)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(ShapeError):
        overlaps(np.zeros((1, 2, 2), dtype=bool), np.zeros((1, 2, 3), dtype=bool))
    with pytest.raises(ShapeError):
        compare_outlines(np.zeros((2, 2), dtype=bool), np.zeros((2, 3), dtype=bool), 1.0)
