"""The same augmentation on a whole batch of tensors, for devices that have time to spare.

The loader then only gathers pictures as they are stored, with the view that is drawn of each; the warp is one
`grid_sample` wherever the batch is moved to. Draws, geometry and masks are those of `warp_image`. Both interpolate in
single precision and round before and after the exposure, so where sums differ in their last bits a grey value may
differ by 1, and by 2 under a slope over 1; fewer than one pixel in a thousand does.

Shape legend: N pictures, H×W pixels of the largest, S pixels a side of the view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import grid_sample

from umif.imaging.augment import shrink_first

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from umif.imaging.augment import Augmentation


@dataclass(frozen=True, slots=True)
class Unwarped:
    """A picture and the view of it that is still to be made; its `shape` is the view's."""

    pixels: npt.NDArray[np.uint8]
    augmentation: Augmentation

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the view."""
        return self.augmentation.out_size, self.augmentation.out_size


@dataclass(frozen=True, slots=True)
class Views:
    """What is to be seen of each picture of a batch.

    Shapes: back_N23 fp32, (x, y, 1) of the view → (x, y) of the picture; gains_N and biases_N fp32, in grey values.
    """

    back_N23: torch.Tensor
    gains_N: torch.Tensor
    biases_N: torch.Tensor
    out_size: int

    def to(self, device: torch.device | str) -> Views:
        """Return the views with every tensor on `device`."""
        back, gains, biases = (
            part.to(device, non_blocking=True) for part in (self.back_N23, self.gains_N, self.biases_N)
        )
        return Views(back, gains, biases, self.out_size)


def leave_unwarped(pixels_HW: npt.NDArray[np.uint8], augmentation: Augmentation) -> Unwarped:
    """Return what `warp_image` would be given; a picture that a view shrinks to half or less is averaged down here."""
    smaller_HW, matrix = shrink_first(pixels_HW, augmentation.matrix)
    return Unwarped(smaller_HW, replace(augmentation, matrix=matrix))


def stack_unwarped(pictures: Sequence[Unwarped]) -> tuple[npt.NDArray[np.uint8], Views]:
    """Put pictures of any sizes into one array, black below and to the right, which is what lies outside of them.

    Shapes: returns (N, H, W) and the views.
    """
    height, width = (max(picture.pixels.shape[axis] for picture in pictures) for axis in (0, 1))
    stacked = np.zeros((len(pictures), height, width), dtype=np.uint8)
    for place, picture in zip(stacked, pictures, strict=True):
        place[: picture.pixels.shape[0], : picture.pixels.shape[1]] = picture.pixels
    forth = np.stack([picture.augmentation.matrix for picture in pictures])
    linear = np.linalg.inv(forth[:, :, :2])
    back = np.concatenate([linear, -linear @ forth[:, :, 2:]], axis=2)
    gains, biases = ([getattr(p.augmentation, name) for p in pictures] for name in ("gain", "bias"))
    views = Views(
        torch.from_numpy(back.astype(np.float32)),
        torch.tensor(gains, dtype=torch.float32),
        torch.tensor(biases, dtype=torch.float32),
        pictures[0].augmentation.out_size,
    )
    return stacked, views


def warp_batch(pictures_NHW: torch.Tensor, views: Views) -> torch.Tensor:
    """Return every picture's view, where the pictures are. Shapes: (N, H, W) uint8 → (N, S, S) uint8."""
    height, width = pictures_NHW.shape[1:]
    side = torch.arange(views.out_size, dtype=torch.float32, device=pictures_NHW.device)
    y_SS, x_SS = torch.meshgrid(side, side, indexing="ij")
    points_S3 = torch.stack([x_SS, y_SS, torch.ones_like(x_SS)], dim=-1).reshape(-1, 3)
    # Autocast would round coordinates to bf16.
    with torch.autocast(pictures_NHW.device.type, enabled=False), torch.no_grad():
        source_NP2 = (points_S3[None, :, None, :] * views.back_N23[:, None]).sum(-1)
        # grid_sample counts from −1 to 1, from the picture's edge to its other edge.
        size = torch.tensor([width, height], dtype=torch.float32, device=pictures_NHW.device)
        grid_NSS2 = ((2 * source_NP2 + 1) / size - 1).reshape(-1, views.out_size, views.out_size, 2)
        seen_NSS = grid_sample(pictures_NHW[:, None].float(), grid_NSS2, align_corners=False)[:, 0].round()
        exposed_NSS = seen_NSS * views.gains_N[:, None, None] + views.biases_N[:, None, None]
        return exposed_NSS.round().clamp(0, 255).to(torch.uint8)
