"""Sets of findings that are asked in words: any of the vocabulary, on test images alone.

What fits nothing needs no train and no val images, so a corpus that is a test set (CheXlocalize's, say) will do.

Shape legend: N images, F findings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from umif.errors import TaskError, nearest
from umif.language import vocabulary
from umif.tasks.metrics import UNKNOWN
from umif.tasks.problems import MIN_PATIENTS, Cases, Problem, built_in_problems
from umif.tasks.retrieval_items import FIVE, shelves_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus

# The classes of CheXpert's competition, on which its 500 test studies are scored.
NAMED_SETS = {"chexpert-five": FIVE}


def finding_set(name: str) -> tuple[str, ...] | None:
    """Return the ids of findings that a problem's name lists, `None` if it lists none.

    A list is one name of `NAMED_SETS`, or findings by id, name or synonym, separated by commas.

    Raises:
        TaskError: some names of a list are findings and one is not.
    """
    if name in NAMED_SETS:
        return NAMED_SETS[name]
    found = [(part.strip(), vocabulary().find(part.strip())) for part in name.split(",") if part.strip()]
    if not any(entry for _, entry in found):
        return None
    for part, entry in found:
        if entry is None:
            known = [*(one.id for one in vocabulary().entries), *(problem.name for problem in built_in_problems())]
            raise TaskError(f"no finding is called {part!r}", where=f"problem {name}", fix=nearest(part, known))
    return tuple(dict.fromkeys(entry.id for _, entry in found if entry is not None))


def scored_cases(corpus: Corpus, findings: Sequence[str] | None = None, name: str = "findings") -> Cases:
    """Return the test images of a corpus with some findings' states; with all that can be scored if none are given.

    A finding can be scored where test images of at least five patients show it and of as many are known not to.

    Raises:
        TaskError: a finding that was asked for cannot be scored, or none can.
    """
    shelves = [shelf for shelf in shelves_of(corpus, enough=1) if len(shelf.rows_N)]
    classes = tuple(findings) if findings else tuple(sorted({name for shelf in shelves for name in shelf.classes}))
    patients_N = np.concatenate([np.zeros(0, dtype=np.str_), *(shelf.patients_N for shelf in shelves)])
    labels_NF = np.full((len(patients_N), len(classes)), UNKNOWN, dtype=np.int8)
    start = 0
    for shelf in shelves:
        for column, finding in enumerate(classes):
            if finding in shelf.classes:
                own = shelf.labels_NF[:, shelf.classes.index(finding)]
                labels_NF[start : start + len(own), column] = own
        start += len(shelf.rows_N)
    lacking = {finding: _lacking(labels_NF[:, column], patients_N) for column, finding in enumerate(classes)}
    short = [finding for finding in classes if lacking[finding] is not None]
    if not classes or len(short) == len(classes) or (findings and short):
        what = f"{short[0]}: {lacking[short[0]]}" if short else "no test image has the state of a finding"
        fix = "prepare more of the data, or ask for other findings"
        raise TaskError(what, where=f"problem {name}", fix=fix)
    problem = Problem(name=name, title=name, kind="findings")
    cases = Cases(
        problem=problem,
        classes=classes,
        labels_NF=labels_NF,
        rows_N=np.concatenate([shelf.rows_N for shelf in shelves]),
        images_N=np.concatenate([shelf.images_N for shelf in shelves]),
        datasets_N=np.concatenate([np.full(len(shelf.rows_N), shelf.dataset) for shelf in shelves]),
        patients_N=patients_N,
        splits_N=np.full(len(patients_N), "test"),
        own_splits_N=np.full(len(patients_N), "test"),
    )
    return cases.keep([column for column, finding in enumerate(classes) if finding not in short])


def _lacking(labels_N: NDArray[np.int8], patients_N: NDArray[np.str_]) -> str | None:
    for word, state in (("positive", 1), ("negative", 0)):
        count = len(np.unique(patients_N[labels_N == state]))
        if count < MIN_PATIENTS:
            return f"{count} {word} patients in test, at least {MIN_PATIENTS} are needed"
    return None
