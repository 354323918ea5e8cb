"""A recipe: everything that a pre-training run is made from, in one YAML file.

P = fixed by the paper, C = our choice; every field says which, and what the paper uses.
"""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the annotation
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from umif.config import Config
from umif.errors import ConfigError
from umif.models.umif import ModelConfig
from umif.tokens.loader import DataConfig

# Keys that two configs share, `model`'s spelling → `data`'s: the model has the say, so they are written once.
_SHARED = {"image_size": "image_size", "max_text_tokens": "max_text_tokens"}

# What may differ when a run goes on: where and how fast it runs and what it reports, never what it computes.
FREE_KEYS = frozenset(
    {
        "name",
        "corpus",
        "out",
        "evaluations",
        "acknowledged_leaks",
        "model.compile",
        "model.recompute",
        "train.log_every",
        "train.save_every",
        "train.save_every_seconds",
        "train.keep",
        "train.device",
        "train.dtype",
        "train.workers",
        "train.threads",
        "train.shard",
        "train.tensorboard",
        "train.max_bad_share",
        "train.collapse_std",
        "train.collapse_accuracy",
        "train.collapse_patience",
    }
)


class TokenizerConfig(Config):
    """Where words come from."""

    source: str = Field(
        "auto",
        description="`auto` trains a WordPiece vocabulary on the corpus's texts; else a hub id or a folder. "
        "P: BioClinicalBERT's (emilyalsentzer/Bio_ClinicalBERT). C: auto, which needs no network",
    )
    vocab_size: int = Field(4096, gt=8, description="Entries of a trained vocabulary. P: 28,996 (BioClinicalBERT)")


class OptimConfig(Config):
    """AdamW, its schedule and the teacher's."""

    lr: float = Field(4e-5, gt=0, description="Peak learning rate. P: 4e-5")
    weight_decay: float = Field(
        5e-2, ge=0, description="P: 5e-2. C: none on biases, norms, CLS, position and modality embeddings"
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="C")
    eps: float = Field(1e-8, gt=0, description="C")
    clip: float | None = Field(1.0, gt=0, description="Largest norm of the whole gradient; null = no clipping. C: 1.0")
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="Share of all steps in which the rate rises. P: linear warm-up; C: 5 of 50 epochs"
    )
    final_lr_share: float = Field(0.0, ge=0, le=1, description="Rate at the end, as a share of lr. P: cosine; C: 0")
    teacher_momentum: float = Field(
        0.996, ge=0, le=1, description="First momentum of the teacher; rises to 1 on a cosine. C: 0.996 (BYOL)"
    )


class TrainConfig(Config):
    """How long a run is, how it runs and what it reports."""

    epochs: float = Field(
        50, gt=0, description="Length, where `steps` is not given; an epoch is as many pairs as the corpus has. P: 50"
    )
    steps: int | None = Field(None, gt=0, description="Length in steps; goes before `epochs`")
    log_every: int = Field(20, gt=0, description="Steps between two looks at the features' health")
    save_every: int | None = Field(500, gt=0, description="Steps between two checkpoints; null = by time only")
    save_every_seconds: float | None = Field(600.0, gt=0, description="Seconds between two checkpoints; null = never")
    keep: int = Field(2, ge=2, description="Checkpoints that are kept; two, so that a damaged one costs little")
    device: str = Field("auto", description="auto = cuda where there is one; else a torch device")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto = bf16 autocast where the device computes in it (CUDA, CPUs with AVX512-BF16 or AMX), "
        "else fp32. Losses are fp32 always. C",
    )
    shard: Literal["none", "full"] = Field(
        "none",
        description="full = weights, their averages, gradients and moments are shared out to processes block by block "
        "(FSDP2), for networks that do not fit otherwise; may change when a run goes on. C: none",
    )
    chunk_pairs: int | None = Field(
        None,
        gt=0,
        description="Pairs of one process whose activations are held at once, so that a large batch fits a small "
        "device; the same gradient but for rounding, about a quarter more time. null = all at once. C",
    )
    workers: int | None = Field(
        None,
        ge=0,
        description="Processes that make batches; null = a thread of the training process, ahead of time; 0 = the "
        "training process itself, between steps",
    )
    threads: int | None = Field(None, gt=0, description="CPU threads of one process; null = torch's own choice")
    max_bad_share: float = Field(
        0.001, ge=0, le=1, description="Share of bad samples at which a run stops (never at fewer than 3). C: 0.1 %"
    )
    max_nonfinite: int = Field(3, gt=0, description="NaN or Inf in so many steps in a row stops the run. C")
    collapse_std: float = Field(
        0.05, ge=0, description="Features count as collapsed below this std × √D (1 = spread over the sphere). C"
    )
    collapse_accuracy: float = Field(
        1.5, ge=0, description="… or while in-batch accuracy is at most this many times chance. C"
    )
    collapse_patience: int = Field(
        1000, gt=0, description="Steps after warm-up in a row that features must look collapsed to stop the run. C"
    )
    tensorboard: bool = Field(True, description="Write TensorBoard events to the run folder's `tb`")


class DeclaredEvaluation(Config):
    """A corpus that the encoder will be tested on."""

    corpus: Path = Field(description="Corpus folder")
    split: Literal["train", "val", "test"] = Field("test", description="The split that is tested on")


class Recipe(Config):
    """One pre-training run: corpus → run folder.

    `model.image_size`, `model.max_text_tokens` and the backbone's patch size also shape the data; they are written
    under `model` only, and `data` takes them from there.
    """

    name: str = Field("umif", min_length=1, description="What the run is called in reports")
    corpus: Path = Field(description="Corpus folder, as `umif prepare` makes it")
    out: Path = Field(description="Run folder; it is made, or gone on with")
    seed: int = Field(0, ge=0, description="Every random draw of the run follows from it")
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objectives: dict[str, dict[str, Any]] = Field(
        {"align": {"temperature": 0.1}, "con": {}},
        description="Objectives and their arguments; `weight` scales one. P: align + con; C: temperature 0.1",
    )
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    evaluations: tuple[DeclaredEvaluation, ...] = Field(
        (), description="What will be tested on; a corpus that leaks into it is refused. None = no audit"
    )
    acknowledged_leaks: tuple[str, ...] = Field(
        (), description="Ids of leaks (`how:left>right`, as `umif audit` prints them) that are accepted and reported"
    )

    @model_validator(mode="before")
    @classmethod
    def _share(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        model, data = values.get("model", {}), values.get("data", {})
        if isinstance(model, Config):
            model = model.model_dump(exclude_unset=True)
        if not isinstance(data, dict) or not isinstance(model, dict):
            return values
        taken = {theirs: model[ours] for ours, theirs in _SHARED.items() if ours in model and theirs not in data}
        patch = re.search(r"_patch(\d+)(_|$)", str(model.get("backbone", "")))
        if patch and "patch_size" not in data:
            taken["patch_size"] = int(patch[1])
        return {**values, "data": {**data, **taken}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for ours, theirs in _SHARED.items():
            left, right = getattr(self.model, ours), getattr(self.data, theirs)
            if left != right:
                raise ConfigError(
                    f"model.{ours} = {left} but data.{theirs} = {right}",
                    where="recipe",
                    fix=f"write it once, as model.{ours}",
                )
        return self

    @property
    def batch_size(self) -> int:
        """Pairs of one step over all processes. P: 2,048."""
        return self.data.kinds_per_step * self.data.pairs_per_kind


def differing_key(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str | None:
    """Return the first key by which two resolved recipes would compute different numbers, or `None`."""
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        left, right = old.get(key), new.get(key)
        if left == right or name in FREE_KEYS:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            inner = differing_key(left, right, f"{name}.")
            if inner is None:
                continue
            return inner
        return name
    return None
