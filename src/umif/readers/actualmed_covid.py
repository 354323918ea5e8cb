"""Actualmed COVID-19 chest X-ray dataset: radiographs with the outcome of a test for COVID-19."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from umif.config import register
from umif.readers.base import Card, Finding, LabelState, Reader, Text
from umif.readers.covidnet_metadata import located_rows, make_record, parse_notes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.readers.base import Record

COVID = "COVID-19"
_STATES = {"negative": LabelState.ABSENT, "inconclusive": LabelState.UNCERTAIN}
# `Negative (covid-19 viral infection is excluded), date taken (YYYYMMDD): 20200319`: the outcome, the date, no more.
_OUTCOME = re.compile(r"(negative|inconclusive)\b(?:\s*\(covid-19 viral infection is excluded\))?", re.IGNORECASE)
_DATE = re.compile(r"date taken \(YYYYMMDD\):\s*\d{8}", re.IGNORECASE)


@register("reader", "actualmed-covid")
class ActualmedCovid(Reader):
    """Reader of agchung/Actualmed-COVID-chestxray-dataset.

    `finding` names what is present. The notes say what it cannot: `Negative` excludes COVID-19, which is then absent,
    and `Inconclusive`, where `finding` is blank, leaves it uncertain. What the notes hold besides outcome and date
    would be a text; in the rows seen there is none.
    """

    card: ClassVar[Card] = Card(
        title="Actualmed COVID-19 chest X-ray dataset",
        licence='none stated ("for research purposes only")',
        citation="Chung, Actualmed COVID-19 Chest X-ray Dataset Initiative, 2020; used by Wang et al., COVID-Net, "
        "Scientific Reports 2020",
        images=238,
        access="open",
        kinds=("report", "class"),
        how_to_get="git clone https://github.com/agchung/Actualmed-COVID-chestxray-dataset",
        layout="metadata.csv\nimages/<imagename>",
        overlaps=("COVIDx train: contains these images",),
        excluded="images without a row in metadata.csv; rows whose file is missing; CT",
        checked_on="images",
        checked_against="44 images and their rows",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph with a row, by name."""
        for item, path, row in located_rows(self, "imagename", "name"):
            notes = parse_notes(row)
            outcome = _OUTCOME.match(notes)
            state = _STATES[outcome[1].lower()] if outcome else None
            if state is not None and COVID in row["finding"]:
                raise row.error(f"the finding is {row['finding']!r}, the notes say {outcome and outcome[1]!r}")
            extra = () if state is None else (Finding(COVID, state),)
            texts = self._texts(notes, outcome)
            yield make_record(self, item, path, row, patient=row["patientid"] or None, texts=texts, extra=extra)

    def _texts(self, notes: str, outcome: re.Match[str] | None) -> tuple[Text, ...]:
        rest = _DATE.sub("", notes[outcome.end() :] if outcome else notes).strip(" ,.;")
        return (Text("report", rest, "notes"),) if any(character.isalnum() for character in rest) else ()
