"""What tests of readers share: empty files by name, tables, labels as plain words, and where an error points."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from umif.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from umif.readers.base import Reader, Record


def states(record: Record) -> dict[str, str]:
    """Label → state."""
    return {finding.name: finding.state.value for finding in record.findings}


def touch(root: Path, *names: str) -> None:
    """Make empty files and the folders above them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def fails(reader: Reader, where: str) -> None:
    """Reading stops at a table, and the error points to `where`."""
    with pytest.raises(TableError) as caught:
        list(reader.read())
    assert where in str(caught.value.where)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table; what a row lacks stays blank."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
