"""Phantoms: drawn radiographs with every kind of supervision, written by `umif.corpus.phantom.write_phantom`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Question, Reader, Record, Region, Text
from umif.readers.folders import pictures, relative_name
from umif.readers.question_text import answer_type, cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
DONE, RECORDS, IMAGES = "phantom.json", "records.jsonl", "images"
_STATES = {str(state): state for state in LabelState}
_SEXES = ("F", "M", None)
_OLDEST = 120


@register("reader", "phantom")
class Phantom(Reader):
    """Reader of a folder of phantoms.

    Labels, with all four states, and questions are on every image; reports, captions and regions on some. A region
    is read as the runs of its mask.
    """

    card: ClassVar[Card] = Card(
        title="Phantom chest radiographs",
        licence="Apache-2.0, as UmiF itself",
        citation="UmiF (drawn by it; there is no paper)",
        images=None,
        access="built-in",
        kinds=("report", "caption", "class", "segment", "question"),
        how_to_get="built in: umif.corpus.phantom.write_phantom(folder, images=3000); `umif demo` does it too",
        layout="phantom.json\nrecords.jsonl\nimages/p00001_0.png",
        excluded="pictures without a record; records whose picture is missing",
        checked_on="images",
        checked_against="folders that the generator wrote",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per image, in the order of `records.jsonl`."""
        self._check_format()
        path = self.require(RECORDS)
        on_disk = dict(pictures(self, self.require(IMAGES)))
        listed = set()
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                where = f"{path}:{number}"
                row = _parse(line, where)
                name = relative_name(_text(row, "image", where))
                if name is None:
                    raise TableError(f"the path {row['image']!r} leaves the folder", where=where)
                if name in listed:
                    raise TableError(f"the image {name!r} is listed twice", where=where)
                listed.add(name)
                if name not in on_disk:
                    self.exclude(name, "image file is missing", f"{RECORDS}:{number}")
                    continue
                yield self._record(row, name, on_disk[name], where, f"{RECORDS}:{number}")
        for name in on_disk:
            if name not in listed:
                self.exclude(name, f"no record in {RECORDS}")

    def _check_format(self) -> None:
        path = self.require(DONE, hint="the series is unfinished: write it again with the same arguments")
        row = _parse(path.read_bytes(), str(path))
        if row.get("format") != FORMAT:
            raise LayoutError(
                f"phantoms of format {row.get('format')!r}, not {FORMAT}", where=path, fix="write the series again"
            )

    def _record(self, row: dict[str, Any], name: str, path: Path, where: str, place: str) -> Record:
        texts = tuple(
            Text(kind, _text(row, kind, where), "template")
            for kind in ("report", "caption")
            if row.get(kind) is not None
        )
        sex, age_years = row.get("sex"), row.get("age_years")
        if sex not in _SEXES:
            raise TableError(f"the sex is {sex!r}", where=where, fix="expected F, M or null")
        if age_years is not None and not (type(age_years) is int and 0 <= age_years <= _OLDEST):
            raise TableError(
                f"the age is {age_years!r}", where=where, fix=f"expected whole years, 0 to {_OLDEST}, or null"
            )
        return Record(
            image=path,
            image_id=name,
            patient=_text(row, "patient", where),
            study=_text(row, "study", where),
            view=_text(row, "view", where),
            sex=sex,
            age_years=age_years,
            texts=texts,
            findings=_findings(row.get("labels"), where),
            regions=_regions(row, where),
            questions=_questions(row.get("questions"), where),
            where=place,
        )


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"is not valid JSON: {error}", where=where) from None
    if not isinstance(row, dict):
        raise TableError("holds no JSON object", where=where)
    return row


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise TableError(f"{key!r} holds {value!r} where text belongs", where=where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TableError(f"{key!r} holds half a character", where=where) from None
    return value


def _findings(labels: Any, where: str) -> tuple[Finding, ...]:
    if not isinstance(labels, dict) or not all(name and name == name.strip() for name in labels):
        raise TableError("'labels' must map findings to states", where=where)
    for name, state in labels.items():
        if not isinstance(state, str) or state not in _STATES:
            raise TableError(f"the state of {name!r} is {state!r}", where=where, fix=f"expected {', '.join(_STATES)}")
    return tuple(Finding(name, _STATES[state]) for name, state in labels.items())


def _questions(questions: Any, where: str) -> tuple[Question, ...]:
    if questions is None:
        return ()
    if not isinstance(questions, list) or not all(isinstance(question, dict) for question in questions):
        raise TableError("'questions' is no list of questions", where=where)
    return tuple(
        Question(
            cell(question, "question", where),
            cell(question, "answer", where),
            answer_type(question, where),
            cell(question, "finding", where, may_be_blank=True) or None,
        )
        for question in questions
    )


def _regions(row: dict[str, Any], where: str) -> tuple[Region, ...]:
    regions = row.get("regions")
    if regions is None:
        return ()
    width, height = row.get("width"), row.get("height")
    if not (type(width) is int and type(height) is int and width > 0 and height > 0 and isinstance(regions, list)):
        raise TableError("'regions' must be a list, with 'width' and 'height' of the picture", where=where)
    found = []
    for region in regions:
        runs = region.get("runs") if isinstance(region, dict) else None
        if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
            raise TableError("a region has no runs", where=where)
        if sum(runs) != width * height:
            raise TableError(f"the runs of a region add up to {sum(runs)}, not to {width} × {height}", where=where)
        found.append(Region(_text(region, "finding", where), "rle", runs=tuple(runs), frame=(width, height)))
    return tuple(found)
