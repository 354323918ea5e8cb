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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from umif.corpus.quarantine import Quarantine
    from umif.corpus.store import Corpus
    from umif.tokens.loader import DataConfig

Uncertain = Literal["worded", "left_out"]


def select_rows(
    corpus: Corpus, config: DataConfig, quarantine: Quarantine | None = None
) -> tuple[dict[str, NDArray[np.int64]], dict[str, int]]:
    """Return the rows of each kind that has any, ascending, and how many pairs were left out by reason.

    What the quarantine list excludes is left out.

    Raises:
        CorpusError: the list excludes something that the corpus does not hold.
        ConfigError: an unknown dataset.
        EmptyError: no pair is left.
    """
    rows: dict[str, NDArray[np.int64]] = {}
    left_out: dict[str, int] = {}
    datasets = None if config.datasets is None else list(config.datasets)
    for kind in PAIR_KINDS:
        if kind in config.kinds:
            rows[kind] = corpus.pair_rows(kind, config.split, datasets)
    if config.image_pairs:
        rows["image"] = corpus.image_rows(config.split, datasets)
    if quarantine is not None and quarantine.excluded:
        before = sum(map(len, rows.values()))
        by_image, by_pair = quarantined(corpus, quarantine)
        rows = {kind: found[~(by_image if kind == "image" else by_pair)[found]] for kind, found in rows.items()}
        if (count := before - sum(map(len, rows.values()))) > 0:
            left_out["quarantined"] = count
    if len(rows.get("class", ())):
        says = _says_something(corpus, rows["class"], config.uncertain)
        if not says.all():
            left_out["no label that can be worded"] = int((~says).sum())
        rows["class"] = rows["class"][says]
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


def _says_something(corpus: Corpus, rows: NDArray[np.int64], uncertain: Uncertain) -> NDArray[np.bool_]:
    """Which class pairs have a label that a passage can word. Shapes: rows (n,) → (n,)."""
    findings = corpus.pairs_table(["findings"]).column("findings").take(pa.array(rows)).combine_chunks()
    labels = pc.list_flatten(findings)
    parents = pc.list_parent_indices(findings).to_numpy(zero_copy_only=False)
    state = pc.struct_field(labels, "state").to_numpy(zero_copy_only=False)
    names = pc.coalesce(pc.struct_field(labels, "finding"), pc.struct_field(labels, "raw")).dictionary_encode()
    # Organs, and spellings without a letter, are worded by no sentence.
    wordable = np.array([bool(_passage([(name, "present")], "worded")) for name in names.dictionary.to_pylist()], bool)
    states = ("present", "absent", "uncertain") if uncertain == "worded" else ("present", "absent")
    worded = np.isin(state, states) & wordable[names.indices.to_numpy(zero_copy_only=False)]
    says: NDArray[np.bool_] = np.bincount(parents[worded], minlength=len(rows)) > 0
    if uncertain == "left_out":
        # Two spellings of one finding may disagree, and the uncertain one may win: only wording them tells.
        doubtful = np.unique(parents[state == "uncertain"])
        for index in doubtful[says[doubtful]]:
            says[index] = bool(_passage(labels_of(findings[int(index)].as_py()), uncertain))
    return says


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
