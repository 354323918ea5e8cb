"""A run leaves out what the quarantine list excludes, records which list it was, and goes on with the same one only."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from train_runs import make_corpus, tiny_recipe
from umif.corpus import Corpus
from umif.corpus.quarantine import QUARANTINE, read_quarantine
from umif.errors import CorpusError, EmptyError, RunError
from umif.tokens.loader import DataConfig
from umif.tokens.selection import select_rows
from umif.tokens.text import vocabulary_texts
from umif.train.loop import pretrain
from umif.train.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def corpus(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A corpus of its own, whose list the test may change."""
    return shutil.copytree(make_corpus(tmp_path_factory.getbasetemp()), tmp_path / "corpus")


def write_list(corpus: Path, *items: str, decision: str = "exclude") -> None:
    lines = "".join(f"{item},{decision},\n" for item in items)
    (corpus / QUARANTINE).write_text(f"item,decision,reason\n{lines}")


def train(corpus: Path, out: Path, **options: Any) -> dict[str, Any]:
    pretrain(Recipe.model_validate(tiny_recipe(corpus, out, **options)), progress=False)
    known: dict[str, Any] = json.loads((out / "run.json").read_text())
    return known


def selected(corpus: Path, **changes: Any) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Ids of the pairs (of the images, for `image`) that are drawn from, by kind, and what was left out."""
    opened = Corpus.open(corpus)
    rows, left_out = select_rows(opened, DataConfig(**changes), read_quarantine(corpus))
    pairs = opened.pairs_table(["pair"]).column("pair").to_pylist()
    images = opened.images_table(["image"]).column("image").to_pylist()
    names = {kind: [(images if kind == "image" else pairs)[row] for row in found.all()] for kind, found in rows.items()}
    return names, left_out


def test_an_excluded_image_goes_with_all_its_pairs_and_nothing_else_does(corpus: Path) -> None:
    before, _ = selected(corpus, image_pairs=True)
    image, pair = before["class"][0].partition("#")[0], before["report"][-1]
    write_list(corpus, image, pair)
    after, left_out = selected(corpus, image_pairs=True)
    gone = {name for kind in before for name in set(before[kind]) - set(after[kind])}
    expected = {name for kind in before for name in before[kind] if name.partition("#")[0] == image} | {pair}
    assert gone == expected
    assert left_out["quarantined"] == len(expected)
    assert image not in after["image"]


def test_what_is_kept_or_waits_for_review_is_used(corpus: Path) -> None:
    before = selected(corpus)
    write_list(corpus, before[0]["class"][0], decision="review")
    assert selected(corpus) == before
    write_list(corpus, before[0]["class"][0], decision="keep")
    assert selected(corpus) == before


def test_without_exclusions_a_run_is_the_same_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    runs = []
    for name in ("none", "kept"):
        runs.append(train(corpus, tmp_path / name, steps=2))
        write_list(corpus, Corpus.open(corpus).take_pairs([0], ["pair"])[0]["pair"], decision="keep")
    logs = [
        [json.loads(line)["losses"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("none", "kept")
    ]
    assert logs[0] == logs[1]
    assert runs[0]["corpus"] == runs[1]["corpus"]
    assert set(runs[0]["corpus"]) == {"path", "fingerprint"}


def test_the_list_is_recorded_and_another_one_is_refused_on_resume(corpus: Path, tmp_path: Path) -> None:
    pairs = selected(corpus)[0]["class"]
    write_list(corpus, pairs[0])
    known = train(corpus, tmp_path / "run", steps=1)
    assert known["corpus"]["quarantine_sha256"] == read_quarantine(corpus).sha256
    assert known["corpus"]["fingerprint"] == Corpus.open(corpus).fingerprint
    write_list(corpus, pairs[0], pairs[1])
    with pytest.raises(RunError, match=r"another quarantine list.*\n.*quarantine\.csv"):
        train(corpus, tmp_path / "run", steps=1)
    (corpus / QUARANTINE).unlink()
    with pytest.raises(RunError, match="now of nothing"):
        train(corpus, tmp_path / "run", steps=1)
    write_list(corpus, pairs[0])
    (corpus / QUARANTINE).write_text((corpus / QUARANTINE).read_text() + f"{pairs[1]},review,undecided\n")
    assert train(corpus, tmp_path / "run", steps=1)["corpus"] == known["corpus"]  # the same things are left out


def test_a_list_that_appears_stops_a_run_that_began_without(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "run", steps=1)
    write_list(corpus, selected(corpus)[0]["class"][0])
    with pytest.raises(RunError, match="hash of nothing"):
        train(corpus, tmp_path / "run", steps=1)


def test_a_run_that_would_have_nothing_left_names_the_list(corpus: Path, tmp_path: Path) -> None:
    write_list(corpus, *Corpus.open(corpus).images_table(["image"]).column("image").to_pylist())
    with pytest.raises(EmptyError, match=r"quarantine\.csv"):
        train(corpus, tmp_path / "run", steps=1)


def test_an_unknown_item_stops_the_run_instead_of_being_passed_over(corpus: Path, tmp_path: Path) -> None:
    write_list(corpus, "phantom/no-such-image.png")
    with pytest.raises(CorpusError, match=r"quarantine\.csv:2: .*neither an image nor a pair"):
        train(corpus, tmp_path / "run", steps=1)


def test_rows_stay_ascending(corpus: Path) -> None:
    write_list(corpus, selected(corpus)[0]["class"][3])
    rows, _ = select_rows(Corpus.open(corpus), DataConfig(), read_quarantine(corpus))
    assert all((np.diff(found.all()) > 0).all() for found in rows.values())


def test_the_vocabulary_is_not_learned_from_excluded_texts(corpus: Path) -> None:
    opened = Corpus.open(corpus)
    row = opened.take_pairs(opened.pair_rows("report", "train")[:1], ["pair", "text"])[0]
    before = list(vocabulary_texts(opened))
    write_list(corpus, row["pair"])
    after = list(vocabulary_texts(opened))
    assert len(before) - len(after) == 1
    assert before.count(row["text"]) - after.count(row["text"]) == 1
