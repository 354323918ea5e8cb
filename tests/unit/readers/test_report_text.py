"""Sections of radiology reports, marks of anonymity, and reports that say nothing of their picture."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umif.readers.mimic_sections import CHARACTERS_OF, NO_USABLE_TEXT, SECTION_OF, WITHOUT_TEXT, describe_study
from umif.readers.report_text import (
    BLANK,
    NOT_DESCRIBED,
    REFERS,
    UNCHANGED,
    clean_passage,
    describe,
    section_name,
    split_sections,
    why_empty,
)

if TYPE_CHECKING:
    from pathlib import Path

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for infection

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation.  Bilateral
 nodular opacities (___) since ___.

 IMPRESSION:

 1.  Nipple shadows: unchanged
 2.  No pneumonia.
"""


def test_sections_are_found_by_their_headers() -> None:
    sections = split_sections(REPORT)
    assert list(sections) == ["preamble", "examination", "indication", "comparison", "findings", "impression"]
    assert sections["comparison"].strip() == "None."
    assert sections["impression"].split() == "1. Nipple shadows: unchanged 2. No pneumonia.".split()  # noqa: SIM905


def test_text_is_findings_then_impression_without_marks_numbers_and_hard_breaks() -> None:
    assert describe(REPORT).text == (
        "There is no focal consolidation. Bilateral nodular opacities since.\nNipple shadows: unchanged. No pneumonia."
    )


def test_last_of_a_repeated_section_counts() -> None:
    assert describe(" FINDINGS:  First.\n\n FINDINGS:  Second.").text == "Second."


@pytest.mark.parametrize(
    ("header", "section"),
    [
        ("IMPRESSION", "impression"), ("IMPRESSOIN", "impression"), ("CONCLUSION", "impression"),
        ("FINDINGS/ IMPRESSION", "impression"), ("FINDINGS AND  IMPRESSION", "impression"),
        ("CHEST, TWO VIEWS", "findings"), ("FINDNGS", "findings"), ("AP PORTABLE UPRIGHT", "findings"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "findings"), ("BONE WINDOWS", "findings"), ("RIBS", "findings"),
        ("PROVISIONAL FINDINGS IMPRESSION (PFI)", "impression"), ("CLINICAL HISTORY", "history"),
        ("REASON FOR EXAM", "indication"), ("IDICATION", "indication"), ("COMPARRISON", "comparison"),
        ("ADDENDUM BY RADIOLOGIST", "addendum"), ("WETREAD", "wet read"), ("RECOMMENDATION(S)", "recommendations"),
        ("TECHNIQUE", "technique"), ("ABDOMEN", "abdomen"),
    ],
)  # fmt: skip
def test_misspelt_and_unknown_headers(header: str, section: str) -> None:
    assert section_name(header) == section
    # A header longer than one word is found in its line, too.
    assert section in split_sections(f" X\n {header}:  words")


def test_words_before_a_colon_within_a_sentence_are_no_header() -> None:
    assert list(split_sections("The impression: clear.\nHEART RATE 90: fast\nAt 10 AM:\n CT:x")) == ["preamble"]


def test_without_findings_and_impression_the_last_paragraph_counts_unless_it_has_another_header() -> None:
    title, comparison = " CHEST RADIOGRAPH\n \n", " COMPARISON: ___.\n \n"
    assert describe(f"{title}{comparison} Clear\n lungs.\n").text == "Clear lungs."
    assert describe(f"{title} HISTORY: cough\n\n{comparison}").reason == NOT_DESCRIBED
    assert describe(title).reason == NOT_DESCRIBED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", BLANK), (" ___ \n", BLANK), ("XXXX.", BLANK), ("None.", BLANK), ("[**Name**]", BLANK), ("n/a", BLANK),
        ("As above.", REFERS), ("See above", REFERS), ("Please see CT report.", REFERS), ("1. As above.", REFERS),
        ("As described above.", REFERS), ("See findings.", REFERS), ("Refer to the report of the same day.", REFERS),
        ("No change.", UNCHANGED), ("No significant interval change.", UNCHANGED), ("Unchanged.", UNCHANGED),
        ("No change since the prior study of ___.", UNCHANGED), ("As above. No change.", UNCHANGED),
        ("There has been no interval change from ___.", UNCHANGED), ("Stable.", UNCHANGED),
        ("No acute change.", None), ("Stable cardiomegaly.", None), ("No change in the large effusion.", None),
        ("As above, with edema.", None), ("Normal.", None), ("No comparison. Clear.", None),
        ("See above. Small effusion.", None),
    ],
)  # fmt: skip
def test_texts_that_say_nothing_of_the_picture(text: str, reason: str | None) -> None:
    assert why_empty(clean_passage(text)) == reason


def test_an_impression_that_points_to_the_findings_is_left_out_alone() -> None:
    assert describe(" FINDINGS: Small effusion.\n\n IMPRESSION: As above.").text == "Small effusion."
    assert describe(" FINDINGS: As below.\n\n IMPRESSION: Unchanged.").reason is UNCHANGED


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("seen by Dr. ___ on ___ .", "seen by Dr. on."),
        ("1. One 2. Two", "One 2. Two"),
        ("1. One.\n2) Two\n3. Three", "One. Two. Three"),
        ("fracture of rib\n 7. No effusion", "fracture of rib 7. No effusion"),
        ("[**2101-1-1**] film, (___), clear", "film, clear"),
        ("XXXX year old; XXXX. XXXX.", "year old."),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert clean_passage(raw) == clean


@given(st.text(alphabet="AB:\n _1.()[*]X asbove nchge", max_size=300))
def test_any_text_gives_a_text_or_a_reason(report: str) -> None:
    found = describe(report)
    assert (found.text is None) != (found.reason is None)
    if found.text is not None:
        assert found.text == found.text.strip()
        assert why_empty(found.text.replace("\n", " ")) is None
        assert "___" not in found.text


def test_tables_of_exceptions_are_whole_and_disjoint() -> None:
    assert (len(SECTION_OF), len(CHARACTERS_OF), len(WITHOUT_TEXT)) == (23, 23, 8)
    assert not (SECTION_OF.keys() & CHARACTERS_OF.keys() | SECTION_OF.keys() & WITHOUT_TEXT)
    assert all(0 < start < end for start, end in CHARACTERS_OF.values())


def test_exceptions_are_applied_to_their_studies_alone() -> None:
    report = " HISTORY: Edema.\n\n IMPRESSION: Clear."
    assert describe_study("s51491012", report).text == "Edema."
    assert describe_study("s51491012", " IMPRESSION: Clear.").reason == NOT_DESCRIBED
    assert describe_study("s58235663", report) == (None, NO_USABLE_TEXT)
    assert describe_study("s56579911", "x" * 59 + "Small nodule." + " " * 146 + "y" * 9).text == "Small nodule."
    assert describe_study("s56579911", "x" * 20).reason == BLANK
    assert describe_study("s59999999", report).text == "Clear."


def test_real_reports_read_from_their_flat_form_as_from_their_columns(real_data: Path) -> None:
    """Open-i's tables hold the sections apart: written out as one report, the same text comes back."""
    with (real_data / "openi-indiana-reports" / "indiana_reports.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    compared = 0
    for row in rows:
        names = ("indication", "comparison", "findings", "impression")
        report = " FINAL REPORT\n" + "".join(f" {name.upper()}:  {row[name]}\n \n" for name in names if row[name])
        passages = dict.fromkeys(clean_passage(row[name]) for name in ("findings", "impression"))
        expected = "\n".join(passage for passage in passages if why_empty(passage) is None)
        assert (describe(report).text or "") == expected, report
        compared += bool(expected)
    assert compared > 2_900
