"""Everything that decides how a model that answers questions is trained and asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from umif.config import Config


class VqaConfig(Config):
    """Settings of the task `vqa`. P = from the paper or its line of work, C = our choice.

    The defaults are for small networks on two cores; for published data and a ViT-B raise `steps` and `epochs`.
    """

    decoder_steps: int = Field(400, ge=0, description="Most steps of the decoder alone, on kept tokens. C: 400")
    kept_images: int = Field(1500, gt=0, description="Most training images whose tokens are kept for that. C: 1500")
    steps: int = Field(25, gt=0, description="Most steps of the whole model. C: a cap, told with every row")
    epochs: int = Field(20, gt=0, description="Most passes over the training images. C: 20")
    images: int = Field(16, gt=0, description="Images a step. C: 16")
    questions: int = Field(8, gt=0, description="Most questions of an image a step, drawn anew each time. C: 8")
    lr: float = Field(2e-3, gt=0, description="Highest learning rate of the decoder alone. C: 2e-3; a BERT: 1e-4")
    tuned_rate: float = Field(0.25, gt=0, description="Share of `lr` once the whole model is tuned. C: a quarter")
    lr_encoder: float = Field(3e-4, gt=0, description="Highest learning rate of the encoder. C: 3e-4; a ViT-B: 2e-5")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, on weights of two and more axes. C: 0.05")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the rate rises. C: 0.1")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient. C: 1")
    check_every: int = Field(25, gt=0, description="Steps between looks at val. C: 25")
    patience: float = Field(
        0.5, gt=0, le=1, description="Share of the steps without a better likelihood after which it stops. C: half"
    )
    val_images: int = Field(64, gt=0, description="Most val images looked at, drawn once, with all questions. C: 64")
    frozen: bool = Field(False, description="Train the decoder only. P: the whole model is fine-tuned")
    decoder: str = Field("scratch", description="scratch, or hub id or folder of a BERT to start from. P: BERT")
    depth: int = Field(2, gt=0, description="Blocks of a decoder from scratch. C: 2")
    max_question_tokens: int = Field(32, gt=0, description="Longest question, tokens. C: 32, as M3AE")
    candidates: Literal["train+val", "train+val+test"] = Field(
        "train+val", description="Whose answers are ranked. C: train+val; published work adds those of test"
    )
    rank_k: int = Field(128, gt=0, description="Candidates kept by their first token. P: 128 in ALBEF's line")
