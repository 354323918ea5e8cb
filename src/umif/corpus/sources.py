"""Pass one: a reader's records, checked, their labels looked up, their paths made relative.

No pixel is decoded. What cannot become an image is a line of the ledger already here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umif.corpus.schema import ANSWER_TYPES, LABEL_STATES, PAIR_KINDS, SPLITS
from umif.corpus.shards import Item, ledger_row, relative_record, relative_where
from umif.errors import EmptyError, LayoutError, ReaderContractError
from umif.language import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from umif.corpus.progress import Bar
    from umif.corpus.texts import GeneratedTexts
    from umif.readers.base import Account, Reader, Record


@dataclass(slots=True)
class Source:
    """One dataset's records on their way into the corpus, and the ledger of what cannot become an image."""

    name: str
    account: Account
    items: list[Item] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)

    @property
    def yielded(self) -> int:
        """Number of records that the reader gave."""
        return self.account.yielded


def read_source(name: str, reader: Reader, bar: Bar, generated: GeneratedTexts) -> Source:
    """Read all records of one dataset, and add what language models wrote about them.

    Raises:
        EmptyError: it gives none; what was left out and why is said.
        LayoutError: a table cannot be read.
        ReaderContractError: a record holds values that the schema does not know.
    """
    items: list[Item] = []
    refused: list[dict[str, Any]] = []
    known: dict[str, str | None] = {}

    def finding_id(raw: str) -> str | None:
        if raw not in known:
            entry = vocabulary().find(raw)
            known[raw] = None if entry is None else entry.id
        return known[raw]

    bar.start(f"reading {name}")
    try:
        for record in reader.read():
            _check_record(name, record)
            record = generated.added_to(name, record)
            relative, reason = relative_record(record, reader.root), "outside the folder"
            what = "a file of the record lies outside the dataset's folder"
            if relative is not None and not _is_text(record):
                relative, reason, what = None, "no text", "a name, label or text of the record is no valid Unicode"
            if relative is None:
                where = relative_where(record.where, reader.root)
                refused.append(ledger_row(name, record.image_id, "image", reason, what, where))
                continue
            findings = tuple(finding_id(finding.name) for finding in record.findings)
            regions = tuple(finding_id(region.finding) for region in record.regions)
            items.append(Item(name, reader.root, relative, findings, regions))
            bar.advance(1)
    except OSError as error:
        file = error.filename or reader.root
        raise LayoutError(f"cannot be read: {error.strerror or error}", where=file) from None
    account = reader.account
    if not account.yielded:
        left_out = ", ".join(f"{count} × {reason}" for reason, count in account.excluded.items())
        what = "the dataset holds no image" + (f" that can be used (left out: {left_out})" if left_out else "")
        raise EmptyError(what, where=reader.root, fix=f"check that this is the folder of {name}: umif datasets {name}")
    excluded = [
        ledger_row(name, e.item, "read", e.reason, None, relative_where(e.where, reader.root))
        for e in account.exclusions
    ]
    return Source(name, account, items, excluded + refused)


def count_unmapped(sources: Iterable[Source]) -> dict[str, int]:
    """Return how often each label occurs that the vocabulary does not know, sorted by label."""
    counts: Counter[str] = Counter()
    for source in sources:
        for item in source.items:
            findings = zip(item.record.findings, item.findings, strict=True)
            regions = zip(item.record.regions, item.region_findings, strict=True)
            counts.update(finding.name for finding, known in findings if known is None)
            counts.update(region.finding for region, known in regions if known is None)
    return dict(sorted(counts.items()))


def _check_record(name: str, record: Record) -> None:
    """Refuse values that the schema does not know; a reader of a third party may hold anything."""
    if record.split not in (None, *SPLITS):
        problem = f"split is {record.split!r}, none of {', '.join(SPLITS)}"
    elif any(finding.state not in LABEL_STATES for finding in record.findings):
        problem = f"a label's state is none of {', '.join(LABEL_STATES)}"
    elif any(text.kind not in PAIR_KINDS[:2] for text in record.texts):
        problem = f"a text's kind is none of {', '.join(PAIR_KINDS[:2])}"
    elif any(question.split not in (None, *SPLITS) for question in record.questions):
        problem = f"a question's split is none of {', '.join(SPLITS)}"
    elif any(question.answer_type not in (None, *ANSWER_TYPES) for question in record.questions):
        problem = f"a question's answer_type is none of {', '.join(ANSWER_TYPES)}"
    else:
        return
    raise ReaderContractError(
        f"{name}: {record.image_id}: {problem}", where=record.where, fix=f"mend the reader {name!r}"
    )


def _is_text(record: Record) -> bool:
    """Whether all that is stored as text can be: a file name may hold bytes that are no characters."""
    words = [record.image_id, str(record.image), record.patient, record.patient_namespace, record.study, record.view]
    words += [record.where, *(text.text for text in record.texts), *(finding.name for finding in record.findings)]
    words += [region.finding for region in record.regions]
    for question in record.questions:
        words += [question.question, question.answer, question.question_type]
    try:
        "".join(word for word in words if word).encode()
    except UnicodeEncodeError:
        return False
    return True
