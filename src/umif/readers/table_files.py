"""A user's own table, CSV, TSV or Parquet → its header and its rows of text.

Unlike `tables.read_table`, which knows what a published table looks like, this finds the delimiter, and reads all
columns' names before any row.
"""

from __future__ import annotations

import csv
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from umif.errors import LayoutError, TableError
from umif.readers.tables import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from umif.readers.table_config import TableConfig

PARQUET = (".parquet", ".pq")
TABLES = (".csv", ".tsv", ".tab", *PARQUET)
_DELIMITERS = ",;\t|"
_BATCH_ROWS = 8192


def read_header(path: Path, config: TableConfig) -> list[str]:
    """Return the names of all columns, stripped.

    Raises:
        LayoutError: the file cannot be read.
        TableError: it is empty, no table, or a name occurs twice.
    """
    if path.suffix.lower() in PARQUET:
        with _parquet(path) as file:
            header = [str(name).strip() for name in file.schema_arrow.names]
    else:
        with _lines(path, config) as lines:
            header = [cell.strip() for cell in _next(path, lines) or ()]
    if not any(header):
        raise TableError("is empty", where=f"{path}:1", fix="expected the columns' names in the first line")
    for name in header:
        if name and header.count(name) > 1:
            raise TableError(f"the column {name!r} occurs {header.count(name)} times", where=f"{path}:1")
    return header


def read_rows(path: Path, header: Sequence[str], used: Sequence[str], config: TableConfig) -> Iterator[Row]:
    """Yield the rows, with the cells of the columns `used`. A Parquet table's rows count from 1, lines from the header.

    Raises:
        LayoutError: the file cannot be read.
        TableError: a row has too few or too many cells, the quoting is broken, or a cell holds no single value.
    """
    if path.suffix.lower() in PARQUET:
        yield from _parquet_rows(path, used)
        return
    positions = {name: header.index(name) for name in used}
    width = 1 + max(index for index, name in enumerate(header) if name)
    with _lines(path, config) as lines:
        _next(path, lines)
        while True:
            line = int(getattr(lines, "line_num", 0)) + 1  # of the row that follows; quoted cells may hold line breaks
            cells = _next(path, lines)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < width or any(cell.strip() for cell in cells[max(width, len(header)) :]):
                raise TableError(
                    f"has {len(cells)} cells under {len(header)} columns",
                    where=f"{path}:{line}",
                    fix="put cells that hold the delimiter or a line break into double quotes",
                )
            yield Row(path, line, {name: cells[index].strip() for name, index in positions.items()})


@contextmanager
def _lines(path: Path, config: TableConfig) -> Iterator[Iterator[list[str]]]:
    encoding = "utf-8-sig" if config.encoding == "utf-8" else config.encoding
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if encoding == "utf-8-sig" and start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise TableError("is UTF-16 text", where=path, fix="save it as UTF-8, or set encoding: utf-16")
        if start in (b"PAR1", b"PK\x03\x04"):
            what = "a Parquet file" if start == b"PAR1" else "a workbook or archive"
            raise TableError(f"is {what}, no text", where=path, fix="name it .parquet, or save it as CSV (UTF-8)")
        with path.open(encoding=encoding, errors="replace", newline="") as file:
            delimiter = config.delimiter or _delimiter(path, file.readline(65_536))
            file.seek(0)
            yield csv.reader(file, delimiter=delimiter, strict=True)
    except UnicodeError as error:  # utf-16 without its mark cannot be replaced
        raise TableError(f"is no {encoding} text: {error}", where=path) from None
    except OSError as error:
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None


def _delimiter(path: Path, header: str) -> str:
    """Return the character that stands most often between the names of a header."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    outside = "".join(header.split('"')[::2])  # quoted names may hold any of them
    return max(_DELIMITERS, key=outside.count)


def _next(path: Path, lines: Iterator[list[str]]) -> list[str] | None:
    line = int(getattr(lines, "line_num", 0)) + 1
    try:
        return next(lines)
    except StopIteration:
        return None
    except csv.Error as error:
        raise TableError(f"is no valid row: {error}", where=f"{path}:{line}", fix="check its double quotes") from None


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"cannot be read as Parquet: {error}", where=path) from None


def _parquet_rows(path: Path, used: Sequence[str]) -> Iterator[Row]:
    with _parquet(path) as file:
        names = {str(name).strip(): name for name in file.schema_arrow.names}
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[names[name] for name in used]):
            columns = {name: batch.column(names[name]).to_pylist() for name in used}
            for position in range(batch.num_rows):
                number += 1
                yield Row(
                    path,
                    number,
                    {name: _text(values[position], name, f"{path}:{number}") for name, values in columns.items()},
                )


def _text(value: Any, column: str, where: str) -> str:
    """Return one value as the text that it would be in a CSV file."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, list):
        return "|".join(_text(one, column, where) for one in value)
    if isinstance(value, dict | bytes):
        raise TableError(
            f"the column {column!r} holds {'bytes' if isinstance(value, bytes) else 'records'}, no text",
            where=where,
            fix="write the pictures as files and their paths into the table",
        )
    return str(value).strip()
