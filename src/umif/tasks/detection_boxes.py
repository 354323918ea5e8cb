"""Boxes: from drawn regions, their overlap, the shapes that a detector starts from, and the places that are usual.

A box is (left, top, right, bottom) in fractions of the picture's width and height, so it fits the picture at any size;
overlaps are the same in fractions as in pixels.

Shape legend: G boxes of an image, M predictions, A anchors, C candidates, B boxes of many images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.regions import decode_mask, decode_runs
from umif.errors import CorpusError, EmptyError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Boxes = NDArray[np.float64]

# Stored fractions are float32: a box thinner than this is rounding, not geometry.
_SLACK = 1e-6
# More shapes or candidate places than this add time and no knowledge.
_MOST_SHAPES, _MOST_CANDIDATES = 5000, 1000
_ROUNDS = 100
# What shapes are filled up with where there are fewer than anchors: the known ones, smaller and larger.
_FILLING = (0.5, 2.0, 0.7, 1.4, 0.35, 2.8, 0.25, 4.0)


def tight_box(region: Mapping[str, Any]) -> tuple[float, float, float, float] | None:
    """Return the smallest box around a region, cut at the picture's edges; `None` if nothing of it is inside.

    A mask or a row of runs with several parts gives one box around all of them, as one drawn region is one object.

    Args:
        region: A value of the column `regions` of a pair (`corpus/schema.py`), of any shape.

    Raises:
        CorpusError: the region holds no geometry of its shape, or a mask that cannot be decoded.
    """
    shape = region["shape"]
    field = {"box": "box", "ellipse": "box", "polygon": "points", "rle": "runs", "mask": "mask"}.get(shape)
    if field is None or region.get(field) is None:
        raise CorpusError(f"a region of shape {shape!r} holds no geometry", where=f"regions.{field or 'shape'}")
    if field == "box":
        left, top, width, height = (float(value) for value in region["box"])
        corners = left, top, left + width, top + height
    elif field == "points":
        points = np.asarray(region["points"], dtype=np.float64).reshape(-1, 2)
        corners = (*points.min(0).tolist(), *points.max(0).tolist())
    else:
        mask = decode_mask(region["mask"]) if field == "mask" else decode_runs(region["runs"], *region["size"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        height, width = mask.shape
        corners = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    left, top, right, bottom = (min(max(float(value), 0.0), 1.0) for value in corners)
    return (left, top, right, bottom) if right - left > _SLACK and bottom - top > _SLACK else None


def iou_matrix(first_M4: Boxes, second_G4: Boxes) -> NDArray[np.float64]:
    """Return intersection over union of every pair. Shapes: (M, 4), (G, 4) → (M, G)."""
    low = np.maximum(first_M4[:, None, :2], second_G4[None, :, :2])
    high = np.minimum(first_M4[:, None, 2:], second_G4[None, :, 2:])
    shared_MG = np.clip(high - low, 0, None).prod(axis=2)
    area_M = (first_M4[:, 2:] - first_M4[:, :2]).prod(axis=1)
    area_G = (second_G4[:, 2:] - second_G4[:, :2]).prod(axis=1)
    return np.asarray(shared_MG / (area_M[:, None] + area_G[None, :] - shared_MG), dtype=np.float64)


def merged(boxes_G4: Boxes, threshold: float) -> Boxes:
    """Return boxes of one class in one image with those that overlap by more than `threshold` made their mean.

    Where several readers drew the same thing, it is one object. Each box joins the first group whose mean it overlaps.
    """
    groups: list[list[NDArray[np.float64]]] = []
    for box in boxes_G4:
        for group in groups:
            if iou_matrix(box[None], np.mean(group, axis=0)[None])[0, 0] > threshold:
                group.append(box)
                break
        else:
            groups.append([box])
    return np.array([np.mean(group, axis=0) for group in groups]).reshape(-1, 4)


def shape_iou(sizes_B2: NDArray[np.float64], anchors_A2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the overlap of boxes laid over one another at one corner: of their shapes. Shape (B, A)."""
    shared_BA = np.minimum(sizes_B2[:, None], anchors_A2[None]).prod(axis=2)
    return np.asarray(shared_BA / (sizes_B2.prod(1)[:, None] + anchors_A2.prod(1)[None] - shared_BA), dtype=np.float64)


def fit_anchors(boxes_B4: Boxes, count: int, seed: int) -> NDArray[np.float64]:
    """Return the `count` shapes that lie nearest to the boxes', by area: k-means under the distance 1 − shape IoU.

    The first is drawn, each next one with a chance that grows with its distance to those there (k-means++). Fewer
    different shapes than `count` are all taken, and filled up with smaller and larger copies of themselves.

    Shapes: (B, 4) → (count, 2): width, height.
    Source: Redmon and Farhadi, YOLO9000, section 2 ("dimension clusters").
    Raises:
        EmptyError: there is no box.
    """
    if not len(boxes_B4):
        raise EmptyError("there is no box to fit anchors to")
    rng = keyed_rng(seed, "detection anchors")
    sizes_B2 = boxes_B4[:, 2:] - boxes_B4[:, :2]
    if len(sizes_B2) > _MOST_SHAPES:
        sizes_B2 = sizes_B2[np.sort(rng.choice(len(sizes_B2), _MOST_SHAPES, replace=False))]
    distinct = np.unique(sizes_B2.round(4), axis=0)
    anchors_A2 = _filled_up(distinct, count) if len(distinct) <= count else _k_means(sizes_B2, count, rng)
    return anchors_A2[np.lexsort((anchors_A2[:, 0], anchors_A2.prod(axis=1)))]


def _filled_up(shapes_S2: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    copies = [shapes_S2, *(np.clip(shapes_S2 * factor, 1e-3, 1.0) for factor in _FILLING)]
    return np.concatenate(copies * -(-count // (len(shapes_S2) * len(copies))))[:count]


def _k_means(sizes_B2: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    centres = [sizes_B2[rng.integers(len(sizes_B2))]]
    while len(centres) < count:
        distance_B = 1 - shape_iou(sizes_B2, np.array(centres)).max(axis=1)
        centres.append(sizes_B2[rng.choice(len(sizes_B2), p=distance_B / distance_B.sum())])
    anchors_A2 = np.array(centres)
    nearest_B = np.full(len(sizes_B2), -1)
    for _ in range(_ROUNDS):
        now_B = shape_iou(sizes_B2, anchors_A2).argmax(axis=1)
        if (now_B == nearest_B).all():
            break
        nearest_B = now_B
        for index in np.unique(nearest_B):
            anchors_A2[index] = sizes_B2[nearest_B == index].mean(axis=0)
    return anchors_A2


def usual_places(
    boxes_B4: Boxes, images_B: NDArray[np.int64], n_images: int, most: int, seed: int, overlap: float = 0.5
) -> tuple[Boxes, NDArray[np.float64]]:
    """Return the boxes of one class that are most often right whatever the image, with how often they are.

    Each training box is a candidate; its score is the share of the images that hold a box which it overlaps by
    `overlap` or more. Of candidates that overlap one another so much, the best is kept. This is what a detector can
    know without looking.

    Shapes: (B, 4), (B,) → (C, 4), (C,), C ≤ `most`, best first.
    """
    if not len(boxes_B4) or not n_images:
        return np.zeros((0, 4)), np.zeros(0)
    candidates_C4 = np.unique(boxes_B4.round(6), axis=0)
    if len(candidates_C4) > _MOST_CANDIDATES:
        drawn = keyed_rng(seed, "detection usual places").choice(len(candidates_C4), _MOST_CANDIDATES, replace=False)
        candidates_C4 = candidates_C4[np.sort(drawn)]
    order = np.argsort(images_B, kind="stable")
    starts = np.flatnonzero(np.diff(images_B[order], prepend=-1))
    hit_CB = iou_matrix(candidates_C4, boxes_B4[order]) >= overlap
    share_C = np.logical_or.reduceat(hit_CB, starts, axis=1).sum(axis=1) / n_images
    chosen: list[int] = []
    left = np.argsort(-share_C, kind="stable")
    while len(left) and len(chosen) < most:
        chosen.append(int(left[0]))
        left = left[iou_matrix(candidates_C4[left], candidates_C4[chosen[-1:]])[:, 0] < overlap]
    return candidates_C4[chosen], share_C[chosen]
