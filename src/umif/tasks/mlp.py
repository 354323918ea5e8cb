"""Classification by a small network on frozen features: what one hidden layer makes of them beyond a linear readout.

Source: the non-linear probe of representation learning.
Differs: weight decay and the step to stop at are chosen on val, by patient; the score is the mean log-odds of three
    networks, since one alone depends on its seed; each class is learned from the images that know it.

Shape legend: N images, D features, H hidden, F classes, B images of a batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from umif.config import register
from umif.errors import TaskError
from umif.rng import keyed_rng
from umif.tasks.base import Task
from umif.tasks.head_training import HeadTraining, train_head
from umif.tasks.metrics import UNKNOWN, macro_auroc
from umif.tasks.probes import fittable, run_probe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.head_training import Trained
    from umif.tasks.probes import ProbeData

HIDDEN, NETWORKS = 64, 3
WEIGHT_DECAYS = (1.0, 0.1, 0.01)  # the strongest first: of equals it is kept
BATCH, EPOCHS, LEAST_STEPS, MOST_STEPS = 128, 10, 200, 6000
PROTOCOL = (
    f"frozen features, {NETWORKS} networks with one hidden layer of {HIDDEN}; fit on train, weight decay and step "
    "chosen on val, test scored once; by patient"
)


@register("task", "mlp")
class MlpClassification(Task):
    """CLS and pooled patches → one hidden layer → AUC with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "classification by a small network on frozen features"

    def run(self, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem at every share of the labels; rows by problem, share, then encoder.

        Raises:
            TaskError: a problem that was named cannot be carried by the corpus, or none can.
        """
        return run_probe("mlp", PROTOCOL, mlp_probe, encoder, corpus, options)


def training_for(n_train: int) -> HeadTraining:
    """Return how long is trained: ten epochs within 200 and 6,000 steps, looked at twenty times on the way."""
    steps = min(MOST_STEPS, max(LEAST_STEPS, EPOCHS * math.ceil(n_train / BATCH)))
    return HeadTraining(steps=steps, batch=BATCH, lr=2e-3, validate_every=steps // 20, patience=5)


def mlp_probe(data: ProbeData, seed: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Choose the weight decay with the first network, train the others with it; return their mean log-odds.

    The same data and seed give the same scores.

    Raises:
        TaskError: no class has both states among the training labels, or none of those among the val labels.
    """
    fitted = fittable(data.train_NF)
    if not fitted:
        raise TaskError("the training labels hold one class only", fix="use a larger share of the labels")
    scaled, training = data.standardised(), training_for(len(data.train_ND))
    tried = [_fit(scaled, fitted, seed, training, decay) for decay in WEIGHT_DECAYS]
    best = int(np.argmax([trained.best for _, trained in tried]))
    networks = [tried[best]]
    networks += [_fit(scaled, fitted, seed + more, training, WEIGHT_DECAYS[best]) for more in range(1, NETWORKS)]
    scores_NF = np.zeros((len(data.test_ND), data.train_NF.shape[1]))
    scores_NF[:, fitted] = np.mean([_log_odds(head, scaled.test_ND) for head, _ in networks], axis=0)
    extra = {
        "weight_decay": WEIGHT_DECAYS[best],
        "hidden": HIDDEN,
        "most_steps": training.steps,
        "networks": [
            {"seed": seed + more, "best_step": trained.best_step, "val_auc": trained.best}
            for more, (_, trained) in enumerate(networks)
        ],
    }
    return scores_NF, extra


def masked_loss(logits_BF: torch.Tensor, labels_BF: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy over what is known; a batch that knows nothing costs nothing. Returns ()."""
    known_BF = (labels_BF != UNKNOWN).float()
    each_BF = F.binary_cross_entropy_with_logits(logits_BF, labels_BF.clamp(min=0).float(), reduction="none")
    return (each_BF * known_BF).sum() / known_BF.sum().clamp(min=1)


def _fit(
    data: ProbeData, fitted: Sequence[int], seed: int, training: HeadTraining, weight_decay: float
) -> tuple[nn.Module, Trained]:
    train_ND, train_NF = torch.from_numpy(data.train_ND), torch.from_numpy(data.train_NF[:, fitted])
    head = _network(data.train_ND.shape[1], len(fitted), seed)

    def loss(batch: NDArray[np.int64], _: np.random.Generator) -> torch.Tensor:
        return masked_loss(head(train_ND[batch]), train_NF[batch])

    def validate() -> float:
        return macro_auroc(_log_odds(head, data.val_ND), data.val_NF[:, fitted])[0]

    settings = training.model_copy(update={"weight_decay": weight_decay})
    return head, train_head(head, len(train_ND), loss, validate, settings, seed)


def _network(width: int, classes: int, seed: int) -> nn.Module:
    """One hidden layer, its weights drawn by key, so that no global state is read or touched."""
    rng = keyed_rng(seed, "mlp probe")
    layers = []
    for fan_in, fan_out in ((width, HIDDEN), (HIDDEN, classes)):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
        drawn = rng.normal(0.0, np.sqrt(1 / fan_in), (fan_out, fan_in)).astype(np.float32)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(drawn))
            layer.bias.zero_()
        layers.append(layer)
    return nn.Sequential(layers[0], nn.GELU(), layers[1])


def _log_odds(head: nn.Module, features_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        logits: NDArray[np.float64] = head(torch.from_numpy(features_ND)).double().numpy()
    return logits
