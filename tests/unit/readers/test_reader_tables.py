"""Tables: columns by name, lines that are right even under quoted line breaks, and complaints that name them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import LayoutError, TableError
from umif.readers.tables import Row, read_json, read_table

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, data: bytes | str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def rows(path: Path, *required: str, **options: tuple[str, ...]) -> list[Row]:
    return list(read_table(path, required, **options))


def test_columns_are_found_by_stripped_name_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff b , c,a \n 1 ,2, 3\n")
    (row,) = rows(path, "a", "b")
    assert (row["a"], row["b"], row.where) == ("3", "1", "table.csv:2")
    assert "c" not in row.cells


def test_optional_column_is_empty_where_it_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n")
    (row,) = rows(path, "a", optional=("b", "z"))
    assert (row.get("b"), row.get("z")) == ("2", "")


def test_lines_count_quoted_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,"two\nlines"\n\n\n2,x\n')
    assert [(row["a"], row.line) for row in rows(path, "a")] == [("1", 2), ("2", 6)]


def test_bytes_that_are_no_utf8_do_not_stop_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\nThanh H\xf3a,2\n")
    (row,) = rows(path, "a")
    assert row["a"] == "Thanh H\ufffda"


def test_short_header_is_replaced_by_names(tmp_path: Path) -> None:
    path = write(tmp_path, "name,box [x,y,w,h],,,\nn.png,1,2,3,4\n")
    (row,) = rows(path, "name", names=("name", "x", "y", "w", "h"))
    assert [row.number(column) for column in "xywh"] == [1, 2, 3, 4]


def test_trailing_blank_cells_are_no_cells(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,\n1,2,\n3,4\n5,6,,\n")
    assert [row["b"] for row in rows(path, "a", "b")] == ["2", "4", "6"]


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        ("a,bb\n1,2\n", ":1", "'b' is missing"),
        ("a,b,b\n1,2,3\n", ":1", "occurs 2 times"),
        ("a,b\n1,2\n1\n", ":3", "1 cells under 2 columns"),
        ("a,b\n1,2,3\n", ":2", "3 cells under 2 columns"),
        ('a,b\n1,2\n"1,2\n1,2\n', ":3", "no valid"),
        ("a,b\n1," + "x" * 140_000 + "\n", ":2", "no valid"),
        ("", ":1", "is empty"),
    ],
)
def test_malformed_table_names_its_line(tmp_path: Path, data: str, where: str, what: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(TableError, match=what) as caught:
        rows(path, "a", "b")
    assert caught.value.where == f"{path}{where}"


def test_missing_column_offers_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "Finding Label,x\nMass,1\n")
    with pytest.raises(TableError, match="Did you mean 'Finding Label'"):
        rows(path, "Finding Labels")


def test_utf16_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(TableError, match="UTF-16"):
        rows(path, "a")


@pytest.mark.parametrize("target", ["nothing.csv", "."])
def test_unreadable_table_is_a_layout_error(tmp_path: Path, target: str) -> None:
    with pytest.raises(LayoutError, match="cannot be read"):
        rows(tmp_path / target, "a")


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf", "1e999", "1,5"])
def test_what_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TableError, match="number belongs"):
        Row(tmp_path / "t.csv", 7, {"x": text}).number("x")


def test_whole_number_may_be_written_as_float(tmp_path: Path) -> None:
    assert Row(tmp_path / "t.csv", 7, {"x": "3.0"}).whole("x") == 3
    with pytest.raises(TableError, match=r"t\.csv:7.*whole number"):
        Row(tmp_path / "t.csv", 7, {"x": "3.5"}).whole("x")


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@settings(max_examples=80, deadline=None)
@given(table=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_cells_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str]]
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("p", "q", "r"), *table])
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    kept = [tuple(cell.strip() for cell in row) for row in table if any(cell.strip() for cell in row)]
    assert [(row["p"], row["q"], row["r"]) for row in rows(path, "p", "q", "r")] == kept


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b""])
def test_broken_json_is_a_table_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(TableError, match="JSON"):
        read_json(path)
    with pytest.raises(TableError, match="JSON"):
        read_json(tmp_path / "nothing.json")
