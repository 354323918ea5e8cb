"""How healthy features are: the signs that a falling loss does not show.

The consistency loss falls while features collapse, so no loss is judged alone. These numbers are looked at, logged,
and stop a run that has collapsed; nothing is trained on them.

Shape legend: B pairs of the global batch, D width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from umif.models.umif import Features
    from umif.train.recipe import TrainConfig


@dataclass(frozen=True, slots=True)
class Health:
    """What a batch's features look like.

    Attributes:
        std: Standard deviation over the batch of unit-length features, mean over dimensions, × √D: 1 = spread over the
            whole sphere, 0 = all alike.
        accuracy: Share of groups whose nearest neighbour in the batch is the other group of their pair.
        chance: What `accuracy` would be for random features.
        alignment: Mean squared distance of the groups of a pair, 0 to 4. Source: Wang & Isola 2020.
        uniformity: log of the mean of exp(−2 · squared distance), −4 to 0, lower is more even. Source: the same.
        effective_rank: exp of the entropy of the features' normalised singular values. Source: Roy & Vetterli 2007.
    """

    std: float
    accuracy: float
    chance: float
    alignment: float
    uniformity: float
    effective_rank: float

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)

    def collapsed(self, config: TrainConfig) -> bool:
        """Whether these features look collapsed."""
        return self.std < config.collapse_std or self.accuracy <= config.collapse_accuracy * self.chance


@torch.no_grad()
def feature_health(features: Features) -> Health:
    """Look at the student's features of a global batch.

    Shapes: f1_BD, f0_BD (B, D), B ≥ 1.
    """
    f1_BD, f0_BD = (F.normalize(x.detach().float(), dim=1) for x in (features.f1_BD, features.f0_BD))
    z_ND = torch.cat([f1_BD, f0_BD])
    count, width = z_ND.shape
    similarity_NN = z_ND @ z_ND.T
    off_diagonal = ~torch.eye(count, dtype=torch.bool, device=z_ND.device)
    squared_distance = (2 - 2 * similarity_NN[off_diagonal]).clamp_min(0)
    nearest_N = similarity_NN.masked_fill(~off_diagonal, -torch.inf).argmax(dim=1)
    other_N = torch.arange(count, device=z_ND.device).roll(count // 2)
    values_K = torch.linalg.svdvals(z_ND - z_ND.mean(dim=0))
    share_K = values_K / values_K.sum().clamp_min(1e-12)
    return Health(
        std=float(z_ND.std(dim=0, correction=0).mean() * width**0.5),
        accuracy=float((nearest_N == other_N).float().mean()),
        chance=1 / (count - 1),
        alignment=float((f1_BD - f0_BD).square().sum(dim=1).mean()),
        uniformity=float(squared_distance.mul(-2).exp().mean().log()),
        effective_rank=float(torch.special.entr(share_K).sum().exp()),
    )
