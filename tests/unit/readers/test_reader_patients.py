"""Sex and age as datasets write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from umif.readers.base import Card, Reader, Record
from umif.readers.patients import parse_age, parse_sex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Empty(Reader):
    card: ClassVar[Card] = Card(licence="none", citation=None, images=None)

    def records(self) -> Iterator[Record]:
        return iter(())


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Empty(tmp_path)


@pytest.mark.parametrize(
    ("text", "years"),
    [("58", 58.0), ("058Y", 58.0), ("0", 0.0), ("006M", 0.5), ("120", 120.0), ("45.5", 45.5), (" 7 ", 7.0)],
)
def test_plausible_age_is_read_in_years(reader: Reader, text: str, years: float) -> None:
    assert parse_age(reader, text) == years
    assert not reader.account.notes


@pytest.mark.parametrize("text", ["121", "412", "-3", "85 or more", "nan", "1e3"])
def test_implausible_age_is_unknown_and_noted(reader: Reader, text: str) -> None:
    assert parse_age(reader, text) is None
    assert reader.account.notes == {"age is not plausible": 1}


def test_weeks_and_days_are_parts_of_a_year(reader: Reader) -> None:
    assert parse_age(reader, "052W") == pytest.approx(364 / 365.25)
    assert parse_age(reader, "010D") == pytest.approx(10 / 365.25)


@pytest.mark.parametrize(("text", "sex"), [("F", "F"), ("Female", "F"), ("m", "M"), ("", None), ("O", None)])
def test_sex_is_f_m_or_unknown(reader: Reader, text: str, sex: str | None) -> None:
    assert parse_sex(reader, text) == sex
    assert reader.account.notes.total() == (text == "O")
