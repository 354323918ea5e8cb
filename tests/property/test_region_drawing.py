"""Whatever shape a region has, it covers the same share of the picture at 224 pixels as at full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.corpus.geometry import stored_region
from umif.corpus.regions import draw_regions, finding_colour, region_mask
from umif.readers.base import Region

# Full sizes of radiographs, height × width; the stored picture has a shorter side of 256.
FULL = st.sampled_from([(1024, 1024), (2022, 2022), (2544, 3056), (2320, 2828), (1500, 700), (512, 640)])
SIDE = st.floats(0.1, 0.9)
PLACE = st.floats(0, 1)
FINDINGS = ("pneumothorax", "cardiomegaly", "pleural_effusion", "nodule")


def stored_size(height: int, width: int) -> tuple[int, int]:
    scale = 256 / min(height, width)
    return round(height * scale), round(width * scale)


def store(region: Region, size: tuple[int, int], root: Path = Path()) -> dict[str, Any]:
    """The region as the corpus keeps it."""
    row, _ = stored_region(region, region.finding, root=root, original=size, stored=stored_size(*size))
    return row


def shaped(shape: str, box: tuple[float, float, float, float], seed: int = 0, finding: str = "nodule") -> Region:
    """A box, an ellipse, or a ragged polygon of `box` in pixels."""
    if shape != "polygon":
        return Region(finding, shape, box=box)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    reach = rng.uniform(0.25, 0.5, 12)
    x, y = box[0] + box[2] * (0.5 + reach * np.cos(angles)), box[1] + box[3] * (0.5 + reach * np.sin(angles))
    return Region(finding, "polygon", points=tuple(zip(x.tolist(), y.tolist(), strict=True)))


def placed(size: tuple[int, int], place: tuple[float, float], sides: tuple[float, float]) -> tuple[float, ...]:
    height, width = size
    return (
        place[0] * (1 - sides[0]) * width, place[1] * (1 - sides[1]) * height, sides[0] * width, sides[1] * height,
    )  # fmt: skip


def assert_same_share(row: dict[str, Any], size: tuple[int, int], *, exact: float | None = None) -> None:
    full = float(region_mask(row, *size).mean()) if exact is None else exact
    small = float(region_mask(row, 224, 224).mean())
    # 1 % of the region for regions over 1 % of the picture; half a pixel is what rounding to whole pixels leaves.
    assert small == pytest.approx(full, abs=max(0.01 * full if full > 0.01 else 0.0, 0.5 / 224**2 + 2e-6))


@settings(max_examples=60, deadline=None)
@given(FULL, st.sampled_from(["box", "ellipse", "polygon"]), PLACE, PLACE, SIDE, SIDE, st.integers(0, 2**32 - 1))
def test_boxes_ellipses_and_polygons(
    size: tuple[int, int], shape: str, x: float, y: float, across: float, down: float, seed: int
) -> None:
    region = shaped(shape, placed(size, (x, y), (across, down)), seed)  # type: ignore[arg-type]
    assert_same_share(store(region, size), size)


def _blob(size: tuple[int, int], seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A mask of two touching ellipses, at least a hundredth of the picture."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, dtype=np.uint8)
    for _ in range(2):
        centre = int(rng.uniform(0.3, 0.7) * size[1]), int(rng.uniform(0.3, 0.7) * size[0])
        axes = int(rng.uniform(0.06, 0.3) * size[1]), int(rng.uniform(0.06, 0.3) * size[0])
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return mask


@settings(max_examples=25, deadline=None)
@given(FULL, st.integers(0, 2**32 - 1))
def test_coco_runs_of_full_size(size: tuple[int, int], seed: int) -> None:
    flat = (_blob(size, seed) > 0).T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8)))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    row = store(Region("nodule", "rle", runs=tuple(int(run) for run in runs)), size)
    assert_same_share(row, size, exact=float(flat.mean()))


@settings(max_examples=15, deadline=None)
@given(FULL, st.integers(0, 2**32 - 1), st.booleans())
def test_mask_pictures_whole_and_cut_out(
    tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int], seed: int, cut: bool
) -> None:
    root = tmp_path_factory.mktemp("mask")
    mask = _blob(size, seed)
    exact = float((mask > 0).mean())
    region = Region("nodule", "mask", mask_path=Path("mask.png"))
    if cut:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        offset = int(columns[0]), int(rows[0])
        region = Region("nodule", "mask", mask_path=Path("mask.png"), offset=offset, frame=(size[1], size[0]))
    assert cv2.imwrite(str(root / "mask.png"), mask)
    assert_same_share(store(region, size, root), size, exact=exact)


@settings(max_examples=12, deadline=None)
@given(FULL, st.integers(0, 2**32 - 1))
def test_what_lies_on_top_is_the_same_at_any_size(size: tuple[int, int], seed: int) -> None:
    """Regions of nearly one area overlap; the smaller one, or of equal ones the later, is whole at every size."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.3, 0.3 + 1e-5, (4, 2))  # less than a pixel apart at 224, many at full size
    shape = str(rng.choice(["box", "ellipse"]))
    regions = []
    for finding, (across, down) in zip(FINDINGS, sides, strict=True):
        place = tuple(rng.uniform(0.4, 0.6, 2))
        box = placed(size, place, (float(across), float(down)))
        regions.append(store(shaped(shape, box, seed, finding), size))  # type: ignore[arg-type]
    small, large = draw_regions(regions, 224, 224), draw_regions(regions, *size)
    tops = []
    for row in regions:
        colour = np.array(finding_colour(row["finding"]))
        whole = []
        for picture in (small, large):
            inside = region_mask(row, *picture.shape[:2])
            whole.append(bool((picture[inside] == colour).all()))
        tops.append(tuple(whole))
    assert all(at_small == at_large for at_small, at_large in tops)
    assert any(at_small for at_small, _ in tops)


def test_of_two_equal_regions_the_later_lies_on_top() -> None:
    rows: list[dict[str, Any]] = [
        {"raw": name, "finding": name, "shape": "box", "box": [0.2, 0.2, 0.5, 0.5]} for name in FINDINGS[:2]
    ]  # fmt: skip
    for listed in (rows, rows[::-1]):
        colours = np.unique(draw_regions(listed, 64, 64).reshape(-1, 3), axis=0)
        assert colours.tolist() == [[0, 0, 0], list(finding_colour(listed[1]["finding"]))]
