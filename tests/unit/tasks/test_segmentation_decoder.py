"""Decoders and losses: shapes, places, seeds, and the loss against what it is defined as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umif.tasks.segmentation_decoder import Setr, Standardise, Unetr, _doubled, _to_map, make_decoder, mask_loss


@pytest.mark.parametrize(
    ("name", "blocks", "grid", "size"),
    [("unetr", 4, (7, 7), (28, 28)), ("unetr", 1, (2, 3), (8, 12)), ("setr", 2, (2, 3), (32, 48))],
)
def test_logits_have_the_stated_size(name: str, blocks: int, grid: tuple[int, int], size: tuple[int, int]) -> None:
    decoder = make_decoder(name, blocks, 24, grid, 3, seed=0)  # type: ignore[arg-type]
    logits = decoder(torch.randn(2, blocks, grid[0] * grid[1], 24))
    assert logits.shape == (2, 3, *size)


def test_weights_follow_from_the_seed_and_the_callers_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (make_decoder("unetr", 2, 16, (2, 2), 1, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("decoder", [Unetr(3, 16, (4, 4), 1), Setr(3, 16, (4, 4), 1)])
def test_what_changes_in_a_corner_changes_the_drawing_there(decoder: torch.nn.Module) -> None:
    decoder.eval()
    features = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[:, :, 3] += 5  # upper right corner: patches lie in raster order
    with torch.no_grad():
        difference = (decoder(changed) - decoder(features)).abs()[0, 0]
    size = len(difference) // 4
    cells = difference.unfold(0, size, size).unfold(1, size, size).mean(dim=(2, 3))
    # More than in the corner across, where a grid turned over would put it.
    assert cells[0, 3] > 2 * cells[3, 0]


def test_every_block_that_a_unetr_reads_counts() -> None:
    decoder = Unetr(3, 16, (2, 2), 1)
    features = torch.randn(1, 3, 4, 16, requires_grad=True)
    decoder(features).sum().backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(dim=(0, 2, 3)) > 0).all()


def test_a_patchs_features_are_spread_over_its_own_place() -> None:
    patches = torch.arange(2 * 3).float()[None, :, None].expand(1, 6, 4)
    spread = _to_map(patches, (2, 3), 2)
    assert spread.shape == (1, 1, 4, 6)
    np.testing.assert_array_equal(spread[0, 0], np.kron(np.arange(6).reshape(2, 3), np.ones((2, 2))))


def test_doubling_is_nearest_neighbour_enlargement() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(_doubled(maps), F.interpolate(maps, scale_factor=2, mode="nearest"))


def test_features_are_standardised_over_images_and_patches() -> None:
    features = torch.randn(50, 2, 9, 4) * torch.tensor([1.0, 10.0, 0.1, 0.0]) + 3
    standardise = Standardise(2, 4)
    standardise.fit(features)
    standard = standardise(features)
    torch.testing.assert_close(standard.mean(dim=(0, 2)), torch.zeros(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard[..., :3].std(dim=(0, 2), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)
    assert (standard[..., 3] == 0).all()


def test_the_loss_is_cross_entropy_and_soft_dice() -> None:
    rng = np.random.default_rng(0)
    logits, covered = torch.from_numpy(rng.normal(size=(3, 2, 4, 4))), torch.from_numpy(rng.random((3, 2, 4, 4)))
    known = torch.ones(3, 2, dtype=torch.bool)
    p, t = 1 / (1 + np.exp(-logits.numpy())), covered.numpy()
    cross = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    axes = (0, 2, 3)
    dice = ((2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)).mean()
    assert float(mask_loss("bce-dice", logits, covered, known)) == pytest.approx(cross.mean() + 1 - dice, abs=1e-12)
    hard = torch.from_numpy((t > 0.5).astype(float))
    right = np.where(hard.numpy() > 0.5, p, 1 - p)
    focal = (-((1 - right) ** 2) * np.log(right)).mean()
    t = hard.numpy()
    dice = ((2 * (p * t).sum(axes) + 1) / (p.sum(axes) + t.sum(axes) + 1)).mean()
    expected = 10 * focal - np.log(dice)
    assert float(mask_loss("focal-dice", logits, hard, known)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["bce-dice", "focal-dice"])
def test_what_is_unknown_does_not_count(name: str) -> None:
    logits = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    covered = torch.rand(4, 2, 3, 3, dtype=torch.float64)
    known = torch.tensor([[True, True], [False, True], [True, False], [False, False]])
    whole = mask_loss(name, logits, covered, known)  # type: ignore[arg-type]
    whole.backward()
    assert logits.grad is not None
    assert ((logits.grad.abs().sum(dim=(2, 3)) > 0) == known).all()
    changed = torch.where(known[:, :, None, None], covered, 1 - covered)
    assert mask_loss(name, logits, changed, known) == whole  # type: ignore[arg-type]
    nothing = mask_loss(name, logits, covered, torch.zeros_like(known))  # type: ignore[arg-type]
    assert float(nothing.detach()) == 0.0
