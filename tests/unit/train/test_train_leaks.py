"""A recipe that declares what it will be tested on is held to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from leaky_corpora import OtherFilms, film, listed_corpus, rows_tested, rows_trained
from train_runs import tiny_recipe
from umif.errors import EmptyError, LeakError
from umif.train import leaks
from umif.train.leaks import leaks_into
from umif.train.loop import pretrain
from umif.train.recipe import Recipe
from umif.train.runfolder import read_run_json

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus

IDS = [f"{how}:trained>tested" for how in ("patient", "file", "pixels", "near-duplicate")]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus, Corpus]:
    """What is trained on, what that leaks into, and what it does not."""
    folder = tmp_path_factory.mktemp("leaky")
    trained = listed_corpus(folder, "trained", rows_trained())
    tested = listed_corpus(folder, "tested", rows_tested(), OtherFilms)
    apart = listed_corpus(folder, "apart", [film(number, "test") for number in (300, 301)], OtherFilms)
    return trained, tested, apart


def recipe(corpora: tuple[Corpus, ...], out: Path, tested: Corpus, acknowledged: list[str]) -> Recipe:
    values: dict[str, Any] = tiny_recipe(corpora[0].path, out, steps=2)
    # The films' official places decide: all that is trained on lies in val.
    values["data"] = {"kinds": ["class"], "kinds_per_step": 1, "pairs_per_kind": 4, "split": "val"}
    values["evaluations"] = [{"corpus": str(tested.path)}]
    values["acknowledged_leaks"] = acknowledged
    return Recipe.model_validate(values)


def test_a_leak_that_is_not_acknowledged_stops_the_run_before_it_begins(
    corpora: tuple[Corpus, Corpus, Corpus], tmp_path: Path
) -> None:
    with pytest.raises(LeakError) as caught:
        pretrain(recipe(corpora, tmp_path / "run", corpora[1], IDS[1:]), progress=False)
    assert "patient:trained>tested (1 images of tested)" in caught.value.what
    assert "file:" not in caught.value.what
    assert "acknowledged_leaks: [patient:trained>tested]" in str(caught.value.fix)
    assert read_run_json(tmp_path / "run") is None


def test_acknowledged_leaks_are_kept_beside_the_run_and_audited_once(
    corpora: tuple[Corpus, Corpus, Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recipe(corpora, tmp_path / "run", corpora[1], IDS)
    assert pretrain(given, progress=False).finished
    record = read_run_json(tmp_path / "run")
    known = leaks_into(record, corpora[1].fingerprint)
    assert known is not None
    assert [(leak["id"], leak["count"], leak["acknowledged"]) for leak in known] == [
        (IDS[0], 1, True), (IDS[1], 1, True), (IDS[2], 1, True), (IDS[3], 2, True),
    ]  # fmt: skip
    assert leaks_into(record, corpora[2].fingerprint) is None

    def audited_again(*_: Any, **__: Any) -> None:
        raise AssertionError("the audit was made twice")

    monkeypatch.setattr(leaks, "audit_corpus", audited_again)
    assert pretrain(given, progress=False).finished
    # What is acknowledged may be taken back; then the run does not go on.
    with pytest.raises(LeakError, match="near-duplicate"):
        pretrain(recipe(corpora, tmp_path / "run", corpora[1], IDS[:3]), progress=False)
    with pytest.raises(AssertionError, match="twice"):
        pretrain(recipe(corpora, tmp_path / "run", corpora[2], IDS), progress=False)


def test_an_evaluation_without_a_leak_is_recorded_as_such(
    corpora: tuple[Corpus, Corpus, Corpus], tmp_path: Path
) -> None:
    assert pretrain(recipe(corpora, tmp_path / "run", corpora[2], []), progress=False).finished
    assert leaks_into(read_run_json(tmp_path / "run"), corpora[2].fingerprint) == []


def test_a_declared_split_without_an_image_is_refused(corpora: tuple[Corpus, Corpus, Corpus], tmp_path: Path) -> None:
    given = recipe(corpora, tmp_path / "run", corpora[2], [])
    wrong = given.model_copy(update={"evaluations": (given.evaluations[0].model_copy(update={"split": "val"}),)})
    with pytest.raises(EmptyError, match="no image in val"):
        pretrain(wrong, progress=False)


def test_a_recipe_that_declares_nothing_keeps_nothing(corpora: tuple[Corpus, Corpus, Corpus], tmp_path: Path) -> None:
    given = recipe(corpora, tmp_path / "run", corpora[1], []).model_copy(update={"evaluations": ()})
    assert pretrain(given, progress=False).finished
    record = read_run_json(tmp_path / "run")
    assert record is not None
    assert leaks.KEY not in record
    assert leaks_into(record, corpora[1].fingerprint) is None
