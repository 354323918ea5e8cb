"""The audit finds each planted overlap in its own way, counts it once, and is silent about the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from leaky_corpora import LEFT, ListedFilms, OtherFilms, film, listed_corpus, rows_tested, rows_trained
from umif.corpus import Corpus, prepare
from umif.corpus.audit import Evaluation, audit_corpus, torn_units
from umif.corpus.shortcuts import measure_shortcuts
from umif.errors import ConfigError, EmptyError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return listed_corpus(tmp_path_factory.mktemp("trained"), "trained", rows_trained())


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return listed_corpus(tmp_path_factory.mktemp("tested"), "tested", rows_tested(), OtherFilms)


def found(report: Any) -> dict[str, tuple[int, int]]:
    return {leak.id: (leak.count, leak.left_count) for leak in report.leaks}


def test_each_planted_overlap_is_found_in_its_own_way_and_no_other(trained: Corpus, tested: Corpus) -> None:
    report = audit_corpus(trained, [Evaluation("tested", tested)], trained=LEFT)
    assert found(report) == {
        "patient:trained>tested": (1, 1),
        "file:trained>tested": (1, 1),
        "pixels:trained>tested": (1, 1),
        "near-duplicate:trained>tested": (2, 2),
    }
    examples = {leak.how: [(each.left, each.right) for each in leak.examples] for leak in report.leaks}
    same, altered = ("trained/003.png", "tested/100.png"), ("trained/004.png", "tested/101.png")
    assert examples["patient"] == [("trained/005.png", "tested/102.png")]
    assert examples["file"] == examples["pixels"] == [same]
    assert examples["near-duplicate"] == [same, altered]
    assert not report.clean
    assert report.trained_images == 12


def test_without_sight_only_names_and_files_are_compared(trained: Corpus, tested: Corpus) -> None:
    report = audit_corpus(trained, [Evaluation("tested", tested)], trained=LEFT, sight=False)
    assert set(found(report)) == {"patient:trained>tested", "file:trained>tested"}
    assert report.checks == ("patient", "study", "image_id", "lineage", "file")


def test_only_acknowledging_every_leak_makes_it_clean(trained: Corpus, tested: Corpus) -> None:
    ids = ["patient:trained>tested", "file:trained>tested"]
    for known, clean in ((ids[:1], False), (ids, True), ([*ids, "file:trained>testing"], True)):
        report = audit_corpus(
            trained, [Evaluation("tested", tested)], trained=LEFT, acknowledged=known, sight=False, shortcuts=False
        )
        assert report.clean is clean
        assert report.to_json()["clean"] is clean
        assert [leak.id for leak in report.leaks if leak.acknowledged] == sorted(known[:2], key=ids.index)
    assert report.unused == ("file:trained>testing",)


def test_datasets_that_are_not_trained_on_do_not_leak(tmp_path: Path, tested: Corpus) -> None:
    from leaky_corpora import write_films
    from planted_corpus import registered

    with registered("reader", "trained", ListedFilms), registered("reader", "apart", OtherFilms):
        sources = [
            ("trained", write_films(tmp_path / "a", rows_trained(3))),
            ("apart", write_films(tmp_path / "b", [film(3, "val"), film(9, "val")])),
        ]
        prepare(tmp_path / "corpus", sources, workers=1, progress=False)
    corpus = Corpus.open(tmp_path / "corpus")
    everything = audit_corpus(corpus, [Evaluation("t", tested)], trained=LEFT, sight=False)
    assert set(found(everything)) == {"file:apart>tested"}
    assert audit_corpus(corpus, [Evaluation("t", tested)], trained=LEFT, datasets=["trained"], sight=False).clean


def test_a_corpus_against_itself_meets_no_image_as_its_own_twin(trained: Corpus) -> None:
    report = audit_corpus(trained, [Evaluation("own", trained, LEFT)], trained=LEFT)
    # Every image is trained and tested on, which its name says; sight has nothing to add.
    assert found(report) == {
        "patient:trained>trained": (12, 12),
        "study:trained>trained": (12, 12),
        "image_id:trained>trained": (12, 12),
    }


def test_a_near_duplicate_over_two_splits_of_one_corpus_is_found(tmp_path: Path) -> None:
    rows = [*rows_trained(6), film(200, "test", seed=2, altered=True), film(201, "test")]
    corpus = listed_corpus(tmp_path, "own", rows)
    report = audit_corpus(corpus, [Evaluation("own", corpus)], trained=LEFT)
    assert found(report) == {"near-duplicate:own>own": (1, 1)}


def test_patients_torn_over_the_official_splits_are_counted(tmp_path: Path) -> None:
    rows = [film(number, "train") for number in range(4)]
    rows += [film(10, "test", patient="1", study="s1"), film(11, "test", seed=2), film(12, "test")]
    corpus = listed_corpus(tmp_path, "rows", rows)
    torn = {(each.unit, each.column): (each.count, each.of) for each in torn_units(corpus)}
    # Our own splits keep whole patients and files together, so nothing is torn there.
    assert torn == {
        ("patient", "official_split"): (1, 6),
        ("study", "official_split"): (1, 6),
        ("file", "official_split"): (1, 6),
    }


def test_a_finding_that_comes_with_one_dataset_is_told_by_the_dataset_alone(tmp_path: Path) -> None:
    from leaky_corpora import write_films
    from planted_corpus import registered

    sick = [film(number, "val", sick=True) for number in range(24)]
    well = [film(number, "val", sick=False, patient=f"w{number}") for number in range(100, 124)]
    with registered("reader", "sick", ListedFilms), registered("reader", "well", OtherFilms):
        sources = [("sick", write_films(tmp_path / "a", sick)), ("well", write_films(tmp_path / "b", well))]
        prepare(tmp_path / "corpus", sources, workers=1, progress=False)
    shortcuts = measure_shortcuts(Corpus.open(tmp_path / "corpus"))
    assert [(each.finding, each.by, each.auc, each.accuracy) for each in shortcuts] == [("edema", "dataset", 1.0, 1.0)]
    assert (shortcuts[0].present, shortcuts[0].others) == (24, 24)


def test_a_finding_spread_by_chance_is_told_by_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        film(number, "val", sick=bool(rng.random() < 0.5), view=str(rng.choice(["PA", "AP"]))) for number in range(80)
    ]
    (view,) = measure_shortcuts(listed_corpus(tmp_path, "chance", rows))
    assert view.by == "view"
    assert abs(view.auc - 0.5) < 0.2  # 80 images: three standard errors are 0.19


def test_what_cannot_be_audited_is_refused(trained: Corpus, tested: Corpus) -> None:
    with pytest.raises(EmptyError, match="tested on"):
        audit_corpus(trained, [])
    with pytest.raises(EmptyError, match="no image in test"):
        audit_corpus(tested, [Evaluation("trained", trained)], trained=("test",))
    with pytest.raises(ConfigError, match="'tests'"):
        audit_corpus(trained, [Evaluation("tested", tested, ("tests",))], trained=LEFT)


def test_images_that_the_quarantine_list_excludes_do_not_leak(tmp_path: Path) -> None:
    left = listed_corpus(tmp_path, "left", rows_trained(6))
    right = listed_corpus(tmp_path, "right", [film(100, "test", seed=3), film(103, "test")], OtherFilms)

    def leaks() -> set[str]:
        return set(found(audit_corpus(left, [Evaluation("right", right)], trained=LEFT, shortcuts=False)))

    assert leaks() == {"file:left>right", "pixels:left>right", "near-duplicate:left>right"}
    (left.path / "quarantine.csv").write_text("item,decision\nleft/003.png,exclude\n")
    assert leaks() == set()
    (left.path / "quarantine.csv").unlink()
    (right.path / "quarantine.csv").write_text("item,decision\nright/100.png,exclude\n")
    report = audit_corpus(left, [Evaluation("right", right)], trained=LEFT, shortcuts=False)
    assert report.clean
    assert (report.trained_images, report.evaluations[0]["images"]) == (6, 1)
