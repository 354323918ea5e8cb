"""What a job works on: texts and labels of images, from a file, and the table of what came out."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from umif.errors import LayoutError, StorageError, TableError
from umif.readers.base import LabelState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

PARQUET = (".parquet", ".pq")
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv", *PARQUET)
OUTPUTS = (".jsonl", ".ndjson", *PARQUET)
SOURCE = "llm"

Labels = tuple[tuple[str, LabelState], ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One image's text or labels.

    Attributes:
        id: The image's id within its dataset; with `dataset` the key that `umif prepare --texts` finds the image by.
        dataset: The reader's name; `None` where nobody has said whose data these are.
        text: The report to translate or polish; empty for a report to be written.
        labels: (dataset's spelling or vocabulary id, state).
        where: `file:line`.
    """

    id: str
    dataset: str | None
    text: str
    labels: Labels = ()
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """A text that a model wrote and that passed every check.

    Attributes:
        job: translate, polish or reports.
        model: The model asked.
        prompt: Hash of the instructions.
        request: Hash of all that was sent; the key of the cache.
        labels: The labels that the text was checked against, as JSON.
    """

    id: str
    dataset: str | None
    kind: str
    text: str
    source: str
    job: str
    model: str
    prompt: str
    request: str
    labels: str


def read_items(path: Path, dataset: str | None = None) -> list[Item]:
    """Read a JSONL, CSV, TSV or Parquet file with the columns `id` (or `image_id`), `text`, `labels`, `dataset`.

    `labels` is a mapping from finding to state, a list of present findings, or text such as `Edema=absent; Effusion`
    (a name without a state is present). Only `id` must be there.

    Args:
        path: The file.
        dataset: The dataset that all rows are of which do not name one.

    Raises:
        LayoutError: the file cannot be read, or is of another type.
        TableError: a row is no row, has no id, repeats one, or a label has no known state.
    """
    if path.suffix.lower() not in TABLES:
        fix = f"give a file of type {', '.join(TABLES)}, or the folder of a corpus"
        raise LayoutError("is no table of texts", where=path, fix=fix)
    try:
        items = [_item(row, where, dataset) for row, where in _rows(path)]
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"cannot be read: {error}", where=path) from None
    seen: dict[tuple[str | None, str], str | None] = {}
    for item in items:
        first = seen.setdefault((item.dataset, item.id), item.where)
        if first != item.where:
            raise TableError(f"the id {item.id!r} stands in {first} already", where=item.where)
    return items


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except pa.ArrowException as error:
            raise LayoutError(f"cannot be read as Parquet: {error}", where=path) from None
        yield from ((row, f"{path}:{number}") for number, row in enumerate(rows, start=1))
    elif suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _csv_rows(path, csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True))
    else:
        # Not splitlines(): texts may hold line separators of Unicode, which end no line of JSONL.
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                yield _object(line, f"{path}:{number}"), f"{path}:{number}"


def _csv_rows(path: Path, lines: Any) -> Iterator[tuple[dict[str, Any], str]]:
    header: list[str] | None = None
    while True:
        where = f"{path}:{lines.line_num + 1}"  # quoted cells may hold line breaks, so that of the row's beginning
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise TableError(f"is no valid row: {error}", where=where, fix="check its double quotes") from None
        if header is None:
            header = [cell.strip() for cell in cells]
        elif any(cell.strip() for cell in cells):
            if len(cells) != len(header):
                raise TableError(f"has {len(cells)} cells under {len(header)} columns", where=where)
            yield dict(zip(header, cells, strict=True)), where


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"is not valid JSON: {error}", where=where) from None
    if not isinstance(row, dict):
        raise TableError("is no JSON object", where=where)
    return row


def _item(row: dict[str, Any], where: str, dataset: str | None) -> Item:
    key = row.get("id") if row.get("id") not in (None, "") else row.get("image_id")
    if key is None or not str(key).strip():
        raise TableError("has no id", where=where, fix="the column 'id' (or 'image_id') names the image")
    text = row.get("text") or ""
    if not isinstance(text, str):
        raise TableError("'text' is no text", where=where)
    named = row.get("dataset") or dataset
    return Item(str(key).strip(), None if named is None else str(named), text.strip(), _labels(row, where), where)


def _labels(row: dict[str, Any], where: str) -> Labels:
    given = row.get("labels")
    if isinstance(given, str):
        given = json.loads(given) if given.strip().startswith(("{", "[")) and _is_json(given) else _listed(given)
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list | tuple):
        pairs = [(one, "present") if isinstance(one, str) else _pair(one, where) for one in given]
    elif given is not None:
        raise TableError("'labels' is no mapping, list or text", where=where)
    found = []
    for name, state in pairs:
        if state is None:  # what Parquet makes of a finding that other rows mention
            continue
        try:
            found.append((str(name), LabelState(state)))
        except ValueError:
            known = ", ".join(LabelState)
            raise TableError(f"{name!r} has the state {state!r}", where=where, fix=f"known: {known}") from None
    return tuple(found)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _listed(text: str) -> list[list[str]]:
    parts = [part.partition("=") for part in re.split(r"[;|]", text) if part.strip()]
    return [[name.strip(), state.strip() or "present"] for name, _, state in parts]


def _pair(one: Any, where: str) -> tuple[Any, Any]:
    if isinstance(one, dict):
        one = [one.get("finding") or one.get("raw") or one.get("name"), one.get("state")]
    if not isinstance(one, list | tuple) or len(one) != 2:
        raise TableError(f"{one!r} is no finding with a state", where=where)
    return one[0], one[1]


def labels_text(labels: Sequence[tuple[str, LabelState]]) -> str:
    """Return labels as JSON that `read_items` reads."""
    return json.dumps([[name, state.value] for name, state in labels], ensure_ascii=False)


def table_bytes(rows: Iterable[Generated], path: Path) -> bytes:
    """Return accepted texts as the bytes of a Parquet or JSONL file, by the path's suffix."""
    plain = [asdict(row) for row in rows]
    if path.suffix.lower() not in PARQUET:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain).encode()
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(Generated.__dataclass_fields__)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain, schema=pa.schema([(name, pa.string()) for name in names])), sink)
    return sink.getvalue()


def read_generated(path: Path) -> list[Generated]:
    """Read a table of texts that a job wrote.

    Raises:
        LayoutError: the file cannot be read.
        TableError: a row lacks what says where it comes from (dataset, source, model, prompt), or repeats another.
    """
    rows: list[Generated] = []
    seen: dict[tuple[str, str, str], str] = {}
    if path.suffix.lower() not in OUTPUTS:
        raise LayoutError("is no table of generated texts", where=path, fix="give what umif texts wrote")
    try:
        for row, where in _rows(path):
            values = {name: row.get(name) for name in Generated.__dataclass_fields__}
            blank = [name for name, value in values.items() if not isinstance(value, str) or not value.strip()]
            if blank:
                fix = "give a table that umif texts wrote; it names dataset, source, model and prompt of each text"
                raise TableError(f"has no {', '.join(blank)}", where=where, fix=fix)
            one = Generated(**values)  # type: ignore[arg-type]
            if one.source != SOURCE or one.kind != "report":
                raise TableError(f"is a {one.kind} of source {one.source!r}, not one that a model wrote", where=where)
            first = seen.setdefault((one.dataset or "", one.id, one.job), where)
            if first != where:
                raise TableError(f"repeats {first}: {one.dataset}/{one.id}, {one.job}", where=where)
            rows.append(one)
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"cannot be read: {error}", where=path) from None
    return rows


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or as it was before.

    Raises:
        StorageError: the disk refused.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=path) from None


__all__ = ["Generated", "Item", "labels_text", "read_generated", "read_items", "table_bytes", "write_whole"]
