"""Rules of thumb on real pictures: few false alarms on films as they are, most planted defects found."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from umif.corpus.quality_pixels import MEASURES, looks_constant, looks_inverted, looks_like_ct, measure
from umif.errors import ImageError
from umif.imaging import decode, resize_shorter_side

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Grey = NDArray[np.uint8]

FILMS = {"nih-chestxray14/images": 80, "bone-fracture-yolo/data": 80, "chest_xray": 60}


def stored(file: Path) -> Grey | None:
    try:
        return resize_shorter_side(decode(file.read_bytes(), name=file.name).pixels, 256)
    except ImageError:
        return None


def measured(pictures: list[Grey]) -> NDArray[np.void]:
    rows = np.zeros(len(pictures), dtype=MEASURES)
    for row, picture in zip(rows, pictures, strict=True):
        measure(picture, row)
    return rows


@pytest.fixture(scope="module")
def films(real_data: Path) -> list[Grey]:
    files: list[Path] = []
    for folder, count in FILMS.items():
        found = sorted(f for f in (real_data / folder).rglob("*") if f.suffix in (".png", ".jpg", ".jpeg"))
        files += [found[place] for place in np.linspace(0, len(found) - 1, count).astype(int)]
    return [picture for file in files if (picture := stored(file)) is not None]


def test_films_as_they_are_raise_hardly_an_alarm(films: list[Grey]) -> None:
    rows = measured(films)
    assert looks_constant(rows).sum() == 0
    assert looks_inverted(rows).mean() <= 0.01
    assert looks_like_ct(rows).mean() <= 0.01


def test_inverted_films_are_found(films: list[Grey]) -> None:
    assert looks_inverted(measured([(255 - film).astype(np.uint8) for film in films])).mean() >= 0.9


def test_real_ct_slices_are_found(real_data: Path) -> None:
    root = real_data / "covid-chestxray-dataset"
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["modality"] == "CT"]
    slices = [picture for name in names if (root / "images" / name).exists()
              and (picture := stored(root / "images" / name)) is not None]  # fmt: skip
    assert len(slices) > 30
    assert looks_like_ct(measured(slices)).mean() >= 0.8
