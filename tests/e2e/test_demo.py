"""The whole chain on a small demo: what it leaves behind, and that doing it again changes nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from umif.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Page(HTMLParser):
    """Collects what a browser would load, pictures without words, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.without_alt: list[str] = []
        self.pictures = 0
        self.text = ""
        self._skip = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._skip = tag == "style"
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            value = given.get(name)
            if value and not value.startswith(("#", "data:")):
                self.loads.append(value)
        if tag == "img":
            self.pictures += 1
            if not given.get("alt"):
                self.without_alt.append(tag)
        if tag in ("link", "script", "iframe", "object"):
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text += data


@pytest.fixture(scope="module")
def page(demo_run: Path) -> Page:
    return Page((demo_run / "report" / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(demo_run: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads((demo_run / "report" / "results.json").read_text())["results"]
    return results


class TestTheReport:
    def test_loads_nothing_from_anywhere(self, page: Page, demo_run: Path) -> None:
        assert page.loads == []
        html = (demo_run / "report" / "report.html").read_text(encoding="utf-8")
        assert "@import" not in html
        assert "url(http" not in html

    def test_every_picture_says_in_words_what_it_shows(self, page: Page, demo_run: Path) -> None:
        assert page.pictures >= 8
        assert page.without_alt == []
        html = (demo_run / "report" / "report.html").read_text(encoding="utf-8")
        assert html.count("<svg") == html.count('role="img" aria-label="')

    def test_shows_a_pair_of_every_kind_that_the_corpus_holds(self, page: Page, demo_run: Path) -> None:
        pairs = json.loads((demo_run / "corpus" / "corpus.json").read_text())["pairs"]
        assert {kind for kind, count in pairs.items() if count} == {"report", "caption", "class", "segment"}
        for kind in pairs:
            assert f"{kind} pair" in page.text

    def test_says_that_phantoms_are_no_patients(self, page: Page) -> None:
        assert "not patients" in page.text

    def test_holds_every_value_of_the_results(self, page: Page, rows: list[dict[str, Any]]) -> None:
        assert rows
        for row in rows:
            assert f"{row['value']:.3f}" in page.text

    def test_names_the_corpus_and_the_commands_that_lead_here(self, page: Page, demo_run: Path) -> None:
        assert json.loads((demo_run / "run.json").read_text())["corpus"]["fingerprint"][:12] in page.text
        assert "umif pretrain" in page.text
        assert "umif evaluate" in page.text

    def test_its_csv_and_json_hold_the_same_rows(self, demo_run: Path, rows: list[dict[str, Any]]) -> None:
        with (demo_run / "report" / "results.csv").open() as file:
            read = list(csv.DictReader(file))
        assert [(row["encoder"], float(row["value"])) for row in read] == [
            (row["encoder"], row["value"]) for row in rows
        ]


def test_trained_random_and_pixels_are_all_there_with_intervals(rows: list[dict[str, Any]]) -> None:
    linear = [row for row in rows if row["task"] == "linear"]
    assert {row["encoder"].split()[0] for row in linear} == {"umif", "random", "pixels"}
    assert {row["labels"] for row in linear} == {1.0, 10.0, 100.0}
    assert {row["task"] for row in rows} >= {"linear", "zero-shot"}
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]


def test_the_demo_again_goes_through_and_changes_no_weight_and_no_number(
    demo_home: Path, tmp_path: Path, small_demo: Callable[[Path], None]
) -> None:
    shutil.copytree(demo_home / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "demo"
    before = {
        file.name: file.read_bytes() for file in [*run.glob("checkpoints/*/model.safetensors"), run / "log.jsonl"]
    }
    results = json.loads((run / "report" / "results.json").read_text())
    # A demo that was stopped before it had evaluated: the rest is done, the finished part is not done again.
    shutil.rmtree(run / "results")
    shutil.rmtree(run / "report")
    small_demo(tmp_path)
    after = {file.name: file.read_bytes() for file in [*run.glob("checkpoints/*/model.safetensors"), run / "log.jsonl"]}
    assert before == after
    again = json.loads((run / "report" / "results.json").read_text())
    assert [row["value"] for row in again["results"]] == [row["value"] for row in results["results"]]


def test_the_demo_leaves_a_strangers_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


class TestVerbs:
    def test_evaluate_prints_the_promised_keys(self, demo_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
        command = ["evaluate", str(demo_run), "zero-shot", "--labels", "10%", "100%", "--bootstrap", "20", "--json"]
        assert main(command) == 0
        results = json.loads(capfd.readouterr().out)["results"]
        assert results
        for row in results:
            assert {
                "task", "data", "protocol", "labels", "metric", "value", "low", "high", "encoder", "baseline",
                "split_sha256", "n_patients",
            } <= set(row)  # fmt: skip

    def test_prepare_again_prints_the_promised_keys(self, demo_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
        source = f"phantom={demo_run / 'phantom'}"
        assert main(["prepare", str(demo_run / "corpus"), "--from", source, "--workers", "1", "--json"]) == 0
        answer = json.loads(capfd.readouterr().out)
        assert {"fingerprint", "readers", "images", "pairs", "quarantined"} <= set(answer)
        for reader in answer["readers"]:
            assert {"name", "seen", "yielded", "excluded"} <= set(reader)
            assert reader["seen"] == reader["yielded"] + sum(reader["excluded"].values())

    def test_pretraining_a_finished_run_again_prints_the_promised_keys(self, demo_run: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "umif", "pretrain", str(demo_run / "recipe.yaml"), "--json"],
            capture_output=True, text=True, check=True, cwd=demo_run.parents[1],
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert {"run", "steps", "pairs_per_s", "data_wait_share", "losses"} <= set(answer)
        assert set(answer["losses"]) == {"align", "con"}

    def test_report_takes_several_runs(self, demo_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["report", str(demo_run), str(demo_run), "--out", str(tmp_path / "both"), "--json"]) == 0
        path = json.loads(capfd.readouterr().out)["report"]
        text = Page((tmp_path / "both" / "report.html").read_text(encoding="utf-8")).text
        assert path == str(tmp_path / "both" / "report.html")
        assert "2 runs side by side" in text


def test_ctrl_c_in_pretraining_saves_and_says_how_to_go_on(demo_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "umif", "pretrain", str(demo_run / "recipe.yaml"), f"out={run}", "train.steps=100000",
        f"corpus={demo_run / 'corpus'}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    log = run / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "same command goes on" in errors
    assert "Traceback" not in errors
    assert list(run.glob("checkpoints/step-*"))
