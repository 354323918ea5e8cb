"""Probes other than the linear one, on its problems, features, shares of labels and comparison.

A probe is a function: features and labels of train (the share in use), val and test → scores of test. What differs
between probes is that function; whom they are fitted on and compared with is the same.

Shape legend: N images, D features, F classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from umif.corpus.progress import Bar
from umif.tasks.comparison import Scored, compare_scores
from umif.tasks.linear import _stage, _variants
from umif.tasks.problems import chosen_cases, ids_sha256
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.problems import Cases


@dataclass(frozen=True, slots=True)
class ProbeData:
    """What a probe may see.

    Shapes: train_ND, val_ND, test_ND features, standardised by mean and deviation of all training images, labelled or
    not; raw_train_ND and so on as the encoder gives them; train_NF and val_NF labels, −1 = unknown. Test has none.
    """

    train_ND: NDArray[np.float32]
    train_NF: NDArray[np.int8]
    val_ND: NDArray[np.float32]
    val_NF: NDArray[np.int8]
    test_ND: NDArray[np.float32]
    statistics_ND: NDArray[np.float32]

    def standardised(self) -> ProbeData:
        """Return the features with mean 0 and deviation 1 over all training images; what never varies becomes 0."""
        values_ND = self.statistics_ND.astype(np.float64)
        mean_D, deviation_D = values_ND.mean(0), values_ND.std(0)
        # A black corner carries nothing; dividing by its rounding error would make it shout.
        varies_D = deviation_D > 1e-6 * np.maximum(1e-12, np.abs(values_ND).max(axis=0, initial=0.0))
        scale_D = np.where(varies_D, 1.0 / np.where(varies_D, deviation_D, 1.0), 0.0)

        def of(features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
            scaled_ND: NDArray[np.float32] = ((features_ND - mean_D) * scale_D).astype(np.float32)
            return scaled_ND

        return ProbeData(
            of(self.train_ND), self.train_NF, of(self.val_ND), self.val_NF, of(self.test_ND), of(self.statistics_ND)
        )


class Probe(Protocol):
    """Fits on train, chooses on val, scores test; returns scores (N, F) and what the row shall tell of it."""

    def __call__(self, data: ProbeData, seed: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Return the scores of the test images.

        Raises:
            TaskError: the training or val labels hold one state only.
        """


def run_probe(
    task: str, protocol: str, probe: Probe, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions
) -> list[Result]:
    """Put a probe to every problem at every share of the labels; rows by problem, share, then encoder.

    Raises:
        TaskError: a problem that was named cannot be carried by the corpus, or none can.
    """
    all_cases = chosen_cases(corpus, options.problems, options.splits)
    rows = np.unique(np.concatenate([cases.rows_N for cases in all_cases]))
    scored: dict[tuple[int, float], list[Scored]] = {}
    with Bar(options.progress) as bar:
        for variant in _variants(encoder, corpus, options):
            found: dict[tuple[int, float], list[tuple[NDArray[np.float64], dict[str, Any]]]] = {}
            features_ND = np.zeros((0, 0), dtype=np.float32)
            for number, seed in enumerate(options.every_seed):
                if number < len(variant.extracts):
                    features_ND = variant.extracts[number](rows, _stage(bar, f"features: {variant.encoder}", len(rows)))
                bar.start(f"{task}: {variant.encoder}", len(all_cases) * len(options.labels))
                for index, cases in enumerate(all_cases):
                    own_ND = features_ND[np.searchsorted(rows, cases.rows_N)]
                    for share in options.labels:
                        found.setdefault((index, share), []).append(_score(probe, cases, own_ND, share, seed))
                        bar.advance(1)
            for key, ones in found.items():
                scores_SNF = np.stack([scores_NF for scores_NF, _ in ones])
                told = tuple(extra for _, extra in ones)
                one = Scored(variant.encoder, variant.baseline, scores_SNF, variant.extra, seed_extra=told)
                scored.setdefault(key, []).append(one)
    return [
        row
        for (index, share), ones in sorted(scored.items(), key=lambda item: item[0])
        for row in compare_scores(task, protocol, share, all_cases[index], ones, options)
    ]


def fittable(train_NF: NDArray[np.int8]) -> list[int]:
    """Return the classes of which the training labels know both states."""
    return [column for column in range(train_NF.shape[1]) if {0, 1} <= set(train_NF[:, column].tolist())]


def _score(
    probe: Probe, cases: Cases, features_ND: NDArray[np.float32], share: float, seed: int
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    train, val, test = (cases.of(split) for split in ("train", "val", "test"))
    used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], share, seed)]
    labels_NF = cases.labels_NF
    scores_NF, told = probe(
        ProbeData(
            features_ND[used], labels_NF[used], features_ND[val], labels_NF[val], features_ND[test], features_ND[train]
        ),
        seed,
    )
    patients = np.unique(cases.patients_N[used])
    extra: dict[str, Any] = {
        **told,
        "n_train_images": len(used),
        "n_train_patients": len(patients),
        "label_patients_sha256": ids_sha256(patients),
        "seed": seed,
    }
    unfitted = sorted(set(range(len(cases.classes))) - set(fittable(labels_NF[used])))
    if unfitted:
        extra["classes_of_one_state_in_the_labels"] = [cases.classes[column] for column in unfitted]
    return scores_NF, extra
