"""COVIDx: chest radiographs of eight sources with three classes, or two, in lists of many versions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from umif.config import register
from umif.errors import LayoutError, TableError
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.readers.folders import PICTURE_SUFFIXES, pictures, relative_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from umif.readers.base import Split

COVID = "COVID-19"
_PRESENT, _ABSENT = LabelState.PRESENT, LabelState.ABSENT
# The classes exclude one another; `pneumonia` is one of another cause, so a COVID-19 image says nothing of it.
CLASSES: dict[str, tuple[Finding, ...]] = {
    "normal": (Finding("normal", _PRESENT), Finding("pneumonia", _ABSENT), Finding(COVID, _ABSENT)),
    "pneumonia": (Finding("normal", _ABSENT), Finding("pneumonia", _PRESENT), Finding(COVID, _ABSENT)),
    COVID: (Finding("normal", _ABSENT), Finding(COVID, _PRESENT)),
    "negative": (Finding(COVID, _ABSENT),),
    "positive": (Finding(COVID, _PRESENT),),
}
PARTS: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
# `rnsa` is a slip of the lists for `rsna`.
SOURCES = {name: name for name in ("rsna", "ricord", "stonybrook", "bimcv", "cohen", "sirm", "fig1", "actmed")}
SOURCES["rnsa"] = "rsna"
# Sources whose patients are known by the keys of their own readers.
NAMESPACES = {
    "cohen": "covid-chestxray",
    "ricord": "midrc-ricord-1c",
    "fig1": "figure1-covid",
    "actmed": "actualmed-covid",
}
_LIST = re.compile(r"(train|val|test)(?:_COVIDx[_-]?(CXR-?)?(\d*)([AB]?))?\.txt", re.IGNORECASE)
_RICORD = re.compile(r"(MIDRC-RICORD-1C-[A-Z0-9]+-\d+)-\d+-\d+\.\w+")
_FIGURE1 = re.compile(r"(COVID-\d+)[a-z]?")


class Version(NamedTuple):
    """A version of the lists; the later compares greater. The lists without a version are those of the download."""

    plain: bool
    cleaned: bool  # CXR-2, CXR-3, CXR-4
    number: int
    three_classes: bool


class Line(NamedTuple):
    """One line of a list."""

    patient: str
    file: str
    label: str
    source: str  # empty in the first two versions
    where: str


@register("reader", "covidx")
class Covidx(Reader):
    """Reader of COVIDx by the lists that are here: `train.txt` and its like, or the latest version, A before B.

    A line is read from its end, as ids of patients may hold blanks: source, class, file. The first two versions
    name no source. Patients of sources with readers of their own keep those readers' keys; numbers of two sources
    never name one patient.
    """

    card: ClassVar[Card] = Card(
        title="COVIDx",
        licence="each source's own; the lists AGPL-3.0",
        citation="Wang et al., COVID-Net: a tailored deep convolutional neural network design for detection of "
        "COVID-19 cases from chest X-ray images, Scientific Reports 2020",
        images=30_386,
        access="registration",
        kinds=("class",),
        how_to_get="https://www.kaggle.com/datasets/andyczhao/covidx-cxr2; lists of other versions: "
        "https://github.com/lindawangg/COVID-Net/tree/master/labels",
        layout=(
            "train.txt, test.txt (val.txt)      or train_COVIDx9A.txt, test_COVIDx9A.txt, … (also in labels/)\n"
            "train/<file>, test/<file> (val/)   pictures of each list in a folder of its part"
        ),
        overlaps=(
            "rsna-pneumonia, and so nih-chestxray14: nearly all images without COVID-19, half of the test part",
            "midrc-ricord-1c: the other half of the test part",
            "covid-chestxray, figure1-covid, actualmed-covid: a few hundred training images",
        ),
        excluded="images that the list does not name; lines whose file is missing; lists of other versions",
        checked_on="tables",
        checked_against="3,974 lines of 22 lists (all versions up to 9); pictures on a generated folder",
    )

    def records(self) -> Iterator[Record]:
        """Yield one record per line of the lists, by part and file."""
        lines = {part: self._read(path) for part, path in self._lists().items()}
        on_disk: dict[str, Path] = {}
        names: dict[str, list[str]] = {}
        for relative, path in pictures(self, self.root):
            on_disk[relative] = path
            names.setdefault(path.name, []).append(relative)
        used: set[str] = set()
        for part in PARTS:
            for file, line in sorted(lines.get(part, {}).items()):
                item = f"{part}/{file}"
                found = item if item in on_disk else _elsewhere(names.get(file, ()))
                if found is None:
                    self.exclude(item, "image file is missing", line.where)
                    continue
                used.add(found)
                yield self._record(item, on_disk[found], part, line)
        for relative in sorted(on_disk.keys() - used):
            self.exclude(relative, "not in the lists")

    def _lists(self) -> dict[str, Path]:
        """Return the list of each part, all of one version.

        Raises:
            LayoutError: there is no list for training or testing.
        """
        versions: dict[Version, dict[str, Path]] = {}
        for path in sorted((*self.root.glob("*.txt"), *self.root.glob("labels/*.txt")), reverse=True):
            match = _LIST.fullmatch(path.name)
            if match is not None:
                versions.setdefault(_version(match), {})[match[1].lower()] = path
        if not versions:
            fix = f"expected layout:\n{self.card.layout}"
            raise LayoutError("no list of images here (train.txt, train_COVIDx9A.txt)", where=self.root, fix=fix)
        latest = max(versions)
        if others := sum(len(parts) for version, parts in versions.items() if version != latest):
            self.note("list of another version, not read", others)
        return versions[latest]

    def _read(self, path: Path) -> dict[str, Line]:
        lines: dict[str, Line] = {}
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise LayoutError(f"cannot be read: {error.strerror or error}", where=path) from None
        for number, raw in enumerate(text.split("\n"), start=1):
            if not raw.strip():
                continue
            line = parse_line(raw, f"{path}:{number}")
            known = lines.setdefault(line.file, line)
            if known is line:
                continue
            if known.label != line.label:
                what = f"{line.file!r} is {line.label} here and {known.label} at {known.where}"
                raise TableError(what, where=f"{path}:{number}")
            self.note("repeated line of one image")
        if len({line.label in ("positive", "negative") for line in lines.values()}) > 1:
            raise TableError("has both classes of two and of three", where=path, fix="use one version of the lists")
        return lines

    def _record(self, item: str, path: Path, part: str, line: Line) -> Record:
        patient, namespace = patient_key(line)
        return Record(
            image=path,
            image_id=item,
            patient=patient,
            patient_namespace=namespace,
            split=PARTS[part],
            findings=CLASSES[line.label],
            where=line.where,
        )


def _elsewhere(places: Sequence[str]) -> str | None:
    """Return the one place outside the parts' folders where a file lies; a part's own folder is another image."""
    others = [place for place in places if place.split("/")[0] not in PARTS]
    return others[0] if len(others) == 1 else None


def _version(match: re.Match[str]) -> Version:
    plain = match[0].lower() == f"{match[1].lower()}.txt"
    return Version(plain, bool(match[2]), int(match[3] or 1), (match[4] or "").upper() != "B")


def parse_line(raw: str, where: str) -> Line:
    """Return a line of a list, read from its end.

    Raises:
        TableError: too few words, an unknown class or source, or a file that is none.

    Example:
        >>> parse_line("COVID 216 COVID(216).png COVID-19 sirm", "train.txt:1")[:4]
        ('COVID 216', 'COVID(216).png', 'COVID-19', 'sirm')
    """
    words = raw.split()
    # Versions 1 and 2, and some lines of later ones, end with the class.
    with_source = words[-1] not in CLASSES
    if len(words) < (4 if with_source else 3):
        raise TableError(f"holds {len(words)} words", where=where, fix="expected patient, file, class, source")
    source = words.pop() if with_source else ""
    label, file = words.pop(), words.pop()
    if label not in CLASSES:
        raise TableError(f"the class is {label!a:.60}", where=where, fix=f"known: {', '.join(CLASSES)}")
    if source and source not in SOURCES:
        raise TableError(f"the source is {source!a:.60}", where=where, fix=f"known: {', '.join(SOURCES)}")
    if relative_name(file) != file or "/" in file or f".{file.rpartition('.')[2].lower()}" not in PICTURE_SUFFIXES:
        raise TableError(f"the file is {file!a:.80}", where=where, fix="expected the name of a picture")
    place = "/".join(where.rsplit("/", 1)[-1:])
    return Line(" ".join(words), file, label, SOURCES.get(source, ""), place)


def patient_key(line: Line) -> tuple[str, str | None]:
    """Return the patient's key and the reader whose key it is, `None` for COVIDx's own.

    Example:
        >>> line = parse_line("419639-000000 MIDRC-RICORD-1C-419639-000000-12345-0.png COVID-19 ricord", "train.txt:1")
        >>> patient_key(line)
        ('MIDRC-RICORD-1C-419639-000000', 'midrc-ricord-1c')
    """
    key = line.patient
    if line.source == "ricord":
        match = _RICORD.fullmatch(line.file)
        key = match[1] if match else f"MIDRC-RICORD-1C-{key}"
    elif line.source == "fig1" and (match := _FIGURE1.fullmatch(key)):
        key = match[1]
    namespace = NAMESPACES.get(line.source)
    return (key, namespace) if namespace else (f"{line.source or 'unknown'}:{key}", None)
