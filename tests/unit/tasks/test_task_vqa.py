"""Visual question answering as a whole, on films whose answers stand in the picture alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from question_corpus import NAME, asked_corpus, prepare_asked, tiny_encoder, write_asked
from umif.corpus import Corpus, prepare
from umif.encoder import Encoder
from umif.errors import ConfigError, NonFiniteError, TaskError
from umif.tasks.base import TaskOptions
from umif.tasks.vqa import MAJORITY, VisualQuestionAnswering
from umif.tasks.vqa_answering import answer
from umif.tasks.vqa_config import VqaConfig
from umif.tasks.vqa_data import BLANK, BLANK_GREY, Pictures, chosen_questions
from umif.tasks.vqa_model import build_vqa_model
from umif.tasks.vqa_training import fit

if TYPE_CHECKING:
    from umif.tasks.base import Result
    from umif.tasks.vqa_data import Questions

REAL_DATA = Path(os.environ.get("UMIF_REAL_DATA", "/nowhere"))
SHORT = TaskOptions(bootstrap=20, progress=False, settings=("vqa.steps=2",))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return asked_corpus(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return asked_corpus(tmp_path_factory.mktemp("official"), patients=60, official=True)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder()


def rows_by_name(rows: list[Result], metric: str = "accuracy") -> dict[str, Result]:
    return {row.encoder: row for row in rows if row.metric == metric}


def run(encoder: Encoder, corpus: Corpus, options: TaskOptions) -> list[Result]:
    return list(VisualQuestionAnswering().run(encoder, corpus, options))


# ------------------------------------------------------------------------------------------------- learning
def test_sixteen_cases_are_learned_by_heart(corpus: Corpus, encoder: Encoder) -> None:
    [questions] = chosen_questions(corpus, (), "clean")
    few = questions.of("train")[:16]
    # The same cases are val, since nothing but fitting is asked for.
    splits = np.full(len(questions.splits_N), "test")
    splits[few] = "val"
    known = replace(questions, splits_N=splits)
    config = VqaConfig(steps=120, epochs=1000, check_every=20, lr=3e-3, lr_encoder=1e-3)
    model = build_vqa_model(encoder, config, seed=0)
    pictures = Pictures(corpus, encoder.preprocessing)
    fit(model, pictures, known, few, config, seed=0)
    candidates = sorted(set(questions.answers_N.tolist()))
    found = answer(model, pictures, questions.rows_N[few], questions.questions_N[few], candidates, 128, generate=True)
    truth = questions.answers_N[few]
    assert (np.array(candidates)[found.choice_N] == truth).mean() >= 0.95
    said = [model.tokens.decode(ids) for ids in found.generated_N]
    assert (np.array(said) == truth).mean() >= 0.95


def test_the_decoder_alone_tells_pictures_apart_whose_tokens_have_nearly_everything_in_common(
    corpus: Corpus, encoder: Encoder
) -> None:
    alike = Encoder(encoder.trainable_copy(), tokenizer=encoder.tokenizer, shorter_side=32, device="cpu")
    with torch.no_grad():
        alike.state_dict()["vit.norm.bias"].add_(30.0)
    [questions] = chosen_questions(corpus, (), "clean")
    few = questions.of("train")[:16]
    splits = np.full(len(questions.splits_N), "test")
    splits[few] = "val"
    known = replace(questions, splits_N=splits)
    config = VqaConfig(frozen=True, decoder_steps=150, steps=1, epochs=1000)
    model = build_vqa_model(alike, config, seed=0)
    pictures = Pictures(corpus, encoder.preprocessing)
    fitted = fit(model, pictures, known, few, config, seed=0)
    assert (fitted.decoder_steps, fitted.steps, fitted.kept_images) == (150, 1, 8)
    assert 0 < fitted.decoder_best_step <= 150
    candidates = sorted(set(questions.answers_N.tolist()))
    rights = []
    for rows in (questions.rows_N[few], np.full(16, BLANK)):
        found = answer(model, pictures, rows, questions.questions_N[few], candidates, 128)
        rights.append(float((np.array(candidates)[found.choice_N] == questions.answers_N[few]).mean()))
    assert rights[0] >= 0.95
    assert rights[1] < 0.7


@pytest.mark.parametrize(("patience", "made"), [(0.25, 6), (0.5, 11), (1.0, 20)])
def test_a_stage_stops_after_a_share_of_its_steps_without_a_better_likelihood(
    corpus: Corpus, encoder: Encoder, patience: float, made: int
) -> None:
    [questions] = chosen_questions(corpus, (), "clean")
    # With such rates the first look stays the best one.
    rates = {"lr": 1e-30, "lr_encoder": 1e-30, "weight_decay": 0.0}
    config = VqaConfig(decoder_steps=0, steps=20, check_every=1, patience=patience, images=2, questions=2, **rates)
    model = build_vqa_model(encoder, config, seed=0)
    fitted = fit(model, Pictures(corpus, encoder.preprocessing), questions, questions.of("train"), config, seed=0)
    assert (fitted.steps, fitted.planned, fitted.best_step) == (made, 20, 1)


@pytest.fixture(scope="module")
def learned(corpus: Corpus, encoder: Encoder) -> list[Result]:
    # A network that was never trained needs more than the defaults to learn to see.
    settings = ("vqa.steps=300", "vqa.epochs=100", "vqa.lr=3e-3", "vqa.lr_encoder=1e-3")
    return run(encoder, corpus, TaskOptions(bootstrap=100, progress=False, settings=settings))


def test_what_stands_in_the_picture_is_read_from_it_and_is_lost_without_it(learned: list[Result]) -> None:
    rows = rows_by_name(learned)
    assert rows["umif"].value > 0.9
    # Blank: half of the closed and a quarter of the open answers by chance. Far from either whatever the luck.
    for picture in ("blank", "shuffled"):
        assert rows[f"umif, {picture} image"].value < rows["umif"].value - 0.3
        reliance = rows["umif"].extra["image_reliance"]
        assert reliance[f"{picture} image"] == pytest.approx(rows[f"umif, {picture} image"].value)
    assert rows[MAJORITY].value < 0.6
    gains = {gain["over"]: gain for gain in rows["umif"].extra["gains"]}
    assert gains["umif, blank image"]["low"] > 0


def test_rows_come_by_kind_with_every_baseline(learned: list[Result]) -> None:
    names = ["umif", "umif, blank image", "umif, shuffled image", "random", MAJORITY]
    metrics = ["accuracy", "open accuracy", "closed accuracy"]
    assert [(row.metric, row.encoder) for row in learned] == [(metric, name) for metric in metrics for name in names]
    for row in learned:
        assert row.baseline == (row.encoder != "umif")
        assert row.data == f"{NAME}: questions"
        assert row.protocol.startswith("clean")
        json.dumps(row.to_json(), allow_nan=False)
    ours = rows_by_name(learned)["umif"]
    both = [rows_by_name(learned, f"{kind} accuracy")["umif"] for kind in ("open", "closed")]
    total = sum(row.value * row.extra["n_questions"] for row in both)
    assert ours.value == pytest.approx(total / ours.extra["n_questions"])
    assert ours.extra["generated_accuracy"] > 0.9
    assert (ours.extra["capped_at_steps"], ours.extra["exact_ranking"]) == (300, 1.0)
    assert ours.extra["test_images_in_train"] == ours.extra["test_questions_in_train"] == 0


def test_equal_calls_give_equal_rows_and_another_seed_others(corpus: Corpus, encoder: Encoder) -> None:
    torch.manual_seed(1)
    first = run(encoder, corpus, SHORT)
    torch.manual_seed(2)
    assert run(encoder, corpus, SHORT) == first
    other = run(encoder, corpus, replace(SHORT, seed=1))
    likelihoods = [rows_by_name(rows)["umif"].extra["val_log_likelihood"] for rows in (first, other)]
    assert likelihoods[0] != likelihoods[1]


def test_a_frozen_encoder_is_another_protocol_and_keeps_its_features(corpus: Corpus, encoder: Encoder) -> None:
    rows = run(encoder, corpus, replace(SHORT, settings=("vqa.steps=2", "vqa.frozen=true"), baselines=False))
    assert [row.encoder for row in rows] == ["umif"] * 3
    assert "frozen" in rows[0].protocol
    config = VqaConfig(steps=2, frozen=True)
    model = build_vqa_model(encoder, config, seed=0)
    [questions] = chosen_questions(corpus, (), "clean")
    fit(model, Pictures(corpus, encoder.preprocessing), questions, questions.of("train"), config, seed=0)
    assert all(torch.equal(tensor, encoder.state_dict()[name]) for name, tensor in model.network.state_dict().items())


# ------------------------------------------------------------------------------------------------- data
def test_a_share_of_the_labels_takes_patients_and_says_how_many(corpus: Corpus, encoder: Encoder) -> None:
    rows = run(encoder, corpus, replace(SHORT, labels=(10.0, 100.0), baselines=False))
    whole = [row.extra["n_train_patients"] for row in rows if row.labels == 100.0]
    tenth = [row.extra["n_train_patients"] for row in rows if row.labels == 10.0]
    assert tenth[0] == round(0.1 * whole[0])
    assert rows[0].extra["n_train_questions"] == 2 * tenth[0]


def test_official_parts_may_share_images_and_how_many_is_told(official: Corpus, encoder: Encoder) -> None:
    rows = run(encoder, official, replace(SHORT, splits="paper", baselines=False))
    # Every fourth of sixty films has its second question in the test; the first one is in training or was drawn as val.
    told = rows[0].extra
    assert (told["n_questions"], told["test_images"]) == (15, 15)
    assert 10 <= told["test_images_in_train"] <= 15
    assert told["test_questions_in_train"] == 0
    assert rows[0].protocol.startswith("paper")
    [questions] = chosen_questions(official, (), "paper")
    assert not set(questions.rows_N[questions.of("val")]) & set(questions.rows_N[questions.of("train")])
    [clean] = chosen_questions(official, (), "clean")
    assert clean.counts["test_images_in_train"] == 0


def films_answered(folder: Path, answer_of: Any, patients: int = 60) -> Corpus:
    """The films with other answers: `answer_of(number of the film, number of the question)`."""
    films = write_asked(folder / "films", patients)
    rows = json.loads((films / "asked.json").read_text(encoding="utf-8"))
    for number, row in enumerate(rows):
        for index, question in enumerate(row["questions"]):
            question[1] = answer_of(number, index) or question[1]
    (films / "asked.json").write_text(json.dumps(rows), encoding="utf-8")
    return prepare_asked(folder, films)


def test_answers_outside_the_candidates_are_counted_and_wrong(encoder: Encoder, tmp_path: Path) -> None:
    # Every film's place has a name of its own, so no test answer to that question is among training's.
    corpus = films_answered(tmp_path, lambda film, question: None if question else f"place {film}")
    rows = run(encoder, corpus, SHORT)
    ours = rows_by_name(rows, "open accuracy")["umif"]
    assert ours.value == 0.0
    assert ours.extra["test_answers_outside_candidates"] == ours.extra["n_questions"]
    overall = rows_by_name(rows)["umif"].extra
    assert overall["test_answers_absent_from_train"] == pytest.approx(0.5)
    every = run(encoder, corpus, replace(SHORT, settings=("vqa.steps=1", "vqa.candidates=train+val+test")))
    assert every[0].extra["test_answers_outside_candidates"] == 0
    assert every[0].extra["test_answers_absent_from_train"] == pytest.approx(0.5)
    assert every[0].protocol != rows[0].protocol


def test_a_blank_picture_is_grey_and_pictures_come_as_the_encoder_reads_them(corpus: Corpus, encoder: Encoder) -> None:
    pictures = Pictures(corpus, encoder.preprocessing)
    taken = pictures.take(np.array([3, BLANK, 3, 0]))
    assert np.array_equal(taken[0], encoder.preprocessing.jpeg(corpus.take_jpegs([3])[0]))
    assert np.array_equal(taken[0], taken[2])
    assert (taken[1] == BLANK_GREY).all()
    assert not np.array_equal(taken[0], taken[3])


# ------------------------------------------------------------------------------------------------- refusals
def test_an_encoder_that_reads_no_words_is_refused(corpus: Corpus, encoder: Encoder) -> None:
    mute = Encoder(encoder.trainable_copy(), shorter_side=32, device="cpu")
    with pytest.raises(TaskError, match="no tokeniser") as caught:
        run(mute, corpus, SHORT)
    assert caught.value.fix


def test_data_that_cannot_carry_it_is_refused(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no questions of 'slake'"):
        run(encoder, corpus, replace(SHORT, problems=("slake",)))
    with pytest.raises(TaskError, match="paper splits") as caught:
        run(encoder, corpus, replace(SHORT, splits="paper"))
    assert "clean" in str(caught.value.fix)
    same = films_answered(tmp_path, lambda film, question: "yes")
    with pytest.raises(TaskError, match="every training question is answered by 'yes'"):
        run(encoder, same, SHORT)


def test_a_setting_that_there_is_not_is_refused_and_those_of_other_tasks_are_not(
    corpus: Corpus, encoder: Encoder
) -> None:
    with pytest.raises(ConfigError, match="stepps") as caught:
        run(encoder, corpus, replace(SHORT, settings=("vqa.stepps=3",)))
    assert "steps" in str(caught.value.fix)
    run(encoder, corpus, replace(SHORT, settings=("vqa.steps=1", "detection.stepps=3"), baselines=False))


def test_training_that_diverges_is_an_error(corpus: Corpus, encoder: Encoder) -> None:
    broken = Encoder(encoder.trainable_copy(), tokenizer=encoder.tokenizer, shorter_side=32, device="cpu")
    with torch.no_grad():
        broken.state_dict()["vit.norm.weight"].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="step 1"):
        run(broken, corpus, SHORT)


# ------------------------------------------------------------------------------------------------- real data
@pytest.mark.skipif(not (REAL_DATA / "vqa-rad").exists(), reason="UMIF_REAL_DATA does not name the sample data")
def test_vqa_rad_is_carried_in_both_splits(encoder: Encoder, tmp_path: Path) -> None:
    prepare(tmp_path / "corpus", [("vqa-rad", REAL_DATA / "vqa-rad")], workers=1, progress=False)
    corpus = Corpus.open(tmp_path / "corpus")
    options = replace(SHORT, settings=("vqa.steps=2", "vqa.rank_k=8"), baselines=False)
    told = {}
    for splits in ("clean", "paper"):
        rows = run(encoder, corpus, replace(options, splits=splits))
        assert [row.metric for row in rows] == ["accuracy", "open accuracy", "closed accuracy"]
        told[splits] = rows[0].extra
    assert told["clean"]["test_images_in_train"] == 0
    assert told["paper"]["test_images_in_train"] > 0.5 * told["paper"]["test_images"]
    # Most open answers are worded once only, so a list without the test's answers cannot hold them.
    assert 0 < told["paper"]["test_answers_absent_from_train"] < 0.6
    assert questions_of(corpus).closed_N.mean() > 0.5


def questions_of(corpus: Corpus) -> Questions:
    return chosen_questions(corpus, (), "clean")[0]
