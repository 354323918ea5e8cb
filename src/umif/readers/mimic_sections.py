"""MIMIC-CXR's reports that keep to no rule: where the text of some seventy studies stands.

Source: the tables that the dataset's authors published with their section splitter.
"""

from __future__ import annotations

from umif.readers.report_text import NOT_DESCRIBED, Described, clean_passage, describe, split_sections, why_empty

NO_USABLE_TEXT = "report is known to hold no usable text"

# The section that describes the picture, by study.
SECTION_OF = {
    study: section
    for section, studies in {
        "recommendations": "s50913680 s59768032 s59067458 s59087630 s58157373 s56482935 s58375018",
        "examination": "s59363654 s53356173 s50743547 s59215320 s55157853",
        "technique": "s59279892 s53202765 s50808053",
        "indication": "s57936451 s50058765 s51966317 s55124749 s54365831 s54654948",
        "note": "s56451190",
        "history": "s51491012",
    }.items()
    for study in studies.split()
}
# The characters of the report that describe the picture: first, and one past the last.
CHARACTERS_OF = {
    "s50525523": (201, 349), "s57564132": (233, 554), "s59982525": (313, 717), "s53488209": (149, 475),
    "s54875119": (234, 988), "s50196495": (59, 399), "s56579911": (59, 218), "s52648681": (292, 631),
    "s59889364": (172, 453), "s53514462": (73, 377), "s59505494": (59, 450), "s53182247": (59, 412),
    "s51410602": (47, 320), "s56412866": (522, 822), "s54986978": (59, 306), "s59003148": (262, 505),
    "s57150433": (61, 394), "s56760320": (219, 457), "s59562049": (158, 348), "s52674888": (145, 296),
    "s55258338": (192, 568), "s59330497": (140, 655), "s52119491": (179, 454),
}  # fmt: skip
WITHOUT_TEXT = frozenset(
    "s58235663 s50798377 s54168089 s53071062 s56724958 s54231141 s53607029 s52035334".split()  # noqa: SIM905
)


def describe_study(study: str, report: str) -> Described:
    """Return what a report of MIMIC-CXR says of its pictures, or why it says nothing. `study` is `s` and its number."""
    if study in WITHOUT_TEXT:
        return Described(None, NO_USABLE_TEXT)
    if study in CHARACTERS_OF:
        passage = clean_passage(report[slice(*CHARACTERS_OF[study])])
    elif study in SECTION_OF:
        section = split_sections(report).get(SECTION_OF[study])
        if section is None:
            return Described(None, NOT_DESCRIBED)
        passage = clean_passage(section)
    else:
        return describe(report)
    reason = why_empty(passage)
    return Described(passage) if reason is None else Described(None, reason)
