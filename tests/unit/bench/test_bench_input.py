from __future__ import annotations

import json
from typing import TYPE_CHECKING

from umif.bench import input as bench
from umif.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_loader_reads_every_picture_and_is_told_beside_pillow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_scaling", lambda *_: {"pairs_per_s": {"1": 2.0, "2": 3.0}, "ratio": 1.5})
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
        "workers": {"pairs_per_s": {"1": 100.0, "2": 180.0}, "ratio": 1.8},
    }
    monkeypatch.setattr(bench, "measure_input", lambda *_, **__: found)
    assert main(["bench", "input"]) == 0
    text = capsys.readouterr().out
    assert "2500" in text
    assert "1.80 (1.70–2.00)" in text
    assert "ratio 1.80" in text
