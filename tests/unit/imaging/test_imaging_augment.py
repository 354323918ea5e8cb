"""Crops, turns and grey changes are what they say; a mask moves with its image; draws are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.config import parse_config
from umif.errors import ConfigError
from umif.imaging import AugmentConfig, centre_view, draw_augmentation, warp_image, warp_mask
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from umif.imaging import Augmentation

GREY_ONLY: dict[str, Any] = {"scale": (1.0, 1.0), "rotation_degrees": 0.0}
STILL: dict[str, Any] = {"brightness": 0.0, "contrast": 0.0}


def draw(config: AugmentConfig, height: int, width: int, out_size: int, seed: int = 0) -> Augmentation:
    return draw_augmentation(config, height, width, out_size, keyed_rng(seed, "augment"))


def source_points(augmentation: Augmentation, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where output points (x, y) come from."""
    linear, offset = augmentation.matrix[:, :2], augmentation.matrix[:, 2]
    return np.asarray(np.linalg.solve(linear, (points - offset).T).T)


def bilinear(pixels: np.ndarray[Any, Any], augmentation: Augmentation) -> np.ndarray[Any, Any]:
    """The warp, pixel by pixel, zeros outside."""
    size = augmentation.out_size
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    padded = np.pad(pixels.astype(np.float64), 1)
    x, y = source_points(augmentation, grid).T + 1
    inside = (x > 0) & (y > 0) & (x < padded.shape[1] - 1) & (y < padded.shape[0] - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, padded.shape[1] - 1), np.minimum(top + 1, padded.shape[0] - 1)
    u, v = x - left, y - top
    values = (
        padded[top, left] * (1 - u) * (1 - v)
        + padded[top, right] * u * (1 - v)
        + padded[bottom, left] * (1 - u) * v
        + padded[bottom, right] * u * v
    )
    return np.asarray((values * inside).reshape(size, size))


def smooth(height: int, width: int) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(127 + 60 * np.sin(columns / 17) + 60 * np.cos(rows / 23)).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_the_warp_is_the_bilinear_one(seed: int) -> None:
    pixels = smooth(210, 180)
    augmentation = draw(AugmentConfig(rotation_degrees=20, **STILL), 210, 180, 160, seed)
    difference = np.abs(warp_image(pixels, augmentation) - bilinear(pixels, augmentation))
    # cv2 rounds coordinates to 1/32 pixel; along the picture's edge that decides between in and out.
    assert np.median(difference) < 1
    assert np.mean(difference > 2) < 0.02


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(100, 140), (700, 500)])
def test_a_mask_moves_with_its_image(seed: int, shape: tuple[int, int]) -> None:
    # A smooth blob; where it is brighter than half is its mask.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centre, radius = (shape[0] * 0.45, shape[1] * 0.55), min(shape) * 0.25
    distance = np.hypot(rows - centre[0], columns - centre[1])
    blob = (255 / (1 + np.exp((distance - radius) / (0.02 * radius)))).astype(np.uint8)
    mask = ((blob > 127) * 255).astype(np.uint8)
    config = AugmentConfig(rotation_degrees=15, horizontal_flip=True, **STILL)
    for augmentation in (draw(config, *shape, 96, seed), centre_view(*shape, 96)):
        moved, image = warp_mask(mask, augmentation) > 127, warp_image(blob, augmentation) > 127
        overlap = (moved & image).sum() / (moved | image).sum()
        # They may differ along the rim, by half a pixel of the output.
        assert overlap > 0.96


def test_masks_keep_their_colours() -> None:
    mask = np.zeros((90, 120, 3), np.uint8)
    mask[20:60, 30:80] = (10, 200, 30)
    mask[40:70, 50:110] = (250, 1, 99)
    moved = warp_mask(mask, draw(AugmentConfig(rotation_degrees=30), 90, 120, 64))
    colours = {tuple(int(v) for v in colour) for colour in moved.reshape(-1, 3)}
    assert moved.shape == (64, 64, 3)
    assert colours == {(0, 0, 0), (10, 200, 30), (250, 1, 99)}


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    seed=st.integers(0, 2**32),
    low=st.floats(0.05, 1.0),
)
def test_an_upright_crop_keeps_its_area_and_stays_inside(height: int, width: int, seed: int, low: float) -> None:
    config = AugmentConfig(scale=(low, low), rotation_degrees=0, **STILL)
    augmentation = draw(config, height, width, 64, seed)
    corners = source_points(augmentation, np.array([[-0.5, -0.5], [63.5, 63.5]])) + 0.5
    (x0, y0), (x1, y1) = corners
    slack = 1e-6 * max(height, width)
    assert -slack <= x0 < x1 <= width + slack
    assert -slack <= y0 < y1 <= height + slack
    assert (x1 - x0) * (y1 - y0) == pytest.approx(low * height * width, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_ratio_stays_in_its_range_where_there_is_room(seed: int) -> None:
    augmentation = draw(AugmentConfig(scale=(0.3, 0.5), rotation_degrees=0, **STILL), 300, 300, 64, seed)
    ratio = augmentation.matrix[1, 1] / augmentation.matrix[0, 0]
    assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9


def test_turns_span_the_range_and_keep_shapes() -> None:
    config = AugmentConfig(scale=(0.5, 0.5), ratio=(1.0, 1.0), rotation_degrees=8, **STILL)
    angles = []
    for seed in range(200):
        (a, b), (c, d) = draw(config, 200, 200, 100, seed).matrix[:, :2]
        assert (a, b) == pytest.approx((d, -c))
        angles.append(np.degrees(np.arctan2(c, a)))
    assert -8 <= min(angles) < -7
    assert 7 < max(angles) <= 8


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(enabled=False),
        AugmentConfig(horizontal_flip=True, **STILL),
        AugmentConfig(scale=(0.1, 0.2), ratio=(1.0, 1.0), rotation_degrees=0),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (256, 300)])
def test_every_call_draws_equally_often(config: AugmentConfig, shape: tuple[int, int]) -> None:
    rng, reference = keyed_rng(5, "augment"), keyed_rng(5, "augment")
    draw_augmentation(config, *shape, 64, rng)
    reference.random(8)
    assert rng.random() == reference.random()


def test_equal_keys_give_equal_views() -> None:
    pixels = smooth(150, 190)
    views = [warp_image(pixels, draw(AugmentConfig(), 150, 190, 96, seed)) for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_brightness_and_contrast_are_a_line_through_mid_grey() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for seed in range(10):
        augmentation = draw(AugmentConfig(ratio=(1.0, 1.0), **GREY_ONLY), 16, 16, 16, seed)
        # The whole picture at its own size, so the geometry is none.
        assert augmentation.matrix == pytest.approx(np.array([[1.0, 0, 0], [0, 1.0, 0]]), abs=1e-9)
        expected = np.clip(np.rint(pixels * augmentation.gain + augmentation.bias), 0, 255)
        assert np.array_equal(warp_image(pixels, augmentation), expected)
        assert 0.8 <= augmentation.gain <= 1.2
        shift = augmentation.gain * 127.5 + augmentation.bias - 127.5
        assert abs(shift) <= 0.1 * 255 + 1e-9


def test_flips_happen_only_on_request_and_half_the_time() -> None:
    pixels = smooth(32, 32)
    never = AugmentConfig(ratio=(1.0, 1.0), **GREY_ONLY, **STILL)
    assert all(np.array_equal(warp_image(pixels, draw(never, 32, 32, 32, seed)), pixels) for seed in range(40))
    asked = never.model_copy(update={"horizontal_flip": True})
    views = [warp_image(pixels, draw(asked, 32, 32, 32, seed)) for seed in range(40)]
    mirrored = sum(np.array_equal(view, pixels[:, ::-1]) for view in views)
    assert sum(np.array_equal(view, pixels) for view in views) + mirrored == 40
    assert 10 <= mirrored <= 30


@pytest.mark.parametrize("enabled", [True, False])
def test_shrinking_averages_instead_of_skipping(enabled: bool) -> None:
    # Lines one pixel wide: skipping pixels turns them into false wide ones, averaging into even grey.
    lines = np.zeros((1024, 1024), np.uint8)
    lines[:, ::2] = 255
    config = AugmentConfig(enabled=enabled, rotation_degrees=0, scale=(0.9, 1.0), **STILL)
    for seed in range(5):
        augmentation = draw(config, 1024, 1024, 150, seed)
        view = warp_image(lines, augmentation)[4:-4, 4:-4]
        naive = cv2.warpAffine(lines, augmentation.matrix, (150, 150))[4:-4, 4:-4]
        assert np.abs(view.astype(float) - 127.5).max() < 20
        assert np.abs(naive.astype(float) - 127.5).max() > 60


@pytest.mark.parametrize("shape", [(500, 300), (90, 60), (64, 640)])
def test_shrinking_first_keeps_the_geometry(shape: tuple[int, int]) -> None:
    # Long waves survive averaging, so the plain warp is the reference.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = (127 + 100 * np.sin(columns / shape[1] * 5) * np.cos(rows / shape[0] * 4)).astype(np.uint8)
    augmentation = draw(AugmentConfig(rotation_degrees=10, **STILL), *shape, 48, 3)
    difference = np.abs(warp_image(pixels, augmentation) - bilinear(pixels, augmentation))
    assert np.median(difference) <= 2


def test_the_evaluation_view_shows_the_whole_picture() -> None:
    pixels = smooth(300, 200)
    view = warp_image(pixels, centre_view(300, 200, 100))
    assert np.array_equal(view, cv2.resize(pixels, (100, 100), interpolation=cv2.INTER_AREA))
    corners = source_points(centre_view(300, 200, 100), np.array([[-0.5, -0.5], [99.5, 99.5]])) + 0.5
    assert corners == pytest.approx(np.array([[0, 0], [200, 300]]))
    assert np.array_equal(warp_image(pixels, draw(AugmentConfig(enabled=False), 300, 200, 100)), view)


def test_small_pictures_are_enlarged_smoothly() -> None:
    view = warp_image(np.array([[0, 255]], np.uint8), centre_view(1, 2, 32))
    assert view.shape == (32, 32)
    assert np.all(np.diff(view[0].astype(int)) >= 0)
    assert len(np.unique(view[0])) > 8


@pytest.mark.parametrize(
    "data",
    [{"scale": (0.0, 1.0)}, {"scale": (0.9, 0.5)}, {"ratio": (0.0, 1.0)}, {"contrast": 1.0}, {"rotaton_degrees": 3}],
)
def test_ranges_that_make_no_sense_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse_config(AugmentConfig, data, where="recipe.yaml")
