"""Logistic regression on frozen features: fitted on train, its regularisation chosen on val.

Shape legend: N images, D features, F classes, K ≤ min(N, D) directions that the training features span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import expit, logsumexp  # type: ignore[import-untyped]

from umif.errors import NonFiniteError, TaskError
from umif.tasks.metrics import UNKNOWN, exclusive_accuracy, macro_auroc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

# Inverse strength of the L2 penalty, from nearly nothing learned to nearly nothing held back.
C_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_MAX_STEPS, _TOLERANCE = 2000, 1e-6
# The log-odds of a class that no training image has: finite, and below whatever a fit gives.
_NEVER = -1e6


@dataclass(frozen=True, slots=True)
class LinearHead:
    """One linear classifier per class, and how it came about.

    Attributes:
        weights_DF, bias_F: Act on features as the encoder gives them; zero for a class that could not be fitted.
        c: The regularisation chosen.
        val: Macro AUC (accuracy, of exclusive classes) on val of each value of the grid, ascending.
        unfitted: Positions of the classes that the training labels know in one state only; their score is constant.
        converged: Whether every fit reached the solver's tolerance.
    """

    weights_DF: NDArray[np.float64]
    bias_F: NDArray[np.float64]
    c: float
    val: tuple[float, ...]
    unfitted: tuple[int, ...]
    converged: bool

    def scores(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the log-odds of each class. Shape (N, F)."""
        return np.asarray(features_ND, dtype=np.float64) @ self.weights_DF + self.bias_F


def fit_linear_head(
    train_ND: NDArray[np.floating],
    train_NF: NDArray[np.int8],
    val_ND: NDArray[np.floating],
    val_NF: NDArray[np.int8],
    *,
    statistics_ND: NDArray[np.floating] | None = None,
    grid: Sequence[float] = C_GRID,
    exclusive: bool = False,
) -> LinearHead:
    """Fit one classifier per class for every C of the grid; keep the C with the best macro AUC on val.

    The classes share one C; of equally good ones the smallest, most regularised, is kept. Classes that exclude one
    another (`exclusive`) are fitted together by a softmax, and the best accuracy on val decides; one that no training
    image has is never told.

    Args:
        train_ND, train_NF: Features and labels to fit on.
        val_ND, val_NF: Features and labels to choose by.
        statistics_ND: Features whose mean and deviation standardise: all training images, labelled or not, so that a
            share of 1 % is not at the mercy of five images' deviation. `None` = the ones fitted on.
        grid: Values of C.
        exclusive: Whether every image is of exactly one class.

    Raises:
        NonFiniteError: features hold NaN or infinity.
        TaskError: no class has both states among the training labels, or none of those among the val labels.
    """
    for features_ND in (train_ND, val_ND):
        if not np.isfinite(features_ND).all():
            raise NonFiniteError("features to fit on hold NaN or infinity", fix="the encoder's weights are damaged")
    shift_D, scale_D = _moments(train_ND if statistics_ND is None else statistics_ND)
    standard_ND = (np.asarray(train_ND, dtype=np.float64) - shift_D) * scale_D
    basis_DK, spread_K = _principal(standard_ND)
    train_NK = standard_ND @ basis_DK
    needed = {1} if exclusive else {0, 1}
    fitted = [column for column in range(train_NF.shape[1]) if needed <= set(train_NF[:, column].tolist())]
    if len(fitted) < (2 if exclusive else 1):
        raise TaskError("the training labels hold one class only", fix="use a larger share of the labels")
    heads, values, converged = [], [], True
    solve = _solve_exclusive if exclusive else _solve
    unknown_score = _NEVER if exclusive else 0.0
    weights_FL = np.zeros((len(fitted), train_NK.shape[1] + 1))
    for c in sorted(grid):
        # Each C starts from the solution of the one before, which is near.
        weights_FL, reached = solve(train_NK, spread_K, train_NF[:, fitted], c, weights_FL)
        converged = converged and reached
        weights_DF, bias_F = np.zeros((len(shift_D), train_NF.shape[1])), np.full(train_NF.shape[1], unknown_score)
        weights_DF[:, fitted] = basis_DK @ weights_FL[:, :-1].T * scale_D[:, None]
        bias_F[fitted] = weights_FL[:, -1] - shift_D @ weights_DF[:, fitted]
        heads.append((weights_DF, bias_F))
        val_scores = np.asarray(val_ND, dtype=np.float64) @ weights_DF + bias_F
        if exclusive:
            values.append(exclusive_accuracy(val_scores, val_NF)[0])
        else:
            values.append(macro_auroc(val_scores[:, fitted], val_NF[:, fitted])[0])
    best = int(np.argmax(values))
    unfitted = tuple(column for column in range(train_NF.shape[1]) if column not in fitted)
    return LinearHead(*heads[best], sorted(grid)[best], tuple(values), unfitted, converged)


def _solve(
    train_NK: NDArray[np.float64],
    spread_K: NDArray[np.float64],
    labels_NF: NDArray[np.int8],
    c: float,
    start_FL: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """Minimise all classes' losses at once; return weights (F, K + 1), intercept last, and whether it converged.

    Per class: mean over its n known images of log(1 + exp(−margin)) + |w|² / (2 C n), the intercept without penalty.

    The classes share no weight, so this is the same as one fit each, at the price of one. Features of a network differ
    in spread by orders of magnitude, which a gradient method crosses slowly; so each weight is measured in units of
    its curvature where all margins are 0 (spread²/4 + 1/(C n)). That changes the path, not the optimum.
    """
    signs_FN = np.where(labels_NF == UNKNOWN, 0.0, np.where(labels_NF == 1, 1.0, -1.0)).T
    counts_F = np.abs(signs_FN).sum(1)
    shares_FN = np.abs(signs_FN) / counts_F[:, None]
    penalty_F1 = (1.0 / (c * counts_F))[:, None]
    unit_FL = np.full_like(start_FL, 2.0)
    unit_FL[:, :-1] = 1.0 / np.sqrt(0.25 * spread_K**2 + penalty_F1)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_FL = flat.reshape(unit_FL.shape) * unit_FL
        margins_FN = signs_FN * (weights_FL[:, :-1] @ train_NK.T + weights_FL[:, -1:])
        value = (shares_FN * np.logaddexp(0.0, -margins_FN)).sum()
        value += 0.5 * (penalty_F1 * weights_FL[:, :-1] ** 2).sum()
        pull_FN = -signs_FN * shares_FN * expit(-margins_FN)
        gradient_FL = np.empty_like(weights_FL)
        gradient_FL[:, :-1] = pull_FN @ train_NK + penalty_F1 * weights_FL[:, :-1]
        gradient_FL[:, -1] = pull_FN.sum(1)
        return float(value), (gradient_FL * unit_FL).reshape(-1)

    return _minimum(loss, start_FL, unit_FL)


def _solve_exclusive(
    train_NK: NDArray[np.float64],
    spread_K: NDArray[np.float64],
    labels_NF: NDArray[np.int8],
    c: float,
    start_FL: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    """As `_solve`, for classes that exclude one another: mean of −log softmax + |W|² / (2 C n).

    Images of a class that is not among these are left out.
    """
    inside = (labels_NF == 1).any(axis=1)
    rows_nK, truth_nF = train_NK[inside], (labels_NF[inside] == 1).astype(np.float64)
    count = len(rows_nK)
    penalty = 1.0 / (c * count)
    unit_FL = np.full_like(start_FL, 2.0)
    unit_FL[:, :-1] = 1.0 / np.sqrt(0.25 * spread_K**2 + penalty)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_FL = flat.reshape(unit_FL.shape) * unit_FL
        scores_nF = rows_nK @ weights_FL[:, :-1].T + weights_FL[:, -1]
        log_nF = scores_nF - logsumexp(scores_nF, axis=1, keepdims=True)
        value = -(truth_nF * log_nF).sum() / count + 0.5 * penalty * (weights_FL[:, :-1] ** 2).sum()
        pull_nF = (np.exp(log_nF) - truth_nF) / count
        gradient_FL = np.empty_like(weights_FL)
        gradient_FL[:, :-1] = pull_nF.T @ rows_nK + penalty * weights_FL[:, :-1]
        gradient_FL[:, -1] = pull_nF.sum(0)
        return float(value), (gradient_FL * unit_FL).reshape(-1)

    return _minimum(loss, start_FL, unit_FL)


def _minimum(
    loss: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    start_FL: NDArray[np.float64],
    unit_FL: NDArray[np.float64],
) -> tuple[NDArray[np.float64], bool]:
    options = {"maxiter": _MAX_STEPS, "maxfun": 2 * _MAX_STEPS, "maxcor": 20, "gtol": _TOLERANCE, "ftol": 0.0}
    found = minimize(loss, (start_FL / unit_FL).reshape(-1), jac=True, method="L-BFGS-B", options=options)
    # Where rounding stops the line search first, the gradient says how near the optimum is.
    reached = bool(np.abs(found.jac).max() <= 100 * _TOLERANCE)
    return np.asarray(found.x, dtype=np.float64).reshape(unit_FL.shape) * unit_FL, reached


def _moments(features_ND: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and one over the deviation of each feature.

    A feature that never changes (a black corner) carries nothing; dividing by its rounding error would make it shout,
    so its scale is 0.
    """
    values_ND = np.asarray(features_ND, dtype=np.float64)
    deviation_D = values_ND.std(axis=0)
    varies_D = deviation_D > 1e-6 * np.maximum(1e-12, np.abs(values_ND).max(axis=0, initial=0.0))
    return values_ND.mean(axis=0), np.where(varies_D, 1.0 / np.where(varies_D, deviation_D, 1.0), 0.0)


def _principal(train_ND: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the principal directions that the training features span (D, K), and their spread along each (K,).

    Fitting in these is exact: under an L2 penalty the weights lie in that span, and a rotation changes no length.
    """
    wide = train_ND.shape[1] > len(train_ND)
    squares, vectors = np.linalg.eigh(train_ND @ train_ND.T if wide else train_ND.T @ train_ND)
    kept = squares > 1e-12 * max(float(squares[-1]), 1e-300)
    basis_DK = vectors[:, kept]
    if wide:
        basis_DK = train_ND.T @ basis_DK / np.sqrt(squares[kept])
    return basis_DK, np.sqrt(squares[kept] / len(train_ND))
