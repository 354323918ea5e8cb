from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from umif.report.tables import COLUMNS, compare, distinct, judge, paired_gains, results_csv, results_text


def row(encoder: str = "umif", value: float = 0.9, *, half: float | None = 0.02, **changes: Any) -> dict[str, Any]:
    return {
        "run": "a", "task": "linear", "data": "x: findings", "protocol": "test", "labels": 100.0, "metric": "AUC",
        "value": value, "low": None if half is None else value - half, "high": None if half is None else value + half,
        "encoder": encoder, "baseline": encoder != "umif", "split_sha256": "s", "n_patients": 9, "extra": {}, **changes,
    }  # fmt: skip


class TestCompare:
    def test_only_rows_of_one_test_set_and_setting_are_held_against_each_other(self) -> None:
        rows = [
            row(), row("pixels"), row(split_sha256="t"), row(labels=1.0), row(metric="F1"), row(data="y"),
            row(task="z"),
        ]  # fmt: skip
        assert sorted(len(comparison.rows) for comparison in compare(rows)) == [1, 1, 1, 1, 1, 2]

    def test_the_best_comes_first(self) -> None:
        (comparison,) = compare([row("random", 0.6), row(value=0.8), row("pixels", 0.7)])
        assert [each["encoder"] for each in comparison.rows] == ["umif", "pixels", "random"]
        assert comparison.trained is not None
        assert comparison.rival is not None
        assert (comparison.trained["encoder"], comparison.rival["encoder"]) == ("umif", "pixels")

    def test_metrics_come_in_the_order_of_the_rows_within_a_share_of_the_labels(self) -> None:
        metrics = ["R@1", "R@10", "P@5"]
        rows = [row(metric=metric, labels=labels) for labels in (100.0, 1.0) for metric in metrics]
        rows += [row(metric=metric, labels=1.0, data="w") for metric in reversed(metrics)]
        found = [(each.data, each.labels, each.metric) for each in compare(rows)]
        assert found == [
            *(("w", 1.0, metric) for metric in reversed(metrics)),
            *(("x: findings", labels, metric) for labels in (1.0, 100.0) for metric in metrics),
        ]


class TestJudge:
    @pytest.mark.parametrize(
        ("ours", "rival", "outcome", "words"),
        [
            (row(value=0.90), row("pixels", 0.80), "above", "above every baseline"),
            (row(value=0.80), row("pixels", 0.90), "below", "pixels wins"),
            (row(value=0.90), row("pixels", 0.88), "open", "umif leads"),
            (row(value=0.88), row("pixels", 0.90), "open", "pixels leads"),
            (row(value=0.90, half=None), row("pixels", 0.89), "above", "above every baseline"),
        ],
    )
    def test_intervals_decide(self, ours: dict[str, Any], rival: dict[str, Any], outcome: str, words: str) -> None:
        verdict = judge(compare([ours, rival])[0])
        assert verdict is not None
        assert verdict.outcome == outcome
        assert words in verdict.words

    @pytest.mark.parametrize(("low", "high", "outcome"), [(0.001, 0.04, "above"), (-0.01, 0.05, "open")])
    def test_a_paired_gain_goes_before_separate_intervals(self, low: float, high: float, outcome: str) -> None:
        gain = {"over": "pixels", "value": 0.02, "low": low, "high": high}
        verdict = judge(compare([row(value=0.90, extra={"gains": [gain]}), row("pixels", 0.88)])[0])
        assert verdict is not None
        assert verdict.outcome == outcome

    def test_without_a_baseline_there_is_no_verdict(self) -> None:
        assert judge(compare([row()])[0]) is None
        assert judge(compare([row("pixels")])[0]) is None


def test_a_baseline_that_two_runs_share_is_shown_once_but_trained_rows_all_stay() -> None:
    rows = [row(), row("pixels"), row(run="b"), row("pixels", run="b"), row("random", 0.5), row("random", 0.6, run="b")]
    assert [(each["run"], each["encoder"]) for each in distinct(rows)] == [
        ("a", "umif"), ("a", "pixels"), ("b", "umif"), ("a", "random"), ("b", "random"),
    ]  # fmt: skip


def test_rows_without_gains_have_none() -> None:
    assert paired_gains(row()) == []


def test_csv_reads_back_to_the_same_rows() -> None:
    rows = [row(data='quoted, "strange" text'), row("pixels", half=None)]
    read = list(csv.DictReader(io.StringIO(results_csv(rows))))
    assert [each["data"] for each in read] == ['quoted, "strange" text', "x: findings"]
    assert tuple(read[0]) == COLUMNS
    assert (float(read[0]["value"]), read[1]["low"]) == (0.9, "")


def test_text_marks_baselines_and_shows_intervals() -> None:
    text = results_text([row(), row("pixels", 0.8, half=None)])
    assert "umif    0.900 [0.880, 0.920]" in text
    assert "pixels  0.800" in text.splitlines()[-1]
    assert text.splitlines()[-1].endswith("(baseline)")
    assert results_text([]) == "no results"
