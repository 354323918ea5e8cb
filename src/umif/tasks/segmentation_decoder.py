"""Decoders from frozen patches to masks, and what they are trained by.

Shape legend: N images, K blocks, P patches, D features, F classes, C channels, h×w grid of patches.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

DecoderName = Literal["unetr", "setr"]
LossName = Literal["bce-dice", "focal-dice"]
_LEAST_CHANNELS = 16
# Before anything is learned, little is drawn.
_FIRST_LOGIT = -2.0
_SETR_CHANNELS = (512, 256, 128, 64)


class Standardise(nn.Module):
    """Each feature of each block to zero mean and unit deviation over the training images, which `fit` measures."""

    mean: Tensor
    scale: Tensor

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(blocks, 1, width))
        self.register_buffer("scale", torch.ones(blocks, 1, width))

    def fit(self, features_NKPD: Tensor) -> None:
        """Measure; a feature that does not vary is only moved."""
        deviation_KD = features_NKPD.std(dim=(0, 2), correction=0)
        self.mean = features_NKPD.mean(dim=(0, 2))[:, None].to(self.mean.device)
        self.scale = torch.where(deviation_KD > 1e-6, deviation_KD, 1.0)[:, None].to(self.mean.device)

    def forward(self, features_NKPD: Tensor) -> Tensor:
        """Shapes as they were."""
        standard: Tensor = (features_NKPD - self.mean) / self.scale
        return standard


class _Mix(nn.Sequential):
    """3 × 3 convolution, norm, activation.

    Batch norm: a norm over each image's own map would take away what the image as a whole says of a finding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


class Unetr(nn.Module):
    """U-Net-like decoder over several blocks: the deepest at the patches' grid, shallower ones at each doubling.

    A block's patches become a map of the size that is wanted by one linear layer per patch and depth to space, which
    is a transposed convolution whose stride is its kernel. At every size the map from below is doubled and added to
    the block's own, then mixed by two convolutions.

    Source: UNETR, in two dimensions.
    Differs: maps are added, as LinkNet does, not laid side by side, which halves the time; features standardised; the
        picture itself is no skip (it is a baseline of its own).

    Shapes: (N, K, P, D) → (N, F, 2^doublings · h, 2^doublings · w) logits.
    """

    def __init__(
        self, blocks: int, width: int, grid: tuple[int, int], classes: int, channels: int = 64, doublings: int = 2
    ) -> None:
        super().__init__()
        self.grid = grid
        self.standardise = Standardise(blocks, width)
        widths = [max(_LEAST_CHANNELS, channels // 2**step) for step in range(doublings + 1)]
        # Deepest block first; where blocks run out, the shallowest serves again.
        self._order = [max(blocks - 1 - step, 0) for step in range(doublings + 1)]
        self.skips = nn.ModuleList(nn.Linear(width, one * 4**step) for step, one in enumerate(widths))
        self.narrow = nn.ModuleList(nn.Conv2d(first, one, 1) for first, one in pairwise(widths))
        self.mixes = nn.ModuleList(nn.Sequential(_Mix(one), _Mix(one)) for one in widths)
        self.logits = nn.Conv2d(widths[-1], classes, 1)
        nn.init.constant_(self.logits.get_parameter("bias"), _FIRST_LOGIT)

    def forward(self, features_NKPD: Tensor) -> Tensor:
        """Return logits; see the class for shapes."""
        standard_NKPD = self.standardise(features_NKPD)
        below_NChw: Tensor | None = None
        for step, (skip, mix) in enumerate(zip(self.skips, self.mixes, strict=True)):
            map_NChw = _to_map(skip(standard_NKPD[:, self._order[step]]), self.grid, 2**step)
            if below_NChw is not None:
                map_NChw = map_NChw + _doubled(self.narrow[step - 1](below_NChw))
            below_NChw = mix(map_NChw)
        logits: Tensor = self.logits(below_NChw)
        return logits


class Setr(nn.Module):
    """The decoder of published comparisons: the last block only, four times convolution, norm, activation, doubling.

    Source: the SETR-like decoder of MGCA and Med-UniC (512, 256, 128, 64 channels).

    Shapes: (N, K, P, D) → (N, F, 16 · h, 16 · w) logits.
    """

    def __init__(self, blocks: int, width: int, grid: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.grid = grid
        self.standardise = Standardise(blocks, width)
        first = _SETR_CHANNELS[0]
        self.inlet = nn.Linear(width, first)
        layers: list[nn.Module] = []
        for channels_in, channels in zip((first, *_SETR_CHANNELS), _SETR_CHANNELS, strict=False):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(_SETR_CHANNELS[-1], classes, 3, padding=1))

    def forward(self, features_NKPD: Tensor) -> Tensor:
        """Return logits; see the class for shapes."""
        last_NPD = self.standardise(features_NKPD)[:, -1]
        logits: Tensor = self.layers(_to_map(self.inlet(last_NPD), self.grid, 1))
        return logits


def make_decoder(
    name: DecoderName, blocks: int, width: int, grid: tuple[int, int], classes: int, seed: int
) -> Unetr | Setr:
    """Return a decoder with weights drawn by `seed`; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Setr if name == "setr" else Unetr
        return made(blocks, width, grid, classes)


def mask_loss(name: LossName, logits_NFhw: Tensor, covered_NFhw: Tensor, known_NF: Tensor) -> Tensor:
    """Return how wrong logits are, over the classes that each image knows.

    `bce-dice`: binary cross-entropy + 1 − soft Dice. `focal-dice`, of published comparisons: 10 · focal loss (γ = 2) −
    log soft Dice. Soft Dice is taken over a class's pixels in the whole batch, with 1 added above and below.

    Shapes: logits and covered share (0 to 1) alike; known_NF bool; returns ().
    """
    known = known_NF[:, :, None, None].to(logits_NFhw.dtype)
    pixels = logits_NFhw.shape[2] * logits_NFhw.shape[3]
    weight = known_NF.sum().clamp(min=1) * pixels
    cross = F.binary_cross_entropy_with_logits(logits_NFhw, covered_NFhw, reduction="none")
    probability = logits_NFhw.sigmoid()
    axes = (0, 2, 3)
    both_F = (known * probability * covered_NFhw).sum(axes)
    sizes_F = (known * probability).sum(axes) + (known * covered_NFhw).sum(axes)
    # A class that no image of the batch knows has 1 / 1: no loss.
    dice = ((2 * both_F + 1) / (sizes_F + 1)).mean()
    if name == "bce-dice":
        return (known * cross).sum() / weight + 1 - dice
    missed = covered_NFhw + probability - 2 * covered_NFhw * probability  # 1 − probability of the truth
    return 10 * (known * missed**2 * cross).sum() / weight - torch.log(dice)


def _to_map(patches_NPD: Tensor, grid: tuple[int, int], times: int) -> Tensor:
    """Patches in raster order → a map `times` finer than the grid, each patch's features spread over its place."""
    map_NDhw = patches_NPD.transpose(1, 2).unflatten(2, grid)
    return F.pixel_shuffle(map_NDhw, times) if times > 1 else map_NDhw


def _doubled(map_NChw: Tensor) -> Tensor:
    """Every pixel twice in both directions; its gradient is a plain sum, the same every time on any device."""
    batch, channels, rows, columns = map_NChw.shape
    spread = map_NChw[:, :, :, None, :, None].expand(batch, channels, rows, 2, columns, 2)
    return spread.reshape(batch, channels, 2 * rows, 2 * columns)
