"""Segmentation end to end: what decoders learn, what is told of it, and what is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
import pytest
import torch

from planted_corpus import registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.encoder import Encoder
from umif.errors import TaskError
from umif.models import ModelConfig, TokenEncoder
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.tasks import segmentation
from umif.tasks.base import TaskOptions
from umif.tasks.dense import dense_variants
from umif.tasks.head_training import HeadTraining
from umif.tasks.metrics import UNKNOWN
from umif.tasks.segmentation import PAPER, QUICK, Segmentation
from umif.tasks.segmentation_cases import DrawnMasks, chosen_mask_cases
from umif.tasks.segmentation_fit import (
    always,
    drawn_down,
    fit_decoder,
    mean_mask,
    measure,
    predicted,
)
from umif.tasks.segmentation_sheet import CASES, choose_cases, draw_sheet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.tasks.base import Result

SIDE = 64
OPTIONS = TaskOptions(bootstrap=100, progress=False)
SHORT = QUICK.model_copy(update={"training": HeadTraining(steps=120, batch=8, lr=4e-3, validate_every=40)})


class Squares(Reader):
    """Noise with a bright rectangle anywhere, outlined; or without one, and said to be."""

    card: ClassVar[Card] = Card(licence="none needed: drawn", citation=None, images=None, kinds=("class", "segment"))

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        for row in json.loads(self.require("rows.json").read_text(encoding="utf-8")):
            state = LabelState.PRESENT if row["box"] else LabelState.ABSENT
            yield Record(
                image=self.root / row["image"],
                image_id=row["image"],
                patient=row["image"][:4],
                findings=(Finding("Consolidation", state),),
                regions=(Region("Consolidation", "box", box=tuple(row["box"])),) if row["box"] else (),
            )


def squares_corpus(folder: Path, films: int = 120) -> Corpus:
    rng = np.random.default_rng(0)
    (folder / "films").mkdir()
    rows = []
    for number in range(films):
        picture, box = rng.normal(90, 10, (SIDE, SIDE)), None
        if number % 3:
            width, height = (int(value) for value in rng.integers(14, 30, 2))
            left, top = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
            picture[top : top + height, left : left + width] += 90
            box = [left, top, width, height]
        name = f"{number:04d}.png"
        cv2.imwrite(str(folder / "films" / name), np.clip(picture, 0, 255).astype(np.uint8))
        rows.append({"image": name, "box": box})
    (folder / "films" / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    with registered("reader", "squares", Squares):
        config = PrepareConfig(shorter_side=SIDE, val_share=0.2, test_share=0.3)
        prepare(folder / "corpus", [("squares", folder / "films")], config, progress=False)
    return Corpus.open(folder / "corpus")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return squares_corpus(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=SIDE, depth=2, width=48, heads=3, vocab_size=120)
    torch.manual_seed(3)
    return Encoder(TokenEncoder(config), shorter_side=SIDE, cache=model / "features", device="cpu")


@pytest.fixture(scope="module")
def rows(encoder: Encoder, corpus: Corpus) -> list[Result]:
    return list(Segmentation(SHORT).run(encoder, corpus, replace(OPTIONS, labels=(20.0, 100.0))))


def row_of(rows: list[Result], metric: str, encoder: str = "umif", labels: float = 100.0) -> Result:
    [row] = [one for one in rows if (one.metric, one.encoder, one.labels) == (metric, encoder, labels)]
    return row


def test_a_decoder_beats_what_can_be_drawn_without_a_look(rows: list[Result]) -> None:
    ours = row_of(rows, "Dice where present")
    assert ours.value > row_of(rows, "Dice where present", "mean mask").value + 0.2
    gains = {gain["over"]: gain for gain in ours.extra["gains"]}
    assert set(gains) == {"random", "pixels", "mean mask", "nothing"}
    assert gains["mean mask"]["low"] > 0
    assert gains["nothing"]["low"] > 0


def test_rows_come_by_share_metric_and_encoder(rows: list[Result]) -> None:
    metrics = ["Dice", "Dice where present", "IoU", "outlines within 4 px"]
    encoders = ["umif", "random", "pixels", "mean mask", "nothing"]
    assert [(row.labels, row.metric, row.encoder) for row in rows] == [
        (share, metric, name) for share in (20.0, 100.0) for metric in metrics for name in encoders
    ]
    assert {row.data for row in rows} == {"squares: regions (boxes as masks)"}


def test_nothing_drawn_scores_the_share_of_images_with_nothing(rows: list[Result], corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    states = cases.states_NF[cases.of("test"), 0]
    assert row_of(rows, "Dice", "nothing").value == pytest.approx((states == 0).mean())
    assert row_of(rows, "Dice where present", "nothing").value == 0.0
    assert row_of(rows, "Dice", "nothing").n_patients == len(states)


def test_rows_tell_how_they_came_about(rows: list[Result], corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    extra = row_of(rows, "Dice").extra
    assert (extra["threshold"], extra["grid"], extra["logits"], extra["blocks"]) == (0.5, 224, [16, 16], [1, 2])
    assert extra["n_train_images"] == extra["n_labelled_images"] == len(cases.of("train"))
    fewer = row_of(rows, "Dice", labels=20.0).extra
    assert fewer["n_train_images"] < extra["n_train_images"] / 3
    distances = row_of(rows, "outlines within 4 px").extra
    assert distances["hd95_px"]["low"] <= distances["hd95_px"]["value"] <= distances["hd95_px"]["high"]
    assert 0 < distances["mean_distance_px"]["value"] <= distances["hd95_px"]["value"]


def test_a_sheet_of_test_cases_lies_beside_the_results(rows: list[Result], model: Path) -> None:
    told = {row.extra.get("sheet") for row in rows if not row.baseline and row.labels == 100.0}
    assert told == {"results/sheets/segmentation-regions-squares.png"}
    assert not [row for row in rows if row.baseline and "sheet" in row.extra]
    picture = cv2.imread(str(model / told.pop()))
    # Two sets of three panels, and four rows of cases.
    assert picture.shape[1] == 2 * 3 * (224 + 4)
    assert picture.std() > 10


@pytest.mark.slow
def test_sixteen_cases_can_be_learned_by_heart(encoder: Encoder, corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    few = np.flatnonzero(cases.states_NF[:, 0] == 1)[:16]
    masks = DrawnMasks(corpus, cases, few)
    [variant] = dense_variants(encoder, corpus, replace(OPTIONS, baselines=False), blocks=2)
    features = variant.extract(cases.rows_N[few], lambda done, total: None)
    training = HeadTraining(steps=250, lr=5e-3, validate_every=125)
    settings = QUICK.model_copy(update={"training": training})
    decoder, _ = fit_decoder(cases, masks, few, few, features, settings, 0, torch.device("cpu"))
    measured = measure(cases, masks, few, predicted(decoder, cases, features, torch.device("cpu")))
    assert measured.dice.mean() >= 0.95


@pytest.mark.slow
def test_the_published_decoder_learns_too(encoder: Encoder, corpus: Corpus) -> None:
    training = HeadTraining(steps=30, batch=6, lr=1e-3, validate_every=15)
    settings = PAPER.model_copy(update={"training": training, "train_images": 48})
    task = Segmentation(settings)
    rows = list(task.run(encoder, corpus, replace(OPTIONS, baselines=False)))
    extra = rows[0].extra
    assert (extra["decoder"], extra["logits"], extra["blocks"]) == ("setr", [64, 64], [2])
    assert extra["n_train_images"] == 48
    assert row_of(rows, "Dice where present").value > 0.2
    assert {row.encoder for row in rows} == {"umif"}


def test_the_mean_mask_is_the_best_constant_drawing_on_val(corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    masks = DrawnMasks(corpus, cases, np.arange(len(cases.rows_N)))
    train, val = cases.of("train"), cases.of("val")
    drawn = mean_mask(cases, masks, train, val)
    positive = train[cases.states_NF[train, 0] == 1]
    mean = masks.take(positive)[:, 0].mean(axis=0)
    there = val[cases.states_NF[val, 0] == 1]

    def reached(mask: np.ndarray) -> float:
        return float(np.nanmean(measure(cases, masks, there, always(mask[None])).dice))

    assert reached(drawn[0]) == pytest.approx(max(reached(mean >= cut / 20) for cut in range(1, 20)), abs=1e-12)


def test_images_drawn_down_are_half_with_regions_and_nested(corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    train = cases.of("train")
    assert drawn_down(cases, train, None, 0) is train
    few, more = drawn_down(cases, train, 10, 0), drawn_down(cases, train, 20, 0)
    for count, chosen in ((10, few), (20, more)):
        assert len(chosen) == count
        assert (cases.states_NF[chosen, 0] == 1).sum() == count // 2
    assert set(few) < set(more) < set(train)
    positive = train[cases.states_NF[train, 0] == 1]
    assert len(drawn_down(cases, positive, 7, 0)) == 7


def test_unknown_classes_have_no_value(corpus: Corpus) -> None:
    [cases] = chosen_mask_cases(corpus, [])
    states = cases.states_NF.copy()
    states[0] = UNKNOWN
    unknown = replace(cases, states_NF=states)
    some = np.arange(6)
    measured = measure(unknown, DrawnMasks(corpus, unknown, some), some, always(np.ones((1, 224, 224), dtype=bool)))
    assert np.isnan(measured.dice[:, 0]).tolist() == [True] + [False] * 5
    assert np.isnan(measured.hd95[:, 0]).tolist() == [state != 1 for state in states[some, 0]]


def test_an_unknown_problem_is_refused(encoder: Encoder, corpus: Corpus) -> None:
    with pytest.raises(TaskError) as caught:
        Segmentation().run(encoder, corpus, replace(OPTIONS, problems=("squarez",)))
    assert caught.value.fix


@pytest.mark.parametrize(("with_it", "without"), [(20, 20), (20, 0), (3, 20), (20, 1), (2, 1)])
def test_a_sheet_shows_both_kinds_of_cases_where_there_are_both(with_it: int, without: int) -> None:
    positive = np.array([True] * with_it + [False] * without)
    chosen = choose_cases(positive, np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen) == min(CASES, with_it + without)
    if with_it >= 6 and without >= 2:
        assert positive[chosen].sum() == 6


def test_a_sheet_shows_what_is_there_and_what_was_drawn_in_the_classes_colours() -> None:
    _, jpeg = cv2.imencode(".jpg", np.zeros((30, 40), dtype=np.uint8))
    true, drawn = np.zeros((1, 2, 50, 50), dtype=bool), np.zeros((1, 2, 50, 50), dtype=bool)
    true[0, 0, 10:20, 10:20] = True
    drawn[0, 1, 30:40, 30:40] = True
    sheet = draw_sheet([jpeg.tobytes()], true, drawn, np.array([[0.0, np.nan]]), ("edema", "mass"))
    plain, there, found = (sheet[22:72, start : start + 50] for start in (0, 54, 108))
    assert plain.max() < 8  # JPEG's noise
    assert there[10:20, 10:20].max() > 50
    assert there[30:40, 30:40].max() < 8
    assert found[30:40, 30:40].max() > 50
    assert tuple(there[10, 10]) != tuple(found[30, 30])


def test_several_seeds_give_the_mean_of_their_values(encoder: Encoder, corpus: Corpus) -> None:
    few = SHORT.model_copy(update={"training": HeadTraining(steps=20, batch=8, lr=4e-3, validate_every=20)})
    options = replace(OPTIONS, labels=(50.0,), baselines=False)
    task = Segmentation(few)
    alone = [list(task.run(encoder, corpus, replace(options, seed=seed))) for seed in (0, 1)]
    both = list(task.run(encoder, corpus, replace(options, seeds=2)))
    assert [row.metric for row in both] == [row.metric for row in alone[0]]
    for row, first, second in zip(both, *alone, strict=True):
        assert [one["value"] for one in row.extra["seeds"]] == [first.value, second.value]
        assert row.value == pytest.approx((first.value + second.value) / 2, abs=1e-12)
        assert [one["seed"] for one in row.extra["seeds"]] == [0, 1]
        assert row.extra["seeds_deviation"] == pytest.approx(np.std([first.value, second.value], ddof=1))
        assert row.extra["threshold"] == 0.5
    assert alone[0][0].value != alone[1][0].value
    assert both[0].extra["sheet"].endswith("segmentation-regions-squares.png")


def test_the_published_protocol_trains_the_published_decoder(
    encoder: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = HeadTraining(steps=2, batch=4, validate_every=2)
    few = segmentation.PAPER_QUICK.model_copy(update={"training": training, "train_images": 12})
    monkeypatch.setattr(segmentation, "PAPER_QUICK", few)
    options = replace(OPTIONS, splits="paper", baselines=False, bootstrap=10)
    [first, *_] = Segmentation().run(encoder, corpus, options)
    assert first.extra["decoder"] == "setr"
    assert first.extra["splits"] == "paper"
    assert "SETR-like" in first.protocol
