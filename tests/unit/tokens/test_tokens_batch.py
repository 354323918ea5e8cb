"""Packing against an obvious reference: the token table built token by token, and streams looked up in it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.errors import ShapeError
from umif.tokens import Batch, Example, draw_groups, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("report", "caption", "class", "segment", "image")
SIDE, PATCH = 8, 4
PATCHES = (SIDE // PATCH) ** 2


def examples_of(kinds: Sequence[str], seed: int, views: bool = False) -> list[Example]:
    """Random pairs; with `views`, group 0 sees pictures of its own."""
    rng = np.random.default_rng(seed)

    def picture(*channels: int) -> Any:
        return rng.integers(0, 256, (SIDE, SIDE, *channels), dtype=np.uint8)

    found = []
    for index, kind in enumerate(kinds):
        text = rng.integers(0, 1000, int(rng.integers(1, 7))) if kind in ("report", "caption", "class") else None
        count = PATCHES if text is None else len(text)
        ratio = float(rng.random())
        found.append(
            Example(
                kind=kind,
                pair=100 + index,
                slot=2 * index + 1,
                ratio=ratio,
                bits=draw_groups(PATCHES, count, ratio, rng),
                image=picture(),
                text_ids=text,
                mask=picture(3) if kind == "segment" else None,
                second_view=picture() if kind == "image" else None,
                image_0=picture() if views else None,
                mask_0=picture(3) if views and kind == "segment" else None,
            )
        )
    return found


def patches_of(picture: Any) -> list[bytes]:
    """A picture's patches, row by row, as bytes."""
    return [
        picture[row : row + PATCH, column : column + PATCH].tobytes()
        for row in range(0, SIDE, PATCH)
        for column in range(0, SIDE, PATCH)
    ]


def table_of(batch: Batch) -> list[object]:
    """The token table as the model reads it: what stands in each row."""
    table: list[object] = ["CLS 1", "CLS 0"]
    for image in batch.images_NHW.numpy():
        table.extend(patches_of(image))
    for mask in batch.masks_MHW3.numpy():
        table.extend(patches_of(mask))
    table.extend(zip(batch.text_ids_T.tolist(), batch.text_positions_T.tolist(), strict=True))
    return table


def tokens_of(example: Example, *, group_0: bool = False) -> list[object]:
    """All tokens of a pair as a group sees them, straight from the example."""
    supervision: list[object]
    own = group_0 and example.image_0 is not None
    if example.text_ids is not None:
        supervision = [(int(word), place) for place, word in enumerate(example.text_ids)]
    elif example.mask is not None:
        supervision = list(patches_of(example.mask_0 if own else example.mask))
    else:
        supervision = list(patches_of(example.second_view))
    return [*patches_of(example.image_0 if own else example.image), *supervision]


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(0, 2**32), st.booleans())
@settings(deadline=None, max_examples=100)
def test_every_stream_holds_the_right_tokens_in_order(kinds: list[str], seed: int, views: bool) -> None:
    examples = examples_of(kinds, seed, views)
    batch = pack(examples, patch_size=PATCH, step=9)
    table = table_of(batch)
    for stream, cls, keep in (
        (batch.group1, "CLS 1", True),
        (batch.group0, "CLS 0", False),
        (batch.full, "CLS 1", None),
    ):
        rows, offsets = stream.rows_T.tolist(), stream.offsets_S1.tolist()
        assert len(offsets) == len(examples) + 1
        assert (offsets[0], offsets[-1]) == (0, len(rows))
        for index, example in enumerate(examples):
            segment = [table[row] for row in rows[offsets[index] : offsets[index + 1]]]
            tokens = tokens_of(example, group_0=keep is False)
            wanted = tokens if keep is None else [t for t, bit in zip(tokens, example.bits, strict=True) if bit == keep]
            assert segment == [cls, *wanted]


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=8), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_groups_share_out_every_token_once(kinds: list[str], seed: int) -> None:
    batch = pack(examples_of(kinds, seed), patch_size=PATCH)
    grouped = sorted(row for stream in (batch.group1, batch.group0) for row in stream.rows_T.tolist() if row > 1)
    assert grouped == list(range(2, len(table_of(batch))))
    assert sorted(row for row in batch.full.rows_T.tolist() if row > 1) == grouped
    assert all(length >= 2 for stream in (batch.group1, batch.group0) for length in stream.lengths)


def test_types_and_what_is_told_of_each_pair() -> None:
    batch = pack(examples_of(KINDS, 0), patch_size=PATCH, step=4)
    assert len(batch) == 5
    assert (batch.kinds, batch.step) == (KINDS, 4)
    assert batch.pairs_B.tolist() == [100, 101, 102, 103, 104]
    assert batch.slots_B.tolist() == [1, 3, 5, 7, 9]
    assert batch.ratios_B.dtype == torch.float32
    assert batch.images_NHW.shape == (6, SIDE, SIDE)
    assert batch.masks_MHW3.shape == (1, SIDE, SIDE, 3)
    assert batch.images_NHW.dtype == batch.masks_MHW3.dtype == torch.uint8
    assert batch.text_ids_T.dtype == batch.text_positions_T.dtype == batch.full.rows_T.dtype == torch.int64
    assert batch.full.offsets_S1.dtype == torch.int32


def test_a_batch_without_masks_or_texts_has_empty_ones() -> None:
    batch = pack(examples_of(["image"], 0), patch_size=PATCH)
    assert batch.masks_MHW3.shape == (0, SIDE, SIDE, 3)
    assert batch.text_ids_T.shape == batch.text_positions_T.shape == (0,)
    assert batch.text_ids_T.dtype == batch.text_positions_T.dtype == torch.int64


def test_moving_and_pickling_change_nothing() -> None:
    batch = pack(examples_of(KINDS, 1), patch_size=PATCH)
    for other in (batch.to("cpu"), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(other.group0.rows_T, batch.group0.rows_T)
        assert torch.equal(other.masks_MHW3, batch.masks_MHW3)
        assert other.kinds == batch.kinds
    assert batch.to("meta").full.offsets_S1.device.type == "meta"


def test_pictures_that_patches_do_not_tile_are_refused() -> None:
    with pytest.raises(ShapeError, match="not tiled by patches of 3"):
        pack(examples_of(["class"], 0), patch_size=3)


def test_pictures_of_two_sizes_are_refused() -> None:
    from dataclasses import replace

    small = np.zeros((PATCH, SIDE), dtype=np.uint8)
    first, second = examples_of(["class", "class"], 0)
    with pytest.raises(ShapeError, match="all pictures"):
        pack([first, replace(second, image=small)], patch_size=PATCH)
    (masked,) = examples_of(["segment"], 0)
    with pytest.raises(ShapeError, match="all pictures"):
        pack([replace(masked, mask=np.zeros((PATCH, PATCH, 3), dtype=np.uint8))], patch_size=PATCH)


def test_bits_of_another_length_and_missing_supervision_are_refused() -> None:
    from dataclasses import replace

    (example,) = examples_of(["class"], 0)
    with pytest.raises(ShapeError, match=r"bits for 4 \+"):
        pack([replace(example, bits=example.bits[1:])], patch_size=PATCH)
    with pytest.raises(ShapeError, match="no supervision"):
        pack([replace(example, text_ids=None)], patch_size=PATCH)
