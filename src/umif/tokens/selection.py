"""Which pairs of a corpus a run draws from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umif.corpus.quarantine import quarantined
from umif.corpus.schema import PAIR_KINDS
from umif.errors import EmptyError
from umif.language import Detail, label_detail, write_passage
from umif.rng import keyed_rng
from umif.tokens.rows import RowSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from umif.corpus.quarantine import Quarantine
    from umif.corpus.store import Corpus
    from umif.tokens.loader import DataConfig

Uncertain = Literal["worded", "left_out"]


# Rows that are looked at at a time: a corpus of any size is selected from in so much memory, and a byte a pair.
_BATCH_ROWS = 1 << 16


def select_rows(
    corpus: Corpus, config: DataConfig, quarantine: Quarantine | None = None
) -> tuple[dict[str, RowSet], dict[str, int]]:
    """Return the rows of each kind that has any, and how many pairs were left out by reason.

    What the quarantine list excludes is left out.

    Raises:
        CorpusError: the list excludes something that the corpus does not hold.
        ConfigError: an unknown dataset.
        EmptyError: no pair is left.
    """
    datasets = None if config.datasets is None else list(config.datasets)
    kinds: list[str] = [kind for kind in PAIR_KINDS if kind in config.kinds]
    codes, speaks = _codes(corpus, config, kinds, datasets)
    images = np.zeros(corpus.manifest.images if config.image_pairs else 0, dtype=bool)
    if config.image_pairs:
        images[corpus.image_rows(config.split, datasets)] = True
    left_out: dict[str, int] = {}
    if quarantine is not None and quarantine.excluded:
        by_image, by_pair = quarantined(corpus, quarantine)
        count = int(np.count_nonzero(codes[by_pair]))
        codes[by_pair] = 0
        if config.image_pairs:
            count += int(np.count_nonzero(images & by_image))
            images &= ~by_image
        if count:
            left_out["quarantined"] = count
    if "class" in kinds:
        silent = (codes == 1 + kinds.index("class")) & ~speaks
        if silent.any():
            left_out["no label that can be worded"] = int(np.count_nonzero(silent))
            codes[silent] = 0
    rows: dict[str, RowSet] = {kind: RowSet(codes == code) for code, kind in enumerate(kinds, start=1)}
    if config.image_pairs:
        rows["image"] = RowSet(images)
    rows = {kind: found for kind, found in rows.items() if len(found)}
    if not rows:
        held = ", ".join(f"{count} {kind}" for kind, count in corpus.manifest.pairs.items() if count) or "none"
        raise EmptyError(
            f"no {' or '.join(config.kinds)} pair of the {config.split} split is here (pairs of all splits: {held})",
            where=corpus.path,
            fix="see data.split, data.kinds and data.datasets"
            + (f", and {quarantine.path}" if left_out.get("quarantined") and quarantine else ""),
        )
    return rows, left_out


def _codes(
    corpus: Corpus, config: DataConfig, kinds: Sequence[str], datasets: list[str] | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return 1 + the place in `kinds` of each pair of the split and datasets, 0 for others; and which have words.

    Shapes: returns two of (pairs,). The second one matters for `class` pairs only.
    """
    known = corpus.check_datasets(datasets)
    codes = np.zeros(sum(corpus.manifest.pairs.values()), dtype=np.uint8)
    speaks = np.ones(len(codes), dtype=bool)
    labels = _Labels(config.uncertain)
    columns = ["kind", "split", "dataset"] + (["findings"] if "class" in kinds else [])
    done = 0
    for batch in corpus.pair_batches(columns, _BATCH_ROWS):
        chosen = pc.equal(batch.column("split"), config.split)
        if known is not None:
            chosen = pc.and_(chosen, pc.is_in(batch.column("dataset"), pa.array(known, pa.string())))
        place = pc.index_in(batch.column("kind"), pa.array(kinds, pa.string()))
        part = pc.if_else(chosen, pc.fill_null(pc.add(place, 1), 0), 0).to_numpy(zero_copy_only=False)
        codes[done : done + len(part)] = part
        if "class" in kinds:
            rows = np.flatnonzero(part == 1 + kinds.index("class"))
            if len(rows):
                speaks[done + rows] = labels.say_something(batch.column("findings").take(pa.array(rows)))
        done += len(part)
    return codes, speaks


class _Labels:
    """Tells which labels a passage can word; remembers each spelling."""

    def __init__(self, uncertain: Uncertain) -> None:
        self._uncertain = uncertain
        self._wordable: dict[str, bool] = {}

    def say_something(self, findings: pa.ListArray) -> NDArray[np.bool_]:
        """Which class pairs have a label that a passage can word. Shapes: (n,) → (n,)."""
        labels = pc.list_flatten(findings)
        parents = pc.list_parent_indices(findings).to_numpy(zero_copy_only=False)
        state = pc.struct_field(labels, "state")
        names = pc.coalesce(pc.struct_field(labels, "finding"), pc.struct_field(labels, "raw")).dictionary_encode()
        wordable = np.array([self._word(name) for name in names.dictionary.to_pylist()], dtype=bool)
        states = ("present", "absent", "uncertain") if self._uncertain == "worded" else ("present", "absent")
        stated = pc.is_in(state, pa.array(states, pa.string())).to_numpy(zero_copy_only=False)
        worded = stated & wordable[names.indices.to_numpy(zero_copy_only=False)]
        says: NDArray[np.bool_] = np.bincount(parents[worded], minlength=len(findings)) > 0
        if self._uncertain == "left_out":
            # Two spellings of one finding may disagree, and the uncertain one may win: only wording them tells.
            doubtful = np.unique(parents[pc.equal(state, "uncertain").to_numpy(zero_copy_only=False)])
            for index in doubtful[says[doubtful]]:
                says[index] = bool(_passage(labels_of(findings[int(index)].as_py()), self._uncertain))
        return says

    def _word(self, name: str) -> bool:
        # Organs, and spellings without a letter, are worded by no sentence.
        if name not in self._wordable:
            self._wordable[name] = bool(_passage([(name, "present")], "worded"))
        return self._wordable[name]


def labels_of(findings: Sequence[Mapping[str, str | None]]) -> list[tuple[str, str]]:
    """Return a pair's labels as passages take them: the vocabulary's id, else the dataset's own spelling."""
    return [(str(finding["finding"] or finding["raw"]), str(finding["state"])) for finding in findings]


def details_of(findings: Sequence[Mapping[str, str | None]]) -> dict[str, Detail]:
    """Return the degree and places that a pair's labels carry in the dataset's spelling, by `labels_of`'s names."""
    details = {str(finding["finding"]): label_detail(str(finding["raw"])) for finding in findings if finding["finding"]}
    return {name: detail for name, detail in details.items() if detail}


def _passage(labels: list[tuple[str, str]], uncertain: Uncertain) -> str:
    passage: str = write_passage(labels, keyed_rng(0, "says something"), uncertain=uncertain)
    return passage
