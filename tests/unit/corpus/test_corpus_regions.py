"""Regions: drawn where they are, as large as they are, at any size, in their findings' colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.corpus.geometry import RegionProblem, stored_region
from umif.corpus.regions import (
    UNKNOWN_COLOUR,
    decode_mask,
    decode_runs,
    draw_regions,
    encode_mask,
    finding_colour,
    region_mask,
    resample,
)
from umif.errors import CorpusError, ShapeError
from umif.language import vocabulary
from umif.readers.base import Region

SIZES = st.sampled_from([(224, 224), (256, 311), (224, 180), (1024, 1024)])
FRACTION = st.floats(0, 1, width=32)


def _row(shape: str, finding: str | None = None, **geometry: Any) -> dict[str, Any]:
    return {"raw": "x", "finding": finding, "shape": shape, **geometry}


def _area(region: dict[str, Any], height: int, width: int) -> float:
    return float(region_mask(region, height, width).mean())


@settings(max_examples=60, deadline=None)
@given(FRACTION, FRACTION, st.floats(0.1, 1), st.floats(0.1, 1), SIZES)
def test_a_box_over_one_percent_keeps_its_area_within_one_percent(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> None:
    box = [x * (1 - width), y * (1 - height), width, height]
    assert _area(_row("box", box=box), *size) == pytest.approx(width * height, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(FRACTION, FRACTION, st.floats(0.12, 1), st.floats(0.12, 1), SIZES)
def test_an_ellipse_over_one_percent_keeps_its_area_within_one_percent(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> None:
    box = [x * (1 - width), y * (1 - height), width, height]
    assert _area(_row("ellipse", box=box), *size) == pytest.approx(np.pi / 4 * width * height, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FRACTION, FRACTION), min_size=3, max_size=3), SIZES)
def test_a_triangle_over_one_percent_keeps_its_area_within_one_percent(
    corners: list[tuple[float, float]], size: tuple[int, int]
) -> None:
    (ax, ay), (bx, by), (cx, cy) = corners
    area = abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2
    drawn = _area(_row("polygon", points=[v for corner in corners for v in corner]), *size)
    # To 1 % for regions over 1 % of the picture; below that, to that much of the smallest such region.
    assert drawn == pytest.approx(area, abs=0.01 * max(area, 0.01))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1024, 1024), (700, 900), (300, 256)]), SIZES)
def test_a_mask_or_runs_over_one_percent_keep_their_area_within_one_percent(
    seed: int, grid: tuple[int, int], size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(grid, dtype=np.uint8)
    centre = (int(rng.integers(grid[1])), int(rng.integers(grid[0])))
    cv2.ellipse(mask, centre, (int(rng.integers(40, 200)), int(rng.integers(40, 200))), 30, 0, 360, 1, -1)
    area = float(mask.mean())
    flat = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    runs = np.diff(np.concatenate([[0], flat])).tolist()
    for region in (_row("mask", mask=encode_mask(mask > 0)), _row("rle", runs=runs, size=list(grid))):
        assert _area(region, *size) == pytest.approx(area, abs=0.01 * max(area, 0.01))
        assert (region_mask(region, *grid) == (mask > 0)).all()


def test_a_box_on_pixel_edges_is_drawn_exactly() -> None:
    expected = np.zeros((100, 200), dtype=bool)
    expected[20:50, 60:100] = True
    assert (region_mask(_row("box", box=[0.3, 0.2, 0.2, 0.3]), 100, 200) == expected).all()
    polygon = _row("polygon", points=[0.3, 0.2, 0.5, 0.2, 0.5, 0.5, 0.3, 0.5])
    assert (region_mask(polygon, 100, 200) == expected).all()


def test_a_polygon_agrees_with_pixel_centres_away_from_its_outline() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        reach = rng.uniform(15, 45, 9)
        corners = np.stack([50 + reach * np.cos(angles), 50 + reach * np.sin(angles)], axis=1)
        drawn = region_mask(_row("polygon", points=(corners / 100).ravel().tolist()), 100, 100)
        outline = corners.astype(np.float32).reshape(-1, 1, 2)
        for row in range(100):
            for column in range(100):
                distance = cv2.pointPolygonTest(outline, (column + 0.5, row + 0.5), True)
                if abs(distance) > 1:
                    assert drawn[row, column] == (distance > 0)


def test_a_hole_in_a_self_crossing_polygon_stays_a_hole() -> None:
    star = [(0.5, 0.05), (0.75, 0.9), (0.05, 0.4), (0.95, 0.4), (0.25, 0.9)]
    mask = region_mask(_row("polygon", points=[v for corner in star for v in corner]), 200, 200)
    assert not mask[110, 100]
    assert mask[60, 100]


def test_a_region_smaller_than_a_pixel_is_still_drawn() -> None:
    mask = region_mask(_row("box", box=[0.5005, 0.7005, 0.0005, 0.0005]), 100, 100)
    assert np.argwhere(mask).tolist() == [[70, 50]]


def test_parts_outside_the_picture_are_cut_off() -> None:
    assert region_mask(_row("box", box=[-0.5, -0.5, 1.0, 1.0]), 10, 10)[:5, :5].all()
    assert region_mask(_row("box", box=[-0.5, -0.5, 1.0, 1.0]), 10, 10).sum() == 25
    triangle = _row("polygon", points=[-1.0, -1.0, 3.0, -1.0, -1.0, 3.0])
    assert region_mask(triangle, 10, 10).all()


def test_runs_go_column_by_column() -> None:
    # 4 × 4, runs skip 1, take 2, skip 3, take 1: pixels 1, 2, 6 → (1, 0), (2, 0), (2, 1).
    mask = decode_runs([1, 2, 3, 1], 4, 4)
    assert np.argwhere(mask).tolist() == [[1, 0], [2, 0], [2, 1]]
    assert not decode_runs([], 4, 4).any()
    with pytest.raises(CorpusError, match="do not fit"):
        decode_runs([10, 10], 4, 4)


def test_resampling_conserves_what_is_covered() -> None:
    rng = np.random.default_rng(1)
    for size, target in (((37, 53), (224, 224)), ((400, 300), (224, 100)), ((224, 500), (300, 224))):
        mask = rng.random(size) < 0.2
        assert resample(mask, *target).mean() == pytest.approx(mask.mean(), rel=1e-5)  # float32 products
    mask = rng.random((300, 200)) < 0.5
    reference = cv2.resize(mask.astype(np.float32), (77, 91), interpolation=cv2.INTER_AREA)
    # cv2 drops source shares below 1e-3 of a pixel.
    assert np.abs(resample(mask, 91, 77) - reference).max() < 2e-3


def test_a_mask_comes_back_bit_by_bit_from_a_one_bit_png() -> None:
    mask = np.random.default_rng(0).random((61, 43)) < 0.3
    data = encode_mask(mask)
    assert (decode_mask(data) == mask).all()
    assert data[24] == 1  # bit depth in the PNG header


def test_smaller_regions_stay_visible_over_larger_ones_whatever_their_order() -> None:
    small = _row("box", "pneumothorax", box=[0.4, 0.4, 0.2, 0.2])
    large = _row("box", "cardiomegaly", box=[0.1, 0.1, 0.8, 0.8])
    unknown = _row("box", None, box=[0.0, 0.0, 0.05, 0.05])
    for order in ([small, large, unknown], [unknown, large, small]):
        picture = draw_regions(order, 100, 100)
        assert picture.dtype == np.uint8
        assert tuple(picture[50, 50]) == finding_colour("pneumothorax")
        assert tuple(picture[20, 20]) == finding_colour("cardiomegaly")
        assert tuple(picture[1, 1]) == UNKNOWN_COLOUR
        assert tuple(picture[95, 95]) == (0, 0, 0)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4


def test_every_finding_has_its_own_colour_and_none_is_the_unknown_one() -> None:
    colours = [finding_colour(entry.id) for entry in vocabulary().entries]
    assert len(set(colours)) == len(colours)
    assert UNKNOWN_COLOUR not in colours
    assert finding_colour("no such finding") == UNKNOWN_COLOUR


def test_no_region_gives_a_black_picture() -> None:
    assert not draw_regions([], 8, 9).any()
    assert draw_regions([], 8, 9).shape == (8, 9, 3)


def test_a_region_without_its_geometry_is_refused() -> None:
    with pytest.raises(CorpusError, match="holds no geometry"):
        region_mask(_row("box", box=None), 8, 8)
    with pytest.raises(CorpusError, match="holds no geometry"):
        region_mask(_row("star"), 8, 8)
    with pytest.raises(CorpusError, match="cannot be decoded"):
        region_mask(_row("mask", mask=b"nonsense"), 8, 8)
    with pytest.raises(ShapeError):
        region_mask(_row("box", box=[0, 0, 1, 1]), 0, 8)


# ---- from a dataset's pixels to stored fractions


def _stored(region: Region, root: Path = Path(), original: tuple[int, int] = (100, 200)) -> dict[str, Any]:
    return stored_region(region, "pneumonia", root=root, original=original, stored=original)[0]


def _mask_file(folder: Path, pixels: np.ndarray[Any, Any], name: str = "mask.png") -> Path:
    assert cv2.imwrite(str(folder / name), pixels)
    return Path(name)


def test_coordinates_become_fractions_of_the_frame_they_are_in() -> None:
    assert _stored(Region("x", "box", box=(20, 10, 50, 40)))["box"] == [0.1, 0.1, 0.25, 0.4]
    assert _stored(Region("x", "box", box=(20, 10, 50, 40), frame=(1000, 1000)))["box"] == [0.02, 0.01, 0.05, 0.04]
    points = ((0.0, 0.0), (200.0, 0.0), (100.0, 50.0))
    assert _stored(Region("x", "polygon", points=points))["points"] == [0, 0, 1, 0, 0.5, 0.5]
    assert _stored(Region("x", "rle", runs=(3, 4)))["size"] == [100, 200]


def test_a_cut_out_mask_lands_at_its_offset(tmp_path: Path) -> None:
    file = _mask_file(tmp_path, np.full((30, 40), 7, dtype=np.uint8))
    row = _stored(Region("x", "mask", mask_path=file, offset=(25, 10)), tmp_path)
    expected = np.zeros((100, 200), dtype=bool)
    expected[10:40, 25:65] = True
    assert (decode_mask(row["mask"]) == expected).all()
    doubled = Region("x", "mask", mask_path=file, offset=(50, 20), frame=(400, 200))
    halved = decode_mask(_stored(doubled, tmp_path)["mask"])
    assert (halved == region_mask(_row("box", box=[0.125, 0.1, 0.1, 0.15]), 100, 200)).all()


def test_a_mask_value_picks_one_organ(tmp_path: Path) -> None:
    labels = np.zeros((100, 200), dtype=np.uint8)
    labels[:50], labels[50:, :100] = 1, 2
    file = _mask_file(tmp_path, labels)
    assert decode_mask(_stored(Region("x", "mask", mask_path=file, mask_value=2), tmp_path)["mask"]).mean() == 0.25
    assert decode_mask(_stored(Region("x", "mask", mask_path=file), tmp_path)["mask"]).mean() == 0.75


@pytest.mark.parametrize("channels", [3, 4])
def test_in_a_colour_mask_all_but_black_and_transparent_belongs(tmp_path: Path, channels: int) -> None:
    pixels = np.zeros((100, 200, channels), dtype=np.uint8)
    pixels[:20, :, 1] = 9
    if channels == 4:
        pixels[:, :100, 3] = 255
    mask = decode_mask(_stored(Region("x", "mask", mask_path=_mask_file(tmp_path, pixels)), tmp_path)["mask"])
    assert mask.sum() == (20 * 200 if channels == 3 else 20 * 100)


def test_sixteen_bit_masks_keep_their_values(tmp_path: Path) -> None:
    labels = np.zeros((100, 200), dtype=np.uint16)
    labels[:10], labels[10:30] = 256, 1000
    region = Region("x", "mask", mask_path=_mask_file(tmp_path, labels), mask_value=1000)
    assert decode_mask(_stored(region, tmp_path)["mask"]).sum() == 20 * 200


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (Region("x", "box", box=(300, 0, 10, 10)), "outside the picture"),
        (Region("x", "box", box=(5, 5, 0, 10)), "empty region"),
        (Region("x", "ellipse", box=(5, 5, float("nan"), 10)), "no geometry"),
        (Region("x", "box"), "no geometry"),
        (Region("x", "polygon", points=((0, 0), (1, 1))), "no geometry"),
        (Region("x", "polygon", points=((-3, 0), (-1, 1), (-2, 5))), "outside the picture"),
        (Region("x", "rle", runs=(20_000, 1)), "mask of another size"),
        (Region("x", "rle", runs=(20_000,)), "empty region"),
        (Region("x", "mask"), "no geometry"),
        (Region("x", "mask", mask_path=Path("missing.png")), "missing mask"),
        (Region("x", "mask", mask_path=Path("text.png")), "unreadable mask"),
        (Region("x", "mask", mask_path=Path("cut.png")), "unreadable mask"),
        (Region("x", "mask", mask_path=Path("black.png")), "empty mask"),
        (Region("x", "mask", mask_path=Path("small.png")), "mask of another size"),
        (Region("x", "mask", mask_path=Path("small.png"), offset=(175, 0)), "mask of another size"),
        (Region("x", "mask", mask_path=Path("small.png"), offset=(-5, 0)), "mask of another size"),
        (Region("x", "box", box=(1, 1, 1, 1), frame=(0, 5)), "empty frame"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(tmp_path: Path, region: Region, reason: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 200), dtype=np.uint8)
    _mask_file(tmp_path, noise, "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "text.png").write_text("no picture")
    _mask_file(tmp_path, noise * 0, "black.png")
    _mask_file(tmp_path, noise[:40, :50] | 1, "small.png")
    with pytest.raises(RegionProblem) as problem:
        _stored(region, tmp_path)
    assert problem.value.reason == reason
