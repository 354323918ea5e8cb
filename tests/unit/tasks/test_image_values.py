"""Means of image values against NumPy and hand-worked cases; resampling against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import ShapeError, TaskError
from umif.tasks.base import TaskOptions
from umif.tasks.image_values import (
    ImageSet,
    Valued,
    compare_values,
    macro_mean,
    macro_mean_interval,
    macro_mean_replicates,
)
from umif.tasks.metrics import patient_weights

NAN = np.nan


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(*[st.one_of(st.just(NAN), st.floats(0, 1))] * 2), min_size=1, max_size=30).filter(
        lambda rows: not np.isnan(np.array(rows)).all()
    )
)
def test_the_macro_mean_is_numpys_mean_of_nanmeans(rows: list[tuple[float, float]]) -> None:
    values = np.array(rows)
    kept = values[:, ~np.isnan(values).all(axis=0)]
    assert macro_mean(values)[0] == pytest.approx(np.nanmean(kept, axis=0).mean(), abs=1e-12)


def test_a_class_without_a_value_is_named_and_left_out() -> None:
    assert macro_mean(np.array([[0.25, NAN], [0.75, NAN]])) == (0.5, [0.5, None])


def test_a_class_counts_as_much_as_another_whatever_its_images() -> None:
    values = np.array([[1.0, 0.0], [1.0, NAN], [1.0, NAN], [0.0, NAN]])
    assert macro_mean(values)[0] == 0.375


def test_no_value_at_all_is_refused_and_the_way_out_is_told() -> None:
    with pytest.raises(TaskError) as caught:
        macro_mean(np.full((3, 1), NAN))
    assert caught.value.fix


@pytest.mark.parametrize("values", [np.array([0.1, 0.2]), np.array([[np.inf]])])
def test_values_that_have_no_mean_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        macro_mean(values)


def test_each_replicate_is_the_mean_over_the_images_of_the_drawn_patients() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{number}" for number in rng.integers(0, 6, 20)]
    values = rng.random((20, 2))
    values[rng.random((20, 2)) < 0.3] = NAN
    [found] = macro_mean_replicates([values], patients, replicates=50, seed=3)
    weights = np.concatenate(list(patient_weights(patients, 50, 3)))
    for row, value in zip(weights, found, strict=True):
        repeated = np.repeat(values, row.astype(int), axis=0)
        assert value == pytest.approx(np.nanmean(np.nanmean(repeated, axis=0)), abs=1e-12)


def test_a_replicate_without_any_value_is_left_out_of_the_interval() -> None:
    values = np.array([[0.5], [NAN]])
    [found] = macro_mean_replicates([values], ["a", "b"], replicates=200, seed=0)
    assert np.isnan(found).any()
    assert set(found[~np.isnan(found)]) == {0.5}
    estimate = macro_mean_interval(values, ["a", "b"], replicates=200)
    assert (estimate.low, estimate.high) == (0.5, 0.5)


def test_one_image_has_a_value_and_an_interval_of_no_width() -> None:
    estimate = macro_mean_interval(np.array([[0.3]]), ["a"], replicates=20)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.3, 0.3, 0.3))


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 patients for 3"):
        macro_mean_replicates([np.zeros((3, 1))], ["a", "b"], 5, 0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        of_patient = rng.normal(0.5, 0.1, 60)
        values = np.repeat(of_patient, 2)[:, None] + rng.normal(0, 0.05, (120, 1))
        estimate = macro_mean_interval(values, np.repeat(np.arange(60), 2).astype(str).tolist(), replicates=200)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 0.5 <= estimate.high
    # 95 % of 200, less three standard deviations of a binomial and what percentile intervals of 60 patients miss.
    assert 176 <= hits <= 199


def test_rows_tell_values_gains_and_the_test_set() -> None:
    images = np.array(["d/1", "d/2", "d/3", "d/4"])
    test = ImageSet("p", "d: p", ("a", "b"), images, np.array(["x", "x", "y", "z"]))
    ours = np.array([[1.0, 0.5], [0.5, NAN], [1.0, NAN], [NAN, NAN]])
    theirs = np.where(np.isnan(ours), NAN, 0.25)
    rows = compare_values(
        "t", "protocol", 100.0, "Dice", test,
        [Valued("umif", False, ours, {"note": 1}), Valued("random", True, theirs)],
        TaskOptions(bootstrap=100),
    )  # fmt: skip
    assert [row.encoder for row in rows] == ["umif", "random"]
    assert rows[0].value == pytest.approx((5 / 6 + 0.5) / 2)
    assert rows[0].extra["per_class"] == pytest.approx({"a": 5 / 6, "b": 0.5})
    assert (rows[0].n_patients, rows[0].extra["n_images"], rows[0].extra["note"]) == (3, 3, 1)
    [gain] = rows[0].extra["gains"]
    assert gain["over"] == "random"
    assert gain["value"] == pytest.approx(rows[0].value - 0.25)
    assert gain["low"] > 0
    assert gain["share_not_above_zero"] == 0
    assert "gains" not in rows[1].extra
    assert rows[0].split_sha256 == rows[1].split_sha256
