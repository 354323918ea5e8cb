"""Sex and age as datasets write them → the record's values, with a note for what cannot be meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from umif.readers.base import Reader

OLDEST_YEARS = 120.0
_SEXES: dict[str, Literal["F", "M"]] = {"f": "F", "female": "F", "m": "M", "male": "M"}
# DICOM writes an age as 058Y, 006M, 003W or 010D.
_AGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)
_UNITS_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


def parse_sex(reader: Reader, text: str) -> Literal["F", "M"] | None:
    """Return `F` or `M`; anything else is unknown, and noted unless blank."""
    text = text.strip()
    sex = _SEXES.get(text.lower())
    if sex is None and text:
        reader.note("sex is neither F nor M")
    return sex


def parse_age(reader: Reader, text: str) -> float | None:
    """Return the age in years; what is no age from 0 to 120 years is unknown, and noted unless blank."""
    text = text.strip()
    if not text:
        return None
    match = _AGE.fullmatch(text)
    years = float(match[1]) / _UNITS_PER_YEAR[match[2].upper()] if match else None
    if years is None or not 0 <= years <= OLDEST_YEARS:
        reader.note("age is not plausible")
        return None
    return years
