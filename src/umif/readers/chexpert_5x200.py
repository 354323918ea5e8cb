"""CheXpert 5×200: of CheXpert's training part, 200 images for each of five findings that show no other one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Record
from umif.readers.chexpert import (
    FINDINGS,
    NAMESPACE,
    STATES,
    Chexpert,
    Pictures,
    parse_adult_age,
    parse_path,
    parse_states,
)
from umif.readers.patients import parse_sex
from umif.readers.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.chexpert import ImagePath
    from umif.readers.tables import Row

LIST = "chexpert_5x200.csv"
CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
IMAGES_PER_CLASS = 200
_ABSENT = ("", "0.0", "0")
_PRESENT = ("1.0", "1")
_OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)


@register("reader", "chexpert-5x200")
class Chexpert5x200(Chexpert):
    """Reader of CheXpert 5×200, by a list `chexpert_5x200.csv` if one is here, else chosen from `train.csv`.

    The first list was never published. The choice here is among the frontal images whose only stated finding is one
    of the five: the 200 whose paths have the smallest SHA-256. So it needs no seed, and depends on neither the order
    of the table nor the pictures that are on disk.
    """

    card: ClassVar[Card] = Card(
        title="CheXpert 5×200",
        licence="Stanford University Dataset Research Use Agreement: no commercial use, no passing on",
        citation="Huang et al., GLoRIA: A Multimodal Global-Local Representation Learning Framework for "
        "Label-efficient Medical Image Recognition, ICCV 2021 (protocol); Irvin et al., CheXpert, AAAI 2019 (data)",
        images=1_000,
        access="registration",
        kinds=("class",),
        how_to_get="https://stanfordaimi.azurewebsites.net (Shared Datasets, CheXpert): the folder of chexpert",
        layout=(
            "train.csv                                             (or in a folder `CheXpert-v1.0 batch …`)\n"
            "train/patient00001/study1/view1_frontal.jpg           (or in folders `CheXpert-v1.0 batch …`)\n"
            "chexpert_5x200.csv                                    (optional: Path and the five findings)"
        ),
        overlaps=("chexpert, chexpert-plus: all images are in their training part (same patient keys)",),
        excluded="all other images of CheXpert; chosen images whose file is missing",
        checked_on="tables",
        checked_against="the rule, on the 300 rows of train.csv that are open; pictures on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per chosen image, by name."""
        chosen = self._listed() if (self.root / LIST).exists() else self._choose()
        on_disk = Pictures(self, self._folders())
        for item in sorted(chosen):
            path, row = chosen[item]
            picture = on_disk.take(item)
            if picture is None:
                self.exclude(item, "image file is missing", row.where)
                continue
            yield Record(
                image=picture,
                image_id=item,
                patient=path.patient,
                patient_namespace=NAMESPACE,
                study=path.study,
                view=row.get("AP/PA") or row.get("Frontal/Lateral") or path.side.capitalize(),
                sex=parse_sex(self, row.get("Sex")),
                age_years=parse_adult_age(self, row.get("Age")),
                split="test",
                findings=parse_states(row, [name for name in FINDINGS if name in row.cells]),
                where=row.where,
            )
        on_disk.exclude_rest("not one of the five times 200")

    def _listed(self) -> dict[str, tuple[ImagePath, Row]]:
        listed: dict[str, tuple[ImagePath, Row]] = {}
        for row in read_table(self.root / LIST, ("Path", *CLASSES), _OPTIONAL):
            path = parse_path(row, "Path")
            if path is None or path.part != "train":
                raise row.error(f"'Path' is {row['Path']!a:.120}", fix="expected CheXpert-v1.0/train/patient…")
            if sum(row[name] in _PRESENT for name in CLASSES) != 1:
                raise row.error("does not have exactly one of the five findings")
            if path.item in listed:
                raise row.error(f"{path.item!r} is listed twice")
            listed[path.item] = (path, row)
        return listed

    def _choose(self) -> dict[str, tuple[ImagePath, Row]]:
        table = self._table("train.csv") or self.require("train.csv")
        candidates: dict[str, dict[str, tuple[ImagePath, Row]]] = {name: {} for name in CLASSES}
        for path, row in self._rows(table, "train"):
            name = only_finding(row)
            if name is not None and path.side == "frontal":
                candidates[name][path.item] = (path, row)
        chosen: dict[str, tuple[ImagePath, Row]] = {}
        for name, found in candidates.items():
            first = sorted(found, key=lambda item: hashlib.sha256(item.encode()).digest())[:IMAGES_PER_CLASS]
            if len(first) < IMAGES_PER_CLASS:
                self.note(f"fewer than {IMAGES_PER_CLASS} candidates for {name}")
            chosen |= {item: found[item] for item in first}
        return chosen


def only_finding(row: Row) -> str | None:
    """Return the one of the five findings that is present where no other observation is present or uncertain.

    `No Finding` is not asked; `Support Devices` counts like a finding.
    """
    for column in FINDINGS:
        if row[column] and row[column] not in STATES:
            parse_states(row)  # says what is wrong
    stated = [name for name in FINDINGS if name != "No Finding" and row[name] not in _ABSENT]
    if len(stated) != 1 or stated[0] not in CLASSES or row[stated[0]] not in _PRESENT:
        return None
    return stated[0] if row["No Finding"] != "-1.0" else None
