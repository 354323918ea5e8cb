"""Neighbour votes and the small network: what they find, what they must not touch, and the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from planted_corpus import planted_corpus
from umif.encoder import Encoder
from umif.errors import TaskError
from umif.models import ModelConfig, build_model
from umif.tasks import TaskOptions
from umif.tasks.knn import K_GRID, TEMPERATURE, NeighbourClassification, neighbour_probe, votes
from umif.tasks.linear import LinearClassification
from umif.tasks.mlp import MlpClassification, masked_loss, mlp_probe, training_for
from umif.tasks.neighbours import unit_rows
from umif.tasks.probes import ProbeData
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from umif.corpus import Corpus
    from umif.tasks.base import Task

OPTIONS = TaskOptions(bootstrap=50, baselines=False, progress=False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = TextTokenizer.train(["signs of edema"], vocab_size=60)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=64, depth=3, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Encoder.of_model(build_model(config, seed=7), tokenizer=tokenizer, shorter_side=40, device="cpu")


def planted(n: int = 120, width: int = 6, seed: int = 0) -> ProbeData:
    """Two classes: the first is the exclusive or of two features' signs, the second is drawn by lot."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(3):
        features = rng.normal(size=(n, width)).astype(np.float32)
        labels = np.stack([(features[:, 0] * features[:, 1] > 0), rng.random(n) < 0.5], axis=1).astype(np.int8)
        parts.append((features, labels))
    (train, train_labels), (val, val_labels), (test, _) = parts
    return ProbeData(train, train_labels, val, val_labels, test, train)


@pytest.mark.parametrize("task", [NeighbourClassification(), MlpClassification()])
def test_what_is_shown_is_found_and_what_is_not_shown_is_not(task: Task, encoder: Encoder, corpus: Corpus) -> None:
    for row in task.run(encoder, corpus, OPTIONS):
        # A random network's CLS blurs places; its patches do not.
        assert row.extra["per_class"]["edema"] > (0.98 if "patches" in row.encoder else 0.9)
        # 68 test images: three standard errors of an AUC without signal are about 0.21.
        assert abs(row.extra["per_class"]["pneumothorax"] - 0.5) < 0.21


@pytest.mark.parametrize("task", [NeighbourClassification(), MlpClassification()])
def test_problems_shares_patients_and_test_set_are_those_of_the_linear_probe(
    task: Task, encoder: Encoder, corpus: Corpus
) -> None:
    options = TaskOptions(labels=(10.0, 100.0), bootstrap=0, progress=False)
    ours, linear = task.run(encoder, corpus, options), LinearClassification().run(encoder, corpus, options)
    for mine, theirs in zip(ours, linear, strict=True):
        for name in ("data", "labels", "metric", "encoder", "baseline", "split_sha256", "n_patients"):
            assert getattr(mine, name) == getattr(theirs, name)
        assert mine.extra["label_patients_sha256"] == theirs.extra["label_patients_sha256"]


class TestVotes:
    def test_agree_with_scikit_learn(self) -> None:
        data = planted()
        train, queries = unit_rows(data.train_ND), unit_rows(data.test_ND)
        found = votes(queries, train, data.train_NF, (7,))[0]
        for column in range(2):
            model = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp(-d / TEMPERATURE))
            expected = model.fit(train, data.train_NF[:, column]).predict_proba(queries)[:, 1]
            # The reference takes its distances in single precision, which 1 / 0.07 makes larger.
            assert found[:, column] == pytest.approx(expected, abs=1e-4)

    def test_only_those_who_know_a_class_vote_on_it(self) -> None:
        data = planted()
        labels = data.train_NF.copy()
        labels[::2, 0] = -1
        train, queries = unit_rows(data.train_ND), unit_rows(data.test_ND)
        found = votes(queries, train, labels, (7, 500))
        expected = votes(queries, train[1::2], labels[1::2], (7, 500))
        assert np.array_equal(found[:, :, 0], expected[:, :, 0])
        assert not np.array_equal(found[:, :, 1], expected[:, :, 1])

    def test_k_is_chosen_on_val(self) -> None:
        data = planted()
        _, extra = neighbour_probe(data, 0)
        assert extra["k"] in K_GRID
        turned = ProbeData(data.train_ND, data.train_NF, data.val_ND, 1 - data.val_NF, data.test_ND, data.statistics_ND)
        _, other = neighbour_probe(turned, 0)
        assert other["val_auc"] != extra["val_auc"]

    def test_scaling_helps_where_one_loud_feature_says_nothing(self) -> None:
        data = planted()
        for features in (data.train_ND, data.val_ND, data.test_ND):
            features[:, 5] *= 1000
        scores, extra = neighbour_probe(data, 0)
        assert extra["scaling"] == "standardised"
        truth = data.test_ND[:, 0] * data.test_ND[:, 1] > 0
        assert scores[truth, 0].mean() - scores[~truth, 0].mean() > 0.1


class TestMlp:
    def test_learns_sixteen_cases_by_heart(self) -> None:
        rng = np.random.default_rng(3)
        features = rng.normal(size=(16, 24)).astype(np.float32)
        labels = np.stack([rng.permutation(16) % 2, rng.permutation(16) % 3 == 0], axis=1).astype(np.int8)
        data = ProbeData(features, labels, features, labels, features, features)
        scores, _ = mlp_probe(data, 0)
        assert ((scores > 0) == (labels == 1)).mean() >= 0.95

    def test_finds_what_no_linear_readout_can(self) -> None:
        from umif.tasks.logistic import fit_linear_head
        from umif.tasks.metrics import auroc

        data = planted(400)
        truth = (data.test_ND[:, 0] * data.test_ND[:, 1] > 0).astype(np.int8)
        scores, _ = mlp_probe(data, 0)
        head = fit_linear_head(data.train_ND, data.train_NF, data.val_ND, data.val_NF)
        assert auroc(scores[:, 0], truth) > 0.85
        assert auroc(head.scores(data.test_ND)[:, 0], truth) < 0.65

    def test_the_same_seed_gives_the_same_scores_and_another_does_not(self) -> None:
        data = planted()
        first, extra = mlp_probe(data, 0)
        again, _ = mlp_probe(data, 0)
        other, _ = mlp_probe(data, 9)
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert [one["seed"] for one in extra["networks"]] == [0, 1, 2]

    def test_unknown_labels_cost_nothing_and_teach_nothing(self) -> None:
        logits = torch.tensor([[0.3, -2.0], [1.0, 5.0]], requires_grad=True)
        loss = masked_loss(logits, torch.tensor([[1, -1], [0, -1]], dtype=torch.int8))
        loss.backward()
        known = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], torch.tensor([1.0, 0.0]))
        assert loss.item() == pytest.approx(known.item())
        assert logits.grad is not None
        assert torch.equal(logits.grad[:, 1], torch.zeros(2))
        assert masked_loss(logits, torch.full((2, 2), -1, dtype=torch.int8)).item() == 0

    def test_decay_and_step_are_chosen_on_val(self) -> None:
        data = planted()
        _, extra = mlp_probe(data, 0)
        assert extra["weight_decay"] in (1.0, 0.1, 0.01)
        assert all(1 <= one["best_step"] <= extra["most_steps"] for one in extra["networks"])

    def test_more_images_are_trained_on_for_longer(self) -> None:
        assert [training_for(count).steps for count in (1, 2560, 12800, 10**6)] == [200, 200, 1000, 6000]


@pytest.mark.parametrize("probe", [neighbour_probe, mlp_probe])
def test_a_class_of_one_state_scores_all_alike_and_all_such_are_refused(probe: object) -> None:
    assert callable(probe)
    data = planted()
    labels = data.train_NF.copy()
    labels[:, 1] = 1
    one = ProbeData(data.train_ND, labels, data.val_ND, data.val_NF, data.test_ND, data.statistics_ND)
    scores, _ = probe(one, 0)
    assert len(np.unique(scores[:, 1])) == 1
    assert len(np.unique(scores[:, 0])) > 1
    none = ProbeData(data.train_ND, labels * 0, data.val_ND, data.val_NF, data.test_ND, data.statistics_ND)
    with pytest.raises(TaskError, match="one class only"):
        probe(none, 0)


def test_standardising_uses_all_training_images_and_mutes_what_never_varies() -> None:
    rng = np.random.default_rng(0)
    everyone = rng.normal(3, 2, (50, 4)).astype(np.float32)
    everyone[:, 3] = 0.1
    data = ProbeData(everyone[:5], np.zeros((5, 1), np.int8), everyone, np.zeros((50, 1), np.int8), everyone, everyone)
    scaled = data.standardised()
    assert scaled.val_ND[:, :3].mean(0) == pytest.approx(0, abs=1e-6)
    assert scaled.val_ND[:, :3].std(0) == pytest.approx(1, abs=1e-6)
    assert (scaled.val_ND[:, 3] == 0).all()
    assert np.array_equal(scaled.train_ND, scaled.val_ND[:5])
