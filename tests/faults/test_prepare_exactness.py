"""The program that kills builds and compares them: it lands its kills, and it would see a difference."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lance
import pytest

from umif.corpus import PrepareConfig, prepare
from umif.corpus.phantom import write_phantom

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "prepare_exactness.py"


def _program() -> Any:
    spec = importlib.util.spec_from_file_location("prepare_exactness", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_kills_land_and_the_corpus_is_the_same(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--kills", "2", "--images", "90"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "found.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["kills"]) == 2
    assert found["differences"] == []
    assert found["readers"] == {"folder": 30, "phantom": 30, "table": 30}
    assert "the same, bit for bit" in done.stdout


def test_a_difference_in_any_part_is_seen(tmp_path: Path) -> None:
    program = _program()
    write_phantom(tmp_path / "raw", 6, size=64)
    prepare(tmp_path / "one", [("phantom", tmp_path / "raw")], PrepareConfig(shorter_side=32), progress=False)
    whole = program.content(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert program.differences(whole, program.content(tmp_path / "two")) == []
    for name in ("images.lance", "pairs.lance"):
        table = lance.dataset(str(tmp_path / "two" / name))
        table.update({"view": "'another'"}, where=f"{name.split('.')[0][:-1]} is not null")
    (tmp_path / "two" / "ledger.jsonl").write_text("{}\n")
    manifest = json.loads((tmp_path / "two" / "corpus.json").read_text())
    (tmp_path / "two" / "corpus.json").write_text(json.dumps({**manifest, "fingerprint": "0" * 64}))
    assert program.differences(whole, program.content(tmp_path / "two")) == [
        "fingerprint", "corpus.json", "ledger.jsonl", "images.lance", "pairs.lance",
    ]  # fmt: skip
    assert program.where_it_was(tmp_path / "two") is None
