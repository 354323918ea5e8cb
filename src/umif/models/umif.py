"""The model: tokenisers and one ViT in a student, the same again in its averaged teacher.

    Batch ── embed ──► token table (R, D)          every token once: CLS, image patches, mask patches, words
          ── rows  ──► packed streams (T, D)       group 1 and group 0 for the student, the full view for the teacher
          ── ViT   ──► CLS features f1, f0, t      (B, D) each

Shape legend: B pairs, R rows of the token table, T rows of a stream, S segments, N images, M masks, P patches a
picture, H×W pixels, D width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from umif.config import Config
from umif.errors import ConfigError, ShapeError
from umif.models.attention import Segments
from umif.models.packed import (
    ROWS_MULTIPLE,
    Execution,
    create_vit,
    fold_patch_kernel,
    run_packed,
    run_packed_blocks,
    run_padded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from umif.tokens.batch import Batch, Stream

IMAGE, MASK, TEXT = 0, 1, 2
# A grey pixel of a film, in [0, 1], has about this mean and spread; only conditioning depends on them.
GREY_MEAN, GREY_STD = 0.5, 0.25
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# Standard deviation of an image token, on films: 0.5 behind timm's patch kernel, 1.0 behind the spread one.
_LIKE_AN_IMAGE = 0.7


def sine_cosine(places_L: Tensor, width: int) -> Tensor:
    """Code of whole-number places: sines and cosines of wave lengths from 2π to 10,000 · 2π. Shapes: (L,) → (L, width).

    Source: Vaswani et al. 2017, section 3.5. An odd width gets a zero at its end.
    """
    half = width // 2
    angles = places_L[:, None].double() * 10_000.0 ** (-torch.arange(half) / max(1, half))
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width - 2 * half)).float()


def sine_cosine_2d(rows: int, columns: int, width: int) -> Tensor:
    """Code of the places of a grid, row by row: one half for the row, one for the column. Shapes: (rows·columns, D).

    Source: MAE's and MoCo v3's fixed positions.
    """
    half = width // 2
    row_RD, column_CD = sine_cosine(torch.arange(rows), half), sine_cosine(torch.arange(columns), width - half)
    grid_RCD = torch.cat(
        [row_RD[:, None].expand(-1, columns, -1), column_CD[None].expand(rows, -1, -1)],
        dim=2,
    )
    return grid_RCD.flatten(0, 1)


# Fields of `ModelConfig` that say how a network runs, not what it is: a run may go on with others.
HOW_IT_RUNS = frozenset({"recompute", "compile"})


class HeadConfig(Config):
    """A small MLP behind the CLS feature: width → hidden → out. Source: BYOL."""

    hidden: int = Field(4096, gt=0, description="Width of the hidden layer")
    out: int = Field(256, gt=0, description="Width of the output")


class ModelConfig(Config):
    """Everything that decides the shape of the network. P = fixed by the paper, C = our choice."""

    backbone: str = Field("vit_base_patch16_224", description="timm name of a plain ViT. P: ViT-B/16")
    image_size: int = Field(224, gt=0, description="Side of the square input, pixels. P: 224")
    depth: int | None = Field(None, gt=0, description="Number of blocks, where it shall differ from the backbone's")
    width: int | None = Field(None, gt=0, description="Width, where it shall differ from the backbone's")
    heads: int | None = Field(None, gt=0, description="Attention heads, where they shall differ from the backbone's")
    channels: Literal[1, 3] = Field(1, description="Input channels of a radiograph. C: 1, the kernel folded exactly")
    cls: Literal["shared", "separate"] = Field("shared", description="One CLS token, or one per group. C: shared")
    vocab_size: int = Field(28996, gt=0, description="Entries of the text vocabulary. P: BioClinicalBERT's 28,996")
    word_width: int | None = Field(None, gt=0, description="Width of word embeddings before the linear map. P: 768")
    max_text_tokens: int = Field(256, gt=0, description="Longest text, tokens. C: 256")
    init: str = Field("random", description="random, timm (its pretrained weights) or a file of timm weights. P: DeiT")
    random_init: Literal["timm", "spread"] = Field(
        "timm",
        description="Random weights as timm draws them (std 0.02), or `spread`: sized to the width, with sine-cosine "
        "positions as loud as what stands there; for short runs of small networks. C: timm",
    )
    text_init: str | None = Field(None, description="Hub id or folder of a BERT whose word embeddings to start from")
    projector: HeadConfig | None = Field(None, description="MLP behind both networks. C: off")
    predictor: HeadConfig | None = Field(None, description="BYOL's predictor behind the student. C: off")
    recompute: bool = Field(
        False,
        description="Keep each block's input only and compute its inside again in the backward pass (activation "
        "checkpointing): less memory, more time, the same numbers. C: off",
    )
    compile: Literal["inductor", "aot_eager", "eager"] | None = Field(
        None, description="torch.compile the blocks with this backend; inductor pays on CUDA, not on CPUs. C: off"
    )


@dataclass(frozen=True, slots=True)
class Features:
    """CLS features of a batch: both groups through the student, all tokens through the teacher.

    Shapes: all (B, D); `teacher_BD` is (B, 0) where the teacher was left out. `p1_BD`, `p0_BD` are the predictor's
    outputs, where the model has one.
    """

    f1_BD: Tensor
    f0_BD: Tensor
    teacher_BD: Tensor
    p1_BD: Tensor | None = None
    p0_BD: Tensor | None = None


class TokenEncoder(nn.Module):
    """The tokenisers of all modalities and the one ViT behind them.

    `vit` is a timm model: its patch embedding and positions are the radiograph's tokeniser, its class token is group
    1's. Positions and modality embeddings are added before tokens are split, so a token keeps its place.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.execution = Execution(config.recompute, config.compile)
        overrides: dict[str, Any] = {"depth": config.depth, "embed_dim": config.width, "num_heads": config.heads}
        if config.random_init == "spread":
            overrides["weight_init"] = "jax"
        self.vit = create_vit(
            config.backbone,
            image_size=config.image_size,
            channels=config.channels,
            overrides={key: value for key, value in overrides.items() if value is not None},
        )
        self.width: int = self.vit.embed_dim  # type: ignore[assignment]
        self.grid: tuple[int, int] = tuple(self.vit.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
        self.patch_size: int = self.vit.patch_embed.patch_size[0]  # type: ignore[union-attr, index, assignment]
        patches = self.grid[0] * self.grid[1]
        word_width = config.word_width or self.width
        self.mask_embed = nn.Linear(3 * self.patch_size**2, self.width)
        self.mask_position_PD = nn.Parameter(torch.empty(patches, self.width))
        self.word_embed = nn.Embedding(config.vocab_size, word_width)
        self.word_map = nn.Identity() if word_width == self.width else nn.Linear(word_width, self.width, bias=False)
        self.text_position_LD = nn.Parameter(torch.empty(config.max_text_tokens, self.width))
        self.modality_3D = nn.Parameter(torch.empty(3, self.width))
        self.cls_0_D = nn.Parameter(torch.empty(self.width)) if config.cls == "separate" else None
        self.projector = None if config.projector is None else _head(self.width, config.projector)
        self.max_segment = 1 + patches + max(patches, config.max_text_tokens)
        for parameter in (self.mask_position_PD, self.text_position_LD, self.modality_3D, self.cls_0_D):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.trunc_normal_(self.word_embed.weight, std=0.02)
        nn.init.trunc_normal_(self.mask_embed.weight, std=0.02)
        nn.init.zeros_(self.mask_embed.bias)
        if config.random_init == "spread":
            self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Give words, places and modalities lengths like those of image tokens.

        With std 0.02 a patch's place is a twenty-fifth as loud as its grey values, of which a short run makes little.
        Picture and mask share the code of a place, so that what lies on one
        another looks alike from the first step.
        """
        places_PD = sine_cosine_2d(*self.grid, self.width)
        self.vit.pos_embed[0, -len(places_PD) :] = places_PD  # type: ignore[operator]
        self.mask_position_PD.copy_(places_PD)
        self.text_position_LD.copy_(0.5 * sine_cosine(torch.arange(len(self.text_position_LD)), self.width))
        nn.init.normal_(self.word_embed.weight, std=_LIKE_AN_IMAGE)
        nn.init.normal_(self.modality_3D, std=_LIKE_AN_IMAGE)
        nn.init.xavier_uniform_(self.mask_embed.weight)
        if isinstance(self.word_map, nn.Linear):
            nn.init.xavier_uniform_(self.word_map.weight)

    # ------------------------------------------------------------------------------------------- tokens
    def embed_images(self, images_NHW: Tensor) -> Tensor:
        """Shapes: (N, H, W) uint8 → (N·P, D)."""
        if images_NHW.shape[1:] != (self.config.image_size, self.config.image_size):
            height, width = images_NHW.shape[1:]
            raise ShapeError(f"pictures of {height}×{width} pixels for a model of {self.config.image_size}")
        patches = _unfold(images_NHW[..., None], self.patch_size).to(self.modality_3D.dtype) / 255.0
        if self.config.channels == 1:
            patches = (patches - GREY_MEAN) / GREY_STD
        else:
            mean, std = patches.new_tensor(_IMAGENET_MEAN), patches.new_tensor(_IMAGENET_STD)
            patches = ((patches[:, None] - mean[:, None]) / std[:, None]).flatten(1)
        proj = self.vit.patch_embed.proj  # type: ignore[union-attr]
        tokens_XD = F.linear(patches, proj.weight.flatten(1), proj.bias)  # type: ignore[union-attr, operator, arg-type]
        return self._place(tokens_XD, self._positions()[-self.grid[0] * self.grid[1] :], IMAGE)

    def embed_masks(self, masks_MHW3: Tensor) -> Tensor:
        """Shapes: (M, H, W, 3) uint8 → (M·P, D). Black is 0, so that background adds nothing but bias and place."""
        patches = _unfold(masks_MHW3, self.patch_size).to(self.modality_3D.dtype) / 255.0
        return self._place(self.mask_embed(patches), self.mask_position_PD, MASK)

    def embed_words(self, ids_T: Tensor, positions_T: Tensor) -> Tensor:
        """Shapes: (T,) int64 each → (T, D)."""
        words = self.word_map(self.word_embed(ids_T))
        result: Tensor = words + self.text_position_LD[positions_T] + self.modality_3D[TEXT]
        return result

    def embed(self, batch: Batch) -> Tensor:
        """Make every token of a batch once.

        A modality that the batch lacks still runs, on nothing: its parameters then get a zero gradient rather than
        none, which every process of a distributed run needs.

        Shapes: returns the token table (R, D) fp32; the order of its rows is told in `tokens/batch.py`.
        """
        parts = [
            torch.stack([self._cls(group=1), self._cls(group=0)]),
            self.embed_images(batch.images_NHW),
            self.embed_masks(batch.masks_MHW3),
            self.embed_words(batch.text_ids_T, batch.text_positions_T),
        ]
        return torch.cat([part.float() if part.dtype != torch.float64 else part for part in parts])

    # ------------------------------------------------------------------------------------------- features
    def encode_streams(
        self, table_RD: Tensor, streams: Sequence[Stream], packing: str = "packed", length: int | None = None
    ) -> Tensor:
        """CLS features of every segment of the streams, one stream after the other.

        Args:
            table_RD: The token table.
            streams: What to read of it.
            packing: `packed`, or `padded` for the reference.
            length: What the reference pads to; the longest segment unless told.

        Shapes: table_RD (R, D) → (S, D), S counted over all streams.
        """
        rows_T = torch.cat([stream.rows_T for stream in streams])
        offsets, start = [streams[0].offsets_S1[:1]], 0
        for stream in streams:
            offsets.append(stream.offsets_S1[1:] + start)
            start += len(stream.rows_T)
        offsets_S1, longest, count = torch.cat(offsets).to(torch.int32), self.max_segment, None
        if packing == "packed" and self.execution.compile is not None:
            count, longest = len(offsets_S1) - 1, max(longest, ROWS_MULTIPLE)
            rows_T, offsets_S1 = fill_up(rows_T, offsets_S1, ROWS_MULTIPLE)
        segments, stream_TD = Segments(offsets_S1, longest), table_RD.index_select(0, rows_T)
        if packing == "padded":
            features = run_padded(self.vit, stream_TD, segments, length)
        elif self.execution.every_row:
            every_TD = run_packed(self.vit, stream_TD, segments, cls_only=False, execution=self.execution)
            features = every_TD.index_select(0, segments.cls_S)[:count]
        else:
            features = run_packed(self.vit, stream_TD, segments, execution=self.execution)[:count]
        return features if self.projector is None else self.projector(features)

    def encode_images(self, images_NHW: Tensor, block: int | None = None) -> tuple[Tensor, Tensor]:
        """Encode radiographs alone, as every downstream task does.

        Args:
            images_NHW: uint8 grey pictures at the model's size.
            block: Take tokens after this block (1-based), without the final norm; `None` = the last, with it.

        Shapes: (N, H, W) → CLS (N, D) and patches (N, P, D), both before any projector.
        """
        if block is not None:
            self._check_block(block)
        stream_TD, segments = self._image_stream(images_NHW)
        out_TD = run_packed(self.vit, stream_TD, segments, cls_only=False, block=block)
        out_NLD = out_TD.view(len(images_NHW), -1, self.width)
        return out_NLD[:, 0], out_NLD[:, 1:]

    def encode_image_blocks(self, images_NHW: Tensor, blocks: Sequence[int]) -> Tensor:
        """Patches after several blocks (1-based, without the final norm), in one pass.

        Shapes: (N, H, W) → (N, blocks in the order given, P, D).
        """
        for block in blocks:
            self._check_block(block)
        stream_TD, segments = self._image_stream(images_NHW)
        shape = (len(images_NHW), -1, self.width)
        after = {n: x_TD.view(shape)[:, 1:] for n, x_TD in run_packed_blocks(self.vit, stream_TD, segments, blocks)}
        return torch.stack([after[block] for block in blocks], dim=1)

    def cls_attention(self, images_NHW: Tensor) -> Tensor:
        """How the last block's CLS token shares its attention among the patches, by head, without its share to itself.

        Shapes: (N, H, W) → (N, heads, P); the patches of a head sum to 1 less that share.
        """
        stream_TD, segments = self._image_stream(images_NHW)
        depth = len(self.vit.blocks)  # type: ignore[arg-type]
        if depth > 1:
            stream_TD = run_packed(self.vit, stream_TD, segments, cls_only=False, block=depth - 1)
        else:
            stream_TD = self.vit.norm_pre(stream_TD)  # type: ignore[operator]
        layer: Any = self.vit.blocks[-1]  # type: ignore[index]
        attn = layer.attn
        qkv = attn.qkv(layer.norm1(stream_TD)).view(len(images_NHW), -1, 3, attn.num_heads, attn.head_dim)
        q_NHE, k_NLHE = attn.q_norm(qkv[:, 0, 0]), attn.k_norm(qkv[:, :, 1])
        scores_NHL = torch.einsum("nhe,nlhe->nhl", q_NHE.float(), k_NLHE.float()) * attn.head_dim**-0.5
        shares_NHL: Tensor = scores_NHL.softmax(dim=-1)
        return shares_NHL[:, :, 1:]

    def encode_texts(self, texts: Sequence[NDArray[np.int64]]) -> Tensor:
        """Encode texts alone. Shapes: N arrays of ids → CLS (N, D), before any projector."""
        return run_packed(self.vit, *self._text_stream(texts))

    def encode_text_tokens(self, texts: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
        """Encode texts alone and keep every token, as whatever attends to words needs.

        Shapes: N arrays of ids → tokens (N, L, D), CLS first, and which of them are real (N, L) bool.
        """
        stream_TD, segments = self._text_stream(texts)
        rows_NL, real_NL = segments.padded()
        return run_packed(self.vit, stream_TD, segments, cls_only=False)[rows_NL], real_NL

    # ------------------------------------------------------------------------------------------- parts
    def _check_block(self, block: int) -> None:
        depth = len(self.vit.blocks)  # type: ignore[arg-type]
        if not 1 <= block <= depth:
            raise ShapeError(f"block {block} of a network of {depth} blocks")

    def _image_stream(self, images_NHW: Tensor) -> tuple[Tensor, Segments]:
        """CLS and patches of each picture, as one packed stream."""
        count = len(images_NHW)
        tokens_NPD = self.embed_images(images_NHW).view(count, -1, self.width)
        stream_NLD = torch.cat([self._cls().expand(count, 1, -1).to(tokens_NPD.dtype), tokens_NPD], dim=1)
        length = stream_NLD.shape[1]
        offsets = torch.arange(0, (count + 1) * length, length, dtype=torch.int32, device=stream_NLD.device)
        return stream_NLD.flatten(0, 1), Segments(offsets, self.max_segment)

    def _text_stream(self, texts: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Segments]:
        """CLS and words of each text, as one packed stream."""
        device = self.modality_3D.device
        lengths = torch.tensor([len(ids) for ids in texts])
        if int(lengths.max()) > self.config.max_text_tokens or int(lengths.min()) < 1:
            raise ShapeError(f"a text has between 1 and {self.config.max_text_tokens} tokens")
        positions = torch.cat([torch.arange(len(ids)) for ids in texts])
        words_TD = self.embed_words(
            torch.cat([torch.from_numpy(ids) for ids in texts]).to(device), positions.to(device)
        )
        parts = zip(words_TD.split(lengths.tolist()), [self._cls()[None].to(words_TD.dtype)] * len(texts), strict=True)
        stream_TD = torch.cat([piece for words, cls in parts for piece in (cls, words)])
        offsets = F.pad((lengths + 1).cumsum(0), (1, 0)).to(device=device, dtype=torch.int32)
        return stream_TD, Segments(offsets, self.max_segment)

    def _positions(self) -> Tensor:
        positions_LD: Tensor = self.vit.pos_embed[0]  # type: ignore[index]
        return positions_LD

    def _cls(self, group: int = 1) -> Tensor:
        """The class token of a group at its place, as timm adds it. Shape (D,)."""
        separate = group == 0 and self.cls_0_D is not None
        cls_D: Tensor = self.cls_0_D if separate else self.vit.cls_token[0, 0]  # type: ignore[index, assignment]
        return cls_D if self.vit.no_embed_class else cls_D + self._positions()[0]

    def _place(self, tokens_XD: Tensor, positions_PD: Tensor, modality: int) -> Tensor:
        pictures = tokens_XD.view(-1, len(positions_PD), self.width)
        return (pictures + positions_PD + self.modality_3D[modality]).flatten(0, 1)


class UmiF(nn.Module):
    """Student and teacher. The teacher is an exponential moving average and never gets a gradient."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.student = TokenEncoder(config)
        out = self.student.width if config.projector is None else config.projector.out
        self.predictor = None
        if config.predictor is not None:
            self.predictor = _head(out, HeadConfig(hidden=config.predictor.hidden, out=out))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(
        self, batch: Batch, packing: Literal["packed", "gathered", "padded"] = "packed", *, teacher: bool = True
    ) -> Features:
        """Encode a batch.

        Args:
            batch: What to encode.
            packing: `packed`; or `padded`, the obvious reference, in which either group has a place for every token
                of the batch's longest pair, and places that it does not fill are masked; or `gathered`, which pads
                groups to the longest group only. All give the same numbers.
            teacher: Encode all tokens with the teacher, too; without, its features are empty.

        Raises:
            ConfigError: another `packing`.
        """
        if packing not in ("packed", "gathered", "padded"):
            raise ConfigError(f"packing is 'packed', 'gathered' or 'padded', not {packing!r}")
        how, length = packing, None
        if packing != "packed":
            how, length = "padded", max(batch.full.lengths) if packing == "padded" else None
        table_RD = self.student.embed(batch)
        f_SD = self.student.encode_streams(table_RD, (batch.group1, batch.group0), how, length)
        f1_BD, f0_BD = f_SD.split(len(batch))
        teacher_BD = f1_BD.new_empty(len(batch), 0)
        if teacher:
            # Weights that are gathered on the way cannot be made in inference mode.
            with torch.no_grad() if self.teacher.execution.sharded else torch.inference_mode():
                teacher_BD = self.teacher.encode_streams(self.teacher.embed(batch), (batch.full,), how)
            # A loss keeps it for its backward pass, which tensors made in inference mode are not for.
            teacher_BD = teacher_BD.clone()
        if self.predictor is None:
            return Features(f1_BD, f0_BD, teacher_BD)
        p1_BD, p0_BD = self.predictor(f_SD).split(len(batch))
        return Features(f1_BD, f0_BD, teacher_BD, p1_BD, p0_BD)

    @torch.no_grad()
    def update_teacher(self, momentum: float, *, keep: Tensor | None = None) -> None:
        """Move the teacher: teacher ← momentum · teacher + (1 − momentum) · student. Source: BYOL.

        Args:
            momentum: Between 0 and 1.
            keep: Where this is 1 rather than 0, the teacher stays as it is, () fp32 on the model's device: a condition
                that the host need not wait for.
        """
        # Of parameters that are sharded over processes, each process moves its own part.
        teacher: list[Tensor] = [_own_part(parameter) for parameter in self.teacher.parameters()]
        student: list[Tensor] = [_own_part(parameter) for parameter in self.student.parameters()]
        if keep is None:
            torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        else:
            ways = torch._foreach_sub(student, teacher)
            torch._foreach_mul_(ways, (1.0 - momentum) * (1.0 - keep))
            torch._foreach_add_(teacher, ways)


def build_model(
    config: ModelConfig | str, *, image_size: int | None = None, vocab_size: int | None = None, seed: int = 0
) -> UmiF:
    """Build student and teacher with equal weights.

    Args:
        config: A `ModelConfig`, or the name of a backbone with everything else at its default.
        image_size, vocab_size: Replace the config's.
        seed: Of the random weights; the caller's random state is left alone.

    Example:
        >>> build_model("vit_tiny_patch16_224", image_size=32, vocab_size=100).student.grid
        (2, 2)
    """
    if isinstance(config, str):
        config = ModelConfig(backbone=config)
    changes = {"image_size": image_size, "vocab_size": vocab_size}
    config = config.model_copy(update={key: value for key, value in changes.items() if value is not None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = UmiF(config)
    if config.init != "random":
        load_timm_weights(model.student, config)
    if config.text_init is not None:
        load_word_embeddings(model.student, config.text_init)
    model.teacher.load_state_dict(model.student.state_dict())
    return model


def load_timm_weights(encoder: TokenEncoder, config: ModelConfig) -> None:
    """Start from weights of the same backbone: timm's own (`init: timm`) or a safetensors file of timm names.

    The patch kernel is folded to one channel together with its normalisation, positions are resized to the grid, and
    the mask tokeniser starts from the same kernel.

    Raises:
        ConfigError: the weights cannot be had, or do not fit.
    """
    from timm.layers import resample_abs_pos_embed

    state, mean, std = _timm_state(config)
    weight, bias = state["patch_embed.proj.weight"].float(), state["patch_embed.proj.bias"].float()
    side = config.image_size // encoder.patch_size
    positions = resample_abs_pos_embed(state["pos_embed"].float(), [side, side], num_prefix_tokens=1)
    state["pos_embed"] = positions
    with torch.no_grad():
        if weight.shape[1] == 3:
            # Masks are colours in [0, 1] on black: the kernel acts on them as they are, channel last.
            encoder.mask_embed.weight.copy_((weight / std[None, :, None, None]).permute(0, 2, 3, 1).flatten(1))
            encoder.mask_position_PD.copy_(positions[0, 1:])
        if weight.shape[1] == 3 and config.channels == 1:
            folded = fold_patch_kernel(weight, bias, mean_3=mean, std_3=std, grey_mean=GREY_MEAN, grey_std=GREY_STD)
            state["patch_embed.proj.weight"], state["patch_embed.proj.bias"] = folded
    state = {key: value for key, value in state.items() if not key.startswith(("head.", "head_dist.", "fc_norm."))}
    try:
        encoder.vit.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"the weights do not fit {config.backbone!r}: {error}", where="model.init") from None


def _timm_state(config: ModelConfig) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """State dict of a three-channel timm model and the normalisation it expects."""
    import timm
    from safetensors.torch import load_file

    if config.init == "timm":
        try:
            model = timm.create_model(config.backbone, pretrained=True, num_classes=0)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"timm's weights of {config.backbone!r} cannot be had: {error}",
                where="model.init",
                fix="give the path of a downloaded .safetensors file, or init: random",
            ) from error
        cfg = model.pretrained_cfg
        return model.state_dict(), torch.tensor(cfg["mean"]), torch.tensor(cfg["std"])
    path = Path(config.init)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ConfigError(
            f"{config.init!r} is neither random, timm nor a .safetensors file", where="model.init", fix="check the path"
        )
    return load_file(path), torch.tensor(_IMAGENET_MEAN), torch.tensor(_IMAGENET_STD)


def load_word_embeddings(encoder: TokenEncoder, source: str) -> None:
    """Start words and text positions from a BERT (hub id or folder), as the paper does with BioClinicalBERT.

    Raises:
        ConfigError: it cannot be had, or its vocabulary or width differ from the config's.
    """
    from transformers import AutoModel

    try:
        bert = AutoModel.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no BERT at {source!r}: {error}", where="model.text_init") from error
    words = bert.embeddings.word_embeddings.weight
    positions = bert.embeddings.position_embeddings.weight
    if words.shape != encoder.word_embed.weight.shape:
        raise ConfigError(
            f"{source!r} has {words.shape[0]} words of width {words.shape[1]}",
            where="model.text_init",
            fix=f"set model.vocab_size={words.shape[0]} and model.word_width={words.shape[1]}",
        )
    with torch.no_grad():
        encoder.word_embed.weight.copy_(words)
        count = min(len(positions), len(encoder.text_position_LD))
        encoder.text_position_LD[:count].copy_(encoder.word_map(positions[:count]))


def _own_part(parameter: Tensor) -> Tensor:
    # Asked for by name: the class of sharded tensors takes a second to import, and most who encode have none.
    to_local = getattr(parameter, "to_local", None)
    part: Tensor = parameter if to_local is None else to_local()
    return part


def fill_up(rows_T: Tensor, offsets_S1: Tensor, multiple: int) -> tuple[Tensor, Tensor]:
    """Lengthen a stream to the next multiple by one more segment, of 1 to `multiple` copies of the table's first row.

    Rows beyond the last offset must not exist: no kernel writes their gradients, and what happens to be in memory there
    would count. Nothing reads the features of the segment that is added, so all its gradients are zero.

    Shapes: returns (T', ) with T' a multiple of `multiple`, and (S + 2,).
    """
    rows = (len(rows_T) // multiple + 1) * multiple
    last = offsets_S1.new_full((1,), rows)
    return F.pad(rows_T, (0, rows - len(rows_T))), torch.cat([offsets_S1, last])


def _head(width: int, config: HeadConfig) -> nn.Sequential:
    # LayerNorm where BYOL has batch norm: a batch statistic would tie segments, and processes, together.
    return nn.Sequential(
        nn.Linear(width, config.hidden), nn.LayerNorm(config.hidden), nn.GELU(), nn.Linear(config.hidden, config.out)
    )


def _unfold(pictures_NHWC: Tensor, size: int) -> Tensor:
    """Cut pictures into patches, row by row. Shapes: (N, H, W, C) → (N·P, size·size·C)."""
    count, height, width, channels = pictures_NHWC.shape
    patches = pictures_NHWC.reshape(count, height // size, size, width // size, size, channels)
    return patches.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size * channels)
