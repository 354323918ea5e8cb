from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from umif.errors import EmptyError, RunError, UmifError
from umif.report import write_report
from umif.report.runs import read_run, read_runs

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = {
    "model": {"backbone": "vit_tiny_patch16_224", "depth": None, "image_size": 64},
    "data": {"kinds": ["report", "class"], "kinds_per_step": 4, "pairs_per_kind": 8, "p_separate": 0.2},
    "objectives": {"align": {"temperature": 0.1}, "con": {}},
    "optim": {"lr": 5e-4, "weight_decay": 0.05, "teacher_momentum": 0.99},
    "seed": 3,
}


def row(encoder: str, value: float, **extra: Any) -> dict[str, Any]:
    return {
        "task": "linear", "data": "toy: <b>findings</b>", "protocol": "test patients", "labels": 10.0,
        "metric": "macro AUC", "value": value, "low": value - 0.01, "high": value + 0.01, "encoder": encoder,
        "baseline": not encoder.startswith("umif"), "split_sha256": "s", "n_patients": 1234, "extra": extra,
    }  # fmt: skip


def write_run(folder: Path, name: str = "toy", rows: list[dict[str, Any]] | None = None) -> Path:
    """A run folder whose corpus is gone."""
    folder.mkdir()
    start = {
        "time": "2026-01-02T03:04:05Z", "versions": {"umif": "0.1.0", "torch": "2.15.0"}, "platform": "Linux x86_64",
        "git": {"commit": "0123456789abcdef", "dirty": True}, "cores": 2, "dtype": "fp32",
    }  # fmt: skip
    run = {
        "name": name, "recipe": RECIPE, "starts": [start],
        "corpus": {"path": str(folder / "gone"), "fingerprint": "fedcba9876543210"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    log = [{"step": s, "losses": {"align": 4 / s, "con": 1 / s}, "lr": 1e-4, "pairs": 32} for s in range(1, 9)]
    log[-1]["pairs_per_s"] = 12.5
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in log))
    if rows is not None:
        (folder / "results").mkdir()
        content = {"results": rows, "command": "umif evaluate runs/toy linear --seed 5"}
        (folder / "results" / "linear.json").write_text(json.dumps(content))
    return folder


class TestWriteReport:
    @pytest.fixture
    def html(self, tmp_path: Path) -> str:
        gain = {"over": "pixels 32×32", "value": -0.2, "low": -0.25, "high": -0.15}
        roc = {"false_alarms": [0.0, 0.5, 1.0], "found": {"effusion": [0.1, 0.8, 1.0]}}
        per_class = {"per_class": {"effusion": 0.61, "mass": None}, "roc": roc}
        rows = [row("umif cls", 0.7, gains=[gain], **per_class), row("pixels 32×32", 0.9, **per_class)]
        run = write_run(tmp_path / "run", rows=rows)
        return write_report([run], tmp_path / "out").read_text(encoding="utf-8")

    def test_says_plainly_that_pixels_win(self, html: str) -> None:
        assert "pixels 32×32 wins" in html
        assert 'class="below"' in html

    def test_shows_values_intervals_gains_and_findings(self, html: str) -> None:
        for text in ("0.700", "[0.690, 0.710]", "-0.200", "[-0.250, -0.150]", "effusion", "0.610", "1,234"):
            assert text in html

    def test_roc_curves_stand_in_the_page_where_rows_keep_them(self, html: str, tmp_path: Path) -> None:
        assert 'aria-label="ROC curves of linear, toy' in html
        assert html.count('<figure class="roc">') == 1
        without = write_run(tmp_path / "without", rows=[row("umif cls", 0.7)])
        page = write_report([without], tmp_path / "bare").read_text(encoding="utf-8")
        assert '<figure class="roc">' not in page

    def test_shows_what_was_trained_and_by_which_commands(self, html: str) -> None:
        for text in (
            "vit_tiny_patch16_224", "4 × 8", "align (temperature 0.1), con", "0123456789ab with changes",
            "torch 2.15.0",
            "umif evaluate runs/toy linear --seed 5", "fedcba987654", "12.5",
        ):  # fmt: skip
            assert text in html

    def test_names_from_data_are_text_and_never_markup(self, html: str) -> None:
        assert "<b>findings</b>" not in html
        assert "&lt;b&gt;findings&lt;/b&gt;" in html

    def test_acknowledged_leaks_stand_beside_the_numbers_they_touch(self, tmp_path: Path) -> None:
        leaks = [{"id": "patient:nih>rsna", "count": 1234, "acknowledged": True}]
        touched = [row("umif cls", 0.7, leaks=leaks), row("random cls", 0.5, leaks=leaks)]
        clean = [{**each, "data": "other data", "extra": {"leaks": []}} for each in touched]
        run = write_run(tmp_path / "run", rows=[*touched, *clean])
        record = json.loads((run / "run.json").read_text())
        known = [{**leaks[0], "against": "rsna"}]
        record["audit"] = {"about": {"evaluations": [{"name": "rsna", "fingerprint": "f"}]}, "leaks": known}
        (run / "run.json").write_text(json.dumps(record))
        page = write_report([run], tmp_path / "out").read_text(encoding="utf-8")
        caution = "were trained on: patient:nih&gt;rsna (1,234 images)."
        assert page.count(caution) == 1, "beside the numbers that leak, and beside no others"
        before = page[: page.index(caution)]
        assert before.rindex("toy: &lt;b&gt;findings") > before.rindex("other data"), "it stands under its own heading"
        assert "leaks that the recipe acknowledges: patient:nih&gt;rsna (1,234 images of rsna)." in page

    def test_says_so_when_the_corpus_is_gone(self, html: str) -> None:
        assert "no longer where the run found it" in html
        assert "What a step saw" not in html

    def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", rows=[row("umif", 0.7)])
        pages = [write_report([run], tmp_path / "out").read_bytes() for _ in range(2)]
        assert pages[0] == pages[1]

    def test_a_run_without_results_or_log_still_has_a_page(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run")
        (run / "log.jsonl").unlink()
        html = write_report([run], tmp_path / "out").read_text(encoding="utf-8")
        assert "Nothing was evaluated yet" in html
        assert "Nothing was logged yet" in html

    def test_no_run_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(EmptyError, match="umif report"):
            write_report([], tmp_path)

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run")
        (tmp_path / "file").write_text("")
        with pytest.raises(UmifError, match=r"cannot be written.*\n.*choose another --out"):
            write_report([run], tmp_path / "file")


class TestReadRuns:
    def test_runs_of_one_name_are_told_apart(self, tmp_path: Path) -> None:
        folders = [write_run(tmp_path / name, rows=[row("umif", 0.5)]) for name in ("a", "b", "c")]
        runs = read_runs(folders)
        assert [run.label for run in runs] == ["toy", "toy 2", "toy 3"]
        assert [run.results[0]["run"] for run in runs] == ["toy", "toy 2", "toy 3"]

    def test_a_folder_that_is_no_run_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=rf"{tmp_path}: this is no run folder"):
            read_run(tmp_path)

    @pytest.mark.parametrize("content", ["{", "[]", '{"rows": []}', '{"results": [1]}', "\xff"])
    def test_damaged_results_are_named_with_a_way_out(self, tmp_path: Path, content: str) -> None:
        run = write_run(tmp_path / "run", rows=[])
        (run / "results" / "linear.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(RunError, match=r"linear\.json: .*\n.*umif evaluate"):
            read_run(run)

    def test_rows_that_lack_columns_are_named(self, tmp_path: Path) -> None:
        broken = row("umif", 0.5)
        del broken["low"], broken["metric"]
        run = write_run(tmp_path / "run", rows=[broken])
        with pytest.raises(RunError, match="rows lack low, metric"):
            read_run(run)

    def test_the_ledger_is_counted_by_stage(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run")
        lines = [{"stage": "decode"}, {"stage": "text"}, {"stage": "decode"}]
        (run / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert read_run(run).ledger == {"decode": 2, "text": 1}

    def test_a_damaged_ledger_names_its_line(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run")
        (run / "ledger.jsonl").write_text('{"stage": "decode"}\nnonsense\n')
        with pytest.raises(RunError, match=r"ledger\.jsonl:2"):
            read_run(run)


def test_runs_side_by_side_share_one_table_and_baselines_appear_once(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", "first", [row("umif", 0.9), row("pixels", 0.8)])
    two = write_run(tmp_path / "b", "second", [row("umif", 0.7), row("pixels", 0.8)])
    html = write_report([one, two], tmp_path / "out").read_text(encoding="utf-8")
    assert "umif (first)" in html
    assert "umif (second)" in html
    assert html.count("0.800</td>") == 2  # once as the rival in the verdict, once in the table
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [each["run"] for each in rows] == ["first", "first", "second", "second"]
