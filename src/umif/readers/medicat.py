"""MedICaT: figures of open articles with captions and the sentences that refer to them; the radiographs are read."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Reader, Record, Text
from umif.readers.figure_captions import (
    LEAST_WORDS,
    clean_caption,
    has_parts,
    names_another_picture,
    why_no_radiograph,
)
from umif.readers.folders import pictures
from umif.readers.roco import PARTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIGURES = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
SAMPLE = "sample.jsonl"
OTHER_REFERENCE = "sentence that refers to the figure but speaks of other pictures"
_HASH = re.compile(r"[0-9a-f]{40}")
_URI = re.compile(r"[^/\\\0]{1,200}\.(?:png|jpe?g)", re.IGNORECASE)


class _Figure(NamedTuple):
    name: str
    article: str
    radiology: bool
    caption: str
    references: tuple[str, ...]


@register("reader", "medicat")
class Medicat(Reader):
    """Reader of MedICaT: of the figures marked as radiology, those whose caption names a radiograph and nothing else.

    The texts are the caption, then each sentence of the article that refers to the figure, if it does not speak of
    other pictures. A figure of several radiographs stays one image: where its parts lie is annotated for one figure
    in a hundred. An article is the patient.
    """

    card: ClassVar[Card] = Card(
        title="MedICaT",
        licence="each article's own; the collection for non-commercial use only",
        citation="Subramanian et al., MedICaT: A Dataset of Medical Images, Captions, and Textual References, Findings "
        "of EMNLP 2020",
        images=217_060,
        access="registration",
        kinds=("caption",),
        how_to_get="https://github.com/allenai/medicat (a form)",
        layout=f"release/{FIGURES}\nrelease/figures/<pdf_hash>_<fig_uri>",
        overlaps=("roco: its figures are left out of MedICaT",),
        excluded="figures not marked as radiology; captions that name no radiograph, or other pictures too; missing "
        "images; the annotations of parts (subcaptions_public.jsonl) are not read",
        checked_on="tables",
        checked_against="the published sample of figures (text alone); images on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per radiograph, in the order of the list."""
        path = self._list()
        on_disk: dict[str, tuple[str, Path]] = {}
        for relative, picture in pictures(self, self.root):
            if on_disk.setdefault(picture.name, (relative, picture))[1] is not picture:
                self.exclude(relative, "another copy of the same image is used")
        listed: dict[str, int] = {}
        for number, line in self._lines(path):
            where = f"{path.name}:{number}"
            figure = _parse(line, f"{path}:{number}")
            known = listed.get(figure.name)
            if known is not None:
                if known != hash(figure):
                    raise TableError(f"{figure.name!r} is listed twice, with other values", where=f"{path}:{number}")
                self.note("repeated row, equal")
                continue
            listed[figure.name] = hash(figure)
            yield from self._records(figure, on_disk.pop(figure.name, None), where)
        for relative, _ in on_disk.values():
            self.exclude(relative, "not in the list")

    def _list(self) -> Path:
        for name in (FIGURES, SAMPLE):
            found = sorted(self.root.rglob(name))
            if found:
                return found[0]
        return self.require(f"release/{FIGURES}")

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, line
        except OSError as error:
            raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None

    def _records(self, figure: _Figure, picture: tuple[str, Path] | None, where: str) -> Iterator[Record]:
        if not figure.radiology:
            reason: str | None = "figure is not marked as radiology"
        elif len(figure.caption.split()) < LEAST_WORDS:
            reason = f"caption of fewer than {LEAST_WORDS} words"
        else:
            reason = why_no_radiograph(figure.caption)
        if reason is None and picture is None:
            reason = "image file is missing"
        if reason is not None or picture is None:
            self.exclude(figure.name, reason or "", where)
            return
        if has_parts(figure.caption):
            self.note(PARTED)
        yield Record(
            image=picture[1],
            image_id=figure.name,
            patient=figure.article,
            texts=tuple(Text("caption", text, "caption") for text in self._texts(figure)),
            where=where,
        )

    def _texts(self, figure: _Figure) -> Iterator[str]:
        yield figure.caption
        for reference in dict.fromkeys(figure.references):
            if names_another_picture(reference):
                self.note(OTHER_REFERENCE)
            elif len(reference.split()) >= LEAST_WORDS and reference != figure.caption:
                yield reference


def _parse(line: bytes, where: str) -> _Figure:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"is not valid JSON: {error}", where=where) from None
    if not isinstance(entry, dict):
        raise TableError("holds no JSON object", where=where)
    article, uri, radiology = entry.get("pdf_hash"), entry.get("fig_uri"), entry.get("radiology")
    if not isinstance(article, str) or _HASH.fullmatch(article) is None:
        raise TableError(f"the pdf_hash is {article!r:.80}", where=where, fix="expected 40 hexadecimal digits")
    if not isinstance(uri, str) or _URI.fullmatch(uri) is None or not uri.isprintable():
        raise TableError(f"the fig_uri is {uri!r:.80}", where=where, fix="expected 3-Figure4-1.png")
    if not isinstance(radiology, bool):
        raise TableError(f"'radiology' is {radiology!r:.60}", where=where, fix="expected true or false")
    caption = _words(entry.get("s2_caption"), where) or _words(entry.get("s2orc_caption"), where)
    references = entry.get("s2orc_references")
    if not isinstance(references, list | None):
        raise TableError(f"'s2orc_references' is {references!r:.60}", where=where, fix="expected a list or null")
    sentences = tuple(" ".join(_words(reference, where).split()) for reference in references or ())
    return _Figure(f"{article}_{uri}", article, radiology, clean_caption(caption), sentences)


def _words(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TableError(f"{value!r:.60} stands where text belongs", where=where)
    # Half a character cannot be stored; the text around it can.
    return value.encode("utf-8", "replace").decode()
