"""Captions of figures in articles: whether they are of a radiograph, and their words without the figure's number.

Collections of figures hold all kinds of pictures and say of most only what the caption says. A caption that names a
radiograph and nothing else is believed; a figure of a radiograph beside a CT slice is left out.
"""

from __future__ import annotations

import re

NO_RADIOGRAPH = "caption names no radiograph"
OTHER_PICTURE = "caption names a picture of another kind"
LEAST_WORDS = 3
_HYPHEN = r"[\s‐-―-]?"
_RADIOGRAPH = re.compile(
    rf"\b(x{_HYPHEN}rays?|xrays?|radiogra(ph|f|m)\w*|roentgeno?gra\w*|plain{_HYPHEN}films?|cxr|skiagra\w*"
    r"|(ortho)?pantomogra\w*|opg)\b",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"\b(ct|cta|cect|hrct|cbct|ct-?scans?|computed|computeri[sz]ed|tomogra\w*|mr[ia]?|mrcp|magnetic resonance"
    r"|t[12][ -]?w(eighted|i)?"
    r"|ultraso\w*|sonogra\w*|echo(cardio\w*)?|doppler|pet|spect|scintigra\w*|\w*angiogra\w*|venogra\w*|arteriogra\w*"
    r"|aortogra\w*|\w*cholangio\w*gra\w*|urogra\w*|myelogra\w*|fluoroscop\w*|barium|endosc\w*|bronchosc\w*|colonosc\w*"
    r"|histolog\w*|\w*histopath\w*|patholog(y|ical) (specimen|section)s?|photogra\w*|\w*micrograph\w*|microscop\w*"
    r"|mammogra\w*|dexa|absorptiometr\w*|densitometr\w*|scans?|scout|diffract\w*|crystal\w*|autoradiogra\w*"
    r"|electrocardiogra\w*|ecg|fluorescence|gross specimen|intraoperative (view|picture|image))\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\A\s*fig(?:ure|\.)?\s*\.?\s*S?\d+\s*[a-z]?\s*[.:)-]*\s+", re.IGNORECASE)
_PART = re.compile(r"\(([a-h])\)|(?<![\w.])([A-H])[.:)]\s", re.IGNORECASE)


def why_no_radiograph(caption: str) -> str | None:
    """Return why a caption is not believed to be of a radiograph, or `None` if it is.

    Example:
        >>> why_no_radiograph("Chest X-ray and CT of the thorax."), why_no_radiograph("Radiograph of the left wrist.")
        ('caption names a picture of another kind', None)
    """
    if _RADIOGRAPH.search(caption) is None:
        return NO_RADIOGRAPH
    return OTHER_PICTURE if _OTHER.search(caption) else None


def names_another_picture(text: str) -> bool:
    """Return whether a sentence about a figure speaks of other pictures and of no radiograph."""
    return _OTHER.search(text) is not None and _RADIOGRAPH.search(text) is None


def clean_caption(caption: str) -> str:
    """Return a caption in one line without the figure's number (`Figure 4.`)."""
    return _LABEL.sub("", " ".join(caption.split()).replace("\0", "")).strip()


def has_parts(caption: str) -> bool:
    """Return whether a caption speaks of two parts of its figure or more: (A), (B)."""
    return len({(match[1] or match[2]).lower() for match in _PART.finditer(caption)}) > 1
