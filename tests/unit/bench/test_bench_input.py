from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from train_runs import make_corpus
from umif.bench import input as bench
from umif.cli import main
from umif.corpus import Corpus

if TYPE_CHECKING:
    from pathlib import Path


def of_workers(one: float, two: float) -> dict[str, Any]:
    return {
        "pairs_per_s": {"1": one, "2": two},
        "ratio": [two / one, 1.5, 1.9],
        "processor_ms_a_batch": {"worker": {"1": 50.0, "2": 52.0}, "main": {"1": 0.5, "2": 0.6}},
    }


def test_every_loader_reads_every_picture_and_is_told_beside_pillow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_scaling", lambda *_: of_workers(2.0, 3.0))
    out = tmp_path / "results" / "input.json"
    assert main(["bench", "input", "--images", "8", "--size", "32", "--rounds", "1", "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert found["hardware"]["cores"] >= 1
    assert found["pictures"]["count"] == 8
    rows = {(row["source"], row["variant"]): row for row in found["results"]}
    own = {("umif, JPEG", variant) for variant in ("decode", "crop", "augment")}
    own |= {("umif, pixel copy", variant) for variant in ("crop", "augment", "gather")}
    assert rows.keys() >= own | {("pillow", "augment"), ("torchvision ImageFolder", "crop")}
    for row in rows.values():
        assert row["images_per_s_per_core"] > 0
        low, high = row["ratio_to_pillow"][1:]
        assert 0 < low <= row["ratio_to_pillow"][0] <= high
    assert rows["pillow", "crop"]["ratio_to_pillow"] == [1.0, 1.0, 1.0]


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"source": "umif, JPEG", "variant": "crop", "images_per_s_per_core": 2500.4, "ratio_to_pillow": [1.8, 1.7, 2]}
    found = {
        "hardware": {"processor": "a processor"},
        "pictures": {"stored": "256 × 256", "jpeg_bytes": 14000, "size": 224},
        "results": [row],
        "workers": {**of_workers(100.0, 180.0), "unsent": of_workers(100.0, 190.0)},
    }
    monkeypatch.setattr(bench, "measure_input", lambda *_, **__: found)
    assert main(["bench", "input"]) == 0
    text = capsys.readouterr().out
    assert "2500" in text
    assert "1.80 (1.70–2.00)" in text
    assert "sent by worker processes: 1: 100 pairs/s, 2: 180 pairs/s; ratio 1.80 (1.50–1.90)" in text
    assert "made and not sent: 1: 100 pairs/s, 2: 190 pairs/s; ratio 1.90" in text
    assert "2: 52.0 ms by a worker and 0.6 ms by who takes it in" in text


@pytest.mark.slow
def test_workers_are_timed_beside_processes_that_send_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_SCALING_STEPS", 4)
    found = bench._scaling(Corpus.open(make_corpus(tmp_path)), 32, 1, False)
    for what in (found, found["unsent"]):
        assert all(rate > 0 for rate in what["pairs_per_s"].values())
        assert what["ratio"][0] == what["ratio"][1] == what["ratio"][2]
        # One round: both come from it, each rounded.
        one, two = what["pairs_per_s"]["1"], what["pairs_per_s"]["2"]
        assert what["ratio"][0] == pytest.approx(two / one, abs=0.01)
        assert all(spent > 0 for spent in what["processor_ms_a_batch"]["worker"].values())
    assert all(spent > 0 for spent in found["processor_ms_a_batch"]["main"].values())
