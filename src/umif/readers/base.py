"""What every reader gives: a stream of `Record`s, and an account of everything it left out.

A reader turns one dataset's native layout into records without decoding a pixel. It keeps the dataset's own spelling
of every label (the vocabulary maps it later) and all four label states. Nothing is dropped silently: each item that
it meets is either yielded or excluded with a reason, and `read()` checks that the two add up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from umif.errors import LayoutError, ReaderContractError

if TYPE_CHECKING:
    from collections.abc import Iterator

Access = Literal["built-in", "open", "registration", "credentialed", "private"]
Split = Literal["train", "val", "test"]
TextKind = Literal["report", "caption"]
TextSource = Literal["report", "notes", "caption", "template", "llm"]
AnswerType = Literal["open", "closed"]
CheckedOn = Literal["images", "tables", "layout"]
SUPERVISION = ("report", "caption", "class", "segment", "question")


class LabelState(StrEnum):
    """What a dataset says of one finding in one image. The four stay apart from the file to the text."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    NOT_MENTIONED = "not_mentioned"


@dataclass(frozen=True, slots=True)
class Finding:
    """One label of one image: the dataset's own spelling and its state, and where it is seen if that is said.

    `locations` is not in `repr`, as a corpus does not store it: what it holds of a record stays the same.
    """

    name: str
    state: LabelState
    locations: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A text about an image; `source` tells whether a person wrote it, `language` (ISO 639-1) in which language."""

    kind: TextKind
    text: str
    source: TextSource
    language: str = field(default="en", repr=False)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the picture that shows a finding or an organ, as the dataset draws it.

    Coordinates are pixels, x to the right and y down, origin at the top-left corner, in a frame of size `frame`
    (width, height); `None` means the image file's own size. Exactly one geometry is set, the one `shape` names:

    * `box`, `ellipse`: `box` = (x, y, width, height);
    * `polygon`: `points` = ((x, y), …);
    * `rle`: `runs` = lengths of alternating background and foreground runs, column by column (COCO's order);
    * `mask`: `mask_path` = a picture whose pixels other than black belong to the region, its top-left corner at
      `offset` (left, top). With `mask_value` only pixels of that grey value count.
    """

    finding: str
    shape: Literal["box", "ellipse", "polygon", "rle", "mask"]
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    runs: tuple[int, ...] = ()
    mask_path: Path | None = None
    mask_value: int | None = None
    offset: tuple[int, int] = (0, 0)
    frame: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image, and its answer.

    Attributes:
        question: As the dataset asks it, without marks for those who wrote it (`-yes/no`).
        answer: Always text; numbers are written out as the dataset has them.
        answer_type: `closed` where the dataset offers the answers (not only yes or no), `open` where it does not.
        question_type: What it asks about, in the dataset's own spelling.
        split: The dataset's official part, which may differ between the questions of one image.
    """

    question: str
    answer: str
    answer_type: AnswerType | None = None
    question_type: str | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One radiograph and every supervision that its dataset has for it.

    Attributes:
        image: The picture's file.
        image_id: Unique and stable within the dataset (usually the path relative to the root).
        patient: The dataset's patient key; `None` = unknown, then the image counts as a patient of its own.
        patient_namespace: The dataset whose patient keys these are, where it is another one (RSNA's images are NIH's).
        view: `PA`, `AP`, `LATERAL`, … as the dataset spells it; `None` = not stated.
        sex: `F`, `M` or `None`.
        split: The dataset's official split, if it has one.
        questions: Questions with answers. Not in `repr`: a corpus knows unchanged records by it, and those without
            questions are to stay what they were.
        where: `file:line` that the labels came from.
    """

    image: Path
    image_id: str
    patient: str | None = None
    patient_namespace: str | None = None
    study: str | None = None
    view: str | None = None
    sex: Literal["F", "M"] | None = None
    age_years: float | None = None
    split: Split | None = None
    texts: tuple[Text, ...] = ()
    findings: tuple[Finding, ...] = ()
    regions: tuple[Region, ...] = ()
    questions: tuple[Question, ...] = field(default=(), repr=False)
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a dataset is: printed by `umif datasets`, and the source of its docs page.

    `images` is the full release's count; `checked_against` says what real or synthetic files the reader was tested on,
    `checked_on` how close that came to the data: real images, real tables without their pictures, or the layout as it
    is described, in generated folders.
    """

    licence: str
    citation: str | None
    images: int | None
    title: str = ""
    access: Access = "private"
    kinds: tuple[str, ...] = ()
    how_to_get: str = ""
    layout: str = ""
    overlaps: tuple[str, ...] = ()
    excluded: str = ""
    checked_on: CheckedOn | None = None
    checked_against: str = ""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An item that gave no record, and why."""

    item: str
    reason: str
    where: str | None = None


@dataclass(slots=True)
class Account:
    """Everything that a reader met: `seen` = yielded + excluded."""

    seen: int = 0
    yielded: int = 0
    exclusions: list[Exclusion] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def excluded(self) -> dict[str, int]:
        """Number of excluded items by reason, sorted by reason."""
        return dict(sorted(Counter(e.reason for e in self.exclusions).items()))


class Reader(ABC):
    """Base of all readers; register with `@umif.register("reader", name)`.

    A subclass implements `records()`: for each item that it meets (an image on disk or in a table, once) it yields a
    `Record` or calls `self.exclude(item, reason)`. Things that lose no image (a merged duplicate row, a null box) are
    counted with `self.note(reason)`. The order is deterministic.
    """

    card: ClassVar[Card]
    name: ClassVar[str] = ""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.account = Account()
        if not self.root.is_dir():
            raise LayoutError("there is no such folder", where=self.root, fix="check the path after the =")

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records in a deterministic order."""

    def exclude(self, item: str, reason: str, where: str | None = None) -> None:
        """Count `item` as seen and left out. `reason` is a short stable phrase (`modality is CT`)."""
        self.account.exclusions.append(Exclusion(item, reason, where))

    def note(self, reason: str, count: int = 1) -> None:
        """Count something worth knowing that lost no image."""
        self.account.notes[reason] += count

    def read(self) -> Iterator[Record]:
        """Yield `records()`, and keep the account.

        Raises:
            ReaderContractError: an image id was yielded twice, or both yielded and excluded.
        """
        self.account = Account()
        yielded: set[str] = set()
        for record in self.records():
            if record.image_id in yielded:
                raise ReaderContractError(
                    f"the image id {record.image_id!r} was yielded twice", where=record.where or str(self.root)
                )
            yielded.add(record.image_id)
            self.account.yielded += 1
            yield record
        excluded = [e.item for e in self.account.exclusions]
        twice = yielded.intersection(excluded)
        if twice or len(set(excluded)) != len(excluded):
            item = next(iter(twice), None) or next(i for i, n in Counter(excluded).items() if n > 1)
            raise ReaderContractError(f"the item {item!r} was accounted for twice", where=str(self.root))
        self.account.seen = len(yielded) + len(excluded)

    def require(self, relative: str, *, hint: str = "") -> Path:
        """Return the path `relative` to the root.

        Raises:
            LayoutError: it does not exist; the expected layout is shown.
        """
        path = self.root / relative
        if not path.exists():
            fix = hint or (f"expected layout:\n{self.card.layout}" if self.card.layout else None)
            raise LayoutError(f"{relative!r} is missing in this folder", where=self.root, fix=fix)
        return path
