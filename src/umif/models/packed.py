"""A timm ViT, run on a packed stream: the modules are timm's, only the loop over blocks is ours.

So weights load from and export to timm by name, and any timm ViT of the plain kind works (pre-norm blocks, one class
token, learned absolute positions; layer scale and query-key norms included).

Shape legend: T rows of the stream, S segments, D width, H heads, E width of a head, L longest segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from umif.errors import ConfigError
from umif.models.attention import Segments, cls_attention, segment_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Block = Callable[[Any, Tensor, Segments], Tensor]

# A compiled stream has a multiple of so many rows: kernels are made for sizes that such a number divides.
ROWS_MULTIPLE = 1024


@dataclass(frozen=True, slots=True)
class Execution:
    """How blocks run; what they compute stays the same.

    Attributes:
        recompute: Keep each block's input only, and compute its inside again in the backward pass.
        compile: Backend of `torch.compile` for the blocks; `None` runs them as they are.
        every_row: Compute every row of the last block, though CLS rows alone are read: the same numbers, more work.
        sharded: Processes share the weights (`umif.train.shard`): a block is entered by its method `with_weights`.
    """

    recompute: bool = False
    compile: str | None = None
    every_row: bool = False
    sharded: bool = False


def create_vit(
    name: str, *, image_size: int, channels: int, overrides: Mapping[str, Any], pretrained: bool = False
) -> nn.Module:
    """Create the timm ViT `name` for `image_size` pixels and `channels` input channels, without a head.

    With `pretrained`, timm folds a three-channel kernel into `channels` and resizes its positions itself; the exact
    folding with the normalisation is `fold_patch_kernel`.

    Raises:
        ConfigError: timm has no such model, or it is not a plain ViT with a class token.
    """
    import timm
    from timm.models.vision_transformer import Block, VisionTransformer

    if not timm.is_model(name):
        from umif.errors import nearest

        known = [model for model in timm.list_models("*vit*") if model.startswith(("vit_", "deit_"))]
        raise ConfigError(f"timm has no model {name!r}", where="model.backbone", fix=nearest(name, known))
    options = dict(num_classes=0, global_pool="token", img_size=image_size, in_chans=channels, **overrides)
    try:
        vit: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be built with {options}: {error}", where="model.backbone") from error
    plain = (
        isinstance(vit, VisionTransformer)
        and vit.cls_token is not None
        and vit.pos_embed is not None
        and vit.reg_token is None
        and all(type(block) is Block and getattr(block.attn, "gate", None) is None for block in vit.blocks)
    )
    if not plain:
        raise ConfigError(
            f"{name!r} is not a plain ViT with one class token and learned positions",
            where="model.backbone",
            fix="use for example vit_base_patch16_224, vit_small_patch16_224 or vit_tiny_patch16_224",
        )
    return vit


def fold_patch_kernel(
    weight_D3PP: Tensor, bias_D: Tensor, *, mean_3: Tensor, std_3: Tensor, grey_mean: float, grey_std: float
) -> tuple[Tensor, Tensor]:
    """Fold a three-channel patch kernel and its normalisation into one channel, exactly.

    A grey value g in [0, 1], repeated over three channels and normalised per channel, gives Σ_c W_c (g − mean_c)/std_c.
    That equals a one-channel kernel acting on (g − grey_mean)/grey_std, with a changed bias. Exact because a patch
    embedding has no padding.

    Shapes: weight (D, 3, P, P), bias (D,); returns (D, 1, P, P) and (D,).
    """
    scaled = weight_D3PP / std_3[None, :, None, None]
    weight = (scaled * grey_std).sum(1, keepdim=True)
    bias = bias_D + (scaled * (grey_mean - mean_3)[None, :, None, None]).sum((1, 2, 3))
    return weight, bias


def run_packed(
    vit: nn.Module,
    stream_TD: Tensor,
    segments: Segments,
    *,
    cls_only: bool = True,
    block: int | None = None,
    execution: Execution = Execution(),
) -> Tensor:
    """Run the blocks and the final norm over a packed stream.

    Args:
        vit: The timm model.
        stream_TD: Embedded tokens, each segment beginning with its CLS token.
        segments: Where the segments lie.
        cls_only: Compute CLS rows only in the last block: exact, and 7 % fewer operations.
        block: Stop after this many blocks (1-based) and skip the final norm; `cls_only` must be off.
        execution: How to run the blocks. The last one, of which CLS rows alone are computed, is neither compiled nor
            computed again: all that it does for every token is one norm and one matrix product.

    Shapes: returns (S, D) with `cls_only`, else (T, D).
    """
    blocks: list[Any] = list(vit.blocks)[:block]  # type: ignore[arg-type]
    run, run_last = _runner(execution, stream_TD, segments), _entered(execution, _cls_block)
    x: Tensor = vit.norm_pre(stream_TD)  # type: ignore[operator]
    for index, layer in enumerate(blocks):
        last = cls_only and index == len(blocks) - 1
        x = (run_last if last else run)(layer, x, segments)
    if block is not None:
        return x
    out: Tensor = vit.norm(x)  # type: ignore[operator]
    return out


def run_packed_blocks(
    vit: nn.Module, stream_TD: Tensor, segments: Segments, blocks: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield (block, tokens after it) for each of the blocks named (1-based), in one pass and without the final norm.

    Shapes: tokens (T, D).
    """
    wanted = set(blocks)
    x: Tensor = vit.norm_pre(stream_TD)  # type: ignore[operator]
    for number, layer in enumerate(list(vit.blocks)[: max(wanted)], start=1):  # type: ignore[arg-type]
        x = _block(layer, x, segments)
        if number in wanted:
            yield number, x


def run_padded(vit: nn.Module, stream_TD: Tensor, segments: Segments, length: int | None = None) -> Tensor:
    """The slow, obvious reference: pad every segment, mask the padding, call timm's own blocks.

    Args:
        vit: The timm model.
        stream_TD: Embedded tokens, each segment beginning with its CLS token.
        segments: Where the segments lie.
        length: Pad to so many tokens; to the longest segment unless told.

    Shapes: returns the CLS features (S, D).
    """
    rows_SL, real_SL = segments.padded(length)
    x_SLD: Tensor = vit.norm_pre(stream_TD[rows_SL])  # type: ignore[operator]
    mask = real_SL[:, None, None, :].expand(-1, 1, real_SL.shape[1], -1)
    for layer in vit.blocks:  # type: ignore[union-attr]
        x_SLD = layer(x_SLD, attn_mask=mask)
    out: Tensor = vit.norm(x_SLD)[:, 0]  # type: ignore[operator]
    return out


def _runner(execution: Execution, stream_TD: Tensor, segments: Segments) -> Block:
    """How a whole block runs."""
    kind = stream_TD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else stream_TD.dtype
    run: Block = _block
    if execution.compile is not None and segments.one_operator(dtype):
        run = _compiled(execution.compile)
    if not (execution.recompute and torch.is_grad_enabled()):
        return _entered(execution, run)

    def again(layer: Any, x_TD: Tensor, segments: Segments) -> Tensor:
        # Nothing random happens inside a block, so no random state need be kept.
        out: Tensor = checkpoint(run, layer, x_TD, segments, use_reentrant=False, preserve_rng_state=False)
        return out

    return _entered(execution, again)


def _entered(execution: Execution, run: Block) -> Block:
    """Run a block with its weights gathered, where processes share them."""
    if not execution.sharded:
        return run
    return lambda layer, x_TD, segments: layer.with_weights(run, x_TD, segments)


@cache
def _compiled(backend: str) -> Block:
    """Compile the block, for any number of rows and segments: one graph serves all blocks of a network.

    A whole graph or an error: a break would hand every block back to Python.
    """
    return torch.compile(_block, backend=backend, dynamic=True, fullgraph=True)


def _block(layer: Any, x_TD: Tensor, segments: Segments) -> Tensor:
    x_TD = x_TD + layer.ls1(_attend(layer.attn, layer.norm1(x_TD), segments))
    out: Tensor = x_TD + layer.ls2(layer.mlp(layer.norm2(x_TD)))
    return out


def _attend(attn: Any, x_TD: Tensor, segments: Segments) -> Tensor:
    qkv_T3HE = attn.qkv(x_TD).view(len(x_TD), 3, attn.num_heads, attn.head_dim)
    if not (isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity)):
        q, k, v = qkv_T3HE.unbind(1)
        qkv_T3HE = torch.stack([attn.q_norm(q).to(v.dtype), attn.k_norm(k).to(v.dtype), v], dim=1)
    out_TD = segment_attention(qkv_T3HE, segments).reshape(len(x_TD), attn.attn_dim)
    projected: Tensor = attn.proj(attn.norm(out_TD))
    return projected


def _cls_block(layer: Any, x_TD: Tensor, segments: Segments) -> Tensor:
    """One block of which only the CLS rows are wanted: keys and values of all tokens, the rest of CLS alone."""
    attn = layer.attn
    normed_TD = layer.norm1(x_TD)
    cls_S, width = segments.cls_S, attn.attn_dim
    weight, bias = attn.qkv.weight, attn.qkv.bias
    q_bias, kv_bias = (None, None) if bias is None else (bias[:width], bias[width:])
    q_SD = F.linear(normed_TD.index_select(0, cls_S), weight[:width], q_bias)
    kv_TD = F.linear(normed_TD, weight[width:], kv_bias)
    q_SHE = attn.q_norm(q_SD.view(-1, attn.num_heads, attn.head_dim)).to(kv_TD.dtype)
    kv_T2HE = kv_TD.view(-1, 2, attn.num_heads, attn.head_dim)
    if not isinstance(attn.k_norm, nn.Identity):
        k, v = kv_T2HE.unbind(1)
        kv_T2HE = torch.stack([attn.k_norm(k).to(v.dtype), v], dim=1)
    out_SD = cls_attention(q_SHE, kv_T2HE, segments).reshape(len(cls_S), width)
    x_SD = x_TD.index_select(0, cls_S) + layer.ls1(attn.proj(attn.norm(out_SD)))
    result: Tensor = x_SD + layer.ls2(layer.mlp(layer.norm2(x_SD)))
    return result
