"""Cells of a user's table → a record's values, each complaint with its line, its column and the way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from umif.readers.base import Finding, LabelState, Text
from umif.readers.patients import parse_age, parse_sex
from umif.readers.table_columns import SPLITS
from umif.readers.table_config import CONFIG, STATES, is_blank, simple

if TYPE_CHECKING:
    from umif.readers.base import Reader, Split, TextSource
    from umif.readers.table_columns import Columns, Single
    from umif.readers.table_config import TableConfig
    from umif.readers.tables import Row

_LONGEST_LABEL = 120  # characters; a longer one is a text in the wrong column
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


class Cells:
    """Reads the rows of one table, as its columns and its config say."""

    def __init__(self, reader: Reader, columns: Columns, config: TableConfig) -> None:
        self._reader = reader
        self._columns = columns
        self._config = config
        self._states = config.states.table
        # One object for each finding and state: a table may have a hundred thousand rows of fourteen.
        self._findings: dict[tuple[str, LabelState], Finding] = {}

    def get(self, row: Row, kind: Single) -> str | None:
        """Return the cell of a column that a picture has one of; `None` if it is blank or there is no such column."""
        column = self._columns.single.get(kind)
        text = row[column] if column is not None else ""
        return None if is_blank(text) else text

    def key(self, row: Row, kind: Literal["patient", "study"]) -> str | None:
        """Return the key of a patient or study; `12.0`, as blanks elsewhere in a column make of 12, is `12`."""
        text = self.get(row, kind)
        return re.sub(r"\.0+$", "", text) if text is not None and re.fullmatch(r"\d+\.0+", text) else text

    def view(self, row: Row) -> str | None:
        """Return the view as the table spells it, or as the config translates it."""
        text = self.get(row, "view")
        return None if text is None else self._config.values.view.get(simple(text), text) or None

    def sex(self, row: Row) -> Literal["F", "M"] | None:
        """Return `F` or `M`."""
        text = self.get(row, "sex") or ""
        return parse_sex(self._reader, self._config.values.sex.get(simple(text), text))

    def age(self, row: Row) -> float | None:
        """Return the age in years."""
        return parse_age(self._reader, self.get(row, "age") or "")

    def split(self, row: Row) -> Split | None:
        """Return the official split.

        Raises:
            TableError: the cell is none that is known.
        """
        text = self.get(row, "split")
        if text is None:
            return None
        word = simple(self._config.values.split.get(simple(text), text))
        if word not in SPLITS:
            column = self._columns.single["split"]
            raise row.error(
                f"{column!r} holds {text!r} where train, val or test belongs",
                fix=f"say what it means in {CONFIG}:  values: {{split: {{{text}: train}}}}  or leave the column out:  "
                f"ignore: [{column}]",
            )
        return SPLITS[word]

    def texts(self, row: Row) -> tuple[Text, ...]:
        """Return report and caption, where there are any."""
        texts = []
        for columns, kind in ((self._columns.report, "report"), (self._columns.caption, "caption")):
            parts = [text for column in columns if not is_blank(text := row[column])]
            if any("\ufffd" in part for part in parts):
                encoding = self._config.encoding.removesuffix("-sig")
                self._reader.note(f"text that is no {encoding}: set encoding in {CONFIG}, such as cp1252")
            if parts:
                source: TextSource = "notes" if "notes" in columns[0].casefold() else "report"
                if kind == "caption":
                    texts.append(Text("caption", "\n".join(parts), "caption"))
                else:
                    texts.append(Text("report", "\n".join(parts), source))
        return tuple(texts)

    def findings(self, row: Row) -> dict[str, Finding]:
        """Return what is stated of each finding, by its name; what is not mentioned is left out.

        Raises:
            TableError: a value outside the encoding, or two columns that contradict each other.
        """
        found: dict[str, Finding] = {}
        for column, name in self._columns.findings.items():
            cell = row[column]
            state = self._states.get(cell) or self._states.get(simple(cell))
            if state is None:
                raise row.error(
                    f"{column!r} holds {row[column]!r} where 1, 0, -1 or a blank belongs",
                    fix=f"say what it means in {CONFIG}:  states: {{present: [{row[column]}]}}  or leave the column "
                    f"out:  ignore: [{column}]",
                )
            if state is not LabelState.NOT_MENTIONED:
                self._add(row, found, self._finding(name, state))
        for column in self._columns.labels:
            for name in self.names(row, column):
                self._add(row, found, self._finding(name, LabelState.PRESENT))
        return found

    def _add(self, row: Row, found: dict[str, Finding], finding: Finding) -> None:
        known = found.setdefault(finding.name, finding)
        if known is not finding:
            raise row.error(f"{finding.name!r} is {known.state} in one column and {finding.state} in another")

    def _finding(self, name: str, state: LabelState) -> Finding:
        return self._findings.setdefault((name, state), Finding(name, state))

    def absent(self, name: str) -> Finding:
        """Return the finding `name`, absent."""
        return self._finding(name, LabelState.ABSENT)

    def names(self, row: Row, column: str) -> list[str]:
        """Return the labels that a cell lists: `a|b`, `a; b` or `['a', 'b']`.

        Raises:
            TableError: one is a number or a yes, which names nothing, or as long as a text.
        """
        cell, separators = row[column], self._config.separators
        if cell.startswith("[") and cell.endswith("]"):  # a list as Python writes it
            cell, separators = cell[1:-1], ","
        names: dict[str, None] = {}
        for part in re.split(f"[{re.escape(separators)}]", cell):
            text = part.strip().strip("'\"").strip()
            name = self._config.values.labels.get(simple(text))
            if name is None:
                name = "" if is_blank(text) else text
                self._check_name(row, column, name)
            if name:
                names[name] = None
        return list(names)

    def _check_name(self, row: Row, column: str, name: str) -> None:
        if _NUMBER.fullmatch(name) or (simple(name) in STATES and not is_blank(name)):
            raise row.error(
                f"{column!r} holds {name!r}, which names no finding",
                fix=f"say what it means in {CONFIG}:  values: {{labels: {{{name}: Pneumonia}}}}  or, if the column is "
                f"about one finding:  findings: {{{column}: Pneumonia}}",
            )
        if len(name) > _LONGEST_LABEL:
            raise row.error(
                f"{column!r} holds a text of {len(name)} characters where labels belong",
                fix=f"say what it is in {CONFIG}:  columns: {{report: {column}}}  or set separators",
            )
