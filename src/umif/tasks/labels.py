"""Labels of a corpus's images → numbers: 1, 0 or −1, which is unknown and never negative.

Shape legend: N images, F classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from umif.corpus.schema import LABEL_STATES
from umif.tasks.metrics import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.tasks.definitions import Problem

# The complement of all others, so it is no class of its own beside them.
_NOT_A_CLASS = "no_finding"
_VALUE = {"present": 1, "absent": 0}
assert _VALUE.keys() < set(LABEL_STATES)

Image = dict[str, Any]


def labels_of(
    problem: Problem, images: Sequence[Image], *, published: bool = False
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Return the classes of a problem and the labels of images. Shape (N, F).

    Args:
        problem: What is asked.
        images: Rows of the corpus's images.
        published: Read unclear labels as published work does, where the problem says how.
    """
    if problem.kind == "findings":
        return _finding_labels(problem, images, published)
    if problem.kind == "classes":
        return tuple(one.name for one in problem.classes), _class_labels(problem, images)
    return (problem.name,), _side_labels(problem, images)


def _side_labels(problem: Problem, images: Sequence[Image]) -> NDArray[np.int8]:
    """An image of neither side, or of both, stays unknown."""
    labels_N1 = np.full((len(images), 1), UNKNOWN, dtype=np.int8)
    for index, image in enumerate(images):
        positive = any(condition.holds(image) for condition in problem.positive)
        negative = any(condition.holds(image) for condition in problem.negative)
        if positive != negative:
            labels_N1[index, 0] = 1 if positive else 0
    return labels_N1


def _class_labels(problem: Problem, images: Sequence[Image]) -> NDArray[np.int8]:
    """1 in one class and 0 in the others; an image of none, or of several, stays unknown in all."""
    labels_NF = np.full((len(images), len(problem.classes)), UNKNOWN, dtype=np.int8)
    for index, image in enumerate(images):
        held = [any(condition.holds(image) for condition in one.any) for one in problem.classes]
        if sum(held) == 1:
            labels_NF[index] = held
    return labels_NF


def _finding_labels(
    problem: Problem, images: Sequence[Image], published: bool
) -> tuple[tuple[str, ...], NDArray[np.int8]]:
    """Present is 1, absent is 0; uncertain, not stated and contradictory stay unknown.

    An image of the problem's `negative` has none of the findings; one that it states all the same is contradictory.
    """
    stated: dict[str, dict[int, set[int]]] = {name: {} for name in problem.findings}
    rule = problem.published if published else None
    for index, image in enumerate(images):
        for label in image["findings"]:
            name = label["finding"]
            wanted = name in problem.findings if problem.findings else name not in (None, _NOT_A_CLASS)
            if wanted and label["state"] != "not_mentioned":
                state = label["state"]
                if state == "uncertain" and rule is not None:
                    state = rule.uncertain.get(name, state)
                stated.setdefault(name, {}).setdefault(index, set()).add(_VALUE.get(state, UNKNOWN))
    classes = problem.findings or tuple(sorted(stated))
    labels_NF = np.full((len(images), len(classes)), UNKNOWN, dtype=np.int8)
    for index, image in enumerate(images) if problem.negative else ():
        if any(condition.holds(image) for condition in problem.negative):
            labels_NF[index] = 0
    if rule is not None and rule.unstated == "absent":
        # Of an image without any label nobody has looked for the findings.
        labels_NF[[bool(image["findings"]) for image in images]] = 0
    for column, finding in enumerate(classes):
        for index, states in stated[finding].items():
            denied = problem.negative and any(condition.holds(images[index]) for condition in problem.negative)
            clear = len(states) == 1 and not (denied and states == {1})
            labels_NF[index, column] = next(iter(states)) if clear else UNKNOWN
    return classes, labels_NF
