"""Flexible token grouping (UmiF, section 3 of the method): which tokens of a pair go to which group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from umif.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def draw_ratio(p_separate: float, rng: np.random.Generator) -> float:
    """Draw the share r of image tokens that go to group 1.

    With probability `p_separate` r is exactly 1.0: the image alone in group 1 and its supervision alone in group 0,
    CLIP's view pair. Otherwise r ~ U[0, 1).

    Source: UmiF, section "flexible token grouping"; the paper's best p is 0.2 (Table 6).

    Example:
        >>> draw_ratio(1.0, np.random.default_rng(0))
        1.0
    """
    if not 0.0 <= p_separate <= 1.0:
        raise ShapeError(f"p_separate must lie in [0, 1], not {p_separate}")
    # Both numbers are drawn always, so that a draw costs the same whatever its outcome.
    separate, ratio = rng.random(2)
    return 1.0 if separate < p_separate else float(ratio)


def draw_groups(n_image: int, n_supervision: int, ratio: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the group of each token of a pair, image tokens first: True = group 1.

    A share `ratio` of the image tokens and a share 1 − `ratio` of the supervision tokens are in group 1.

    Shapes: returns (n_image + n_supervision,).
    Source: UmiF, section "flexible token grouping".
    Differs: counts are exact, ⌊share · n + ½⌋, and positions uniform, where the paper leaves the draw open; when both
        roundings would empty one group (few tokens, extreme ratio), one token of the larger modality moves over, since
        drawing again with the same ratio could never end.
    Raises:
        ShapeError: fewer than one image or supervision token, or a ratio outside [0, 1].

    Example:
        >>> draw_groups(3, 2, 1.0, np.random.default_rng(0)).tolist()
        [True, True, True, False, False]
    """
    if n_image < 1 or n_supervision < 1:
        raise ShapeError(f"a pair needs tokens of both modalities, not {n_image} and {n_supervision}")
    if not 0.0 <= ratio <= 1.0:
        raise ShapeError(f"the ratio must lie in [0, 1], not {ratio}")
    ones_image = int(np.floor(ratio * n_image + 0.5))
    ones_supervision = int(np.floor((1.0 - ratio) * n_supervision + 0.5))
    if ones_image + ones_supervision == 0:
        ones_image, ones_supervision = (1, 0) if n_image >= n_supervision else (0, 1)
    elif ones_image + ones_supervision == n_image + n_supervision:
        if n_image >= n_supervision:
            ones_image -= 1
        else:
            ones_supervision -= 1
    bits = np.zeros(n_image + n_supervision, dtype=np.bool_)
    bits[rng.permutation(n_image)[:ones_image]] = True
    bits[n_image + rng.permutation(n_supervision)[:ones_supervision]] = True
    return bits
