"""One file per loss, each a pure function of a global batch's features."""

from umif.objectives.alignment import alignment_loss
from umif.objectives.consistency import consistency_loss
from umif.objectives.features import gather_features
from umif.objectives.total import PAPER, Spec, check_objectives, compute_losses

__all__ = [
    "PAPER",
    "Spec",
    "alignment_loss",
    "check_objectives",
    "compute_losses",
    "consistency_loss",
    "gather_features",
]
