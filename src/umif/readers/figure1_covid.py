"""Figure 1 COVID-19 chest X-ray dataset: radiographs from a network of physicians, with their notes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Reader, Text
from umif.readers.covidnet_metadata import located_rows, make_record, parse_notes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.base import Record
    from umif.readers.tables import Row

# Several images of a patient are told apart by a letter: COVID-00003a, COVID-00003b.
_PATIENT = re.compile(r"(COVID-\d+)[a-z]?")
# Notes that say again what `finding` says: `labeled Covid19`, `labeled as covid19`, `labeled normal patient`.
_LABEL_ONLY = re.compile(r"(?:labell?ed (?:as )?)?(?:covid-?19(?: confirmed)?|pneumonia|normal patient)", re.IGNORECASE)


@register("reader", "figure1-covid")
class Figure1Covid(Reader):
    """Reader of agchung/Figure1-COVID-chestxray-dataset.

    No column names the file: `patientid` is its stem, and without its last letter the patient. The notes are the
    physicians' words about the case; those that only repeat the finding are no text.
    """

    card: ClassVar[Card] = Card(
        title="Figure 1 COVID-19 chest X-ray dataset",
        licence='none stated ("for research purposes only")',
        citation="Chung, Figure 1 COVID-19 Chest X-ray Dataset Initiative, 2020; used by Wang et al., COVID-Net, "
        "Scientific Reports 2020",
        images=55,
        access="open",
        kinds=("report", "class"),
        how_to_get="git clone https://github.com/agchung/Figure1-COVID-chestxray-dataset",
        layout="metadata.csv\nimages/<patientid>.{jpg,png}",
        overlaps=("COVIDx train: contains these images",),
        excluded="images without a row in metadata.csv; rows whose file is missing; CT",
        checked_on="images",
        checked_against="44 images and their rows",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph with a row, by name."""
        for item, path, row in located_rows(self, "patientid", "stem"):
            match = _PATIENT.fullmatch(row["patientid"])
            patient = match[1] if match else row["patientid"]
            yield make_record(self, item, path, row, patient=patient, texts=self._texts(row))

    def _texts(self, row: Row) -> tuple[Text, ...]:
        text = parse_notes(row)
        if _LABEL_ONLY.fullmatch(text.rstrip(".")):
            self.note("notes that only repeat the finding")
            return ()
        if text.casefold() in ("n/a", "na", "none") or not any(character.isalnum() for character in text):
            return ()
        return (Text("report", text, "notes"),)
