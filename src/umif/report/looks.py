"""Pictures of what an encoder makes of test images: where CLS looks, and sheets that tasks drew."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from umif.report.pictures import data_uri

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.report.runs import RunData
    from umif.report.tables import Row

CASES = 6
# What a page may carry in pictures of tasks; more of them stay beside the results.
MAX_SHEET_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Look:
    """One test image and where CLS looks in it, as data URIs; `caption` = its labels."""

    image: str
    picture: str
    attention: str
    caption: str


@dataclass(frozen=True, slots=True)
class TaskSheet:
    """A picture that a task drew of its test cases."""

    title: str
    picture: str


def attention_looks(run: RunData, cases: int = CASES) -> list[Look]:
    """Return test images of different findings with CLS's attention laid over; none where the corpus is gone."""
    from umif.corpus import Corpus
    from umif.encoder import load_encoder
    from umif.errors import RunError

    if run.manifest is None:
        return []
    try:
        encoder = load_encoder(run.path, device="cpu")
    except RunError:  # no checkpoint yet
        return []
    corpus = Corpus.open(run.corpus)
    table = corpus.images_table(["image", "split", "findings"]).to_pylist()
    chosen = _varied([(row, one) for row, one in enumerate(table) if one["split"] == "test"], cases)
    if not chosen:
        return []
    views = np.stack([encoder.preprocessing.jpeg(data) for data in corpus.take_jpegs([row for row, _ in chosen])])
    maps = encoder.attention(list(views)).numpy()
    return [
        Look(one["image"], data_uri(_rgb(view)), data_uri(heat(view, share)), ", ".join(_present(one)) or "no finding")
        for (_, one), view, share in zip(chosen, views, maps, strict=True)
    ]


def heat(view_SS: NDArray[np.uint8], share_RC: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay shares over a picture, from the lowest (the picture itself) to orange at the highest of them.

    Shapes: view (S, S) uint8, shares (rows, columns); returns (S, S, 3) uint8.
    """
    size = view_SS.shape[::-1]
    above = share_RC - share_RC.min()
    wide = cv2.resize(above / max(float(above.max()), 1e-12), size, interpolation=cv2.INTER_CUBIC)
    alpha = 0.75 * np.clip(wide, 0, 1)[:, :, None]
    colour = np.array((236, 120, 20), dtype=np.float32)
    laid: NDArray[np.uint8] = ((1 - alpha) * _rgb(view_SS) + alpha * colour).round().astype(np.uint8)
    return laid


def task_sheets(rows: Sequence[Row], folders: dict[str, Path]) -> list[TaskSheet]:
    """Return the pictures that rows name in `extra["sheet"]`, a path from the run folder, and that are still there.

    Args:
        rows: Of all runs, each with `run`.
        folders: Run folder by run.
    """
    sheets: dict[tuple[str, str], TaskSheet] = {}
    spent = 0
    for row in rows:
        name = row.get("extra", {}).get("sheet")
        folder = folders.get(row["run"])
        if not isinstance(name, str) or folder is None or (row["run"], name) in sheets:
            continue
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or path.suffix != ".png" or not path.is_file():
            continue
        data = path.read_bytes()
        spent += len(data)
        if spent > MAX_SHEET_BYTES:
            break
        title = f"{row['task']} · {row['data']}" + (f" · {row['run']}" if len(folders) > 1 else "")
        sheets[row["run"], name] = TaskSheet(title, "data:image/png;base64," + base64.b64encode(data).decode())
    return list(sheets.values())


def _varied(rows: Sequence[tuple[int, dict[str, Any]]], cases: int) -> list[tuple[int, dict[str, Any]]]:
    """Of each set of findings the first image, sets in the order in which they come; then others to fill up."""
    first: dict[tuple[str, ...], tuple[int, dict[str, Any]]] = {}
    for row in rows:
        first.setdefault(tuple(_present(row[1])), row)
    chosen = list(first.values())[:cases]
    taken = {row for row, _ in chosen}
    return chosen + [row for row in rows if row[0] not in taken][: cases - len(chosen)]


def _present(image: dict[str, Any]) -> list[str]:
    labels = [label for label in image["findings"] if label["state"] == "present"]
    return sorted({(label["finding"] or label["raw"]).replace("_", " ") for label in labels})


def _rgb(view_SS: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(view_SS[:, :, None], 3, axis=2)
