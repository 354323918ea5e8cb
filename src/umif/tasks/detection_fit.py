"""Training of a detection head on frozen patches, and what it says of images.

Shape legend: N images, P patches, D features, A anchors, H×W grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from umif.config import Config
from umif.tasks.detection_head import DetectionHead, Target, assign, detection_loss, detections
from umif.tasks.detection_metrics import match, mean_precision, precision_table
from umif.tasks.head_training import HeadTraining, Trained, train_head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from umif.encoder.dense import PatchFeatures
    from umif.tasks.detection_metrics import Detections, Truth

_BATCH = 64
_STATISTICS_IMAGES = 256
# The loss on val settles which of two states with one mAP is better: while nothing is found yet, all have none.
_TIE_BREAK = 1e-4


class DetectionSettings(Config):
    """How heads are trained, and on how much."""

    training: HeadTraining = Field(description="Steps, rates and patience")
    neck: int = Field(256, gt=0, multiple_of=8, description="Channels of the head's maps")
    train_images: int | None = Field(None, gt=0, description="Most training images; null = all")
    val_images: int | None = Field(None, gt=0, description="Most images that the best state is chosen on; null = all")


def new_head(
    features: PatchFeatures,
    rows: NDArray[np.int64],
    classes: int,
    anchors_A2: NDArray[np.float64],
    neck: int,
    seed: int,
) -> DetectionHead:
    """Return a head with random weights for some features, standardised by those of the first few hundred `rows`."""
    sample = features.take(rows[:_STATISTICS_IMAGES])[:, 0].reshape(-1, features.width).double()
    deviation_D = sample.std(dim=0, correction=0)
    # A feature that is alike everywhere says nothing; it stays near zero instead of being blown up.
    deviation_D = deviation_D.clamp(min=max(1e-6, 1e-3 * float(deviation_D.mean())))
    statistics_2D = torch.stack([sample.mean(dim=0), deviation_D]).float().numpy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DetectionHead(features.width, features.grid, classes, anchors_A2, statistics_2D, neck)


def fit_head(
    head: DetectionHead,
    features: PatchFeatures,
    train: tuple[NDArray[np.int64], Sequence[Truth]],
    val: tuple[NDArray[np.int64], Sequence[Truth]],
    settings: HeadTraining,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Trained, float]:
    """Train `head` in place; return how it went and the mAP (0.40 to 0.75) on val of the state that is kept.

    Args:
        head: New.
        features: Of all images named below.
        train: Rows of the training images, and what is on them.
        val: Rows of those that the best state is chosen on, and what is on them.
        settings: Rates and lengths.
        seed: Draws the batches.
        progress: Called with steps done and in all.
    """
    device = next(head.parameters()).device
    rows, truths = train
    targets, val_targets = ([assign(head, truth) for truth in each] for each in (truths, val[1]))
    boxes_an_image = sum(len(one.slots_G) for one in targets) / len(targets)
    values: list[float] = []

    def loss(index: NDArray[np.int64], _: np.random.Generator) -> Tensor:
        raw = head(_patches(features, rows[index], device))
        return detection_loss(head, raw, [targets[i] for i in index], boxes_an_image * len(index))

    def validate() -> float:
        found: list[Detections] = []
        total = 0.0
        for raw in raw_predictions(head, features, val[0], device):
            those: Sequence[Target] = val_targets[len(found) : len(found) + len(raw)]
            total += float(detection_loss(head, raw, those, boxes_an_image * len(val[0])))
            found += detections(head, raw)
        values.append(float(mean_precision(precision_table(match(found, val[1], head.classes)))))
        return values[-1] - _TIE_BREAK * total / (1 + total)

    trained = train_head(head, len(rows), loss, validate, settings, seed, progress)
    steps = [step for step, _, _ in trained.history]
    return trained, values[steps.index(trained.best_step)]


def _patches(features: PatchFeatures, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Shape (n, D, H, W)."""
    patches_NPD = features.take(rows)[:, 0].to(device)
    return patches_NPD.reshape(len(rows), *features.grid, features.width).permute(0, 3, 1, 2)


def raw_predictions(
    head: DetectionHead, features: PatchFeatures, rows: NDArray[np.int64], device: torch.device
) -> list[Tensor]:
    """Return what the head says of images, in batches; shapes as `DetectionHead` gives them."""
    with torch.no_grad():
        return [
            head(_patches(features, rows[start : start + _BATCH], device)).float()
            for start in range(0, len(rows), _BATCH)
        ]
