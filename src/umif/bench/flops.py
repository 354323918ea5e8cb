"""Floating-point operations of a training step, counted from shapes: matrix products alone, two for each multiply-add.

A block on segments of L tokens and width D takes 24·D²·L in its linear layers and 4·D·L² in attention. A backward pass
counts twice its forward pass, and what is computed again for it counts once more, in the same way: an implementation
is not credited with work that it could have avoided.

*Ideal* is what one step of UmiF costs if every token of a pair goes through the student once, in its own group, and
through the teacher once, with no padding: 3 · F(group 1, group 0) + F(all). Computing CLS rows alone in the last block
is exact and goes below it.

Shape legend: D width, L tokens of a segment, its CLS included, P side of a patch in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.models import UmiF
    from umif.tokens.batch import Batch


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack of transformer blocks. `width` D, `depth` blocks; an MLP is four times as wide as D."""

    width: int
    depth: int

    def forward(self, lengths: Sequence[int], *, cls_only: bool = False) -> float:
        """Operations of the forward pass over segments of these lengths.

        With `cls_only` the last block computes keys and values of all tokens, and the rest for one token a segment.
        """
        width = self.width
        tokens, squares, segments = sum(lengths), sum(length**2 for length in lengths), len(lengths)
        block = 24.0 * width**2 * tokens + 4.0 * width * squares
        if not cls_only:
            return self.depth * block
        last = 4.0 * width**2 * tokens + 20.0 * width**2 * segments + 4.0 * width * tokens
        return (self.depth - 1) * block + last


def linear(rows: int, inner: int, outer: int) -> float:
    """Operations of one matrix product of `rows` rows."""
    return 2.0 * rows * inner * outer


def umif_step(model: UmiF, batch: Batch, *, packing: str = "packed") -> float:
    """Operations that a step of `model` on `batch` executes; rows that fill a compiled stream up are left out.

    Args:
        model: For its shapes and for how its blocks run (`TokenEncoder.execution`).
        batch: For the lengths of its segments.
        packing: As in `UmiF.forward`.
    """
    student = model.student
    cls_only = not student.execution.every_row
    stack = Stack(student.width, len(student.vit.blocks))  # type: ignore[arg-type]
    groups, full = [*batch.group1.lengths, *batch.group0.lengths], batch.full.lengths
    if packing != "packed":
        longest = max(full)
        groups, full, cls_only = (
            [longest if packing == "padded" else max(groups)] * len(groups),
            [longest] * len(full),
            False,
        )
    forward = stack.forward(groups, cls_only=cls_only)
    again = 0.0
    if student.execution.recompute and packing == "packed":
        # Recomputing stops at the last product of a block, whose output nothing needs.
        blocks = stack.depth - cls_only
        again = Stack(stack.width, blocks).forward(groups) - blocks * linear(sum(groups), 4 * stack.width, stack.width)
    return 3 * forward + again + stack.forward(full, cls_only=cls_only) + 3 * tokens_forward(model, batch)


def tokens_forward(model: UmiF, batch: Batch) -> float:
    """Operations of one pass over the tokenisers.

    A step has three: the student's, the teacher's, and the gradient of the weights; pixels need no gradient.
    """
    student = model.student
    patch = student.patch_size**2
    patches = student.grid[0] * student.grid[1]
    return linear(len(batch.images_NHW) * patches, student.config.channels * patch, student.width) + linear(
        len(batch.masks_MHW3) * patches, 3 * patch, student.width
    )


def ideal_step(model: UmiF, batch: Batch) -> float:
    """Operations of a step without padding and without any cut: what others are divided by."""
    student = model.student
    stack = Stack(student.width, len(student.vit.blocks))  # type: ignore[arg-type]
    groups = [*batch.group1.lengths, *batch.group0.lengths]
    return 3 * stack.forward(groups) + stack.forward(batch.full.lengths) + 3 * tokens_forward(model, batch)
