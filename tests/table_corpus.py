"""A corpus that is a table of images without pictures, for tests of who is in which split and on which side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from umif.corpus.schema import IMAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

SPLITS = ("train", "val", "test")


class TableCorpus:
    """Rows of a corpus's images without pictures."""

    path = Path("table")

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def images_table(self, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([IMAGES.field(name) for name in columns])
        return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in self.rows], schema=schema)

    def image_rows(self, split: str | None = None, datasets: Sequence[str] | None = None) -> NDArray[np.int64]:
        """Return the rows of a split and of some datasets."""
        wanted = [
            place
            for place, row in enumerate(self.rows)
            if split in (None, row["split"]) and (datasets is None or row["dataset"] in datasets)
        ]
        return np.array(wanted, dtype=np.int64)

    def take_questions(self, image_rows: Sequence[int]) -> list[list[dict[str, Any]]]:
        """Return the questions of some images."""
        return [self.rows[place].get("questions", []) for place in image_rows]


def corpus_of(rows: Sequence[dict[str, Any]]) -> Corpus:
    """Return rows of images as a corpus."""
    return cast("Corpus", TableCorpus(rows))


def label(finding: str | None, state: str = "present", raw: str | None = None) -> dict[str, Any]:
    """Return one label."""
    return {"raw": raw or str(finding), "finding": finding, "state": state}


def row(number: int, findings: Sequence[dict[str, Any]], split: str, **columns: Any) -> dict[str, Any]:
    """Return one image's row, of a patient of its own unless told."""
    dataset = columns.pop("dataset", "nih-chestxray14")
    return {
        "image": f"{dataset}/{number}",
        "dataset": dataset,
        "patient": f"{dataset}/p{number}",
        "split": split,
        "findings": list(findings),
        **columns,
    }


def both_sides(
    positive: dict[str, Any], negative: dict[str, Any], each: int = 6, **columns: Any
) -> list[dict[str, Any]]:
    """Return images of either label in every split."""
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        for side in (positive, negative):
            rows += [row(1000 + len(rows) + i, [side], split, **columns) for i in range(each)]
    return rows
