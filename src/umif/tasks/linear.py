"""Linear classification: a logistic regression on frozen features, beside random weights and raw pixels.

Features of all images that any problem needs are extracted once per encoder. Each problem is fitted on the corpus's
train patients (all of them, and shares of their labels), its regularisation is chosen on val patients, and its test
patients are scored once.

Source: the linear evaluation of GLoRIA and MGCA (docs/tasks.md tells where this differs).
Differs: a convex fit to its optimum instead of a head trained by gradient steps, so that it has no seed, no rate and no
    number of epochs; shares of labels are drawn by patient; standardised features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from umif.config import register
from umif.corpus.progress import Bar
from umif.encoder.features import Readout, check_block
from umif.tasks.base import Task
from umif.tasks.comparison import BY_PATIENT, Scored, compare_scores
from umif.tasks.logistic import fit_linear_head
from umif.tasks.pixels import SIDE, pixel_features
from umif.tasks.problems import chosen_cases, ids_sha256
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.problems import Cases

PROTOCOL = "frozen features, L2 logistic regression; fit on train, C chosen on val, test scored once" + BY_PATIENT
# What the network makes of places is clearest two thirds of the way up; the last block gathers it into CLS.
PATCH_BLOCK_SHARE = 2 / 3


@dataclass(frozen=True, slots=True)
class _Variant:
    """One set of features: what it is called, and how it is had for rows of the corpus."""

    encoder: str
    baseline: bool
    extract: Callable[[NDArray[np.int64], Callable[[int, int], None]], NDArray[np.float32]]
    extra: dict[str, Any]


@register("task", "linear")
class LinearClassification(Task):
    """CLS and pooled patches → logistic regression → AUC with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "linear classification on frozen features"

    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        all_cases = chosen_cases(corpus, options.problems, options.splits)
        rows = np.unique(np.concatenate([cases.rows_N for cases in all_cases]))
        scored: dict[tuple[int, float], list[Scored]] = {}
        with Bar(options.progress) as bar:
            for variant in _variants(encoder, corpus, options):
                features_ND = variant.extract(rows, _stage(bar, f"features: {variant.encoder}", len(rows)))
                bar.start(f"fitting: {variant.encoder}", len(all_cases) * len(options.labels))
                for index, cases in enumerate(all_cases):
                    own_ND = features_ND[np.searchsorted(rows, cases.rows_N)]
                    for share in options.labels:
                        one = _score(variant, cases, own_ND, share, options.seed)
                        scored.setdefault((index, share), []).append(one)
                        bar.advance(1)
        return [
            row
            for (index, share), ones in sorted(scored.items(), key=lambda item: item[0])
            for row in compare_scores("linear", PROTOCOL, share, all_cases[index], ones, options)
        ]


def patch_block(depth: int) -> int:
    """Return the block whose patches are pooled by default: two thirds of the way up, rounded up."""
    return math.ceil(PATCH_BLOCK_SHARE * depth)


def _variants(encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Iterator[_Variant]:
    block = patch_block(encoder.depth) if options.block is None else options.block
    check_block(block, encoder.depth)
    readouts = (Readout("cls"), Readout("patches", block=None if block == encoder.depth else block))
    encoders = [("umif", encoder)] + ([("random", encoder.random_like(options.seed))] if options.baselines else [])

    def extractor(one: Encoder, readout: Readout) -> Callable[..., NDArray[np.float32]]:
        return lambda rows, progress: one.encode_corpus(corpus, rows, readout, progress=progress)

    for name, one in encoders:
        for readout in readouts:
            extra: dict[str, Any] = {} if readout.kind == "cls" else {"block": block}
            yield _Variant(f"{name} {readout.label}", name != "umif", extractor(one, readout), extra)
    if options.baselines:
        name = f"pixels {SIDE}×{SIDE}"
        yield _Variant(name, True, lambda rows, progress: pixel_features(corpus, rows, progress=progress), {})


def _score(variant: _Variant, cases: Cases, features_ND: NDArray[np.float32], share: float, seed: int) -> Scored:
    train, val, test = (cases.of(split) for split in ("train", "val", "test"))
    used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], share, seed)]
    head = fit_linear_head(
        features_ND[used],
        cases.labels_NF[used],
        features_ND[val],
        cases.labels_NF[val],
        statistics_ND=features_ND[train],
    )
    patients = np.unique(cases.patients_N[used])
    extra = {
        **variant.extra,
        "c": head.c,
        "val_auc": max(head.val),
        "n_train_images": len(used),
        "n_train_patients": len(patients),
        "label_patients_sha256": ids_sha256(patients),
        "seed": seed,
    }
    if head.unfitted:
        extra["classes_of_one_state_in_the_labels"] = [cases.classes[column] for column in head.unfitted]
    if not head.converged:
        extra["converged"] = False
    return Scored(variant.encoder, variant.baseline, head.scores(features_ND[test]), extra)


def _stage(bar: Bar, what: str, total: int) -> Callable[[int, int], None]:
    bar.start(what, total)
    done = 0

    def advance(now: int, _: int) -> None:
        nonlocal done
        bar.advance(now - done)
        done = now

    return advance
