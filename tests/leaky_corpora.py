"""Two small corpora, one to train on and one to test on, with every kind of overlap planted between them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from planted_corpus import registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.readers.base import Card, Finding, LabelState, Reader, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def draw_film(seed: int, height: int = 200, width: int = 180) -> NDArray[np.uint8]:
    """Draw a film that shares all that is coarse with the others, as chest films do, and has detail of its own."""
    shared = cv2.resize(np.random.default_rng(1000).normal(size=(5, 4)), (width, height), interpolation=cv2.INTER_CUBIC)
    film = 120 + 45 * shared
    rng = np.random.default_rng(seed)
    for cells, strength in ((9, 12), (18, 10), (40, 8)):
        own = rng.normal(size=(cells, cells))
        film = film + strength * cv2.resize(own, (width, height), interpolation=cv2.INTER_CUBIC)
    drawn: NDArray[np.uint8] = np.clip(film, 0, 255).astype(np.uint8)
    return drawn


def altered(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the film cropped by a tenth, turned by three degrees and darkened."""
    height, width = film.shape
    crop = film[height // 20 : height // 20 + round(0.9 * height), : round(0.9 * width)]
    turn = cv2.getRotationMatrix2D((crop.shape[1] / 2, crop.shape[0] / 2), 3.0, 1.0)
    copy: NDArray[np.uint8] = (cv2.warpAffine(crop, turn, (crop.shape[1], crop.shape[0])) * 0.8).astype(np.uint8)
    return copy


class ListedFilms(Reader):
    """Reads `films.json` and the pictures that it lists."""

    card: ClassVar[Card] = Card(licence="none needed: drawn", citation=None, images=None, kinds=("class",))

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        for row in json.loads(self.require("films.json").read_text(encoding="utf-8")):
            state = LabelState.PRESENT if row.get("sick") else LabelState.ABSENT
            yield Record(
                image=self.root / row["image"],
                image_id=row["image"],
                patient=row["patient"],
                patient_namespace=row.get("namespace"),
                study=row.get("study"),
                view=row.get("view"),
                split=row["split"],
                findings=(Finding("Edema", state),),
            )


class OtherFilms(ListedFilms):
    """The same under another name."""


def write_films(root: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the films of some rows: `seed` draws one, `altered` alters it, `image` names it."""
    root.mkdir(parents=True)
    for row in rows:
        film = draw_film(row["seed"])
        cv2.imwrite(str(root / row["image"]), altered(film) if row.get("altered") else film)
    (root / "films.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def listed_corpus(folder: Path, name: str, rows: list[dict[str, Any]], reader: type[Reader] = ListedFilms) -> Corpus:
    """Prepare a corpus of one dataset called `name` from listed films."""
    films = write_films(folder / f"{name} films", rows)
    with registered("reader", name, reader):
        prepare(folder / name, [(name, films)], PrepareConfig(shorter_side=160), workers=1, progress=False)
    return Corpus.open(folder / name)


def film(number: int, split: str, **more: Any) -> dict[str, Any]:
    """One row: film, patient and study of that number."""
    return {
        "image": f"{number:03d}.png", "seed": number, "patient": f"{number}", "study": f"s{number}",
        "split": split, "sick": number % 2 == 0, **more,
    }  # fmt: skip


def rows_trained(count: int = 12) -> list[dict[str, Any]]:
    """Films 0 … count - 1, one patient each, all official val; see `LEFT`."""
    return [film(number, "val") for number in range(count)]


LEFT = ("val",)  # official test and validation images keep their place; the rest goes by hash


def rows_tested() -> list[dict[str, Any]]:
    """One film for each way to leak, and films that leak in none.

    100: film 3, the same file. 101: film 4, cropped, turned and darkened. 102: another film of patient 5.
    103, 104: new films.
    """
    return [
        film(100, "test", seed=3),
        film(101, "test", seed=4, altered=True),
        film(102, "test", namespace="trained", patient="5"),
        film(103, "test"),
        film(104, "test"),
    ]
