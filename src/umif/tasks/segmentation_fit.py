"""Training a decoder on a problem's cases, what it draws on others, and how good that is; and the drawings of no image.

Shape legend: N images, F classes, S×S pixels of the grid on which masks are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from umif.config import Config
from umif.rng import keyed_rng
from umif.tasks.head_training import HeadTraining, train_head
from umif.tasks.metrics import UNKNOWN
from umif.tasks.segmentation_cases import SIDE
from umif.tasks.segmentation_decoder import DecoderName, LossName, make_decoder, mask_loss
from umif.tasks.segmentation_metrics import compare_outlines, overlaps
from umif.tasks.subsets import patient_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from umif.encoder.dense import PatchFeatures
    from umif.tasks.segmentation_cases import DrawnMasks, MaskCases

    Masks = NDArray[np.bool_]
    # Positions within the cases → masks (n, F, S, S).
    Draw = Callable[[NDArray[np.int64]], Masks]

THRESHOLD = 0.5  # of the probability; fixed, as in published work
TOLERANCE = 4.0  # pixels of the grid, within which outlines count as met
_BATCH = 64
_STATISTICS_IMAGES = 256
_CUTS = np.arange(1, 20) / 20


class SegmentationSettings(Config):
    """How decoders are trained, and on how much."""

    decoder: DecoderName = Field("unetr", description="Several blocks, or the last one as published")
    blocks: int = Field(4, gt=0, description="Equally spaced blocks that the decoder reads")
    loss: LossName = Field("bce-dice", description="What is minimised")
    training: HeadTraining = Field(description="Steps, rates and patience")
    train_images: int | None = Field(None, gt=0, description="Most training images; null = all")
    val_images: int | None = Field(None, gt=0, description="Most images that the best state is chosen on; null = all")


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of each image and class, NaN where there is none.

    Attributes:
        dice, iou: Overlap, where the class is known.
        within: Share of the outlines' pixels within `TOLERANCE` of each other, where something is there.
        distance, hd95: Of the outlines, pixels of the grid, where something is there.
        there: Whether something is there.
    """

    dice: NDArray[np.float64]
    iou: NDArray[np.float64]
    within: NDArray[np.float64]
    distance: NDArray[np.float64]
    hd95: NDArray[np.float64]
    there: NDArray[np.bool_]

    @property
    def dice_there(self) -> NDArray[np.float64]:
        """Dice of the images in which something is there."""
        dice: NDArray[np.float64] = np.where(self.there, self.dice, np.nan)
        return dice


def drawn_down(
    cases: MaskCases, positions: NDArray[np.int64], most: int | None, seed: int, among: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return at most `most` of some images: half of them with a region, or as many as there are; ascending.

    They are taken in the order of patients that shares of `among` (all images of the split; `positions` unless told)
    follow, so fewer are always a part of more.
    """
    if most is None or len(positions) <= most:
        return positions
    among = positions if among is None else among
    ordered, _ = patient_order(cases.patients_N[among], cases.states_NF[among], seed)
    place = {name: index for index, name in enumerate(ordered.tolist())}
    by_patient = np.argsort([place[name] for name in cases.patients_N[positions].tolist()], kind="stable")
    has_region = (cases.states_NF[positions[by_patient]] == 1).any(axis=1)
    with_it, without = by_patient[has_region], by_patient[~has_region]
    count = min(len(with_it), max(most // 2, most - len(without)))
    return np.sort(positions[np.concatenate([with_it[:count], without[: most - count]])])


def fit_decoder(
    cases: MaskCases,
    masks: DrawnMasks,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    features: PatchFeatures,
    settings: SegmentationSettings,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a decoder; return it with what a row tells of its training.

    Args:
        cases: The problem's.
        masks: Of the train and val images.
        train, val: Positions within the cases.
        features: Of their images.
        settings: Which decoder, and how it is trained.
        seed: Draws weights and batches.
        device: Where it computes.
        progress: Called with steps done and in all.
    """
    classes, blocks = len(cases.classes), len(features.blocks)
    decoder = make_decoder(settings.decoder, blocks, features.width, features.grid, classes, seed)
    decoder.standardise.fit(features.take(cases.rows_N[train[:_STATISTICS_IMAGES]]))
    decoder.to(device)

    def loss_on(positions: NDArray[np.int64]) -> Tensor:
        logits_NFhw: Tensor = decoder(features.take(cases.rows_N[positions]).to(device))
        covered_NFhw = torch.from_numpy(masks.covered(positions, *logits_NFhw.shape[2:])).to(device)
        known_NF = torch.from_numpy(cases.states_NF[positions] != UNKNOWN).to(device)
        return mask_loss(settings.loss, logits_NFhw, covered_NFhw, known_NF)

    def validate() -> float:
        # Not the Dice of each image: where most images show nothing, a decoder that draws nothing has the best one.
        losses = [float(loss_on(batch)) * len(batch) for batch in _batches(mixed_val)]
        return -sum(losses) / len(mixed_val)

    # In one order for all states, so that no batch holds one patient or one finding only.
    mixed_val = keyed_rng(seed, "segmentation val").permutation(val)
    trained = train_head(
        decoder, len(train), lambda batch, _: loss_on(train[batch]), validate, settings.training, seed, progress
    )
    with torch.no_grad():
        size = decoder(features.take(cases.rows_N[train[:1]]).to(device)).shape[2:]
    return decoder, {
        "decoder": settings.decoder,
        "logits": list(size),
        "steps": trained.steps,
        "best_step": trained.best_step,
        "val_loss": -trained.best,
    }


def predicted(decoder: nn.Module, cases: MaskCases, features: PatchFeatures, device: torch.device) -> Draw:
    """Return what draws masks by a decoder: logits, enlarged bilinearly to the grid, above one half."""

    def draw(positions: NDArray[np.int64]) -> Masks:
        with torch.no_grad():
            logits_NFhw = decoder(features.take(cases.rows_N[positions]).to(device))
            fine_NFSS = F.interpolate(logits_NFhw, (SIDE, SIDE), mode="bilinear", align_corners=False)
            drawn: Masks = (fine_NFSS > 0).cpu().numpy()  # logit 0 = probability `THRESHOLD`
        return drawn

    return draw


def mean_mask(cases: MaskCases, masks: DrawnMasks, train: NDArray[np.int64], val: NDArray[np.int64]) -> Masks:
    """Return the best drawing that looks at no image: where the train regions of a class overlap enough.

    How much is enough is chosen on the val images that have the class, by Dice. Shape (F, S, S).
    """
    drawn_FSS = np.zeros((len(cases.classes), SIDE, SIDE), dtype=bool)
    for index in range(len(cases.classes)):
        mean_SS, count = np.zeros((SIDE, SIDE)), 0
        for positions in _batches(train[cases.states_NF[train, index] == 1]):
            mean_SS += masks.take(positions)[:, index].sum(axis=0)
            count += len(positions)
        positive = val[cases.states_NF[val, index] == 1]
        cuts = mean_SS / max(count, 1) >= _CUTS[:, None, None]
        if not len(positive):
            drawn_FSS[index] = cuts[len(_CUTS) // 2]
            continue
        true_NSS = masks.take(positive)[:, index]
        values = [overlaps(np.broadcast_to(cut, true_NSS.shape), true_NSS)[0].mean() for cut in cuts]
        drawn_FSS[index] = cuts[int(np.argmax(values))]
    return drawn_FSS


def always(drawn_FSS: Masks) -> Draw:
    """Return what draws the same on every image."""
    return lambda positions: np.broadcast_to(drawn_FSS, (len(positions), *drawn_FSS.shape))


def measure(cases: MaskCases, masks: DrawnMasks, positions: NDArray[np.int64], draw: Draw) -> Measured:
    """Compare what is drawn on images with what is there. Memory: a batch of masks."""
    parts: list[list[NDArray[Any]]] = []
    for batch in _batches(positions):
        drawn_NFSS, true_NFSS = draw(batch), masks.take(batch)
        there_NF = np.any(true_NFSS, axis=(2, 3))
        dice_NF, iou_NF = (values.reshape(there_NF.shape) for values in _overlaps(drawn_NFSS, true_NFSS))
        outlines_NF3 = np.full((*there_NF.shape, 3), np.nan)
        for image, index in np.argwhere(there_NF):
            if (found := compare_outlines(drawn_NFSS[image, index], true_NFSS[image, index], TOLERANCE)) is not None:
                outlines_NF3[image, index] = found.within, found.distance, found.hd95
        unknown_NF = cases.states_NF[batch] == UNKNOWN
        dice_NF[unknown_NF] = iou_NF[unknown_NF] = np.nan
        parts.append([dice_NF, iou_NF, *np.moveaxis(outlines_NF3, -1, 0), there_NF])
    return Measured(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _overlaps(drawn_NFSS: Masks, true_NFSS: Masks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    flat = (-1, *true_NFSS.shape[2:])
    return overlaps(drawn_NFSS.reshape(flat), true_NFSS.reshape(flat))


def _batches(positions: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [positions[start : start + _BATCH] for start in range(0, len(positions), _BATCH)]
