"""Views made on the device are those that the loader makes, but for rounding."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from umif.imaging import AugmentConfig, draw_augmentation, warp_image
from umif.imaging.device import leave_unwarped, stack_unwarped, warp_batch
from umif.rng import keyed_rng
from umif.tokens.loader import StepDataset, batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.tokens.batch import Batch

    Make = Callable[..., StepDataset]

STRONG = AugmentConfig(rotation_degrees=30.0, brightness=0.3, contrast=0.6, horizontal_flip=True)


@pytest.mark.parametrize("config", [AugmentConfig(), STRONG], ids=["usual", "strong"])
@pytest.mark.parametrize("size", [224, 96, 40])
def test_a_warp_of_tensors_is_the_warp_of_pictures(config: AugmentConfig, size: int) -> None:
    # Noise of any size, enlarged, shrunk and averaged down first (40 of 100 and more).
    rng = np.random.default_rng(size)
    pictures = [rng.integers(0, 256, (100 + 7 * index, 160 - 3 * index)).astype(np.uint8) for index in range(16)]
    drawn = [
        draw_augmentation(config, picture.shape[0], picture.shape[1], size, keyed_rng(0, "augment", 0, slot))
        for slot, picture in enumerate(pictures)
    ]
    expected = np.stack([warp_image(picture, view) for picture, view in zip(pictures, drawn, strict=True)])
    stacked, views = stack_unwarped([leave_unwarped(p, v) for p, v in zip(pictures, drawn, strict=True)])
    found = warp_batch(torch.from_numpy(stacked), views).numpy()
    assert found.dtype == np.uint8
    off = np.abs(found.astype(int) - expected)
    # Noise is the worst case: neighbours differ by up to 255, so a coordinate's last bits may turn a rounding.
    assert off.max() <= 2
    assert (off > 0).mean() < 1e-3


def close(left: Batch, right: Batch) -> None:
    assert left.views is None
    assert right.views is None
    off = (left.images_NHW.int() - right.images_NHW.int()).abs()
    assert off.max() <= 2
    assert (off > 0).float().mean() < 1e-3
    for name in ("masks_MHW3", "text_ids_T", "text_positions_T", "pairs_B", "slots_B", "ratios_B"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    for stream in ("group1", "group0", "full"):
        assert torch.equal(getattr(left, stream).rows_T, getattr(right, stream).rows_T)


@pytest.mark.parametrize("views", ["shared", "exposures", "separate"])
def test_a_batch_left_to_the_device_is_the_loader_s(make_dataset: Make, views: str) -> None:
    for step in (0, 1):
        expected, _ = make_dataset(views=views, image_pairs=True)[step]
        left, bad = make_dataset(views=views, image_pairs=True, augment_on="device")[step]
        assert left.views is not None
        assert not bad
        close(left.to("cpu"), expected)
        close(pickle.loads(pickle.dumps(left)).to("cpu"), expected)


def test_workers_send_what_is_left_to_the_device(make_dataset: Make) -> None:
    (_, expected, _), (_, found, _) = (
        next(batches(make_dataset(augment_on="device"), 0, 1, workers=workers)) for workers in (0, 1)
    )
    assert torch.equal(found.to("cpu").images_NHW, expected.to("cpu").images_NHW)


def test_the_evaluation_view_is_made_by_the_loader(make_dataset: Make) -> None:
    batch, _ = make_dataset(plain=True, augment_on="device")[0]
    assert batch.views is None
    assert torch.equal(batch.images_NHW, make_dataset(plain=True)[0][0].images_NHW)
