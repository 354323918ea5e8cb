"""The detection task from corpus to rows: what is seen is found, shares of labels, limits that are told, the sheet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch

from planted_corpus import planted_corpus
from umif.encoder import Encoder
from umif.models import ModelConfig, TokenEncoder
from umif.tasks import detection
from umif.tasks.base import TaskOptions
from umif.tasks.detection import FULL, QUICK, Detection
from umif.tasks.detection_fit import DetectionSettings
from umif.tasks.head_training import HeadTraining

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from umif.corpus import Corpus
    from umif.tasks.base import Result

SHORT = DetectionSettings(training=HeadTraining(steps=60, batch=16, lr=3e-3, validate_every=20), neck=16)
OPTIONS = TaskOptions(labels=(10.0, 100.0), bootstrap=100, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=90)


def encoder_in(folder: Path | None) -> Encoder:
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=64, depth=1, width=48, heads=3, vocab_size=120)
    torch.manual_seed(3)
    return Encoder(TokenEncoder(config), shorter_side=40, cache=None if folder is None else folder / "features")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def rows(corpus: Corpus, model: Path) -> Sequence[Result]:
    return Detection(SHORT).run(encoder_in(model), corpus, OPTIONS)


def test_a_finding_that_is_plainly_seen_is_found_and_only_where_it_is(rows: Sequence[Result]) -> None:
    main = {row.encoder: row for row in rows if row.labels == 100 and row.metric == "mAP 0.40-0.75"}
    assert list(main) == ["umif", "random", "pixels", "usual places"]
    assert main["pixels"].value > 0.9
    # The place is always the same, but half of the films show nothing there: about half of its predictions are false.
    assert 0.3 < main["usual places"].value < 0.7
    assert main["pixels"].extra["sensitivity_at_1_false_per_image"] > 0.9
    coco = [row for row in rows if row.labels == 100 and row.metric == "mAP 0.50-0.95"]
    assert all(row.value <= main[row.encoder].value for row in coco)


def test_rows_tell_gains_counts_and_the_comparison_with_legacy(rows: Sequence[Result], corpus: Corpus) -> None:
    ours = next(row for row in rows if row.encoder == "umif" and row.labels == 100)
    assert [gain["over"] for gain in ours.extra["gains"]] == ["random", "pixels", "usual places"]
    test = set(corpus.image_rows("test").tolist())
    boxed = [pair["image_row"] in test for pair in corpus.take_pairs(corpus.pair_rows("segment"), ["image_row"])]
    assert ours.extra["n_boxes"] == sum(boxed)
    assert 0 < ours.extra["n_images_with_box"] < ours.extra["n_images"]
    assert ours.extra["n_boxes"] == ours.extra["n_images_with_box"]
    assert {"map", "n_images", "note"} == set(ours.extra["legacy_mgca"])
    assert ours.extra["legacy_mgca"]["n_images"] <= ours.extra["n_images_with_box"]
    assert ours.data == "planted-films: boxes"
    shares = {row.labels: row.extra["n_train_images"] for row in rows}
    assert shares[10.0] < shares[100.0] / 4


def test_limits_are_told_and_full_lifts_them(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    few = SHORT.model_copy(update={"train_images": 10, "training": HeadTraining(steps=2, batch=4)})
    monkeypatch.setattr(detection, "QUICK", few)
    monkeypatch.setattr(detection, "FULL", SHORT.model_copy(update={"training": HeadTraining(steps=2, batch=4)}))
    found = {}
    for full in (False, True):
        options = TaskOptions(bootstrap=5, progress=False, baselines=False, full=full)
        found[full] = Detection().run(encoder_in(None), corpus, options)[0].extra
    assert found[False]["n_train_images"] == 10
    assert found[False]["n_labelled_images"] > 10
    assert "full lifts it" in found[False]["train_images"]
    assert found[True]["n_train_images"] > 50
    assert QUICK.train_images is not None
    assert FULL.train_images is FULL.val_images is None


def test_the_sheet_is_a_picture_below_the_model(rows: Sequence[Result], model: Path) -> None:
    told = {row.extra["sheet"] for row in rows if "sheet" in row.extra}
    assert told == {"results/sheets/detection-boxes-planted-films.png"}
    assert {(row.encoder, row.labels) for row in rows if "sheet" in row.extra} == {("umif", 100.0)}
    sheet = cv2.imread(str(model / told.pop()))
    assert sheet is not None
    drawn = (np.abs(sheet.astype(int) - [235, 160, 60]).max(axis=2) < 8).sum()
    assert drawn > 9 * 100


def test_several_seeds_give_the_mean_of_their_values_and_tell_what_each_reached(corpus: Corpus, tmp_path: Path) -> None:
    few = SHORT.model_copy(update={"training": HeadTraining(steps=20, batch=16, lr=3e-3, validate_every=20)})
    options = replace(OPTIONS, labels=(50.0,))
    encoder, task = encoder_in(tmp_path), Detection(few)
    alone = [list(task.run(encoder, corpus, replace(options, seed=seed))) for seed in (0, 1)]
    both = list(task.run(encoder, corpus, replace(options, seeds=2)))
    assert [(row.metric, row.encoder) for row in both] == [(row.metric, row.encoder) for row in alone[0]]
    for row, first, second in zip(both, *alone, strict=True):
        values = [first.value, second.value]
        assert [one["value"] for one in row.extra["seeds"]] == values
        assert row.value == pytest.approx(np.mean(values), abs=1e-12)
        assert [one["seed"] for one in row.extra["seeds"]] == [0, 1]
        assert row.extra["seeds_deviation"] == pytest.approx(np.std(values, ddof=1))
        assert row.extra["n_images"] == first.extra["n_images"]
        for name, value in row.extra["ap_at"].items():
            assert value == pytest.approx((first.extra["ap_at"][name] + second.extra["ap_at"][name]) / 2)
    ours = both[0].extra["seeds"]
    assert ours[0]["label_patients_sha256"] != ours[1]["label_patients_sha256"]
    pixels = next(row for row in both if row.encoder == "pixels")
    assert pixels.extra["seeds"][0]["value"] != pixels.extra["seeds"][1]["value"]
    assert [row.encoder for row in both if "sheet" in row.extra] == ["umif", "umif"]
