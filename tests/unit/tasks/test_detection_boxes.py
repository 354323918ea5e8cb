"""Boxes of regions, overlaps, anchors and usual places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from umif.corpus.regions import encode_mask
from umif.errors import CorpusError, EmptyError
from umif.tasks.detection_boxes import fit_anchors, iou_matrix, merged, shape_iou, tight_box, usual_places

MASK = np.zeros((10, 20), dtype=bool)
MASK[2:5, 4:10] = True
MASK[7, 15] = True


def region(shape: str, **geometry: Any) -> dict[str, Any]:
    return {"shape": shape, "box": None, "points": None, "runs": None, "size": None, "mask": None, **geometry}


def runs_of(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(run) for run in np.diff(np.concatenate([[0], edges, [mask.size]]))]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (region("box", box=[0.1, 0.2, 0.3, 0.4]), (0.1, 0.2, 0.4, 0.6)),
        (region("ellipse", box=[0.1, 0.2, 0.3, 0.4]), (0.1, 0.2, 0.4, 0.6)),
        (region("polygon", points=[0.5, 0.1, 0.9, 0.5, 0.2, 0.7]), (0.2, 0.1, 0.9, 0.7)),
        (region("mask", mask=encode_mask(MASK)), (0.2, 0.2, 0.8, 0.8)),
        (region("rle", runs=runs_of(MASK), size=[10, 20]), (0.2, 0.2, 0.8, 0.8)),
        (region("box", box=[-0.2, 0.5, 0.4, 0.9]), (0.0, 0.5, 0.2, 1.0)),
        (region("box", box=[1.1, 0.5, 0.4, 0.2]), None),
        (region("box", box=[0.1, 0.5, 0.0, 0.2]), None),
        (region("mask", mask=encode_mask(np.zeros((4, 4), dtype=bool))), None),
    ],
)
def test_a_region_of_any_shape_has_a_tight_box(given: dict[str, Any], expected: tuple[float, ...] | None) -> None:
    found = tight_box(given)
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_region_without_geometry_is_refused() -> None:
    with pytest.raises(CorpusError, match="no geometry"):
        tight_box(region("rle"))
    with pytest.raises(CorpusError, match="no geometry"):
        tight_box(region("star"))


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.5, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0.02, 0.5, (count, 2))], axis=1)


def test_overlap_is_that_of_torchvision() -> None:
    first, second = random_boxes(40), random_boxes(30, 1)
    expected = box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(iou_matrix(first, second), expected, rtol=0, atol=1e-12)
    assert iou_matrix(first, second[:0]).shape == (40, 0)


def test_boxes_that_several_readers_drew_become_one() -> None:
    boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.8, 0.8], [0.12, 0.1, 0.52, 0.5]])
    np.testing.assert_allclose(merged(boxes, 0.5), [[0.11, 0.1, 0.51, 0.5], [0.6, 0.6, 0.8, 0.8]])
    assert len(merged(boxes, 0.95)) == 3


def test_anchors_find_the_shapes_that_boxes_were_drawn_around() -> None:
    rng = np.random.default_rng(0)
    shapes = np.array([[0.05, 0.05], [0.1, 0.3], [0.4, 0.2], [0.5, 0.6]])
    sizes = shapes.repeat(50, axis=0) * rng.uniform(0.95, 1.05, (200, 2))
    boxes = np.concatenate([np.zeros((200, 2)), sizes], axis=1)
    anchors = fit_anchors(boxes, 4, seed=1)
    np.testing.assert_allclose(anchors, shapes, rtol=0.02)
    assert shape_iou(sizes, anchors).max(axis=1).min() > 0.85
    np.testing.assert_array_equal(anchors, fit_anchors(boxes, 4, seed=1))
    areas = fit_anchors(boxes, 9, seed=1).prod(axis=1)
    assert (np.diff(areas) >= 0).all()


def test_anchors_are_filled_up_where_boxes_are_few() -> None:
    one = fit_anchors(np.array([[0.1, 0.1, 0.3, 0.5]]), 9, seed=0)
    assert one.shape == (9, 2)
    assert len(np.unique(one, axis=0)) == 9
    assert (np.isclose(one, [0.2, 0.4]).all(axis=1)).sum() == 1
    assert ((one > 0) & (one <= 1)).all()
    with pytest.raises(EmptyError):
        fit_anchors(np.zeros((0, 4)), 9, seed=0)


def test_usual_places_are_ranked_by_the_share_of_images_they_are_right_in() -> None:
    often, seldom = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9]
    near = [0.11, 0.1, 0.31, 0.3]
    boxes = np.array([often, near, often, seldom, often])
    places, share = usual_places(boxes, np.array([0, 1, 2, 2, 2]), n_images=5, most=10, seed=0)
    assert share.tolist() == [3 / 5, 1 / 5]
    np.testing.assert_allclose(places[1], seldom)
    assert iou_matrix(places[:1], np.array([often]))[0, 0] > 0.8
    assert len(usual_places(boxes[:0], np.zeros(0, dtype=np.int64), 5, 10, 0)[0]) == 0
