"""Any data set that is one table, with a row per picture: CSV, TSV or Parquet."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.errors import ConfigError, LayoutError, TableError, nearest
from umif.readers.base import Card, LabelState, Reader, Record, Region
from umif.readers.folders import PICTURE_SUFFIXES, is_file, pictures, relative_name
from umif.readers.picture_index import IMAGE_FOLDERS, MASK_FOLDERS, PictureIndex
from umif.readers.table_cells import Cells
from umif.readers.table_columns import USUAL, find_columns
from umif.readers.table_config import CONFIG, is_blank, load_config
from umif.readers.table_files import TABLES, read_header, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.base import Finding
    from umif.readers.table_columns import Columns
    from umif.readers.tables import Row

# What rows of one picture must agree about.
_SHARED = ("patient", "study", "view", "sex", "age_years", "split")
_WORKBOOKS = (".xlsx", ".xls", ".ods", ".numbers")


@register("reader", "table")
class Table(Reader):
    """Reader of a user's own table.

    The root is the table, or a folder with one table in it. Columns are known by their usual names
    (`table_columns.USUAL`); `umif-table.yaml` beside the table (`table_config.TableConfig`) names others. Several rows
    of one picture are joined: labels, texts and masks add up, and whatever contradicts is refused.
    """

    card: ClassVar[Card] = Card(
        title="Your own data, listed in a table",
        licence="that of your data",
        citation="that of your data",
        images=None,
        kinds=("report", "caption", "class", "segment"),
        how_to_get="your own: docs/your_data.md shows how, in five minutes",
        layout=(
            "cases.csv               (one table; .tsv and .parquet as well; columns by their usual names, such as\n"
            "                         image_path, patient_id, report, label, split)\n"
            f"{CONFIG}         (optional: other names and encodings, image_root)\n"
            "images/**/*.png         (anywhere beside the table)"
        ),
        overlaps=("without a column of patients each picture counts as a patient of its own",),
        excluded="rows without a picture, or whose picture is missing or lies outside; pictures without a row",
        checked_on="tables",
        checked_against="generated tables in all three formats; NIH ChestX-ray14's and RSNA's own tables",
    )

    def __init__(self, root: str | Path) -> None:
        path = Path(root)
        if not path.exists() and path.parent.is_dir():
            siblings = sorted(other.name for other in path.parent.iterdir())[:1000]
            raise LayoutError("there is no such table or folder", where=path, fix=nearest(path.name, siblings))
        super().__init__(path if path.is_dir() else path.parent)
        self._folder = self.root
        self._table = self._only_table() if path.is_dir() else path
        self._config_path = self._folder / CONFIG
        self._config = load_config(self._folder)
        self._images = self._inner_folder("image_root", self._config.image_root)
        mask_root = self._config.mask_root
        self._masks = self._images if mask_root is None else self._inner_folder("mask_root", mask_root)
        # All files of a record lie in `root`, so it widens where the config points out of the table's folder.
        roots = [os.path.abspath(path) for path in (self._folder, self._images, self._masks)]  # noqa: PTH100
        if os.path.commonpath(roots) != roots[0]:
            self._images, self._masks = Path(roots[1]), Path(roots[2])
            self.root = Path(os.path.commonpath(roots[1:]))
        base = self._inside(self._images)
        self._base = (
            "" if base == "." else f"{base}/"
        )  # of the pictures within the root; text, since asked for each row
        self._index = PictureIndex(())
        self._found_masks = 0
        self._lost_mask: tuple[Row, str] | None = None

    def records(self) -> Iterator[Record]:
        """Yield one record per picture of the table that is on disk, by path."""
        header = read_header(self._table, self._config)
        columns = self._find_columns(header)
        cells = Cells(self, columns, self._config)
        on_disk = dict(pictures(self, self._images))
        self._index = PictureIndex(on_disk)
        self._found_masks, self._lost_mask = 0, None
        self._note_columns(columns)
        records: dict[str, Record] = {}
        listed: dict[str, dict[str, None]] = {}  # picture → its listed labels, where the others are to be absent
        missing: dict[str, Row] = {}
        for row in read_rows(self._table, header, columns.used, self._config):
            item = self._picture(row, cells, missing)
            if item is not None:
                record = self._record(row, item, cells, columns)
                records[item] = self._joined(row, records[item], record) if item in records else record
                if self._config.unlisted == "absent":
                    names = dict.fromkeys(name for column in columns.labels for name in cells.names(row, column))
                    listed.setdefault(item, {}).update(names)
        self._check_found(records, missing)
        self._add_absent(records, listed, cells)
        masks = (region.mask_path for record in records.values() for region in record.regions)
        used = {self._inside(path) for path in masks if path is not None}
        for item in sorted(on_disk.keys() | records.keys()):
            if item in records:
                yield records[item]
            elif item not in used:
                self.exclude(item, f"no row in {self._table.name}")

    def _only_table(self) -> Path:
        files = sorted(path for path in self._folder.iterdir() if is_file(path) and not path.name.startswith("."))
        tables = [path for path in files if path.suffix.lower() in TABLES]
        if len(tables) == 1:
            return tables[0]
        if tables:
            raise LayoutError(
                f"holds {len(tables)} tables: {', '.join(path.name for path in tables[:5])}",
                where=self._folder,
                fix=f"name the one to read, such as {tables[0]}; or join them, with a column 'split'",
            )
        book = next((path for path in files if path.suffix.lower() in _WORKBOOKS), None)
        fix = f"save {book.name} as CSV (UTF-8) beside it" if book else f"expected layout:\n{self.card.layout}"
        raise LayoutError("holds no table (.csv, .tsv, .parquet)", where=self._folder, fix=fix)

    def _inner_folder(self, key: str, name: str) -> Path:
        path = Path(os.path.normpath(self._folder / name))
        if not path.is_dir():
            raise ConfigError(
                f"{key} = {name!r}: there is no folder {path}",
                where=self._config_path,
                fix="write a path that starts from the table's folder, or a whole one",
            )
        return path

    def _find_columns(self, header: list[str]) -> Columns:
        columns = find_columns(self._table, header, self._config, self._config_path)
        if "image" in columns.single:
            return columns
        names = [name for name in header if name]
        first = next(read_rows(self._table, header, names, self._config), None)
        looks = [name for name in names if first and Path(first[name]).suffix.lower() in PICTURE_SUFFIXES]
        column = looks[0] if looks else names[0]
        raise TableError(
            "no column is known to hold the pictures' paths: " + ", ".join(map(repr, names[:12])),
            where=f"{self._table}:1",
            fix=f"name it {USUAL['image'][0]}, or write  columns: {{image: {column}}}  into {self._config_path}",
        )

    def _note_columns(self, columns: Columns) -> None:
        for name in columns.unused:
            self.note(f"column {name!r} is not used")
        if "patient" not in columns.single:
            self.note("no column of patients: each picture counts as a patient of its own")

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _path_in(self, folder: Path, text: str) -> str | None:
        """Return a path of a cell as one within `folder`, or `None` if it leads out of it."""
        prefix = self._config.strip_prefix
        if prefix and text.startswith(prefix):
            text = text[len(prefix) :].lstrip("/\\")
        if text.startswith(os.sep):
            text = text.removeprefix(os.path.abspath(folder) + os.sep)  # noqa: PTH100
        return relative_name(text)

    def _picture(self, row: Row, cells: Cells, missing: dict[str, Row]) -> str | None:
        """Return the picture of a row, as its path within the root; else exclude the row, or add it to `missing`."""
        text = cells.get(row, "image")
        if text is None:
            self.exclude(row.where, "row names no picture", row.where)
            return None
        name = self._path_in(self._images, text)
        if name is None:
            self.exclude(f"{row.where} {text!a}", "path leaves the folder", row.where)
            return None
        item = f"{self._base}{name}"
        found = self._index.find(name, [item, *(f"{self._base}{folder}/{name}" for folder in IMAGE_FOLDERS)])
        if not found and is_file(self._images / name):  # such as DICOM files without a suffix
            found = (item,)
        if len(found) > 1:
            raise row.error(
                f"{text!r} may be {found[0]!r} or {found[1]!r}",
                fix=f"write more of the path into the table, or set image_root in {self._config_path}",
            )
        if found:
            return found[0]
        if missing.setdefault(item, row) is not row:
            self.note("repeated row of a missing picture")
        return None

    def _record(self, row: Row, item: str, cells: Cells, columns: Columns) -> Record:
        findings = cells.findings(row)
        return Record(
            image=self.root / item,
            image_id=item,
            patient=cells.key(row, "patient"),
            patient_namespace=self._config.patient_namespace,
            study=cells.key(row, "study"),
            view=cells.view(row),
            sex=cells.sex(row),
            age_years=cells.age(row),
            split=cells.split(row),
            texts=cells.texts(row),
            findings=tuple(findings.values()),
            regions=tuple(self._regions(row, item, columns, findings)),
            where=row.where,
        )

    def _regions(self, row: Row, item: str, columns: Columns, findings: dict[str, Finding]) -> Iterator[Region]:
        for column, name in columns.masks.items():
            for text in re.split(f"[{re.escape(self._config.separators)}]", row[column]):
                if is_blank(text):
                    continue
                path = self._mask(row, item, text.strip())
                if path is not None:
                    yield Region(name or _only_finding(row, column, findings), "mask", mask_path=path)

    def _mask(self, row: Row, item: str, text: str) -> Path | None:
        name = self._path_in(self._masks, text)
        if name is not None:
            folders = [self._masks, *(self._masks / one for one in MASK_FOLDERS), self._images, self._folder]
            for folder in folders:
                path = folder / name
                if path != self.root / item and path.is_relative_to(self.root) and is_file(path):
                    self._found_masks += 1
                    return path
        self.note("mask path leaves the folder" if name is None else "mask file is missing")
        self._lost_mask = self._lost_mask or (row, text)
        return None

    def _joined(self, row: Row, old: Record, new: Record) -> Record:
        """Return one record of two rows of one picture.

        Raises:
            TableError: they contradict each other.
        """
        shared = {}
        for field in _SHARED:
            one, other = getattr(old, field), getattr(new, field)
            if one is not None and other is not None and one != other:
                raise row.error(f"{new.image_id!r} has the {field} {other!r} here and {one!r} in {old.where}")
            shared[field] = other if one is None else one
        findings = {finding.name: finding for finding in old.findings}
        for finding in new.findings:
            known = findings.setdefault(finding.name, finding)
            if known != finding:
                raise row.error(
                    f"{finding.name!r} of {new.image_id!r} is {finding.state} here and {known.state} in {old.where}"
                )
        joined = replace(
            old,
            **shared,
            findings=tuple(findings.values()),
            texts=tuple(dict.fromkeys((*old.texts, *new.texts))),
            regions=tuple(dict.fromkeys((*old.regions, *new.regions))),
        )
        equal = joined == old
        self.note("repeated row, nothing new" if equal else "row that adds to an earlier one of the same picture")
        return joined

    def _check_found(self, records: dict[str, Record], missing: dict[str, Row]) -> None:
        """Account for missing pictures; where all are, say where they were looked for instead of giving nothing."""
        for item, row in missing.items():
            self.exclude(item, "image file is missing", row.where)
        if not records:
            hint = f"set image_root or strip_prefix in {self._config_path}"
            if missing:
                item, row = next(iter(missing.items()))
                path = self.root / item
                raise row.error(f"no picture of the table is there; the first is looked for at {path}", fix=hint)
            left_out = [e for e in self.account.exclusions if e.where is not None]
            what = f"no row can be used: {left_out[0].item}: {left_out[0].reason}" if left_out else "holds no rows"
            raise TableError(what, where=self._table, fix=hint if left_out else None)
        if self._lost_mask is not None and not self._found_masks:
            row, text = self._lost_mask
            raise row.error(
                f"no mask of the table is there; the first, {text!r}, is looked for in {self._masks}",
                fix=f"set mask_root in {self._config_path}, or leave the column out:  ignore: [its name]",
            )

    def _add_absent(self, records: dict[str, Record], listed: dict[str, dict[str, None]], cells: Cells) -> None:
        """State every label absent that others of the table list and a picture with labels does not."""
        every = dict.fromkeys(name for names in listed.values() for name in names)
        for item, names in listed.items():
            if not names:  # a blank cell says nothing
                continue
            record = records[item]
            known = {finding.name for finding in record.findings}
            absent = tuple(cells.absent(name) for name in every if name not in known)
            records[item] = replace(record, findings=(*record.findings, *absent))


def _only_finding(row: Row, column: str, findings: dict[str, Finding]) -> str:
    """Return what a mask shows whose column does not say it."""
    present = [finding.name for finding in findings.values() if finding.state is LabelState.PRESENT]
    if len(present) != 1:
        raise row.error(
            f"{column!r} does not say what its mask shows, and the row has {len(present)} present findings, not one",
            fix=f"say it in {CONFIG}:  masks: {{{column}: lung}}",
        )
    return present[0]
