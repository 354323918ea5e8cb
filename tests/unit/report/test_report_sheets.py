from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from umif.report.pictures import overlay
from umif.report.sheets import GROUP_0, GROUP_1, Sheet, choose_sheets, join_pieces, make_sheet, tint
from umif.tokens.batch import Batch, Example, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PATCH, SIZE = 16, 64
PATCHES = (SIZE // PATCH) ** 2
WORDS = {10: "small", 11: "effusion", 12: "##s", 13: ".", 14: "no"}


def tokens(ids: Sequence[int]) -> list[str]:
    return [WORDS[each] for each in ids]


def example(kind: str, slot: int, ratio: float = 0.5, ids: tuple[int, ...] = (10, 11, 12, 13)) -> Example:
    """A pair whose first half of patches and second half of supervision tokens are in group 1."""
    rng = np.random.default_rng(slot)
    n_other = len(ids) if kind in ("report", "class") else PATCHES
    bits = np.zeros(PATCHES + n_other, dtype=bool)
    if ratio == 1.0:
        bits[:PATCHES] = True
    else:
        bits[: PATCHES // 2] = True
        bits[PATCHES + n_other // 2 :] = True
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[slot : slot + 8, :8] = (250, 10, 10)
    return Example(
        kind=kind, pair=slot, slot=slot, ratio=ratio, bits=bits,
        image=rng.integers(0, 255, (SIZE, SIZE), dtype=np.uint8),
        text_ids=np.array(ids) if kind in ("report", "class") else None,
        mask=mask if kind == "segment" else None,
        second_view=np.full((SIZE, SIZE), 99, np.uint8) if kind == "image" else None,
    )  # fmt: skip


def batch(*examples: Example, step: int = 7) -> Batch:
    return pack(examples, patch_size=PATCH, step=step)


def pixels(uri: str) -> NDArray[np.int64]:
    data = np.frombuffer(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")), np.uint8)
    decoded: NDArray[np.int64] = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].astype(np.int64)
    return decoded


@pytest.fixture
def mixed() -> Batch:
    """Pairs of every kind, in an order in which no table offset is zero by accident."""
    return batch(
        example("segment", 0), example("report", 1, ids=(14, 11)), example("image", 2), example("segment", 3),
        example("class", 4), example("report", 5, ratio=1.0),
    )  # fmt: skip


def sheet(mixed: Batch, index: int) -> Sheet:
    return make_sheet(mixed, index, tokens, PATCH)


class TestMakeSheet:
    def test_tells_where_the_pair_stood_and_how_its_tokens_fell(self, mixed: Batch) -> None:
        made = sheet(mixed, 4)
        assert (made.kind, made.step, made.slot, made.ratio) == ("class", 7, 4, 0.5)
        assert made.counts == ((8, 2), (8, 2))

    def test_words_are_the_pairs_own_with_their_groups(self, mixed: Batch) -> None:
        assert sheet(mixed, 1).words == (("no", 0, False), ("effusion", 1, True))
        assert sheet(mixed, 4).words == (
            ("small", 0, False), ("effusion", 0, True), ("s", 1, False), (".", 1, False),
        )  # fmt: skip

    def test_a_pair_kept_apart_has_all_of_its_image_in_group_1(self, mixed: Batch) -> None:
        assert sheet(mixed, 5).counts == ((PATCHES, 0), (0, 4))

    def test_patches_are_tinted_by_group(self, mixed: Batch) -> None:
        grouped = pixels(sheet(mixed, 4).grouped)
        upper, lower = grouped[: SIZE // 2].mean((0, 1)), grouped[SIZE // 2 :].mean((0, 1))
        assert upper[2] > upper[0] + 20  # blue above red
        assert lower[0] > lower[2] + 20

    def test_a_segment_pair_shows_its_own_mask(self, mixed: Batch) -> None:
        made = sheet(mixed, 3)
        assert made.supervision is not None
        mask = pixels(made.supervision)
        assert mask[3:11, :8, 0].mean() > 130  # this pair's mask begins at row 3
        assert abs(mask[40:, :, 0].mean() - 0.42 * GROUP_1[0]) < 12
        assert made.words == ()

    def test_an_image_pair_shows_its_second_view(self, mixed: Batch) -> None:
        made = sheet(mixed, 2)
        assert made.supervision is not None
        expected = 0.58 * 99 + 0.42 * np.array(GROUP_0)
        assert pixels(made.supervision)[: SIZE // 2].mean((0, 1)) == pytest.approx(expected, abs=4)  # JPEG


class TestChooseSheets:
    def test_one_of_each_kind_in_the_kinds_order_and_one_kept_apart_at_the_end(self, mixed: Batch) -> None:
        chosen = choose_sheets([mixed], tokens, PATCH)
        assert [(each.kind, each.ratio) for each in chosen] == [
            ("report", 0.5), ("class", 0.5), ("segment", 0.5), ("image", 0.5), ("report", 1.0),
        ]  # fmt: skip

    def test_looks_on_in_later_steps_for_kinds_that_the_first_lacks(self) -> None:
        steps = [batch(example("report", 0), step=0), batch(example("segment", 0), step=1)]
        assert [(each.kind, each.step) for each in choose_sheets(steps, tokens, PATCH)] == [
            ("report", 0),
            ("segment", 1),
        ]

    def test_pairs_that_lie_almost_in_one_group_are_passed_over(self) -> None:
        steps = [batch(example("report", 0, ratio=0.01), example("report", 1, ratio=0.6))]
        assert [each.slot for each in choose_sheets(steps, tokens, PATCH)] == [1]


def test_tint_mixes_the_groups_colours_patch_by_patch() -> None:
    tinted = tint(np.zeros((32, 32, 3), np.uint8), np.array([[True, False], [False, True]]), 16)
    expected = [np.round(0.42 * np.array(colour)) for colour in (GROUP_1, GROUP_0)]
    assert tinted[0, 0].tolist() == expected[0].tolist()
    assert tinted[0, 16].tolist() == expected[1].tolist()
    assert (tinted[16:, 16:] == tinted[0, 0]).all()


def test_overlay_changes_only_what_the_mask_covers() -> None:
    picture, mask = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4, 3), np.uint8)
    mask[1, 2] = (200, 0, 0)
    laid = overlay(picture, mask)
    assert laid[1, 2].tolist() == [145, 55, 55]
    laid[1, 2] = 100
    assert (laid == 100).all()


def test_pieces_join_to_words_and_points_stick_to_them() -> None:
    joined = join_pieces(["left", "effusion", "##s", ",", "(", "old", ")", "left", "-", "sided"], [True] * 10)
    assert "".join(" " * space + word for word, _, space in joined) == "left effusions, (old) left-sided"
