"""The linear head against a plain scikit-learn pipeline, and what chooses its regularisation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from umif.errors import NonFiniteError, TaskError
from umif.tasks.logistic import C_GRID, fit_linear_head
from umif.tasks.metrics import auroc


def planted(images: int, width: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (images, 1)).astype(np.int8)
    features = rng.normal(3.0, 2.0, (images, width))
    features[:, 0] += strength * labels[:, 0]
    return features.astype(np.float32), labels


@pytest.mark.parametrize(("images", "width"), [(300, 12), (60, 200)], ids=["more images", "more features"])
@pytest.mark.parametrize("c", [1e-3, 1.0])
def test_head_equals_a_plain_pipeline(images: int, width: int, c: float) -> None:
    features, labels = planted(images + 50, width, 1.0)
    head = fit_linear_head(features[:images], labels[:images], features[images:], labels[images:], grid=[c])
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=10_000))
    plain.fit(features[:images].astype(np.float64), labels[:images, 0])
    expected = plain.decision_function(features.astype(np.float64))
    # Both stop at a tolerance on the gradient (1e-6 here), not at the optimum itself.
    np.testing.assert_allclose(head.scores(features)[:, 0], expected, atol=2e-3 * np.abs(expected).max())


def test_planted_signal_is_found_and_noise_is_not() -> None:
    features, labels = planted(400, 20, strength=12.0)
    head = fit_linear_head(features[:200], labels[:200], features[200:300], labels[200:300])
    assert auroc(head.scores(features[300:])[:, 0], labels[300:, 0]) > 0.99
    noise, labels = planted(4000, 20, strength=0.0)
    head = fit_linear_head(noise[:200], labels[:200], noise[200:300], labels[200:300])
    # 3,700 test images: three standard errors are 0.03.
    assert abs(auroc(head.scores(noise[300:])[:, 0], labels[300:, 0]) - 0.5) < 0.03


def test_val_chooses_c_and_ties_go_to_the_smallest() -> None:
    # Feature 0 is right on train and val alike; the others, loud on train alone, mislead weakly regularised heads.
    rng = np.random.default_rng(0)
    train_labels, val_labels = (rng.integers(0, 2, (n, 1)).astype(np.int8) for n in (40, 200))
    train, val = rng.normal(size=(40, 60)), rng.normal(size=(200, 60))
    train[:, 0] += 2 * train_labels[:, 0]
    val[:, 0] += 2 * val_labels[:, 0]
    head = fit_linear_head(train, train_labels, val, val_labels)
    alone = [
        auroc(fit_linear_head(train, train_labels, val, val_labels, grid=[c]).scores(val)[:, 0], val_labels[:, 0])
        for c in C_GRID
    ]
    # Started from the solution of the C before, a fit ends within the tolerance of one started from zero.
    np.testing.assert_allclose(head.val, alone, atol=2e-3)
    assert len(set(head.val)) > 1
    assert head.c == C_GRID[int(np.argmax(head.val))]
    # Turned labels on val turn the choice: it is val that chooses, not train.
    turned = fit_linear_head(train, train_labels, val, (1 - val_labels).astype(np.int8))
    assert turned.c == C_GRID[int(np.argmax(turned.val))]
    assert turned.val == pytest.approx([1 - value for value in head.val])
    assert turned.c != head.c
    tied = fit_linear_head(train[:, :1], train_labels, val[:, :1], val_labels)
    assert len(set(tied.val)) == 1
    assert tied.c == min(C_GRID)


def test_each_class_uses_the_images_that_know_it() -> None:
    features, labels = planted(300, 10, 3.0)
    two = np.concatenate([labels, labels], axis=1)
    two[100:200, 1] = -1
    head = fit_linear_head(features[:200], two[:200], features[200:], two[200:], grid=[0.1])
    first = fit_linear_head(
        features[:100], labels[:100], features[200:], labels[200:], statistics_ND=features[:200], grid=[0.1]
    )
    np.testing.assert_allclose(head.weights_DF[:, 1], first.weights_DF[:, 0], atol=1e-4)


def test_a_class_of_one_state_scores_everybody_alike_and_is_named() -> None:
    features, labels = planted(100, 5, 3.0)
    two = np.concatenate([labels, np.ones_like(labels)], axis=1)
    val = two.copy()
    val[::2, 1] = 0
    head = fit_linear_head(features, two, features, val)
    assert head.unfitted == (1,)
    assert (head.scores(features)[:, 1] == 0).all()
    with pytest.raises(TaskError, match="one class only"):
        fit_linear_head(features, two[:, 1:], features, val[:, 1:])


def test_val_of_one_class_cannot_choose() -> None:
    features, labels = planted(100, 5, 3.0)
    with pytest.raises(TaskError):
        fit_linear_head(features, labels, features, np.ones_like(labels))


def test_a_feature_that_never_changes_is_ignored() -> None:
    features, labels = planted(100, 5, 3.0)
    features[:, 3] = 0.1
    head = fit_linear_head(features, labels, features, labels)
    assert head.weights_DF[3, 0] == 0
    assert np.isfinite(head.scores(features)).all()


def test_statistics_may_come_from_images_without_labels() -> None:
    features, labels = planted(200, 5, 3.0)
    few = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    scaled = features * np.float32(1000.0) + np.float32(5.0)
    one = fit_linear_head(features[few], labels[few], features, labels, statistics_ND=features)
    other = fit_linear_head(scaled[few], labels[few], scaled, labels, statistics_ND=scaled)
    # Standardised, the unit of a feature plays no part; fp32 inputs bound how exactly.
    np.testing.assert_allclose(one.scores(features), other.scores(scaled), atol=1e-3)


# ------------------------------------------------------------------------------------------------- exclusive classes
@pytest.mark.parametrize("c", [1e-2, 1.0, 10.0])
def test_exclusive_classes_equal_the_softmax_of_scikit_learn(c: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 120)
    features = rng.normal(size=(120, 5)) + np.eye(3)[truth] @ rng.normal(size=(3, 5))
    labels = np.eye(3, dtype=np.int8)[truth]
    head = fit_linear_head(features, labels, features, labels, grid=(c,), exclusive=True)
    standard = (features - features.mean(0)) / features.std(0)
    expected = LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(standard, truth)
    ours = softmax(head.scores(features), axis=1)
    # Both stop at a gradient near nothing; what they stop at agrees to a few parts in ten thousand.
    np.testing.assert_allclose(ours, expected.predict_proba(standard), atol=1e-3)
    assert head.converged
    assert head.val == (float((ours.argmax(1) == truth).mean()),)


def test_a_class_without_a_training_image_is_never_told() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    features, labels = rng.normal(size=(60, 4)), np.eye(3, dtype=np.int8)[truth]
    head = fit_linear_head(features, labels, features, labels, exclusive=True)
    assert head.unfitted == (2,)
    assert set(head.scores(features).argmax(1).tolist()) <= {0, 1}
    with pytest.raises(TaskError, match="one class only"):
        fit_linear_head(features, np.eye(3, dtype=np.int8)[np.zeros(60, dtype=int)], features, labels, exclusive=True)


@pytest.mark.parametrize("exclusive", [False, True])
def test_sixteen_cases_are_learned_by_heart(exclusive: bool) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(16, 64))
    truth = np.arange(16) % 2
    labels = np.eye(2, dtype=np.int8)[truth] if exclusive else truth[:, None].astype(np.int8)
    head = fit_linear_head(features, labels, features, labels, exclusive=exclusive)
    scores = head.scores(features)
    told = scores.argmax(1) if exclusive else (scores[:, 0] > 0).astype(int)
    assert (told == truth).mean() >= 0.95


def test_features_that_are_no_numbers_are_refused() -> None:
    features, labels = np.zeros((8, 2)), (np.arange(8) % 2)[:, None].astype(np.int8)
    broken = features.copy()
    broken[3, 1] = np.nan
    for train, val in ((broken, features), (features, broken)):
        with pytest.raises(NonFiniteError, match="NaN"):
            fit_linear_head(train, labels, val, labels)
