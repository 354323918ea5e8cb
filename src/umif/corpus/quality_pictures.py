"""Checks of pictures: by what was measured of them, their sizes, and one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.quality_base import check
from umif.corpus.quality_pixels import looks_constant, looks_framed, looks_inverted, looks_like_ct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from umif.corpus.quality_base import Issue, Scene

_LONGEST = 3.0


@check("unreadable", "Unreadable pictures", severity="defect", decision="exclude")
def unreadable(scene: Scene, issue: Issue) -> None:
    """Files that the build could not decode (they gave no image and are lines of the ledger), and stored pictures
    that can no longer be decoded.
    """
    for line in scene.ledger("image"):
        detail = f"{line['reason']}" + (f": {line['error']}" if line.get("error") else "")
        issue.add(f"{line['dataset']}/{line['item']}", line["dataset"], detail, listed=False)
    for row in np.flatnonzero(~scene.measures["readable"]):
        issue.add(*scene.named(row), "the stored picture cannot be decoded")


@check("constant", "Pictures that show nothing", severity="defect", decision="exclude")
def constant(scene: Scene, issue: Issue) -> None:
    """One grey value all over: the spread of grey values is below two."""
    for row in np.flatnonzero(looks_constant(scene.measures)):
        issue.add(*scene.named(row), f"grey values spread by {scene.measures['spread'][row]:.1f}", row)


@check("inverted", "Black and white exchanged", severity="suspect", decision="review")
def inverted(scene: Scene, issue: Issue) -> None:
    """The middle is darker than both sides and the upper corners are brighter than the rest, as in a negative."""
    for row in np.flatnonzero(looks_inverted(scene.measures)):
        measures = scene.measures[row]
        detail = f"middle {measures['middle']:+.2f}, upper corners {measures['upper_corners']:+.2f}"
        issue.add(*scene.named(row), detail, row)


@check("ct", "CT among radiographs", severity="suspect", decision="review")
def ct(scene: Scene, issue: Issue) -> None:
    """Two tones, sharp edges and hardly a middle grey, in one large body: a slice of a CT, no projection."""
    for row in np.flatnonzero(looks_like_ct(scene.measures)):
        measures = scene.measures[row]
        detail = f"two tones explain {measures['two_tone']:.0%}, middle greys {measures['midtones']:.0%}"
        issue.add(*scene.named(row), detail, row)


@check("aspect", "Extreme aspect", severity="suspect", decision="review")
def aspect(scene: Scene, issue: Issue) -> None:
    """One side is more than three times as long as the other."""
    height, width = scene.images["original_height"], scene.images["original_width"]
    ratio = np.maximum(height, width) / np.maximum(np.minimum(height, width), 1)
    for row in np.flatnonzero(ratio > _LONGEST):
        issue.add(*scene.named(row), f"{width[row]} × {height[row]} pixels", row)


@check("frame", "Margins and burnt-in frames", severity="note")
def frame(scene: Scene, issue: Issue) -> None:
    """Uniform margins cover over a tenth of the picture, or straight lines run along two of its sides. Air around a
    limb that was painted black also counts.
    """
    for row in np.flatnonzero(looks_framed(scene.measures)):
        measures = scene.measures[row]
        margin = f"margins over {measures['margin']:.0%} (grey value {measures['margin_grey']:.0f})"
        lines = f"lines along {measures['lines']} sides"
        issue.add(*scene.named(row), lines if measures["lines"] >= 2 else margin, row)


@check("same_file", "The same file more than once", severity="note")
def same_file(scene: Scene, issue: Issue) -> None:
    """The raw file has the bytes of an earlier image's. They share a split; each keeps its own supervision."""
    first = scene.same_files
    for row in np.flatnonzero(first != np.arange(len(first))):
        issue.add(*scene.named(row), f"repeats {scene.named(first[row])[0]}", first[row], row)


@check("same_picture", "The same picture in another file", severity="note")
def same_picture(scene: Scene, issue: Issue) -> None:
    """Scaled, cut a little or encoded anew: the 64-bit hash differs in four bits at most, and a thumbnail correlates
    by 0.98 at least with that of an earlier image.
    """
    for row, first in _first_of_each(scene.near).items():
        if row != first:
            issue.add(*scene.named(row), f"repeats {scene.named(first)[0]}", first, row)


@check("split_picture", "One picture in two splits", severity="suspect", decision="review")
def split_picture(scene: Scene, issue: Issue) -> None:
    """Of two images that show the same picture one is trained on and the other held out. The list names the one in
    the training split.
    """
    split = scene.images["split"]
    seen: set[int] = set()
    for left, right in scene.near:
        train, held = (left, right) if split[left] == "train" else (right, left)
        if split[train] == "train" and split[held] != "train" and int(train) not in seen:
            seen.add(int(train))
            issue.add(*scene.named(train), f"also in {split[held]}: {scene.named(held)[0]}", train, held)


def _first_of_each(pairs: NDArray[np.int64]) -> dict[int, int]:
    """Return, for each row that stands in a pair, the first row of its group; rows that a pair joins are in one."""
    above: dict[int, int] = {}

    def top(row: int) -> int:
        while (higher := above.setdefault(row, row)) != row:
            above[row] = above[higher]  # shorten the path, so that long chains stay cheap
            row = higher
        return row

    for left, right in pairs.tolist():
        one, other = top(left), top(right)
        above[max(one, other)] = min(one, other)
    return {row: top(row) for row in sorted(above)}
