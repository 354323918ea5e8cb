"""What is drawn: pictures, regions and findings that lie where the description says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from umif.corpus.phantom import PhantomCase, draw_description, draw_phantom
from umif.corpus.phantom_description import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE_KINDS,
    DEVICES,
    EDEMA,
    EFFUSION,
    FINDINGS,
    FRACTURE,
    NODULE,
    PNEUMOTHORAX,
    Description,
    DrawnFinding,
    describe,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 160
# What changes the picture within its own region only; a heart and its silhouette move, and edema is a haze.
LOCAL = (CONSOLIDATION, ATELECTASIS, NODULE, EFFUSION, PNEUMOTHORAX, FRACTURE, DEVICES)
SIDED = (CONSOLIDATION, ATELECTASIS, NODULE, EFFUSION, PNEUMOTHORAX, FRACTURE)


def upright(index: int, *findings: DrawnFinding, seed: int = 3) -> Description:
    """A description with just these findings, the body straight and in the middle, without film grain."""
    description = describe(seed, index)
    straight = replace(
        description.nuisance,
        rotation_degrees=0.0,
        scale=1.0,
        shift_x=0.0,
        shift_y=0.0,
        noise=0.0,
        fog=0.0,
        wires=0,
        collimation=(0.0, 0.0, 0.0, 0.0),
    )
    return replace(description, findings=findings, nuisance=straight)


def finding(name: str, **changes: float | str) -> DrawnFinding:
    side = {CARDIOMEGALY: "midline", EDEMA: "both"}.get(name, "left")
    basic = DrawnFinding(name, side, "mid", size=0.6, contrast=0.9, along=0.5, across=0.5)  # type: ignore[arg-type]
    if name == DEVICES:
        changes = {"kind": DEVICE_KINDS[1], **changes}
    return replace(basic, **changes)  # type: ignore[arg-type]


def difference(one: PhantomCase, other: PhantomCase) -> NDArray[np.float64]:
    return np.abs(one.image.astype(np.float64) - other.image)


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel), dtype=bool)


def test_the_same_seed_and_index_give_the_same_bits() -> None:
    one, other = draw_phantom(5, 17, 96), draw_phantom(5, 17, 96)
    assert np.array_equal(one.image, other.image)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(one.regions, other.regions, strict=True))
    assert not np.array_equal(one.image, draw_phantom(5, 18, 96).image)
    assert not np.array_equal(one.image, draw_phantom(6, 17, 96).image)


def test_drawing_leaves_global_random_state_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    draw_phantom(0, 0, 64)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("size", [32, 97, 224])
def test_every_size_is_drawn_and_shows_the_same_geometry(size: int) -> None:
    description = upright(4, finding(CONSOLIDATION))
    case, reference = draw_description(description, size), draw_description(description, 448)
    assert case.image.shape == (size, size)
    assert case.image.dtype == np.uint8
    box, expected = np.array(case.regions[0].box), np.array(reference.regions[0].box) * size / 448
    # OpenCV's outlines are up to 0.7 pixels wide of the exact ones on each side, and boxes are whole pixels.
    assert box == pytest.approx(expected, abs=2.4)


def test_every_finding_of_a_series_has_a_region_inside_the_picture() -> None:
    for index in range(40):
        case = draw_phantom(1, index, 96)
        assert set(case.masks) == {drawn.name for drawn in case.description.findings}, index
        for region in case.regions:
            left, top, width, height = region.box
            assert region.mask.shape == case.image.shape
            assert region.mask[top : top + height, left : left + width].sum() == region.mask.sum() > 0
            assert region.mask[top].any()
            assert region.mask[:, left + width - 1].any()


def test_the_picture_is_a_film() -> None:
    """Air is dark, the spine and the belly are bright, and the lungs lie between."""
    for index in range(0, 16, 3):
        case = draw_description(upright(index), SIZE)
        image = case.image.astype(float)
        lung = image[int(0.35 * SIZE) : int(0.5 * SIZE), int(0.24 * SIZE) : int(0.34 * SIZE)].mean()
        spine = image[int(0.5 * SIZE) : int(0.65 * SIZE), int(0.48 * SIZE) : int(0.52 * SIZE)].mean()
        belly = image[int(0.9 * SIZE) :, int(0.4 * SIZE) : int(0.6 * SIZE)].mean()
        corner = image[: SIZE // 40, : SIZE // 40].mean()
        assert corner < lung < min(spine, belly)
        assert image.std() > 15


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_finding_changes_the_picture_where_its_mask_says(name: str, side: str) -> None:
    with_it = draw_description(upright(8, finding(name, side=side)), SIZE)
    change = difference(with_it, draw_description(upright(8), SIZE))
    near = grown(with_it.masks[name], 4)
    # Scatter spreads a little of any change over the whole film.
    assert change[near].mean() > 12 * change[~near].mean()
    assert change.max() > 8


@pytest.mark.parametrize("name", FINDINGS)
def test_contrast_runs_from_barely_visible_to_plain(name: str) -> None:
    without = draw_description(upright(8), SIZE)
    changes = []
    for contrast in (0.0, 0.5, 1.0):
        case = draw_description(upright(8, finding(name, contrast=contrast)), SIZE)
        changes.append(difference(case, without)[case.masks[name]].mean())
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", SIDED)
def test_the_right_side_of_the_patient_is_on_the_left_of_the_picture(name: str) -> None:
    for side in ("left", "right"):
        mask = draw_description(upright(10, finding(name, side=side)), SIZE).masks[name]
        on_the_left = np.flatnonzero(mask.any(axis=0)).mean() < SIZE / 2
        assert on_the_left == (side == "right")


def test_both_sides_give_two_regions() -> None:
    for name in (EFFUSION, EDEMA):
        case = draw_description(upright(10, finding(name, side="both")), SIZE)
        assert [region.side for region in case.regions] == ["right", "left"]
        assert np.array_equal(case.masks[name], case.regions[0].mask | case.regions[1].mask)


@pytest.mark.parametrize("name", [CONSOLIDATION, NODULE, ATELECTASIS, FRACTURE])
def test_zones_lie_below_one_another(name: str) -> None:
    heights = []
    for zone in ("upper", "mid", "lower"):
        mask = draw_description(upright(10, finding(name, zone=zone)), SIZE).masks[name]
        heights.append(np.flatnonzero(mask.any(axis=1)).mean())
    assert heights == sorted(heights)


@pytest.mark.parametrize("name", [CONSOLIDATION, NODULE, EFFUSION, PNEUMOTHORAX, ATELECTASIS, EDEMA])
def test_size_is_seen_in_the_mask(name: str) -> None:
    areas = [
        int(draw_description(upright(10, finding(name, size=size)), SIZE).masks[name].sum()) for size in (0.1, 0.5, 0.9)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_an_enlarged_heart_takes_up_more_than_half_of_the_chest() -> None:
    """The cardiothoracic ratio is measured on the picture's own outlines, as a radiologist does."""
    for index in range(0, 20, 4):
        description = upright(index)
        description = replace(description, view="PA", nuisance=replace(description.nuisance, inspiration=0.0))
        enlarged = replace(description, findings=(finding(CARDIOMEGALY, contrast=0.1),))
        heart = draw_description(enlarged, SIZE).masks[CARDIOMEGALY]
        heart_width = heart.any(axis=0).sum()
        # Fluid that fills the whole base shows where the wall is.
        both = replace(description, findings=(finding(EFFUSION, side="both", size=1.0),))
        chest = np.flatnonzero(draw_description(both, SIZE).masks[EFFUSION].any(axis=0))
        ratio = heart_width / (chest[-1] - chest[0] + 1)
        assert 0.5 < ratio < 0.58
        assert description.habitus.heart_ratio < 0.5


def test_air_has_no_vessels_and_is_darker_than_the_lung() -> None:
    plain = upright(12)
    case = draw_description(replace(plain, findings=(finding(PNEUMOTHORAX, contrast=1.0, size=1.0),)), SIZE)
    inside = cv2.erode(case.masks[PNEUMOTHORAX].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    before = draw_description(plain, SIZE).image.astype(float)
    assert case.image[inside].mean() < before[inside].mean()


def test_every_device_takes_its_own_way() -> None:
    ways = {
        kind: draw_description(upright(12, finding(DEVICES, kind=kind)), SIZE).masks[DEVICES] for kind in DEVICE_KINDS
    }
    tube, line, stomach, drain = (ways[kind] for kind in DEVICE_KINDS)
    lowest = {kind: np.flatnonzero(mask.any(axis=1)).max() / SIZE for kind, mask in ways.items()}
    assert lowest["endotracheal tube"] < lowest["central venous catheter"] < lowest["nasogastric tube"]
    assert tube[0].any()
    assert stomach[0].any()
    assert np.flatnonzero(line.any(axis=0)).mean() == pytest.approx(SIZE / 2, abs=0.1 * SIZE)
    assert np.flatnonzero(drain.any(axis=0)).max() > 0.8 * SIZE


def test_nuisances_move_the_masks_with_the_picture() -> None:
    plain = upright(14, finding(NODULE))
    turned = replace(plain, nuisance=replace(plain.nuisance, rotation_degrees=6.0, scale=1.1, shift_x=0.03))
    box = draw_description(plain, 448).regions[0].box
    moved = draw_description(turned, 448).regions[0].box
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    matrix = cv2.getRotationMatrix2D((224, 224), -6.0, 1.1)
    expected = matrix @ np.array([*centre, 1.0]) + np.array([0.03 * 448, 0.0])
    # Boxes are whole pixels.
    assert [moved[0] + moved[2] / 2, moved[1] + moved[3] / 2] == pytest.approx(expected, abs=1.5)
    assert moved[2] / box[2] == pytest.approx(1.1, abs=0.1)
