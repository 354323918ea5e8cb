"""Linear and zero-shot classification on a corpus that shows one finding plainly and another not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from planted_corpus import planted_corpus
from umif.encoder import Encoder, Readout
from umif.errors import ConfigError, TaskError
from umif.language import prompts
from umif.models import ModelConfig, build_model
from umif.tasks import TaskOptions
from umif.tasks.definitions import Problem
from umif.tasks.linear import LinearClassification, patch_block
from umif.tasks.pixels import pixel_features
from umif.tasks.problems import find_problem, select
from umif.tasks.zero_shot import ZeroShotClassification, side_prompts
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.corpus import Corpus
    from umif.tasks.base import Result

OPTIONS = TaskOptions(labels=(10.0, 100.0), bootstrap=200, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = TextTokenizer.train(["signs of edema", "no evidence of pneumothorax"], vocab_size=100)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=64, depth=3, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Encoder.of_model(build_model(config, seed=7), tokenizer=tokenizer, shorter_side=40, device="cpu")


@pytest.fixture(scope="module")
def rows(encoder: Encoder, corpus: Corpus) -> Sequence[Result]:
    return LinearClassification().run(encoder, corpus, OPTIONS)


def test_rows_come_by_share_and_then_by_encoder(rows: Sequence[Result]) -> None:
    encoders = ["umif cls", "umif patches 4×4", "random cls", "random patches 4×4", "pixels 32×32"]
    assert [(row.labels, row.encoder) for row in rows] == [
        (share, name) for share in (10.0, 100.0) for name in encoders
    ]
    assert [row.baseline for row in rows] == [False, False, True, True, True] * 2
    assert {(row.task, row.data, row.metric) for row in rows} == {("linear", "planted-films: 2 findings", "macro AUC")}
    assert len({(row.protocol, row.split_sha256, row.n_patients) for row in rows}) == 1


def test_what_is_shown_is_found_and_what_is_not_shown_is_not(rows: Sequence[Result]) -> None:
    for row in rows:
        if row.labels == 100.0:
            assert row.extra["per_class"]["edema"] > 0.98
            # 68 test images: three standard errors of an AUC without signal are about 0.21.
            assert abs(row.extra["per_class"]["pneumothorax"] - 0.5) < 0.21
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high


def test_each_row_tells_what_it_was_fitted_on(rows: Sequence[Result], corpus: Corpus) -> None:
    cases = select(find_problem("findings"), corpus)
    train = set(cases.patients_N[cases.of("train")].tolist())
    for row in rows:
        expected = len(train) if row.labels == 100.0 else round(0.1 * len(train))
        assert row.extra["n_train_patients"] == expected
        assert row.extra["c"] in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    # Every encoder of one share is fitted on the same patients.
    assert len({(row.labels, row.extra["label_patients_sha256"]) for row in rows}) == 2


def test_gains_are_paired_differences_over_every_baseline(rows: Sequence[Result]) -> None:
    values = {(row.labels, row.encoder): row.value for row in rows}
    for row in rows:
        if row.baseline:
            assert "gains" not in row.extra
            continue
        gains = {gain["over"]: gain for gain in row.extra["gains"]}
        assert set(gains) == {"random cls", "random patches 4×4", "pixels 32×32"}
        for name, gain in gains.items():
            assert gain["value"] == pytest.approx(row.value - values[row.labels, name])
            assert gain["low"] <= gain["value"] <= gain["high"]
            assert 0 <= gain["share_not_above_zero"] <= 1


def test_rows_are_json(rows: Sequence[Result]) -> None:
    read = json.loads(json.dumps([row.to_json() for row in rows], allow_nan=False))
    keys = {"task", "data", "protocol", "labels", "metric", "value", "low", "high", "encoder", "baseline"}
    assert all(keys | {"split_sha256", "n_patients", "extra"} == set(row) for row in read)


def test_test_labels_touch_nothing_but_the_score(
    encoder: Encoder, corpus: Corpus, rows: Sequence[Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    from umif.tasks import problems

    original = problems.select

    def turned(problem: Any, data: Any, *splits: Any) -> Any:
        cases = original(problem, data, *splits)
        test = cases.of("test")
        cases.labels_NF[test] = 1 - cases.labels_NF[test]
        return cases

    monkeypatch.setattr(problems, "select", turned)
    for ours, theirs in zip(rows, LinearClassification().run(encoder, corpus, OPTIONS), strict=True):
        assert theirs.value == pytest.approx(1 - ours.value)
        assert theirs.extra["c"] == ours.extra["c"]


def test_train_labels_decide_what_is_learned(encoder: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from umif.tasks import problems

    original = problems.select

    def turned(problem: Any, data: Any, *splits: Any) -> Any:
        cases = original(problem, data, *splits)
        train = cases.of("train")
        cases.labels_NF[train] = 1 - cases.labels_NF[train]
        return cases

    monkeypatch.setattr(problems, "select", turned)
    options = TaskOptions(baselines=False, bootstrap=0, progress=False)
    for row in LinearClassification().run(encoder, corpus, options):
        assert row.extra["per_class"]["edema"] < 0.02


def test_without_baselines_the_encoder_stands_alone(encoder: Encoder, corpus: Corpus) -> None:
    rows = LinearClassification().run(encoder, corpus, TaskOptions(baselines=False, bootstrap=0, progress=False))
    assert [row.encoder for row in rows] == ["umif cls", "umif patches 4×4"]
    assert all((row.low, row.high) == (None, None) and "gains" not in row.extra for row in rows)


def test_the_block_of_the_patches_can_be_chosen(encoder: Encoder, corpus: Corpus) -> None:
    assert [patch_block(depth) for depth in (2, 3, 6, 12)] == [2, 2, 4, 8]
    values = {}
    for block in (1, 3):
        options = TaskOptions(baselines=False, bootstrap=0, block=block, progress=False)
        row = LinearClassification().run(encoder, corpus, options)[1]
        assert row.extra["block"] == block
        values[block] = row.extra["per_class"]["pneumothorax"]
    assert values[1] != values[3]
    with pytest.raises(ConfigError, match="no block 4"):
        LinearClassification().run(encoder, corpus, TaskOptions(block=4, progress=False))


def test_a_problem_that_is_not_in_the_corpus_is_refused(encoder: Encoder, corpus: Corpus) -> None:
    with pytest.raises(TaskError, match="nih-pneumonia"):
        LinearClassification().run(encoder, corpus, TaskOptions(problems=("nih-pneumonia",), progress=False))


def test_pixels_are_area_averages(corpus: Corpus) -> None:
    from umif.imaging import decode_jpeg_grey

    features = pixel_features(corpus, np.array([3, 1]), side=8)
    picture = decode_jpeg_grey(corpus.take_jpegs([3])[0])
    height, width = picture.shape
    cell = picture[: height // 8, : int(width / 8)].mean() / 255
    assert features.shape == (2, 64)
    assert features[0, 0] == pytest.approx(cell, abs=0.02)


# ------------------------------------------------------------------------------------------------- zero-shot
def test_zero_shot_scores_test_patients_with_nothing_fitted(encoder: Encoder, corpus: Corpus) -> None:
    rows = ZeroShotClassification().run(encoder, corpus, OPTIONS)
    assert [(row.encoder, row.baseline, row.labels) for row in rows] == [
        ("umif cls", False, 0.0),
        ("random cls", True, 0.0),
    ]
    cases = select(find_problem("findings"), corpus)
    assert {row.split_sha256 for row in rows} == {cases.split_sha256}
    assert rows[0].extra["gains"][0]["over"] == "random cls"


_NEGATIVE = {prompt for finding in ("edema", "pneumothorax") for prompt in prompts(finding)[1]}


class Oracle(Encoder):
    """Knows the label: pictures and prompts share one axis."""

    axis: np.ndarray

    def encode_corpus(self, corpus: Corpus, image_rows: Any, readout: Readout | None = None, **_: Any) -> Any:
        features = np.zeros((len(image_rows), self.width), dtype=np.float32)
        features[:, 0] = self.axis[image_rows]
        features[:, 1] = 1.0
        return features

    def encode_texts(self, texts: Any, batch_size: int = 64) -> Any:
        import torch

        negated = [text in _NEGATIVE for text in texts]
        features = torch.zeros(len(texts), self.width)
        features[:, 0] = torch.tensor([-1.0 if no else 1.0 for no in negated])
        return features


def test_the_positive_side_of_the_prompts_is_the_positive_class(encoder: Encoder, corpus: Corpus) -> None:
    cases = select(find_problem("findings"), corpus)
    oracle = Oracle(encoder._network, tokenizer=encoder.tokenizer, device="cpu")
    oracle.axis = np.zeros(corpus.manifest.images)
    oracle.axis[cases.rows_N] = cases.labels_NF[:, cases.classes.index("edema")]
    row = ZeroShotClassification().run(oracle, corpus, TaskOptions(baselines=False, bootstrap=0, progress=False))[0]
    assert row.extra["per_class"]["edema"] == 1.0


def test_sides_may_be_negated_and_joined() -> None:
    positive, negative = prompts("pneumonia")
    normal, _ = prompts("no_finding")
    assert side_prompts(["pneumonia"]) == list(positive)
    assert side_prompts(["not pneumonia", "no_finding"]) == [*negative, *normal]
    with pytest.raises(TaskError, match="pneumonja"):
        side_prompts(["pneumonja"])


def test_what_words_cannot_ask_is_refused(encoder: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from umif.tasks import problems

    view = find_problem("nih-view").model_copy(update={"datasets": ()})
    monkeypatch.setattr(problems, "find_problem", lambda name: view)
    with pytest.raises(TaskError, match="no words ask for nih-view"):
        ZeroShotClassification().run(encoder, corpus, TaskOptions(problems=("nih-view",), progress=False))
    silent = Encoder(encoder._network, device="cpu")
    with pytest.raises(TaskError, match="no tokeniser"):
        ZeroShotClassification().run(silent, corpus, OPTIONS)


# ------------------------------------------------------------------------------------------------- seeds
def test_several_seeds_give_their_mean_and_stand_beside_it(encoder: Encoder, corpus: Corpus) -> None:
    options = TaskOptions(labels=(10.0, 100.0), bootstrap=50, progress=False, seed=3, seeds=2)
    alone = [
        LinearClassification().run(encoder, corpus, replace(options, seed=seed, seeds=1)) for seed in options.every_seed
    ]
    for row, *ones in zip(LinearClassification().run(encoder, corpus, options), *alone, strict=True):
        assert row.value == pytest.approx(np.mean([one.value for one in ones]))
        assert [one["value"] for one in row.extra["seeds"]] == pytest.approx([one.value for one in ones])
        assert [one["seed"] for one in row.extra["seeds"]] == [3, 4]
        assert [one["label_patients_sha256"] for one in row.extra["seeds"]] == [
            one.extra["label_patients_sha256"] for one in ones
        ]
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high
        # With all labels only random weights differ from seed to seed; of a share, the patients do too.
        same = row.labels == 100.0 and not row.encoder.startswith("random")
        assert (row.extra["seeds_deviation"] == 0) == same


def test_rows_tell_calibration_operating_points_and_groups(rows: Sequence[Result]) -> None:
    for row in rows:
        assert set(row.extra["calibration"]["per_class"]) == {"edema", "pneumothorax"}
        assert 0 <= row.extra["calibration"]["ece"] <= 1
        for points in row.extra["operating_points"].values():
            assert [point["at"] for point in points] == ["specificity 95 % on val", "sensitivity 95 % on val"]
        assert ("slices" in row.extra) == (not row.baseline)
        alarms, found = row.extra["roc"]["false_alarms"], row.extra["roc"]["found"]
        areas = [np.trapezoid(found[name], alarms) for name in ("edema", "pneumothorax")]
        # The few test patients' steps are cut at 41 points.
        assert np.mean(areas) == pytest.approx(row.value, abs=0.03)
    edema = rows[5].extra
    assert edema["operating_points"]["edema"][0]["sensitivity"][0] > 0.9
    assert {(one["by"], one["group"]) for one in edema["slices"]} == {("view", "AP"), ("view", "PA")}


# ------------------------------------------------------------------------------------------------- exclusive classes
def test_classes_that_exclude_one_another_are_told_apart_by_accuracy(
    encoder: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from umif.tasks import problems

    sides = {"edema": "present", "clear": "absent"}
    asked = Problem.model_validate(
        {
            "name": "two",
            "title": "edema or clear",
            "kind": "classes",
            "classes": [{"name": name, "any": [{"finding": "edema", "state": state}]} for name, state in sides.items()],
        }
    )
    monkeypatch.setattr(problems, "find_problem", lambda name: asked)
    rows = LinearClassification().run(encoder, corpus, replace(OPTIONS, problems=("two",), bootstrap=50))
    for row in rows:
        assert (row.metric, row.data) == ("accuracy", "planted-films: edema or clear")
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.value <= row.high
        assert 0 <= row.extra["macro_auc"] <= 1
        assert row.extra["calibration"]["of"] == "the likeliest class"
        assert "operating_points" not in row.extra
        if row.labels == 100.0:
            assert row.value > 0.95  # the finding is drawn plainly
            assert min(row.extra["per_class"].values()) > 0.9
            assert row.extra["val_accuracy"] > 0.9
    assert {one["by"] for one in rows[0].extra["slices"]} == {"view"}
    with pytest.raises(TaskError, match="no words ask for two"):
        ZeroShotClassification().run(encoder, corpus, TaskOptions(problems=("two",), progress=False))
