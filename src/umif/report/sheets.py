"""Sample sheets: what one pair looked like to a step, patch by patch and word by word.

Nothing is stored for them: a step's batch is a pure function of (corpus, seed, step), so it is made again here, and
the packed streams say which tokens fell into which group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.schema import ALL_KINDS
from umif.report.pictures import data_uri, overlay
from umif.tokens.batch import FIRST_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from umif.tokens.batch import Batch, Stream

GROUP_1, GROUP_0 = (31, 106, 165), (200, 89, 11)  # RGB; the page's own colours of the two groups
_TINT = 0.42
_STICKS_TO_THE_LEFT = frozenset(".,;:)%?!-/'")
_STICKS_TO_THE_RIGHT = frozenset("(-/'")


@dataclass(frozen=True, slots=True)
class Sheet:
    """One pair as a step saw it.

    Attributes:
        kind, step, slot, ratio: Pair kind; where it stood; share r of image tokens in group 1.
        picture: The radiograph as augmented, plain (with the mask over it for a segment pair), as a data URI.
        grouped: The radiograph with every patch tinted by its group.
        supervision: The tinted mask or second view; `None` for texts.
        words: The text's pieces with group (1 or 0) and whether a space goes before; empty for pictures.
        counts: Tokens of image and supervision in group 1, then in group 0.
    """

    kind: str
    step: int
    slot: int
    ratio: float
    picture: str
    grouped: str
    supervision: str | None
    words: tuple[tuple[str, int, bool], ...]
    counts: tuple[tuple[int, int], tuple[int, int]]


def choose_sheets(
    batches: Iterable[Batch], tokens: Callable[[Sequence[int]], list[str]], patch_size: int
) -> list[Sheet]:
    """Return one sheet for each pair kind that the batches hold, in the kinds' order.

    Of a kind's pairs the first whose image is split between the groups is taken, since a pair with r = 1 shows little;
    one such pair, of any kind, is added at the end.
    """
    chosen: dict[str, Sheet] = {}
    apart: Sheet | None = None
    wanted = set(ALL_KINDS)
    for batch in batches:
        for index, kind in enumerate(batch.kinds):
            ratio = float(batch.ratios_B[index])
            if ratio == 1.0 and apart is None:
                apart = make_sheet(batch, index, tokens, patch_size)
            elif kind in wanted and kind not in chosen and 0.25 <= ratio <= 0.75:
                chosen[kind] = make_sheet(batch, index, tokens, patch_size)
    sheets = [chosen[kind] for kind in ALL_KINDS if kind in chosen]
    return sheets if apart is None else [*sheets, apart]


def make_sheet(batch: Batch, index: int, tokens: Callable[[Sequence[int]], list[str]], patch_size: int) -> Sheet:
    """Draw the sheet of pair `index` of `batch`."""
    picture_HW = batch.images_NHW[index].numpy()
    height, width = picture_HW.shape
    rows, columns = height // patch_size, width // patch_size
    patches = rows * columns
    table_T = _segment(batch.full, index)
    group1_T = _segment(batch.group1, index)
    bits_T = np.isin(table_T, group1_T)
    image_bits, other_bits = bits_T[:patches], bits_T[patches:]
    first = int(table_T[patches]) - FIRST_TOKEN  # row of the supervision's first token, pictures before texts
    pictures = len(batch.images_NHW) + len(batch.masks_MHW3)
    plain = np.repeat(picture_HW[:, :, None], 3, axis=2)
    supervision: str | None = None
    words: tuple[tuple[str, int, bool], ...] = ()
    if first < pictures * patches:
        other_HW3 = _picture(batch, first // patches)
        supervision = data_uri(tint(other_HW3, other_bits.reshape(rows, columns), patch_size))
        if first // patches >= len(batch.images_NHW):
            plain = overlay(plain, other_HW3)
    else:
        start = first - pictures * patches
        ids = batch.text_ids_T[start : start + len(other_bits)].tolist()
        words = join_pieces(tokens(ids), other_bits.tolist())
    return Sheet(
        kind=batch.kinds[index],
        step=batch.step,
        slot=int(batch.slots_B[index]),
        ratio=float(batch.ratios_B[index]),
        picture=data_uri(plain),
        grouped=data_uri(
            tint(np.repeat(picture_HW[:, :, None], 3, axis=2), image_bits.reshape(rows, columns), patch_size)
        ),
        supervision=supervision,
        words=words,
        counts=(
            (int(image_bits.sum()), int(other_bits.sum())),
            (int((~image_bits).sum()), int((~other_bits).sum())),
        ),
    )


def join_pieces(pieces: Sequence[str], bits: Sequence[bool]) -> tuple[tuple[str, int, bool], ...]:
    """Return word pieces with their group and whether a space goes before, so that they read as the text did.

    `##` pieces continue a word; punctuation sticks to what it belongs to.
    """
    before = ["(", *pieces[:-1]]
    return tuple(
        (
            piece.removeprefix("##"),
            int(bit),
            not (piece.startswith("##") or piece in _STICKS_TO_THE_LEFT or last in _STICKS_TO_THE_RIGHT),
        )
        for last, piece, bit in zip(before, pieces, bits, strict=True)
    )


def tint(picture_HW3: NDArray[np.uint8], bits: NDArray[np.bool_], patch_size: int) -> NDArray[np.uint8]:
    """Tint each patch by its group.

    Shapes: picture_HW3 (H, W, 3) uint8; bits (H / patch, W / patch); returns (H, W, 3) uint8.
    """
    colours = np.where(bits[:, :, None], np.array(GROUP_1), np.array(GROUP_0)).astype(np.float32)
    colours = colours.repeat(patch_size, axis=0).repeat(patch_size, axis=1)
    return ((1 - _TINT) * picture_HW3 + _TINT * colours).round().astype(np.uint8)


def _segment(stream: Stream, index: int) -> NDArray[np.int64]:
    """Rows of one pair's tokens in a stream, without its CLS."""
    start, end = stream.offsets_S1[index : index + 2].tolist()
    rows_T: NDArray[np.int64] = stream.rows_T[start + 1 : end].numpy()
    return rows_T


def _picture(batch: Batch, number: int) -> NDArray[np.uint8]:
    if number < len(batch.images_NHW):
        grey: NDArray[np.uint8] = batch.images_NHW[number].numpy()
        return np.repeat(grey[:, :, None], 3, axis=2)
    mask: NDArray[np.uint8] = batch.masks_MHW3[number - len(batch.images_NHW)].numpy()
    return mask
