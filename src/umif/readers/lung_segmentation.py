"""The demo of lung-segmentation-2d: radiographs with one mask of both lungs each."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Reader, Record, Region
from umif.readers.folders import pictures, relative_name
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.tables import Row

TABLE, IMAGES = "idx.csv", "Data"
FINDING = "lung"


@register("reader", "lung-segmentation")
class LungSegmentation(Reader):
    """Reader of the folder `Demo` of imlab-uiip/lung-segmentation-2d.

    `idx.csv` pairs each picture with its mask, white in both lungs; both lie in `Data`. The masks are of the
    pictures' size. Nothing says who the patients are.
    """

    card: ClassVar[Card] = Card(
        title="lung-segmentation-2d, demo",
        licence="MIT (the repository); nothing is stated about the pictures",
        citation="imlab-uiip, lung-segmentation-2d: Lung fields segmentation on CXR images using convolutional neural "
        "networks, 2018",
        images=4,
        access="open",
        kinds=("segment",),
        how_to_get="git clone https://github.com/imlab-uiip/lung-segmentation-2d",
        layout=(
            "[Demo/]idx.csv              img, mask\n[Demo/]Data/<n>.jpg\n[Demo/]Data/<n>-mask.png    both lungs, white"
        ),
        overlaps=("where the pictures come from is not stated; the JSRT and Montgomery sets are likely",),
        excluded="pictures in no row of idx.csv; masks of missing pictures; rows whose picture is missing",
        checked_on="images",
        checked_against="the 4 pictures and masks that the repository holds",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per row whose picture is on disk, by path."""
        base = self.root / "Demo" if (self.root / "Demo").is_dir() else self.root
        rows = self._rows(self.require((base / TABLE).relative_to(self.root).as_posix()))
        folder = self.require((base / IMAGES).relative_to(self.root).as_posix())
        on_disk = {path: item for item, path in pictures(self, folder)}
        used: set[Path] = set()
        found: dict[str, Record] = {}
        for name, row in rows.items():
            path, mask = folder / name, folder / (relative_name(row["mask"]) or "")
            if path not in on_disk:
                self.exclude(path.relative_to(self.root).as_posix(), "image file is missing", row.where)
                continue
            used.add(path)
            regions: tuple[Region, ...] = ()
            if mask in on_disk and mask != path:
                used.add(mask)
                regions = (Region(FINDING, "mask", mask_path=mask),)
            else:
                self.note("mask file is missing")
            found[on_disk[path]] = Record(image=path, image_id=on_disk[path], regions=regions, where=row.where)
        self.note("nothing says who the patients are: each picture counts as a patient of its own", len(found))
        yield from (found[item] for item in sorted(found))
        masks = {folder / (relative_name(row["mask"]) or "") for row in rows.values()}
        for path, item in on_disk.items():
            if path not in used:
                self.exclude(item, "mask of a missing picture" if path in masks else f"no row in {TABLE}")

    def _rows(self, table: Path) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for row in read_table(table, ("img", "mask")):
            name = relative_name(row["img"])
            if not row["img"]:
                self.exclude(row.where, "row names no picture", row.where)
            elif name is None or (row["mask"] and relative_name(row["mask"]) is None):
                self.exclude(f"{row.where} {row['img']!a}", "path leaves the folder", row.where)
            elif name not in rows:
                rows[name] = row
            elif rows[name].cells == row.cells:
                self.note("repeated row, equal")
            else:
                raise row.error(f"{name!r} has another mask at line {rows[name].line}")
        return rows
