"""The packed batch: three flat token streams with offsets, never padded.

Mental model: every token that a batch needs is made once, in one *token table*; a stream only says which rows of that
table it reads, segment after segment. Rows of the table, in order:

    0                      CLS of group 1 (and of the teacher's view)
    1                      CLS of group 0 (the same parameter unless `cls: separate`)
    2 … 2 + N·P            image tokens, N images of P patches each, row by row
    … + M·P                mask tokens, M masks of P patches each
    … + T_text             text tokens, all texts end to end

The streams are group 1 and group 0 of all pairs (for the student) and the full view (for the teacher). A segment is one
pair in one stream and starts with its CLS row.

Shape legend: B pairs, N images (N ≥ B: `image` pairs bring a second view, and group 0 may have views of its own), M
masks, H×W pixels, P patches a picture, T rows of a stream, S segments.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umif.errors import ShapeError
from umif.imaging.device import Unwarped, Views, stack_unwarped, warp_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

CLS_1, CLS_0, FIRST_TOKEN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Stream:
    """One packed token stream.

    Shapes: rows_T int64, rows of the token table; offsets_S1 (S + 1,) int32, where each segment starts, then T.
    """

    rows_T: Tensor
    offsets_S1: Tensor

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each segment, its CLS included."""
        return (self.offsets_S1[1:] - self.offsets_S1[:-1]).tolist()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees of `B` pairs; a pure function of (corpus, seed, step).

    With `views`, images_NHW holds pictures as they are stored, of any size; `to` makes the images out of them.

    Shapes: images_NHW uint8 grey; masks_MHW3 uint8 RGB; text_ids_T and text_positions_T int64; three `Stream`s of B
    segments each; pairs_B int64 rows of pairs.lance; slots_B int64, position of the pair in the global batch;
    ratios_B fp32, the share r of image tokens in group 1.
    """

    images_NHW: Tensor
    masks_MHW3: Tensor
    text_ids_T: Tensor
    text_positions_T: Tensor
    group1: Stream
    group0: Stream
    full: Stream
    pairs_B: Tensor
    slots_B: Tensor
    ratios_B: Tensor
    kinds: tuple[str, ...]
    step: int = 0
    views: Views | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with every tensor on `device`, and every view made there that was left to it."""
        moved: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                moved[field.name] = value.to(device, non_blocking=True)
            elif isinstance(value, Stream):
                moved[field.name] = Stream(
                    value.rows_T.to(device, non_blocking=True), value.offsets_S1.to(device, non_blocking=True)
                )
        batch = replace(self, **moved)  # type: ignore[arg-type]
        if self.views is None:
            return batch
        return replace(batch, images_NHW=warp_batch(batch.images_NHW, self.views.to(device)), views=None)


@dataclass(frozen=True, slots=True)
class Example:
    """One pair as pixels and ids, before it is packed.

    Exactly one supervision is set: `text_ids` (n,) ints, `mask` (H, W, 3) uint8, or `second_view` (H, W) uint8.
    `bits` is what `draw_groups` gave: bool (n_image + n_supervision,), True = group 1. Where `image_0` is given, group
    0's image tokens come from it instead, and its mask tokens from `mask_0`; the teacher sees `image` and `mask`.
    """

    kind: str
    pair: int
    slot: int
    ratio: float
    bits: NDArray[np.bool_]
    image: NDArray[np.uint8] | Unwarped
    text_ids: NDArray[np.int64] | None = None
    mask: NDArray[np.uint8] | None = None
    second_view: NDArray[np.uint8] | Unwarped | None = None
    image_0: NDArray[np.uint8] | Unwarped | None = None
    mask_0: NDArray[np.uint8] | None = None


def pack(examples: Sequence[Example], *, patch_size: int, step: int = 0) -> Batch:
    """Pack examples into one `Batch`.

    Raises:
        ShapeError: pictures of different sizes, sizes that patches do not tile, or bits of another length.
    """
    height, width = examples[0].image.shape
    if height % patch_size or width % patch_size:
        raise ShapeError(f"pictures of {height}×{width} pixels are not tiled by patches of {patch_size}")
    patches = (height // patch_size) * (width // patch_size)
    images: list[Any] = [example.image for example in examples]
    masks: list[Any] = []
    texts: list[NDArray[np.int64]] = []
    text_total = 0

    def put(pictures: list[Any], picture: Any) -> int:
        pictures.append(picture)
        return int(patches) * (len(pictures) - 1)

    # (table part, position within that part) of each pair's supervision, as group 1 and as group 0 see it, and of its
    # image as group 0 sees it; parts are placed once their sizes are known.
    where: list[tuple[str, int, int, int]] = []
    for index, example in enumerate(examples):
        if example.text_ids is not None:
            part, seen_1 = "text", text_total
            texts.append(example.text_ids)
            text_total += len(example.text_ids)
            seen_0 = seen_1
        elif example.mask is not None:
            part, seen_1 = "mask", put(masks, example.mask)
            seen_0 = seen_1 if example.mask_0 is None else put(masks, example.mask_0)
        elif example.second_view is not None:
            part, seen_1 = "image", put(images, example.second_view)
            seen_0 = seen_1
        else:
            raise ShapeError(f"a pair of kind {example.kind!r} has no supervision")
        image_0 = index * patches if example.image_0 is None else put(images, example.image_0)
        where.append((part, seen_1, seen_0, image_0))
    if any(picture.shape[:2] != (height, width) for picture in (*images, *masks)):
        raise ShapeError(f"all pictures of a batch must be {height}×{width} pixels")
    start = {"image": FIRST_TOKEN, "mask": FIRST_TOKEN + len(images) * patches}
    start["text"] = start["mask"] + len(masks) * patches
    group1, group0, full = [], [], []
    for index, (example, (part, seen_1, seen_0, image_0)) in enumerate(zip(examples, where, strict=True)):
        count = patches if example.text_ids is None else len(example.text_ids)
        if len(example.bits) != patches + count:
            raise ShapeError(f"{len(example.bits)} bits for {patches} + {count} tokens")
        rows_1 = _rows(FIRST_TOKEN + index * patches, patches, start[part] + seen_1, count)
        own = example.image_0 is not None or example.mask_0 is not None
        rows_0 = _rows(FIRST_TOKEN + image_0, patches, start[part] + seen_0, count) if own else rows_1
        group1.append(np.concatenate([[CLS_1], rows_1[example.bits]]))
        group0.append(np.concatenate([[CLS_0], rows_0[~example.bits]]))
        full.append(np.concatenate([[CLS_1], rows_1]))
    empty = np.zeros(0, dtype=np.int64)
    stacked, views = stack_unwarped(images) if isinstance(images[0], Unwarped) else (np.stack(images), None)
    return Batch(
        images_NHW=torch.from_numpy(stacked),
        masks_MHW3=torch.from_numpy(np.stack(masks) if masks else np.zeros((0, height, width, 3), dtype=np.uint8)),
        text_ids_T=torch.from_numpy(np.concatenate([empty, *texts])),
        text_positions_T=torch.from_numpy(np.concatenate([empty, *(np.arange(len(t)) for t in texts)])),
        group1=make_stream(group1),
        group0=make_stream(group0),
        full=make_stream(full),
        pairs_B=torch.tensor([example.pair for example in examples]),
        slots_B=torch.tensor([example.slot for example in examples]),
        ratios_B=torch.tensor([example.ratio for example in examples], dtype=torch.float32),
        kinds=tuple(example.kind for example in examples),
        step=step,
        views=views,
    )


def _rows(image: int, patches: int, supervision: int, count: int) -> NDArray[np.int64]:
    """Rows of the token table of one pair's image and of its supervision, each end to end."""
    return np.concatenate([np.arange(image, image + patches), np.arange(supervision, supervision + count)])


def make_stream(segments: Sequence[NDArray[np.int64]]) -> Stream:
    """Put segments end to end."""
    offsets = np.zeros(len(segments) + 1, dtype=np.int32)
    np.cumsum([len(segment) for segment in segments], out=offsets[1:])
    return Stream(torch.from_numpy(np.concatenate(segments)), torch.from_numpy(offsets))
