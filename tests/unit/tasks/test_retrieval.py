"""Retrieval on a corpus in which an encoder that sees and reads must succeed, and a blind one be at chance."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from planted_corpus import planted_corpus, registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.encoder import Encoder
from umif.errors import TaskError
from umif.models import ModelConfig, build_model
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Text
from umif.tasks import TaskOptions, retrieval_measures
from umif.tasks.metrics import patient_weights
from umif.tasks.neighbours import Barred, unit_rows
from umif.tasks.ranking import Owners
from umif.tasks.retrieval import Retrieval
from umif.tasks.retrieval_items import FIVE, FIVE_BY_200, shelves_of
from umif.tasks.retrieval_measures import Side, precisions
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from umif.tasks.base import Result

OPTIONS = TaskOptions(bootstrap=100, progress=False)
KINDS = 8


class Numbered(Reader):
    """Films whose left half is as bright as the number in their texts; one half of the patients have two films."""

    card: ClassVar[Card] = Card(licence="none needed: drawn", citation=None, images=None, kinds=("report", "class"))

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        for number in range(160):
            kind = number % KINDS
            film = np.full((40, 40), 128, dtype=np.uint8)
            film[:, :20] = 10 + 30 * kind
            film[:, 20:] += np.random.default_rng(number).integers(0, 3, (40, 20)).astype(np.uint8)
            path = self.root / f"{number:03d}.png"
            cv2.imwrite(str(path), film)
            state = LabelState.PRESENT if kind < KINDS // 2 else LabelState.ABSENT
            texts: tuple[Text, ...] = (Text("report", f"Number {kind}.", "report"),)
            if number % 10 == 0:
                texts += (
                    Text("report", f"number   {kind}.", "report"),
                    Text("caption", f"Caption {number}", "caption"),
                )
            yield Record(
                image=path,
                image_id=path.name,
                patient=f"p{number // 16}{'ab'[number % 2]}{number % 16 // 4}",
                findings=(Finding("Edema", state),),
                texts=texts,
                split="test",
            )


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("numbered")
    (folder / "raw").mkdir()
    with registered("reader", "numbered", Numbered):
        prepare(folder / "corpus", [("numbered", folder / "raw")], PrepareConfig(shorter_side=40))
    return Corpus.open(folder / "corpus")


class Knowing(Encoder):
    """Sees the brightness of the left half, and reads the number of a text; blind, it sees and reads nothing."""

    blind = False

    def encode_corpus(self, corpus: Corpus, image_rows: Any, *_: Any, **__: Any) -> Any:
        names = [row["image"] for row in corpus.take_images(image_rows, ["image"])]
        return np.stack([self._vector(int(name[-7:-4]) % KINDS) for name in names])

    def encode_texts(self, texts: Any, batch_size: int = 64) -> Any:
        kinds = [int(text[-2]) if text.endswith(".") and text[-2].isdigit() else 0 for text in texts]
        return torch.from_numpy(np.stack([self._vector(kind) for kind in kinds]))

    def unit_vectors(self, features_ND: Any) -> Any:
        return F.normalize(features_ND, dim=1)

    def random_like(self, seed: int = 0) -> Encoder:
        twin = make_knowing()
        twin.blind = True
        return twin

    def _vector(self, kind: int) -> Any:
        return np.ones(KINDS, dtype=np.float32) if self.blind else np.eye(KINDS, dtype=np.float32)[kind]


def make_knowing() -> Knowing:
    tokenizer = TextTokenizer.train(["number 1 2 3 4 5 6 7 8"], vocab_size=60)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Knowing.of_model(build_model(config, seed=1), tokenizer=tokenizer, device="cpu")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def rows(numbered: Corpus) -> Sequence[Result]:
    return Retrieval().run(make_knowing(), numbered, OPTIONS)


def value_of(rows: Sequence[Result], problem: str, metric: str, encoder: str) -> Result:
    [row] = [
        row for row in rows if (row.extra["problem"], row.metric, row.encoder) == (problem, metric, encoder)
    ]  # fmt: skip
    return row


def test_equal_texts_are_one_item(numbered: Corpus) -> None:
    [shelf] = shelves_of(numbered)
    captions = {text for text in shelf.texts if text.startswith("Caption")}
    assert len(captions) == 16
    assert set(shelf.texts) - captions == {f"Number {kind}." for kind in range(KINDS)}
    assert shelf.links.answers_Q.sum() == 160 + 16
    relevant = shelf.links.relevant(slice(0, len(shelf.texts)))
    assert np.array_equal(shelf.links.turned.relevant(slice(0, 160)), relevant.T)


def test_one_who_sees_and_reads_finds_the_pair_and_a_blind_one_is_at_chance(rows: Sequence[Result]) -> None:
    seeing = value_of(rows, "image-text", "R@10", "umif joint")
    # The texts of an image are its number; captions all read as number 0, with which they tie.
    assert value_of(rows, "image-text", "R@1", "umif joint").value == pytest.approx(
        (7 / 8) + (1 / 8) * (1 / 17), abs=0.06
    )
    assert seeing.value > 0.9
    blind = value_of(rows, "image-text", "R@10", "random joint")
    assert blind.value == pytest.approx(blind.extra["chance"])
    assert seeing.extra["median_rank"]["value"] == 1.0
    assert seeing.extra["median_rank"]["chance"] > 10


def test_neighbours_show_the_same_finding_where_the_encoder_sees_it(rows: Sequence[Result]) -> None:
    # Of eight numbers one text each: among the five nearest texts four are ties of what is far.
    least = {"image-image": 0.99, "text-image": 0.99, "image-text": 0.5}
    for problem, readout in (("image-image", "cls"), ("text-image", "joint"), ("image-text", "joint")):
        seeing = value_of(rows, problem, "P@5 by finding", f"umif {readout}")
        blind = value_of(rows, problem, "P@5 by finding", f"random {readout}")
        assert seeing.value > least[problem]
        assert blind.value == pytest.approx(blind.extra["chance"], abs=1e-9)
        [gain] = [gain for gain in seeing.extra["gains"] if gain["over"] == f"random {readout}"]
        assert gain["value"] == pytest.approx(seeing.value - blind.value)
        assert gain["low"] > 0


def test_pixels_stand_beside_images_only(rows: Sequence[Result]) -> None:
    problems = {row.extra["problem"] for row in rows if row.encoder.startswith("pixels")}
    assert problems == {"image-image"}
    assert {row.encoder for row in rows if row.extra["problem"] == "image-image"} == {
        "umif cls", "umif patches 4×4", "random cls", "random patches 4×4", "pixels 32×32",
    }  # fmt: skip


def test_rows_are_json_with_intervals_around_their_values(rows: Sequence[Result]) -> None:
    for row in rows:
        json.dumps(row.to_json(), allow_nan=False)
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.high
        assert 0 <= row.extra["chance"] <= 1


def test_all_again_is_the_same(numbered: Corpus, rows: Sequence[Result]) -> None:
    assert list(Retrieval().run(make_knowing(), numbered, OPTIONS)) == list(rows)


def test_what_is_quarantined_takes_no_part(numbered: Corpus) -> None:
    file = numbered.path / "quarantine.csv"
    with file.open("w", newline="") as opened:
        lines = [
            ("item", "decision", "reason"),
            ("numbered/000.png", "exclude", ""),
            ("numbered/001.png#report", "exclude", ""),
        ]
        csv.writer(opened).writerows(lines)
    try:
        [shelf] = shelves_of(numbered)
    finally:
        file.unlink()
    assert "numbered/000.png" not in shelf.images_N
    assert "numbered/001.png" in shelf.images_N
    assert "numbered/001.png" not in shelf.with_texts.images_N
    assert "Caption 0" not in shelf.texts


@pytest.mark.parametrize(
    ("problems", "message"),
    [(("image-imag",), "Did you mean 'image-image'"), (("findings",), "no problem of retrieval")],
)
def test_unknown_problems_are_refused(numbered: Corpus, problems: tuple[str, ...], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Retrieval().run(make_knowing(), numbered, TaskOptions(problems=problems, progress=False))


def test_without_words_images_are_searched_and_words_refused(numbered: Corpus) -> None:
    deaf = make_knowing()
    deaf.tokenizer = None
    options = TaskOptions(bootstrap=0, baselines=False, progress=False)
    assert {row.extra["problem"] for row in Retrieval().run(deaf, numbered, options)} == {"image-image"}
    with pytest.raises(TaskError, match="no tokeniser"):
        Retrieval().run(deaf, numbered, TaskOptions(problems=("text-image",), progress=False))


def test_one_problem_can_be_named(numbered: Corpus) -> None:
    options = TaskOptions(problems=("finding-image",), bootstrap=0, progress=False)
    rows = Retrieval().run(make_knowing(), numbered, options)
    assert {row.extra["problem"] for row in rows} == {"finding-image"}
    assert all((row.low, row.high) == (None, None) for row in rows)


def test_unknown_states_are_neither_candidates_nor_queries() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 5)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = rng.integers(-1, 2, (30, 2)).astype(np.int8)
    patients = (np.arange(30) // 2).astype(str)
    owners = Owners(np.arange(30), patients)
    options = TaskOptions(bootstrap=0)
    side = Side(features, labels, owners)
    measured = precisions(side, side, ("a", "b"), options, Barred.same(patients, patients))
    cosines = features.astype(float) @ features.T.astype(float)
    expected = []
    for column in range(2):
        own = []
        for query in np.flatnonzero(labels[:, column] == 1):
            others = [n for n in range(30) if labels[n, column] != -1 and patients[n] != patients[query]]
            near = sorted(others, key=lambda n: -cosines[query, n])[:5]
            own.append(np.mean([labels[n, column] == 1 for n in near]))
        expected.append(float(np.mean(own)))
    assert measured[0].metric == "P@5 by finding"
    assert list(measured[0].extra["per_class"].values()) == pytest.approx(expected)
    assert measured[0].value == pytest.approx(np.mean(expected))


def test_an_interval_is_that_of_drawing_the_patients_of_queries_and_candidates_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    features = unit_rows(rng.normal(size=(40, 5)))
    labels = rng.integers(0, 2, (40, 1)).astype(np.int8)
    patients = (np.arange(40) // 2).astype(str)
    side = Side(features, labels, Owners(np.arange(40), patients))
    options = TaskOptions(bootstrap=30, seed=5)
    barred = Barred.same(patients, patients)
    measured = precisions(side, side, ("a",), options, barred)[0]
    [weights] = list(patient_weights(patients.tolist(), 30, 5))
    cosines = features.astype(float) @ features.T.astype(float)
    for replicate in range(30):
        copies = np.repeat(np.arange(40), weights[replicate].astype(int))
        own = []
        for query in copies[labels[copies, 0] == 1]:
            others = copies[patients[copies] != patients[query]]
            near = others[np.argsort(-cosines[query, others], kind="stable")][:5]
            own.append(labels[near, 0].mean())
        assert measured.replicates_R[replicate] == pytest.approx(np.mean(own))
    # A few queries that stand for many: moved to the value of all.
    monkeypatch.setattr(retrieval_measures, "INTERVAL_QUERIES", 8)
    few = precisions(side, side, ("a",), options, barred)[0]
    assert few.value == measured.value
    assert not np.array_equal(few.replicates_R, measured.replicates_R)


def test_one_answer_to_every_query_is_as_uncertain_as_one_answer() -> None:
    rng = np.random.default_rng(6)
    candidates, labels = unit_rows(rng.normal(size=(200, 5))), rng.integers(0, 2, (200, 1)).astype(np.int8)
    queries = np.repeat(unit_rows(np.ones((1, 5))), 200, axis=0)
    owners = Owners(np.arange(200), np.arange(200).astype(str))
    asked = precisions(
        Side(queries, labels, owners), Side(candidates, labels, owners), ("a",), TaskOptions(bootstrap=300)
    )[0]
    low, high = np.percentile(asked.replicates_R, [2.5, 97.5])
    # Five draws of a half: a binomial's 95 % spans more than half of the range.
    assert high - low >= 0.6


class FiveFilms(Numbered):
    """One finding a film, two of five named at once in a few, which then have no class."""

    def records(self) -> Iterator[Record]:
        """Yield the films with one of the five findings."""
        from dataclasses import replace

        names = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
        for number, record in enumerate(super().records()):
            found: tuple[Finding, ...] = (
                Finding(names[number % 5], LabelState.PRESENT),
                Finding("Fracture", LabelState.ABSENT),
            )
            if number < 3:
                found += (Finding(names[(number + 1) % 5], LabelState.PRESENT),)
            yield replace(record, findings=found)


def test_of_chexpert_5x200_each_image_is_of_one_class_and_a_negative_of_the_others(tmp_path: Path) -> None:
    from umif.config import REGISTRY

    (tmp_path / "raw").mkdir()
    known = REGISTRY.get("reader", FIVE_BY_200)
    del REGISTRY._entries["reader"][FIVE_BY_200]
    try:
        with registered("reader", FIVE_BY_200, FiveFilms):
            prepare(tmp_path / "corpus", [(FIVE_BY_200, tmp_path / "raw")], PrepareConfig(shorter_side=40))
    finally:
        REGISTRY._entries["reader"][FIVE_BY_200] = known
    [shelf] = shelves_of(Corpus.open(tmp_path / "corpus"))
    assert shelf.classes == FIVE
    assert (shelf.labels_NF[3:].sum(1) == 1).all()
    assert (shelf.labels_NF[:3] == -1).all()
    rows = Retrieval().run(make_knowing(), Corpus.open(tmp_path / "corpus"), OPTIONS)
    by_class = {(row.extra["problem"], row.metric) for row in rows if row.metric.startswith("P@")}
    assert by_class >= {
        (problem, f"P@{k} by finding") for problem in ("image-image", "finding-image") for k in (5, 10, 100)
    }
    # The classes have nothing to do with what is drawn: one in five is right.
    for row in rows:
        if row.metric.startswith("P@") and row.extra["problem"] == "image-image":
            assert row.extra["chance"] == pytest.approx(0.2, abs=0.01)


def test_the_planted_corpus_of_the_other_tasks_is_carried_too(tmp_path: Path) -> None:
    corpus = planted_corpus(tmp_path, patients=60)
    rows = Retrieval().run(make_knowing_network(), corpus, OPTIONS)
    assert {row.extra["problem"] for row in rows} == {"text-image", "image-text", "image-image", "finding-image"}


def make_knowing_network() -> Encoder:
    tokenizer = TextTokenizer.train(["signs of edema"], vocab_size=60)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Encoder.of_model(build_model(config, seed=1), tokenizer=tokenizer, device="cpu")
