"""Shares of labels: nested, by patient, stratified, and the same wherever they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import TaskError
from umif.tasks.subsets import label_subset, patient_order


def patients_and_labels(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patients = np.array([f"p{number:04d}" for number in rng.integers(0, count, 2 * count)])
    return patients, (rng.random((2 * count, 1)) < 0.2).astype(np.int8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 80), st.floats(0.1, 100), st.floats(0.1, 100))
def test_smaller_shares_lie_inside_larger_ones(seed: int, count: int, one: float, other: float) -> None:
    patients, labels = patients_and_labels(count, seed)
    small, large = (set(label_subset(patients, labels, share, seed).tolist()) for share in sorted((one, other)))
    assert small <= large


@pytest.mark.parametrize("percent", [1.0, 10.0, 50.0])
def test_a_patient_is_in_or_out_as_a_whole(percent: float) -> None:
    patients, labels = patients_and_labels()
    inside = np.zeros(len(patients), dtype=bool)
    inside[label_subset(patients, labels, percent, 0)] = True
    assert not set(patients[inside]) & set(patients[~inside])
    assert len(set(patients[inside])) == max(3, round(percent / 100 * len(set(patients))))


def test_all_labels_are_all_images() -> None:
    patients, labels = patients_and_labels()
    assert np.array_equal(label_subset(patients, labels, 100.0, 0), np.arange(len(patients)))


@pytest.mark.parametrize("seed", range(20))
def test_even_the_smallest_share_holds_both_states(seed: int) -> None:
    patients, labels = patients_and_labels(seed=seed)
    labels[:] = 0
    labels[7] = 1  # one positive image among 600
    chosen = label_subset(patients, labels, 0.01, seed)
    assert set(labels[chosen, 0].tolist()) == {0, 1}


def test_states_keep_their_share() -> None:
    patients = np.array([f"p{number:04d}" for number in range(1000)])
    labels = (np.arange(1000) % 10 == 0).astype(np.int8)[:, None]  # 10 % positive, one image a patient
    for seed in range(10):
        positives = labels[label_subset(patients, labels, 10.0, seed)].sum()
        # 100 patients, evenly spread: 10 of them, give or take rounding at either end.
        assert 9 <= positives <= 12


def test_every_finding_is_met_early_when_there_are_several() -> None:
    rng = np.random.default_rng(0)
    patients = np.array([f"p{number:04d}" for number in range(400)])
    labels = (rng.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.02]).astype(np.int8)
    chosen = label_subset(patients, labels, 0.5, 0)
    assert (labels[chosen].sum(0) > 0).sum() >= 5


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_images() -> None:
    patients, labels = patients_and_labels()
    first = set(patients[label_subset(patients, labels, 10.0, 0)])
    order = np.random.default_rng(9).permutation(len(patients))
    again = set(patients[order][label_subset(patients[order], labels[order], 10.0, 0)])
    assert again == first
    assert set(patients[label_subset(patients, labels, 10.0, 1)]) != first


def test_the_order_holds_every_patient_once() -> None:
    patients, labels = patients_and_labels()
    ordered, strata = patient_order(patients, labels, 0)
    assert sorted(ordered.tolist()) == sorted(set(patients.tolist()))
    assert strata == 3


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.5, float("nan")])
def test_no_share_of_that_size(percent: float) -> None:
    patients, labels = patients_and_labels(10)
    with pytest.raises(TaskError, match="no share"):
        label_subset(patients, labels, percent, 0)
