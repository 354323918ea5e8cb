"""One training step, in every way that `umif bench step` times: UmiF's own, and what a user would run instead.

A step is everything that a run does between two batches: forward passes, losses, backward pass, clipping, AdamW and,
where there is one, the teacher's average. All ways see as many pairs; rivals get their pixels as ready floats, which
ours unpacks from bytes.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umif.bench.flops import Stack, ideal_step, linear, umif_step
from umif.bench.pairs import mixed_batch
from umif.models import ModelConfig, build_model
from umif.models.packed import Execution
from umif.objectives import PAPER, compute_losses
from umif.train.optim import build_optimizer, clip_gradients
from umif.train.recipe import OptimConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.tokens.batch import Batch

    # A network and what trains it.
    _Trained = tuple[Any, torch.optim.Optimizer]

Dtype = Literal["fp32", "bf16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

# Ours, by name: how the batch is packed, and how the blocks run.
OURS: dict[str, tuple[str, Execution]] = {
    "padded": ("padded", Execution()),
    "gathered": ("gathered", Execution()),
    "packed_every_row": ("packed", Execution(every_row=True)),
    "packed": ("packed", Execution()),
    "packed_recompute": ("packed", Execution(recompute=True)),
    "packed_compiled": ("packed", Execution(compile="inductor")),
}
RIVALS = ("two_view", "open_clip", "timm_supervised")
# Width of the text tower beside each image tower: open_clip's own for Base and Small, a like share for Tiny.
_TEXT_WIDTH = {768: 512, 384: 384, 192: 256}
_CLIP_WORDS, _CLIP_TOKENS, _FINDINGS = 49408, 77, 14
_BYOL_HIDDEN, _BYOL_OUT = 4096, 256


@dataclass(frozen=True, slots=True)
class Setting:
    """What all ways of one comparison share.

    Attributes:
        backbone, depth: timm name, and blocks.
        pairs: Pairs a step.
        image_size: Side of the pictures, pixels.
        seeds: One batch each; ways go through them in turn.
        device: Where to compute.
    """

    backbone: str
    depth: int
    pairs: int
    image_size: int = 224
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"


@dataclass(slots=True)
class Way:
    """One way to do a step. Calling it does the next one.

    Attributes:
        run: Does a step on the batch of that number.
        flops: Operations of a step on each batch.
        calls: Steps done.
    """

    run: Callable[[int], None]
    flops: list[float]
    calls: int = field(default=0)

    def __call__(self) -> None:
        """Do the next step."""
        self.run(self.calls % len(self.flops))
        self.calls += 1


class Ways:
    """Makes the ways of one setting; those of one method share a model, and so its weights and moments."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.config = ModelConfig(
            backbone=setting.backbone, depth=setting.depth, image_size=setting.image_size, max_text_tokens=128
        )
        self._model: Any = None
        self._optimizer: Any = None
        self._batches: list[Batch] = []

    def _prepare(self) -> None:
        if self._model is None:
            setting = self.setting
            self._model = build_model(self.config).to(setting.device)
            self._optimizer = build_optimizer(self._model, OptimConfig())
            self._batches = [
                mixed_batch(seed, setting.pairs, image_size=setting.image_size, vocab_size=self.config.vocab_size).to(
                    setting.device
                )
                for seed in setting.seeds
            ]

    def ideal(self) -> list[float]:
        """Ideal operations of a step on each batch."""
        self._prepare()
        return [ideal_step(self._model, batch) for batch in self._batches]

    def make(self, variant: str, dtype: str) -> Way:
        """Make one way, with its model and its optimiser's moments in memory."""
        if variant in OURS:
            return self._ours(variant, dtype)
        make = {"two_view": self._two_view, "open_clip": self._open_clip, "timm_supervised": self._supervised}[variant]
        return make(dtype)

    def _ours(self, variant: str, dtype: str) -> Way:
        self._prepare()
        model, optimizer, batches = self._model, self._optimizer, self._batches
        packing, execution = OURS[variant]

        def use() -> None:
            model.student.execution = model.teacher.execution = execution

        def run(number: int) -> None:
            use()
            with self._autocast(dtype):
                features = model(batches[number], packing=packing)
            _descend(model, optimizer, compute_losses(features, PAPER)["total"])
            model.update_teacher(0.996)

        use()
        return Way(run, [umif_step(model, batch, packing=packing) for batch in batches])

    def _two_view(self, dtype: str) -> Way:
        """BYOL: two views of each picture, either through the student and through the averaged teacher."""
        pairs = self.setting.pairs
        model, optimizer = self._byol
        student, teacher = list(model["student"].parameters()), list(model["teacher"].parameters())
        views = self._pictures(2 * pairs)

        def run(_: int) -> None:
            with self._autocast(dtype):
                own = model["predictor"](model["student"](views))
                with torch.no_grad():
                    other = model["teacher"](views)
            one, two = other.float().split(pairs)
            _descend(model, optimizer, 2 - 2 * F.cosine_similarity(own.float(), torch.cat([two, one])).mean())
            with torch.no_grad():
                torch._foreach_lerp_(teacher, student, 0.004)

        heads = linear(2 * pairs, self._width + _BYOL_OUT, _BYOL_HIDDEN)
        forward = self._tower(2 * pairs)
        return Way(run, [4 * forward + 3 * self._patches(2 * pairs) + 4 * heads + 3 * linear(2 * pairs, 512, 4096)])

    def _open_clip(self, dtype: str) -> Way:
        """CLIP as open_clip builds it, with 77 text tokens always."""
        setting, width = self.setting, _TEXT_WIDTH[self._width]
        model, optimizer = self._clip
        loss = importlib.import_module("open_clip.loss").ClipLoss()
        images, texts = self._pictures(setting.pairs, channels=3), self._ids()

        def run(_: int) -> None:
            with self._autocast(dtype):
                image, text, scale = model(images, texts)
            _descend(model, optimizer, loss(image.float(), text.float(), scale))

        words = Stack(width, setting.depth).forward([_CLIP_TOKENS] * setting.pairs)
        heads = linear(setting.pairs, self._width + width, width)
        patches = 2 * self._patches(setting.pairs, channels=3)
        return Way(run, [3 * (self._tower(setting.pairs) + words + heads) + patches])

    def _supervised(self, dtype: str) -> Way:
        """A timm ViT that learns fourteen findings from labels."""
        setting = self.setting
        model, optimizer = self._labelled
        images = self._pictures(setting.pairs)
        labels = torch.randint(0, 2, (setting.pairs, _FINDINGS), generator=_generator()).float().to(setting.device)

        def run(_: int) -> None:
            with self._autocast(dtype):
                logits = model(images)
            _descend(model, optimizer, F.binary_cross_entropy_with_logits(logits.float(), labels))

        return Way(run, [3 * self._tower(setting.pairs) + 2 * self._patches(setting.pairs)])

    # ------------------------------------------------------------------------------------------- parts
    @cached_property
    def _byol(self) -> _Trained:
        student = nn.Sequential(self._vit(0), _mlp(self._width, _BYOL_OUT))
        teacher = nn.Sequential(self._vit(0), _mlp(self._width, _BYOL_OUT))
        teacher.load_state_dict(student.state_dict())
        predictor = _mlp(_BYOL_OUT, _BYOL_OUT)
        return self._trained(
            nn.ModuleDict({"student": student, "predictor": predictor, "teacher": teacher.requires_grad_(False)})
        )

    @cached_property
    def _clip(self) -> _Trained:
        clip = importlib.import_module("open_clip.model")
        setting, width = self.setting, _TEXT_WIDTH[self._width]
        return self._trained(
            clip.CLIP(
                width,
                clip.CLIPVisionCfg(
                    layers=setting.depth, width=self._width, patch_size=16, image_size=setting.image_size
                ),
                clip.CLIPTextCfg(_CLIP_TOKENS, _CLIP_WORDS, width=width, heads=width // 64, layers=setting.depth),
            )
        )

    @cached_property
    def _labelled(self) -> _Trained:
        return self._trained(self._vit(_FINDINGS))

    def _trained(self, model: nn.Module) -> _Trained:
        model.to(self.setting.device)
        return model, build_optimizer(model, OptimConfig())

    def _vit(self, classes: int) -> Any:
        import timm

        setting = self.setting
        return timm.create_model(
            setting.backbone, num_classes=classes, depth=setting.depth, in_chans=1, img_size=setting.image_size
        )

    @property
    def _width(self) -> int:
        return {"tiny": 192, "small": 384, "base": 768}[self.setting.backbone.split("_")[1]]

    def _tower(self, pictures: int) -> float:
        """Forward operations of the image tower."""
        length = 1 + (self.setting.image_size // 16) ** 2
        return Stack(self._width, self.setting.depth).forward([length] * pictures)

    def _patches(self, pictures: int, channels: int = 1) -> float:
        return linear(pictures * (self.setting.image_size // 16) ** 2, channels * 256, self._width)

    def _pictures(self, count: int, channels: int = 1) -> Tensor:
        size = self.setting.image_size
        return torch.randn(count, channels, size, size, generator=_generator()).to(self.setting.device)

    def _ids(self) -> Tensor:
        ids = torch.randint(0, _CLIP_WORDS, (self.setting.pairs, _CLIP_TOKENS), generator=_generator())
        return ids.to(self.setting.device)

    def _autocast(self, dtype: str) -> torch.autocast:
        return torch.autocast(self.setting.device.partition(":")[0], dtype=torch.bfloat16, enabled=dtype == "bf16")


def installed(variant: str) -> bool:
    """Whether what a variant needs is installed."""
    return variant != "open_clip" or importlib.util.find_spec("open_clip") is not None


def _descend(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    clip_gradients(model, 1.0)
    optimizer.step()
    # Last, so that no method holds gradients while others take their turns.
    optimizer.zero_grad(set_to_none=True)


def _mlp(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inner, _BYOL_HIDDEN), nn.BatchNorm1d(_BYOL_HIDDEN), nn.ReLU(), nn.Linear(_BYOL_HIDDEN, outer)
    )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
