"""A batch in chunks: the gradient of a large batch on a device that holds the activations of a small one.

The losses tie every pair of a batch to every other, so a batch cannot be cut into steps. But they read features only:

    1. every chunk's features, without a graph
    2. the losses' gradient with respect to all features
    3. chunk by chunk: the features again, with a graph, and that gradient sent back through it

Gradients of parameters add up over chunks to those of one pass, but for the rounding of sums in another order. The
student runs forward twice; the teacher, once.

Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup" (GradCache).

Shape legend: B pairs, R rows of the token table, T rows of a stream, P patches a picture.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import torch

from umif.models.umif import Features
from umif.tokens.batch import FIRST_TOKEN, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from umif.tokens.batch import Batch

# The features of the student, which carry a gradient.
STUDENT = ("f1_BD", "f0_BD", "p1_BD", "p0_BD")


def split_batch(batch: Batch, pairs: int, patches: int) -> Iterator[Batch]:
    """Yield a batch in runs of at most `pairs` pairs, each a batch with a token table of its own.

    Args:
        batch: On any device; on a CPU this costs no synchronisation.
        pairs: Of a chunk.
        patches: P, of one picture.
    """
    if len(batch) <= pairs:
        yield batch
        return
    bounds = {name: getattr(batch, name).offsets_S1.tolist() for name in ("group1", "group0", "full")}
    for first in range(0, len(batch), pairs):
        last = min(first + pairs, len(batch))
        streams = {name: _part(getattr(batch, name), first, last, bounds[name]) for name in bounds}
        yield _with_own_table(batch, first, last, streams, patches)


def _part(stream: Stream, first: int, last: int, bounds: Sequence[int]) -> Stream:
    """Segments first … last − 1 of a stream, whose offsets are `bounds`."""
    return Stream(stream.rows_T[bounds[first] : bounds[last]], stream.offsets_S1[first : last + 1] - bounds[first])


def _with_own_table(batch: Batch, first: int, last: int, streams: dict[str, Stream], patches: int) -> Batch:
    images, masks = len(batch.images_NHW) * patches, len(batch.masks_MHW3) * patches
    used_R = torch.zeros(FIRST_TOKEN + images + masks + len(batch.text_ids_T), dtype=torch.bool)
    used_R = used_R.to(batch.slots_B.device)
    used_R[:FIRST_TOKEN] = True
    for stream in streams.values():
        used_R[stream.rows_T] = True
    image_X, mask_X, text_T = used_R[FIRST_TOKEN:].split([images, masks, len(batch.text_ids_T)])
    # A picture is embedded whole or not at all.
    image_N, mask_M = (part.view(-1, patches).any(1) for part in (image_X, mask_X))
    used_R[FIRST_TOKEN : FIRST_TOKEN + images] = image_N.repeat_interleave(patches)
    used_R[FIRST_TOKEN + images : FIRST_TOKEN + images + masks] = mask_M.repeat_interleave(patches)
    row_R = used_R.cumsum(0) - 1
    return replace(
        batch,
        images_NHW=batch.images_NHW[image_N],
        masks_MHW3=batch.masks_MHW3[mask_M],
        text_ids_T=batch.text_ids_T[text_T],
        text_positions_T=batch.text_positions_T[text_T],
        **{name: Stream(row_R[stream.rows_T], stream.offsets_S1) for name, stream in streams.items()},  # type: ignore[arg-type]
        pairs_B=batch.pairs_B[first:last],
        slots_B=batch.slots_B[first:last],
        ratios_B=batch.ratios_B[first:last],
        kinds=batch.kinds[first:last],
    )


def join_features(parts: Sequence[Features]) -> Features:
    """Put chunks' features end to end, as leaves: those of the student ask for a gradient, and get it in `.grad`."""
    joined: dict[str, Tensor] = {}
    for field in fields(Features):
        values = [getattr(part, field.name) for part in parts]
        if values[0] is not None:
            whole = torch.cat(values).detach()
            joined[field.name] = whole.requires_grad_(field.name in STUDENT)
    return Features(**joined)


def send_back(part: Features, gradients: Features, first: int) -> None:
    """Run the backward pass of one chunk.

    Args:
        part: Its features, with a graph.
        gradients: Leaves of the whole batch (`join_features`) with their gradients.
        first: Place of the chunk's first pair in the batch.
    """
    pairs = [(getattr(part, name), getattr(gradients, name)) for name in STUDENT if getattr(part, name) is not None]
    # What no objective reads has no gradient: a network with a predictor has features like that.
    read = [(value, leaf.grad[first : first + len(value)]) for value, leaf in pairs if leaf.grad is not None]
    torch.autograd.backward([value for value, _ in read], [gradient for _, gradient in read])


def send_nothing(part: Features) -> None:
    """Run a backward pass that adds zero to every gradient."""
    values = [value for name in STUDENT if (value := getattr(part, name)) is not None]
    torch.autograd.backward(values, [torch.zeros_like(value) for value in values])
