"""The quarantine list: which images and pairs of a corpus are left out of training and testing, and why.

`quarantine.csv` lies in the corpus's folder. `umif inspect` adds what it finds, and never changes or removes a line
that is there: the list is the user's to edit. The corpus and its fingerprint stay as they are; training, its
vocabulary, evaluation and the audit leave out what the list excludes, and runs and results record the list's hash.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umif.corpus.manifest import write_atomically
from umif.corpus.mirror import corpus_folder
from umif.errors import CorpusError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.corpus.store import Corpus

QUARANTINE = "quarantine.csv"
COLUMNS = ("item", "decision", "reason")
_LABELS = "#class"
# exclude: left out of training; keep: used, whatever was found; review: used, until someone decides.
DECISIONS = ("exclude", "keep", "review")


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One line: `item` is an image's id, or a pair's (`<image>#<kind>`)."""

    item: str
    decision: str
    reason: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The list as it is now; empty where there is no file."""

    path: Path
    rows: tuple[QuarantineRow, ...] = ()

    @property
    def excluded(self) -> dict[str, int]:
        """What is left out of training, with the line that says so."""
        return {row.item: row.line for row in self.rows if row.decision == "exclude"}

    @property
    def sha256(self) -> str | None:
        """Hash over what is left out, whatever its order, reasons and other lines; `None` if nothing is."""
        items = sorted(self.excluded)
        return hashlib.sha256("\n".join(items).encode()).hexdigest() if items else None

    @property
    def counts(self) -> dict[str, int]:
        """Number of lines by decision."""
        found = Counter(row.decision for row in self.rows)
        return {decision: found[decision] for decision in DECISIONS}


def read_quarantine(corpus: Path) -> Quarantine:
    """Read the list in the folder of a corpus, which may be behind a URL.

    Raises:
        CorpusError: it is no table of `item, decision, reason`, a decision is unknown, or an item stands there twice.
    """
    file = corpus_folder(corpus) / QUARANTINE
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return Quarantine(file)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot be read as text: {error}", where=file, fix="save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, QuarantineRow] = {}
    try:
        missing = [name for name in COLUMNS[:2] if name not in (reader.fieldnames or ())]
        if missing:
            fix = f"the first line must be: {','.join(COLUMNS)}"
            raise CorpusError(f"the column {missing[0]!r} is missing", where=f"{file}:1", fix=fix)
        for cells in reader:
            row = _row(cells, f"{file}:{reader.line_num}", reader.line_num)
            if row is None:
                continue
            if row.item in rows:
                what = f"{row.item!r} is listed already, in line {rows[row.item].line}"
                raise CorpusError(what, where=f"{file}:{row.line}", fix="leave one of the two lines")
            rows[row.item] = row
    except csv.Error as error:
        raise CorpusError(f"is no CSV: {error}", where=f"{file}:{reader.line_num}", fix="mend its quotes") from None
    return Quarantine(file, tuple(rows.values()))


def _row(cells: dict[str | None, str | None], where: str, line: int) -> QuarantineRow | None:
    item, decision = (str(cells.get(name) or "").strip() for name in COLUMNS[:2])
    if not item and not decision:
        return None
    if not item:
        raise CorpusError("the line names no item", where=where, fix="give the id of an image or pair, or remove it")
    if decision not in DECISIONS:
        raise CorpusError(f"the decision {decision!r} is unknown", where=where, fix=nearest(decision, DECISIONS))
    return QuarantineRow(item, decision, str(cells.get("reason") or ""), line)


def add_to_quarantine(corpus: Path, found: Iterable[QuarantineRow]) -> tuple[Quarantine, int]:
    """Append what is not listed yet; return the list and the number of new lines. What is there stays, byte for byte.

    Raises:
        CorpusError: the list that is there cannot be read.
        OSError: it cannot be written.
    """
    known = read_quarantine(corpus)
    listed = {row.item for row in known.rows}
    new = [row for row in found if row.item not in listed]
    if not new:
        return known, 0
    before = known.path.read_bytes() if known.path.exists() else b""
    text = io.StringIO(newline="")
    # A user's table may have its columns in another order, and more of them.
    columns = list(COLUMNS)
    if before:
        columns = next(csv.reader(io.StringIO(before.decode("utf-8-sig"), newline="")))
    writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
    if not before:
        writer.writeheader()
    for row in new:
        writer.writerow({"item": row.item, "decision": row.decision, "reason": row.reason})
    separator = b"" if not before or before.endswith((b"\n", b"\r")) else b"\n"
    write_atomically(known.path, before + separator + text.getvalue().encode())
    return read_quarantine(corpus), len(new)


def quarantined(corpus: Corpus, quarantine: Quarantine) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images and which pairs the list excludes; an image takes all its pairs with it.

    Shapes:
        Returns: (images,) and (pairs,) bool.

    Raises:
        CorpusError: an excluded item is neither an image nor a pair of the corpus; its line is named.
    """
    excluded = quarantine.excluded
    wanted = pa.array(sorted(excluded), pa.string())
    images = corpus.images_table(["image"]).column("image")
    table = corpus.pairs_table(["pair", "image_row"])
    by_image = pc.is_in(images, wanted).to_numpy()
    by_pair = pc.is_in(table.column("pair"), wanted).to_numpy()
    if int(by_image.sum()) + int(by_pair.sum()) < len(excluded):
        found = {
            *images.filter(pa.array(by_image)).to_pylist(),
            *table.column("pair").filter(pa.array(by_pair)).to_pylist(),
        }
        item = min(set(excluded) - found, key=lambda name: excluded[name])
        raise CorpusError(
            f"{item!r} is neither an image nor a pair of this corpus",
            where=f"{quarantine.path}:{excluded[item]}",
            fix="correct the id, or remove the line (ids are the columns `image` and `pair`)",
        )
    return by_image, by_pair | by_image[table.column("image_row").to_numpy()]


def excluded_images(corpus: Corpus) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images the corpus's own list excludes, and of which it excludes the labels (the pair `…#class`).

    Shapes:
        Returns: two of (images,) bool; an excluded image's labels are excluded too.

    Raises:
        CorpusError: the list cannot be read, or excludes something that the corpus does not hold.
    """
    quarantine = read_quarantine(corpus.path)
    images = corpus.images_table(["image"]).column("image")
    if not quarantine.excluded:
        return np.zeros(len(images), dtype=bool), np.zeros(len(images), dtype=bool)
    by_image, _ = quarantined(corpus, quarantine)
    labels = pa.array([item[: -len(_LABELS)] for item in quarantine.excluded if item.endswith(_LABELS)], pa.string())
    return by_image, by_image | pc.is_in(images, labels).to_numpy()


def kept_texts(corpus: Corpus, split: str) -> Iterator[str]:
    """Yield the texts of a split's pairs as `Corpus.texts` does, without those that the corpus's own list excludes.

    Raises:
        CorpusError: the list cannot be read, or excludes something that the corpus does not hold.
    """
    quarantine = read_quarantine(corpus.path)
    if not quarantine.excluded:
        yield from corpus.texts(split)
        return
    _, by_pair = quarantined(corpus, quarantine)
    done = 0
    for batch in corpus.pair_batches(["text", "split"]):
        left_out = by_pair[done : done + batch.num_rows]
        done += batch.num_rows
        texts, splits = batch.column("text").to_pylist(), batch.column("split").to_pylist()
        for text, place, out in zip(texts, splits, left_out, strict=True):
            if text is not None and place == split and not out:
                yield text
