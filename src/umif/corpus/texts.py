"""Texts that language models write about a corpus's images: what there is to ask, and how answers come back.

    umif texts translate CORPUS --out texts.parquet …    reads reports out of a finished corpus
    umif prepare OUT --from … --texts texts.parquet      adds the accepted texts as further pairs of their images

A corpus is never changed; the texts go into the next one, where `text_source` is `llm` and the manifest names model and
prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from umif.errors import ConfigError, EmptyError, nearest
from umif.language.llm.english import language_of
from umif.language.llm.items import Item, read_generated
from umif.readers.base import LabelState, Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from umif.corpus.store import Corpus
    from umif.language.llm.items import Generated
    from umif.language.llm.prompts import Job
    from umif.readers.base import Record

# Spanish reports that are cut down to stems, which a look at their words may not tell.
SPANISH_DATASETS = ("padchest",)
_WRITTEN_BY_PEOPLE = ("report", "notes")


def corpus_items(corpus: Corpus, job: Job, datasets: Sequence[str] | None = None) -> list[Item]:
    """Return what a job works on in a corpus, in its order.

    translate: reports by people that are Spanish, by their dataset or their words. reports: images with labels and
    without any report or caption.

    Raises:
        ConfigError: the job takes no corpus, or a dataset is not in it.
        EmptyError: there is nothing to work on.
    """
    if job == "polish":
        fix = "give the table that umif texts translate wrote"
        raise ConfigError("a corpus holds no translations to polish", where=corpus.path, fix=fix)
    known = [reader.name for reader in corpus.manifest.readers]
    for name in datasets or ():
        if name not in known:
            raise ConfigError(f"the corpus has no dataset {name!r}", where="--dataset", fix=nearest(name, known))
    chosen = set(datasets or known)
    items = _spanish(corpus, chosen) if job == "translate" else _unreported(corpus, chosen)
    if not items:
        what = "no Spanish report" if job == "translate" else "no image with labels and without a report"
        raise EmptyError(f"the corpus holds {what}", where=corpus.path)
    return items


def _labels(findings: list[dict[str, Any]]) -> tuple[tuple[str, LabelState], ...]:
    return tuple((finding["raw"], LabelState(finding["state"])) for finding in findings)


def _spanish(corpus: Corpus, chosen: set[str]) -> list[Item]:
    columns = ["kind", "image", "dataset", "text", "text_source", "findings", "source"]
    items: dict[str, Item] = {}
    for row in corpus.pairs_table(columns).to_pylist():
        if row["kind"] != "report" or row["dataset"] not in chosen or row["text_source"] not in _WRITTEN_BY_PEOPLE:
            continue
        if row["dataset"] in SPANISH_DATASETS or language_of(row["text"]) == "spanish":
            image_id = row["image"][len(row["dataset"]) + 1 :]
            item = Item(image_id, row["dataset"], row["text"], _labels(row["findings"]), row["source"])
            items.setdefault(row["image"], item)
    return list(items.values())


def _unreported(corpus: Corpus, chosen: set[str]) -> list[Item]:
    pairs = corpus.pairs_table(["kind", "image"]).to_pylist()
    told = {row["image"] for row in pairs if row["kind"] in ("report", "caption")}
    items = []
    for row in corpus.images_table(["image", "dataset", "findings"]).to_pylist():
        stated = any(finding["state"] != LabelState.NOT_MENTIONED for finding in row["findings"])
        if stated and row["dataset"] in chosen and row["image"] not in told:
            image_id = row["image"][len(row["dataset"]) + 1 :]
            items.append(Item(image_id, row["dataset"], "", _labels(row["findings"])))
    return items


@dataclass(slots=True)
class GeneratedTexts:
    """Tables of generated texts, on their way into a corpus.

    Attributes:
        origins: (job, model, prompt hash) → number of texts that found their image.
    """

    texts: dict[tuple[str, str], list[Generated]] = field(default_factory=dict)
    sha256: str = ""
    origins: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @classmethod
    def read(cls, files: Sequence[Path]) -> GeneratedTexts:
        """Read tables that `umif texts` wrote.

        Raises:
            LayoutError: a file cannot be read.
            TableError: a row is no generated text, or repeats another of its table.
        """
        found = cls()
        for file in files:
            for one in read_generated(file):
                found.texts.setdefault((one.dataset or "", one.id), []).append(one)
        for known in found.texts.values():
            known.sort(key=lambda one: (one.job, one.model, one.prompt, one.text))
        rows = [[*key, *([one.request, one.text] for one in ones)] for key, ones in sorted(found.texts.items())]
        found.sha256 = hashlib.sha256(json.dumps(rows).encode()).hexdigest() if rows else ""
        return found

    def added_to(self, dataset: str, record: Record) -> Record:
        """Return the record with its generated reports after its own texts."""
        ones = self.texts.get((dataset, record.image_id), ())
        if not ones:
            return record
        self.origins.update((one.job, one.model, one.prompt) for one in ones)
        return replace(record, texts=(*record.texts, *(Text("report", one.text, "llm") for one in ones)))

    def account(self) -> dict[str, Any]:
        """Return what the manifest says of them; nothing if there are none."""
        if not self.texts:
            return {}
        rows = [
            {"job": job, "model": model, "prompt": prompt, "texts": count}
            for (job, model, prompt), count in sorted(self.origins.items())
        ]
        total = sum(map(len, self.texts.values()))
        return {"texts": total, "without_image": total - sum(self.origins.values()), "origins": rows}
