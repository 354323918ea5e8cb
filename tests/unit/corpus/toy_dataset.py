"""A small made-up dataset with every kind of supervision, and its reader; for tests of the corpus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from umif.errors import LayoutError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region, Text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

STATES = list(LabelState)


class ToyReader(Reader):
    """Reads `records.json` and the pictures beside it."""

    card = Card(licence="CC0-1.0", citation="none", images=None)

    def records(self) -> Iterator[Record]:
        file = self.require("records.json")
        try:
            rows = json.loads(file.read_text())
        except ValueError as error:
            raise LayoutError(f"is no JSON: {error}", where=file) from None
        for row in rows:
            if row.get("modality", "DX") != "DX":
                self.exclude(row["image"], f"modality is {row['modality']}", where=str(file))
                continue
            if "duplicate_row" in row:
                self.note("merged duplicate row")
            yield Record(
                image=self.root / "images" / row["image"],
                image_id=row["image"],
                patient=row.get("patient"),
                patient_namespace=row.get("patient_namespace"),
                view=row.get("view"),
                split=row.get("split"),
                texts=tuple(Text(*text) for text in row.get("texts", ())),
                findings=tuple(Finding(name, LabelState(state)) for name, state in row.get("findings", {}).items()),
                regions=tuple(_region(self.root, region) for region in row.get("regions", ())),
                where=f"{file}:{row.get('line', 1)}",
            )


class OtherToyReader(ToyReader):
    """The same under another name, for corpora of two datasets."""


def _region(root: Path, row: dict[str, Any]) -> Region:
    fields = dict(row)
    if "mask_path" in fields:
        fields["mask_path"] = root / "masks" / fields["mask_path"]
    for name in ("box", "runs", "offset", "frame"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    if "points" in fields:
        fields["points"] = tuple(tuple(point) for point in fields["points"])
    return Region(**fields)


def picture(index: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a smooth grey picture that differs for every index."""
    rng = np.random.default_rng([seed, index])
    coarse = rng.integers(0, 256, (6, 6), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), pixels)


def write_toy(root: Path, images: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Write a dataset of `images` pictures of half as many patients; return its rows.

    Picture i is (40 + i) × (60 + i) pixels; every second has a report, every third labels, every fourth regions.
    """
    rows: list[dict[str, Any]] = []
    for index in range(images):
        height, width = 40 + index, 60 + index
        write_png(root / "images" / f"{index:03d}.png", picture(index, height, width, seed))
        row: dict[str, Any] = {"image": f"{index:03d}.png", "patient": f"p{index // 2}", "line": index + 2}
        if index % 2 == 0:
            row["texts"] = [["report", f"Small left pleural effusion in case {index}.", "report"]]
        if index % 3 == 0:
            row["findings"] = {"Pneumonia": STATES[index % 4], "Cardiomegaly": "absent", "Toyosis": "present"}
        if index % 4 == 0:
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[5:25, 10:40] = 255
            write_png(root / "masks" / f"{index:03d}.png", mask)
            row["regions"] = [
                {"finding": "Pneumonia", "shape": "box", "box": [5, 6, 20, 10]},
                {"finding": "Pneumothorax", "shape": "mask", "mask_path": f"{index:03d}.png"},
                {"finding": "Toyosis", "shape": "polygon", "points": [[30, 30], [50, 30], [40, 38]]},
            ]
        rows.append(row)
    write_rows(root, rows)
    return rows


def write_rows(root: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table of the dataset."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "records.json").write_text(json.dumps(rows))
