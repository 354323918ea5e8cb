"""Labels that deny a finding beside a narrower one: "no lung opacity" where consolidation, an opacity, is present.

Datasets whose readers mark findings one by one do label so, since "opacity" there means one that nothing narrower names
(VinDr-CXR). The label is kept as the dataset has it; what is written from labels leaves the denial out, because a text
that states both contradicts itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umif.readers.base import LabelState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from umif.language.vocabulary import Vocabulary

# Where two labels of one image name the same finding, the one that says more stands.
WEIGHT = {LabelState.PRESENT: 3, LabelState.UNCERTAIN: 2, LabelState.ABSENT: 1, LabelState.NOT_MENTIONED: 0}
_SHOWN = (LabelState.PRESENT, LabelState.UNCERTAIN)


def denied_but_shown(states: Mapping[str, LabelState], words: Vocabulary) -> dict[str, str]:
    """Return each finding labelled absent though a narrower one is present or uncertain, with one of those.

    An uncertain one counts too: who denies the wider finding has no doubt about the narrower one.

    Args:
        states: Label state by vocabulary id; ids that the vocabulary does not know are passed over.
        words: The vocabulary, for what is a kind of what.
    """
    found: dict[str, str] = {}
    for key, state in states.items():
        if state in _SHOWN and key in words:
            for above in words.lineage(key)[1:]:
                if states.get(above) == LabelState.ABSENT:
                    found.setdefault(above, key)
    return found


def strongest(labels: Iterable[tuple[str, LabelState]]) -> dict[str, LabelState]:
    """Return the state of each id: of several labels the one that says more, of two alike the later."""
    states: dict[str, LabelState] = {}
    for key, state in labels:
        if WEIGHT[state] >= WEIGHT[states.get(key, LabelState.NOT_MENTIONED)]:
            states[key] = state
    return states
