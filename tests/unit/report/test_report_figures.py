from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from umif.report.figures import SERIES, interval_plot, series, smooth, training_curves
from umif.report.roc import roc_figure
from umif.report.tables import compare

LOG = [{"step": s, "losses": {"align": 5 / s, "con": None}, "lr": 1e-3, "mine": 1.0} for s in range(1, 200)]


def row(encoder: str, value: float, **changes: Any) -> dict[str, Any]:
    return {
        "task": "linear", "data": "x & y <z>", "protocol": "", "labels": 10.0, "metric": "AUC", "value": value,
        "low": value - 0.1, "high": value + 0.1, "encoder": encoder, "baseline": encoder == "pixels",
        "split_sha256": "s", "n_patients": 3, **changes,
    }  # fmt: skip


class TestSeries:
    def test_follows_nested_keys_and_leaves_out_what_is_missing_or_not_finite(self) -> None:
        log: list[dict[str, Any]] = [
            {"step": 1, "losses": {"align": 2.0}},
            {"step": 2, "losses": {"align": None}},
            {"step": 3, "losses": {"align": float("nan")}},
            {"step": 4},
            {"step": 5, "losses": {"align": 1}},
        ]
        steps, values = series(log, "losses.align")
        assert (steps.tolist(), values.tolist()) == ([1, 5], [2.0, 1.0])


class TestSmooth:
    def test_a_constant_stays_itself_from_the_first_point(self) -> None:
        assert smooth(np.full(50, 3.0), span=10) == pytest.approx(np.full(50, 3.0))

    def test_equals_the_weighted_mean_written_out(self) -> None:
        values, keep = np.array([1.0, 5.0, 2.0]), 1 - 2 / (4 + 1)
        weights = keep ** np.arange(3)[::-1]
        assert smooth(values, span=4)[-1] == pytest.approx((weights * values).sum() / weights.sum())


class TestTrainingCurves:
    def test_draws_a_panel_for_what_was_logged_and_none_for_the_rest(self) -> None:
        svg = training_curves({"run": LOG})
        text = "".join(ET.fromstring(svg).itertext())
        assert "Alignment loss" in text
        assert "Learning rate" in text
        assert "Consistency loss" not in text

    def test_an_objective_of_a_plug_in_gets_a_panel_of_its_own(self) -> None:
        log = [{**each, "losses": {"spread": 1.0, "total": 2.0}} for each in LOG]
        text = "".join(ET.fromstring(training_curves({"run": log})).itertext())
        assert "Loss spread" in text
        assert "total" not in text

    def test_several_runs_are_named(self) -> None:
        text = "".join(ET.fromstring(training_curves({"one": LOG, "two": LOG})).itertext())
        assert {"one", "two"} <= set(text.split())

    def test_an_empty_log_draws_nothing(self) -> None:
        assert training_curves({"run": []}) == ""

    def test_the_same_log_draws_the_same_bytes_and_leaves_plotting_defaults_alone(self) -> None:
        # The backend resolves itself when it is first read, whoever reads it.
        before = {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}
        assert training_curves({"run": LOG}) == training_curves({"run": LOG})
        assert {name: mpl.rcParams[name] for name in before} == before


class TestIntervalPlot:
    def test_says_in_words_what_it_shows_and_is_valid_with_awkward_names(self) -> None:
        svg = interval_plot(compare([row("umif", 0.8), row("pixels", 0.7), row("umif", 0.6, labels=1.0)]))
        root = ET.fromstring(svg)
        label = root.attrib["aria-label"]
        assert "umif 0.800" in label
        assert "pixels 0.700" in label
        assert root.attrib["role"] == "img"

    def test_a_row_without_interval_is_a_dot(self) -> None:
        with_interval = interval_plot(compare([row("umif", 0.8)]))
        without = interval_plot(compare([row("umif", 0.8, low=None, high=None)]))
        assert with_interval.count("<path") > without.count("<path")

    def test_nothing_draws_nothing(self) -> None:
        assert interval_plot([]) == ""


class TestRocFigure:
    ALARMS = (0.0, 0.25, 1.0)

    def curves(self, encoder: str, value: float, *names: str) -> dict[str, Any]:
        roc = {"false_alarms": list(self.ALARMS), "found": {name: [0.2, value, 1.0] for name in names}}
        return row(encoder, value, extra={"roc": roc})

    def test_every_contender_has_a_line_in_every_panel_and_is_named_with_its_area(self) -> None:
        two = [self.curves("umif", 0.8, "edema", "lung_opacity"), self.curves("pixels", 0.7, "edema", "lung_opacity")]
        svg = roc_figure(compare(two)[0])
        text = "".join(ET.fromstring(svg).itertext())
        for words in ("Mean of 2 classes", "edema", "lung opacity", "umif 0.800", "pixels 0.700"):
            assert words in text
        one = roc_figure(compare([self.curves("umif", 0.8, "edema", "lung_opacity")])[0])
        # A panel more or a row more is a line more in each.
        assert svg.count("stroke-dasharray") - one.count("stroke-dasharray") == 3 + 1
        assert "http://www.w3.org" in svg
        assert 'href="http' not in svg

    def test_one_class_is_one_panel_and_an_accuracy_is_not_called_an_area(self) -> None:
        single = roc_figure(compare([{**self.curves("umif", 0.8, "edema"), "metric": "accuracy"}])[0])
        text = "".join(ET.fromstring(single).itertext())
        assert "Mean of" not in text
        assert "umif" in text
        assert "0.800" not in text

    def test_a_contender_keeps_its_colour_wherever_it_comes_in_the_table(self) -> None:
        def colours(**values: float) -> dict[str, str]:
            svg = roc_figure(compare([self.curves(name, value, "edema") for name, value in values.items()])[0])
            legend = next(node for node in ET.fromstring(svg).iter() if node.get("id") == "legend_1")
            strokes = re.findall(r"stroke: (#\w+)", ET.tostring(legend, encoding="unicode"))
            names = [word.split()[0] for word in legend.itertext() if word.strip()]
            return dict(zip(names, [stroke for stroke in strokes if stroke in SERIES], strict=True))

        first, second = colours(umif=0.8, pixels=0.7, other=0.6), colours(umif=0.6, pixels=0.8, other=0.7)
        assert first == second
        assert len(set(first.values())) == 3

    def test_rows_without_points_draw_nothing(self) -> None:
        assert roc_figure(compare([row("umif", 0.8), row("pixels", 0.7, extra={"roc": {}})])[0]) == ""
