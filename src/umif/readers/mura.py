"""MURA v1.1: radiographs of seven parts of the arm, from finger to shoulder, each study normal or abnormal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import pictures
from umif.readers.repeated_rows import unique_rows
from umif.readers.tables import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Split

RELEASE = "MURA-v1.1"
PARTS: dict[str, Split] = {"train": "train", "valid": "val"}
BODY_PARTS = ("XR_ELBOW", "XR_FINGER", "XR_FOREARM", "XR_HAND", "XR_HUMERUS", "XR_SHOULDER", "XR_WRIST")
NORMAL = "normal"
# By the end of the name of a study's folder.
_STATES = {"negative": LabelState.PRESENT, "positive": LabelState.ABSENT}
_LABELS = {"negative": "0", "positive": "1"}
_STUDY = re.compile(
    rf"(?:[^/]+/)?((train|valid)/({'|'.join(BODY_PARTS)})/(patient\d{{5,6}})/(study\d{{1,3}})_(negative|positive))"
)
_IMAGE = re.compile(rf"{_STUDY.pattern}/(image\d{{1,3}}\.png)")


@register("reader", "mura")
class Mura(Reader):
    """Reader of MURA v1.1. Neither of its two tables per part has a header.

    A study is normal (`0`, `…_negative`) or abnormal (`1`, `…_positive`), which is `normal` present or absent: what is
    wrong is not said. The label stands in the table and in the folder's name, and both must agree. Patients occur
    with several body parts. The official validation part is `val`.
    """

    card: ClassVar[Card] = Card(
        title="MURA v1.1 (musculoskeletal radiographs)",
        licence="Stanford University Dataset Research Use Agreement: no commercial use, no passing on",
        citation="Rajpurkar et al., MURA: Large Dataset for Abnormality Detection in Musculoskeletal Radiographs, "
        "MIDL 2018",
        images=40_005,
        access="registration",
        kinds=("class",),
        how_to_get="https://stanfordmlgroup.github.io/competitions/mura: accept the agreement, download, unzip",
        layout=(
            "train_image_paths.csv, train_labeled_studies.csv          (or all of it in a folder MURA-v1.1)\n"
            "valid_image_paths.csv, valid_labeled_studies.csv\n"
            "train/XR_SHOULDER/patient00001/study1_positive/image1.png\n"
            "valid/XR_WRIST/patient11185/study1_positive/image1.png"
        ),
        excluded="images without a line in the list of their part; lines whose file is missing",
        checked_on="tables",
        checked_against="the first 300 lines of each of the four tables; pictures on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per listed image that is on disk, by path."""
        release = f"{RELEASE}/" if (self.root / RELEASE).is_dir() else ""
        on_disk: dict[str, tuple[str, Path]] = {}
        found: dict[str, Record] = {}
        for part in PARTS:
            studies = _labelled(self.require(f"{release}{part}_labeled_studies.csv"), part)
            for relative, path in pictures(self, self.require(f"{release}{part}")):
                on_disk[relative.removeprefix(release)] = (relative, path)
            rows = _lines(self.require(f"{release}{part}_image_paths.csv"), ("path",))
            for _, row in unique_rows(self, rows, lambda row: row["path"]):
                match = _match(_IMAGE, row, part, "image1.png")
                item = f"{match[1]}/{match[7]}"
                if match[1] not in studies:
                    self.note("study without a line in the table of labels: its folder's name tells the label")
                if item in on_disk:
                    found[item] = _record(item, on_disk.pop(item)[1], match, row)
                elif item in found:
                    self.note("repeated row, equal")
                else:
                    self.exclude(item, "image file is missing", row.where)
        for item in sorted(found):
            yield found[item]
        for item, (relative, _) in sorted(on_disk.items()):
            self.exclude(relative, f"no line in {item.partition('/')[0]}_image_paths.csv")


def _labelled(table: Path, part: str) -> set[str]:
    """Return the studies of a table of labels, each checked against the name of its folder."""
    studies = set()
    for row in _lines(table, ("path", "label")):
        match = _match(_STUDY, row, part, "")
        if row["label"].removesuffix(".0") != _LABELS[match[6]]:
            what = f"the label of {row['path']!r} is {row['label']!r}"
            raise row.error(what, fix="expected 0 for …_negative and 1 for …_positive")
        studies.add(match[1])
    return studies


def _lines(table: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a table without a header."""
    try:
        lines = table.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=table) from None
    for number, line in enumerate(lines, start=1):
        cells = [cell.strip() for cell in line.split(",")]
        if not any(cells):
            continue
        if len(cells) != len(columns):
            raise TableError(f"has {len(cells)} cells, not {len(columns)}", where=f"{table}:{number}")
        yield Row(table, number, dict(zip(columns, cells, strict=True)))


def _match(pattern: re.Pattern[str], row: Row, part: str, example: str) -> re.Match[str]:
    match = pattern.fullmatch(row["path"].removesuffix("/"))
    if match is None or match[2] != part:
        fix = f"expected {RELEASE}/{part}/XR_…/patient…/study…_positive/{example}"
        raise row.error(f"the path is {row['path']!r}", fix=fix)
    return match


def _record(item: str, path: Path, match: re.Match[str], row: Row) -> Record:
    return Record(
        image=path,
        image_id=item,
        patient=match[4],
        study=f"{match[3]}/{match[4]}/{match[5]}",
        split=PARTS[match[2]],
        findings=(Finding(NORMAL, _STATES[match[6]]),),
        where=row.where,
    )
