"""A YOLOv3 head on the frozen patches of a vision transformer's last block: network, targets, loss, predictions.

Three maps are made of the one map of patches: twice as fine by a transposed convolution, as it is, and half as fine by
max pooling. Each cell of each map has three anchors; each anchor has a logit of being an object, one of each class (if
there are several), and a box relative to the cell and the anchor.

Source: YOLOv3 (Redmon and Farhadi 2018) for anchors, assignment and the ignored overlap; ViTDet (Li et al. 2022) for
    maps from the last block alone; the weights of the loss's parts are those of MGCA's detector.
Differs: anchors are fitted to the training boxes; boxes are learned by the CIoU loss rather than by four numbers; no
    path from coarse to fine maps, since all come from one map; group norm, as batches are small. Nothing is augmented:
    features are of unaltered pictures, and the one alteration that could be made of them, a flip, is none that a body
    allows (the heart lies on one side).

Shape legend: B images, D features, H×W patches, S slots (cells × anchors of all maps), K classes, G boxes of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, complete_box_iou_loss

from umif.tasks.detection_boxes import shape_iou
from umif.tasks.detection_metrics import MAX_DETECTIONS, Detections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.tasks.detection_metrics import Truth

ANCHORS = 9
_PER_MAP = 3
_GROUPS = 8
# A share of slots that hold an object, for the first guess; without it the first steps only unlearn one half.
_FIRST_GUESS = 0.01
_IGNORE = 0.5
_NO_OBJECT, _BOX = 0.5, 2.5
_LARGEST_LOG_RATIO = 4.0
_LEAST_SCORE, _BEFORE_NMS, _NMS = 0.005, 300, 0.5


class DetectionHead(nn.Module):
    """Patches → one row of logits and box numbers per slot.

    Attributes:
        anchors: The nine shapes, by area; shape (9, 2).
        cells: Columns and rows of each map.
        sizes: Width and height of a cell of each map, as fractions of the picture. Where the number of patches is odd,
            the coarse map's last cells reach beyond the edge.
    """

    statistics: Tensor
    slots_S6: Tensor

    def __init__(
        self,
        width: int,
        grid: tuple[int, int],
        classes: int,
        anchors_A2: NDArray[np.float64],
        statistics_2D: NDArray[np.float32],
        neck: int,
    ) -> None:
        """Start from random weights (the caller's random state).

        Args:
            width: Features D of a patch.
            grid: Rows and columns of patches.
            classes: K.
            anchors_A2: Nine shapes, by area.
            statistics_2D: Mean and deviation of the features, by which they are standardised.
            neck: Channels of the maps, a multiple of 8.
        """
        super().__init__()
        rows, columns = grid
        self.classes = classes
        self.anchors = anchors_A2
        self.cells = ((2 * columns, 2 * rows), (columns, rows), (-(-columns // 2), -(-rows // 2)))
        self.sizes = ((0.5 / columns, 0.5 / rows), (1 / columns, 1 / rows), (2 / columns, 2 / rows))
        self.register_buffer("statistics", torch.from_numpy(statistics_2D)[:, None, :, None, None])
        self.register_buffer("slots_S6", torch.from_numpy(self._slots()))
        self.inward = nn.Conv2d(width, neck, 1)
        self.finer = nn.ConvTranspose2d(neck, neck, 2, stride=2)
        self.coarser = nn.MaxPool2d(2, ceil_mode=True)
        outputs = _PER_MAP * self.numbers
        self.maps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(neck, neck, 3, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, neck),
                nn.SiLU(),
                nn.Conv2d(neck, outputs, 1),
            )
            for _ in self.cells
        )
        for branch in self.maps:
            last = cast("nn.Conv2d", cast("nn.Sequential", branch)[-1])
            nn.init.normal_(last.weight, std=0.01)
            bias = torch.zeros(_PER_MAP, self.numbers)
            bias[:, 4] = float(np.log(_FIRST_GUESS))
            last.bias = nn.Parameter(bias.view(-1))

    @property
    def numbers(self) -> int:
        """Numbers a slot has: four of the box, one of being an object, one per class if there are several."""
        return 5 + (self.classes if self.classes > 1 else 0)

    def _slots(self) -> NDArray[np.float32]:
        """Of every slot: column and row of its cell, width and height of a cell, width and height of its anchor."""
        parts = []
        for scale, ((columns, rows), size) in enumerate(zip(self.cells, self.sizes, strict=True)):
            row, column, anchor = np.meshgrid(range(rows), range(columns), range(_PER_MAP), indexing="ij")
            shapes = self.anchors[scale * _PER_MAP + anchor.ravel()]
            cells = np.stack([column.ravel(), row.ravel()], axis=1)
            parts.append(np.concatenate([cells, np.broadcast_to(size, cells.shape), shapes], axis=1))
        return np.concatenate(parts).astype(np.float32)

    def forward(self, patches_BDHW: Tensor) -> Tensor:
        """Return the numbers of every slot. Shapes: (B, D, H, W) → (B, S, numbers)."""
        inner = F.silu(self.inward((patches_BDHW - self.statistics[0]) / self.statistics[1]))
        parts = [
            branch(map_).permute(0, 2, 3, 1).reshape(len(inner), -1, self.numbers)
            for branch, map_ in zip(self.maps, (self.finer(inner), inner, self.coarser(inner)), strict=True)
        ]
        return torch.cat(parts, dim=1)

    def boxes(self, raw_BSX: Tensor) -> Tensor:
        """Return the box of every slot as fractions (left, top, right, bottom). Shapes: (…, S, numbers) → (…, S, 4)."""
        centre = (self.slots_S6[:, :2] + raw_BSX[..., :2].sigmoid()) * self.slots_S6[:, 2:4]
        half = 0.5 * self.slots_S6[:, 4:] * raw_BSX[..., 2:4].clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()
        return torch.cat([centre - half, centre + half], dim=-1)


@dataclass(frozen=True, slots=True)
class Target:
    """What the head shall say of one image. Shapes: slots_G; boxes_G4; classes_G."""

    slots_G: Tensor
    boxes_G4: Tensor
    classes_G: Tensor


def assign(head: DetectionHead, truth: Truth) -> Target:
    """Give each box of an image to one slot: of the anchor whose shape is most like its own, in the cell of its centre.

    The largest box comes first; where another already has the slot, the next best anchor's is taken.
    """
    sizes_G2 = truth.boxes_G4[:, 2:] - truth.boxes_G4[:, :2]
    centres_G2 = 0.5 * (truth.boxes_G4[:, 2:] + truth.boxes_G4[:, :2])
    ranking_GA = np.argsort(-shape_iou(sizes_G2, head.anchors), axis=1, kind="stable")
    first_slot = np.cumsum([0, *(columns * rows * _PER_MAP for columns, rows in head.cells)])
    taken: dict[int, int] = {}
    for index in np.argsort(-sizes_G2.prod(axis=1), kind="stable"):
        for anchor in ranking_GA[index]:
            scale, place = divmod(int(anchor), _PER_MAP)
            (columns, rows), (wide, high) = head.cells[scale], head.sizes[scale]
            column = min(int(centres_G2[index, 0] / wide), columns - 1)
            row = min(int(centres_G2[index, 1] / high), rows - 1)
            slot = int(first_slot[scale]) + (row * columns + column) * _PER_MAP + place
            if slot not in taken:
                taken[slot] = int(index)
                break
    chosen = list(taken.values())
    return Target(
        torch.tensor(list(taken), dtype=torch.int64),
        torch.from_numpy(truth.boxes_G4[chosen].astype(np.float32)).reshape(-1, 4),
        torch.from_numpy(truth.classes_G[chosen].astype(np.int64)),
    )


def detection_loss(head: DetectionHead, raw_BSX: Tensor, targets: Sequence[Target], boxes_a_batch: float) -> Tensor:
    """Return BCE of being an object + CIoU loss of the box + BCE of the classes, over the usual boxes of a batch.

    A slot whose box overlaps a true one by more than one half without being given to it is asked for nothing. What lies
    outside the boxes of an image counts as empty, whatever classes are unknown there.

    Args:
        head: For its slots.
        raw_BSX: What it says.
        targets: What it shall say, image by image.
        boxes_a_batch: Mean number of boxes of a batch; a constant, so that a batch with one box weighs less than one
            with ten.
    """
    boxes_BS4 = head.boxes(raw_BSX)
    object_BS = torch.zeros_like(raw_BSX[..., 4])
    weight_BS = torch.full_like(object_BS, _NO_OBJECT)
    image_P = torch.cat([torch.full_like(one.slots_G, index) for index, one in enumerate(targets)])
    slot_P = torch.cat([one.slots_G for one in targets]).to(raw_BSX.device)
    true_P4 = torch.cat([one.boxes_G4 for one in targets]).to(raw_BSX.device)
    class_P = torch.cat([one.classes_G for one in targets]).to(raw_BSX.device)
    with torch.no_grad():
        for index, one in enumerate(targets):
            if len(one.slots_G):
                overlap_SG = box_iou(boxes_BS4[index], one.boxes_G4.to(raw_BSX.device))
                weight_BS[index, overlap_SG.amax(dim=1) > _IGNORE] = 0.0
    image_P = image_P.to(raw_BSX.device)
    object_BS[image_P, slot_P] = 1.0
    weight_BS[image_P, slot_P] = 1.0
    total = F.binary_cross_entropy_with_logits(raw_BSX[..., 4], object_BS, weight_BS, reduction="sum")
    if len(slot_P):
        total = total + _BOX * complete_box_iou_loss(boxes_BS4[image_P, slot_P], true_P4, reduction="sum")
        if head.classes > 1:
            wanted_PK = F.one_hot(class_P, head.classes).to(raw_BSX.dtype)
            said_PK = raw_BSX[image_P, slot_P, 5:]
            total = total + F.binary_cross_entropy_with_logits(said_PK, wanted_PK, reduction="sum")
    return total / boxes_a_batch


@torch.no_grad()
def detections(head: DetectionHead, raw_BSX: Tensor) -> list[Detections]:
    """Return what the head's numbers say of each image: class-wise non-maximum suppression at 0.5, the best 100.

    The score is objectness × class probability; of one class, objectness.
    """
    boxes_BS4 = head.boxes(raw_BSX).clamp(0, 1)
    object_BS = raw_BSX[..., 4].sigmoid()
    class_BSK = raw_BSX[..., 5:].sigmoid() if head.classes > 1 else torch.ones_like(raw_BSX[..., :1])
    return [
        _suppressed(boxes, objectness, objectness[:, None] * of_class)
        for boxes, objectness, of_class in zip(boxes_BS4, object_BS, class_BSK, strict=True)
    ]


def _suppressed(boxes_S4: Tensor, object_S: Tensor, scores_SK: Tensor) -> Detections:
    classes = scores_SK.shape[1]
    best = torch.sort(scores_SK.reshape(-1), descending=True, stable=True)
    count = min(_BEFORE_NMS, int((best.values > _LEAST_SCORE).sum()))
    score_M, place_M = best.values[:count], best.indices[:count]
    slot_M, class_M = place_M // classes, place_M % classes
    kept = batched_nms(boxes_S4[slot_M], score_M, class_M, _NMS)[:MAX_DETECTIONS]
    slot_M, class_M, score_M = slot_M[kept].cpu(), class_M[kept].cpu(), score_M[kept].cpu()
    return Detections(
        boxes_S4.cpu()[slot_M].double().numpy(),
        score_M.double().numpy(),
        object_S.cpu()[slot_M].double().numpy(),
        class_M.numpy(),
    )
