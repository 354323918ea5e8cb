"""Native tables → rows of text that know their file and line.

Read with the standard library's csv module and not with a data frame: a data frame keeps no line numbers and mends
ragged rows silently, while here each complaint has to name `file:line`. Every cell stays text; readers parse it.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from dataclasses import dataclass
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any

from umif.errors import LayoutError, TableError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its cells by column name, stripped, and where it stands."""

    path: Path
    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def get(self, column: str) -> str:
        """Return the cell of an optional column; empty where the table has no such column."""
        return self.cells.get(column, "")

    @property
    def where(self) -> str:
        """`file:line` without the folder, so that no path of a machine enters a corpus."""
        return f"{self.path.name}:{self.line}"

    def error(self, what: str, *, fix: str | None = None) -> TableError:
        """Return the error for something wrong in this row."""
        return TableError(what, where=f"{self.path}:{self.line}", fix=fix)

    def number(self, column: str) -> float:
        """Return a cell as a finite number.

        Raises:
            TableError: it is none.
        """
        text = self.cells[column]
        try:
            value = float(text)
        except ValueError:
            raise self.error(f"{column!r} holds {text!r} where a number belongs") from None
        if value != value or value in (float("inf"), float("-inf")):
            raise self.error(f"{column!r} holds {text!r} where a finite number belongs")
        return value

    def whole(self, column: str) -> int:
        """Return a cell as a whole number (`3` or `3.0`).

        Raises:
            TableError: it is none.
        """
        value = self.number(column)
        if value != int(value):
            raise self.error(f"{column!r} holds {self.cells[column]!r} where a whole number belongs")
        return int(value)


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, names: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of a comma-separated table, packed (`.gz`) or not.

    Columns are found by name after `strip()`, in any order. Bytes that are no UTF-8 become U+FFFD; a byte order mark
    is skipped, and so are blank lines.

    Args:
        path: The table.
        required: Columns that must be there.
        optional: Columns that are kept where they are there; all others are left out.
        names: Names for the columns by position, for a table whose header does not fit its rows. The header's first
            cells must then still equal the names it agrees with (`required`).

    Raises:
        LayoutError: the file is missing or cannot be read.
        TableError: a column is missing or occurs twice, a row has too few or too many cells, or the quoting is broken.
    """
    try:
        with _open(path) as raw:
            start = raw.read(2)
        if start in (b"\xff\xfe", b"\xfe\xff"):
            raise TableError("is UTF-16 text", where=path, fix="save the table as UTF-8")
        with _open(path) as raw, TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline="") as file:
            yield from _rows(path, csv.reader(file, strict=True), required, optional, names)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableError(f"cannot be unpacked: {error}", where=path, fix="download it again") from None
    except OSError as error:
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.GzipFile(path)  # type: ignore[return-value] # lacks only methods that are not used here
    return path.open("rb")


def _rows(
    path: Path,
    lines: Iterator[list[str]],
    required: Sequence[str],
    optional: Sequence[str],
    names: Sequence[str] | None,
) -> Iterator[Row]:
    header = _next(path, lines, 1)
    if header is None:
        raise TableError("is empty", where=f"{path}:1")
    columns = [cell.strip() for cell in header]
    positions = _positions(path, columns, required, optional)
    if names is not None:
        positions = {name: index for index, name in enumerate(names)}
        columns = list(names)
    width = 1 + max(index for index, name in enumerate(columns) if name)
    while True:
        # csv counts physical lines, so the row that follows starts one line further.
        line = int(getattr(lines, "line_num", 0)) + 1
        cells = _next(path, lines, line)
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < width or any(cell.strip() for cell in cells[max(width, len(columns)) :]):
            raise TableError(f"has {len(cells)} cells under {len(columns)} columns", where=f"{path}:{line}")
        yield Row(path, line, {name: cells[index].strip() for name, index in positions.items()})


def _next(path: Path, lines: Iterator[list[str]], line: int) -> list[str] | None:
    try:
        return next(lines)
    except StopIteration:
        return None
    except csv.Error as error:
        raise TableError(f"is no valid comma-separated row: {error}", where=f"{path}:{line}") from None


def _positions(path: Path, columns: list[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    positions = {}
    for name in (*required, *optional):
        count = columns.count(name)
        if count > 1:
            raise TableError(f"the column {name!r} occurs {count} times", where=f"{path}:1")
        if count:
            positions[name] = columns.index(name)
        elif name in required:
            fix = nearest(name, [column for column in columns if column])
            raise TableError(f"the column {name!r} is missing", where=f"{path}:1", fix=fix)
    return positions


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        TableError: it cannot be read, or is no JSON; the line is named.
    """
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise TableError(f"is not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TableError(f"cannot be read as JSON: {error}", where=path) from None
