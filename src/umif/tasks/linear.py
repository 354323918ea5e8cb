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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from umif.config import register
from umif.corpus.progress import Bar
from umif.encoder.features import Readout, check_block
from umif.tasks.base import Task
from umif.tasks.comparison import BY_PATIENT, Scored, compare_scores
from umif.tasks.contenders import contenders
from umif.tasks.logistic import fit_linear_head
from umif.tasks.pixels import SIDE, pixel_features
from umif.tasks.problems import chosen_cases, ids_sha256
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.problems import Cases

    Extract = Callable[[NDArray[np.int64], Callable[[int, int], None]], NDArray[np.float32]]

PROTOCOL = "frozen features, L2 logistic regression; fit on train, C chosen on val, test scored once" + BY_PATIENT
# What the network makes of places is clearest two thirds of the way up; the last block gathers it into CLS.
PATCH_BLOCK_SHARE = 2 / 3


@dataclass(frozen=True, slots=True)
class _Variant:
    """One set of features: what it is called, and how it is had for rows of the corpus, by seed where they vary."""

    encoder: str
    baseline: bool
    extracts: tuple[Extract, ...]
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A head's scores and what there is to tell of it."""

    test_NF: NDArray[np.float64]
    val_NF: NDArray[np.float64]
    extra: dict[str, Any]


@register("task", "linear")
class LinearClassification(Task):
    """CLS and pooled patches → logistic regression → AUC or accuracy with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "linear classification on frozen features"

    def run(self, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        all_cases = chosen_cases(corpus, options.problems, options.splits)
        rows = np.unique(np.concatenate([cases.rows_N for cases in all_cases]))
        scored: dict[tuple[int, float], list[Scored]] = {}
        with Bar(options.progress) as bar:
            for variant in _variants(encoder, corpus, options):
                fitted = _fit(variant, all_cases, rows, options, bar)
                for key, ones in fitted.items():
                    scored.setdefault(key, []).append(_scored(variant, all_cases[key[0]], ones))
        return [
            row
            for (index, share), ones in sorted(scored.items(), key=lambda item: item[0])
            for row in compare_scores("linear", PROTOCOL, share, all_cases[index], ones, options)
        ]


def patch_block(depth: int) -> int:
    """Return the block whose patches are pooled by default: two thirds of the way up, rounded up."""
    return math.ceil(PATCH_BLOCK_SHARE * depth)


def _variants(encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Iterator[_Variant]:
    check_block(options.block, encoder.depth)
    for one in contenders(encoder, options):
        for readout, extra in _readouts(one.encoder, options, own=one.encoder is encoder or one.name == "random"):
            networks = one.by_seed if one.differs else (one.encoder,)
            extracts = tuple(_extractor(network, corpus, readout) for network in networks)
            yield _Variant(f"{one.name} {readout.label}", one.baseline, extracts, extra)
    if options.baselines:
        name = f"pixels {SIDE}×{SIDE}"
        yield _Variant(name, True, (lambda rows, progress: pixel_features(corpus, rows, progress=progress),), {})


def _readouts(encoder: FrozenEncoder, options: TaskOptions, *, own: bool) -> Iterator[tuple[Readout, dict[str, Any]]]:
    """CLS and, where the encoder has them, pooled patches; the block that a user chose is one of the model's own."""
    told: dict[str, Any] = {} if own else {"preprocessing": encoder.preprocessing.to_json()}
    yield Readout("cls"), told
    if "patches" in encoder.readouts:
        block = options.block if own and options.block is not None else patch_block(encoder.depth)
        yield Readout("patches", block=None if block == encoder.depth else block), {"block": block, **told}


def _extractor(encoder: FrozenEncoder, corpus: Corpus, readout: Readout) -> Extract:
    return lambda rows, progress: encoder.encode_corpus(corpus, rows, readout, progress=progress)


def _fit(
    variant: _Variant, all_cases: Sequence[Cases], rows: NDArray[np.int64], options: TaskOptions, bar: Bar
) -> dict[tuple[int, float], list[_Fitted]]:
    """Fit every problem at every share with every seed; by position of the problem and share, in order of the seeds.

    Where neither the features nor the labels differ between seeds, one fit is all: its optimum has no seed.
    """
    fitted: dict[tuple[int, float], list[_Fitted]] = {}
    features_ND = np.zeros((0, 0), dtype=np.float32)
    for number, seed in enumerate(options.every_seed):
        if number < len(variant.extracts):
            features_ND = variant.extracts[number](rows, _stage(bar, f"features: {variant.encoder}", len(rows)))
        bar.start(f"fitting: {variant.encoder}", len(all_cases) * len(options.labels))
        for index, cases in enumerate(all_cases):
            own_ND = features_ND[np.searchsorted(rows, cases.rows_N)]
            for share in options.labels:
                if number and share == 100.0 and len(variant.extracts) == 1:
                    one = fitted[index, share][0]
                    one = replace(one, extra={**one.extra, "seed": seed})
                else:
                    one = _fit_one(cases, own_ND, share, seed)
                fitted.setdefault((index, share), []).append(one)
                bar.advance(1)
    return fitted


def _fit_one(cases: Cases, features_ND: NDArray[np.float32], share: float, seed: int) -> _Fitted:
    train, val, test = (cases.of(split) for split in ("train", "val", "test"))
    used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], share, seed)]
    exclusive = cases.problem.kind == "classes"
    head = fit_linear_head(
        features_ND[used],
        cases.labels_NF[used],
        features_ND[val],
        cases.labels_NF[val],
        statistics_ND=features_ND[train],
        exclusive=exclusive,
    )
    patients = np.unique(cases.patients_N[used])
    extra: dict[str, Any] = {
        "c": head.c,
        "val_accuracy" if exclusive else "val_auc": max(head.val),
        "n_train_images": len(used),
        "n_train_patients": len(patients),
        "label_patients_sha256": ids_sha256(patients),
        "seed": seed,
    }
    if head.unfitted:
        key = "classes_not_in_the_labels" if exclusive else "classes_of_one_state_in_the_labels"
        extra[key] = [cases.classes[column] for column in head.unfitted]
    if not head.converged:
        extra["converged"] = False
    return _Fitted(head.scores(features_ND[test]), head.scores(features_ND[val]), extra)


def _scored(variant: _Variant, cases: Cases, ones: Sequence[_Fitted]) -> Scored:
    return Scored(
        variant.encoder,
        variant.baseline,
        np.stack([one.test_NF for one in ones]),
        variant.extra,
        seed_extra=tuple(one.extra for one in ones),
        val_NF=np.stack([one.val_NF for one in ones]),
        link="softmax" if cases.problem.kind == "classes" else "logistic",
    )


def _stage(bar: Bar, what: str, total: int) -> Callable[[int, int], None]:
    bar.start(what, total)
    done = 0

    def advance(now: int, _: int) -> None:
        nonlocal done
        bar.advance(now - done)
        done = now

    return advance
