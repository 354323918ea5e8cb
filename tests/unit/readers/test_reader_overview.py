"""The docs say of every reader what it was checked against, and say what the cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from umif.config import REGISTRY
from umif.errors import InputError
from umif.readers.overview import checks_table, with_table

PAGE = Path(__file__).parents[3] / "docs" / "readers.md"
# Those that the project promises.
PROMISED = (
    "actualmed-covid bone-fracture-yolo brax candid-ptx chexlocalize chexpert chexpert-5x200 chexpert-plus coco covidx "
    "figure1-covid folder lung-segmentation medicat midrc-ricord-1c mimic-cxr mimic-cxr-jpg mura nih-chestxray14 "
    "object-cxr openi padchest roco roco-v2 rsna-pneumonia siim-acr-pneumothorax slake table tbx11k vindr-cxr vqa-rad"
)


def test_the_page_holds_the_table_of_the_cards() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "run python -m umif.readers.overview docs/readers.md"
    for name in PROMISED.split():
        assert name in REGISTRY.names("reader")
        assert (
            page.count(f"\n| `{name}` | real images |")
            + page.count(f"\n| `{name}` | real tables |")
            + page.count(f"\n| `{name}` | layout description |")
            == 1
        ), name


def test_a_stale_table_is_replaced_and_a_page_without_marks_is_refused() -> None:
    page = "before\n<!-- checks: begin -->\n| old |\n<!-- checks: end -->\nafter\n"
    assert with_table(page) == f"before\n<!-- checks: begin -->\n{checks_table()}\n<!-- checks: end -->\nafter\n"
    with pytest.raises(InputError):
        with_table("no marks")
