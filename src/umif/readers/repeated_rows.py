"""Tables with one row per image: a repeated row is merged if it says the same, and an error if it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from umif.readers.folders import relative_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from umif.readers.base import Reader
    from umif.readers.tables import Row


def unique_rows(reader: Reader, rows: Iterable[Row], item: Callable[[Row], str]) -> Iterator[tuple[str, Row]]:
    """Yield (item, row) for the first row of every item, in the table's order.

    Only a hash of each row is kept, so that a table of any length can be streamed. A row whose item is a path that
    leaves the folder is excluded.

    Args:
        reader: Counts equal rows and excluded ones.
        rows: The table.
        item: Gives the path or id that a row is about.

    Raises:
        TableError: an item has two rows with different values; both lines are named.
    """
    seen: dict[str, tuple[int, int]] = {}
    for row in rows:
        raw = item(row)
        name = relative_name(raw)
        if name is None:
            reader.exclude(f"{row.where} {raw!a}", "path leaves the folder", row.where)
            continue
        cells = hash(tuple(row.cells.values()))
        line, known = seen.setdefault(name, (row.line, cells))
        if known != cells:
            raise row.error(f"{name!r} has another row with other values, at line {line}")
        if line == row.line:
            yield name, row
        else:
            reader.note("repeated row, equal")
