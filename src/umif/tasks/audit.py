"""`umif audit`: names that a user gives → evaluations, with an encoder's features as one more way of looking.

The audit itself knows no model (`umif.corpus.audit`); this is where both may be joined.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from umif.config import REGISTRY
from umif.corpus.audit import AuditReport, Evaluation, audit_corpus
from umif.corpus.manifest import MANIFEST
from umif.corpus.schema import SPLITS
from umif.corpus.store import Corpus
from umif.corpus.twins import Films, Twin, verified
from umif.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from umif.corpus.twins import Progress
    from umif.encoder import Encoder

NEIGHBOURS = 8  # nearest images by features that are looked at, of each image
_CHUNK = 1024


def audit(
    corpus: str | Path | Corpus,
    against: Sequence[str | Path],
    *,
    trained: Sequence[str] = ("train",),
    tested: Sequence[str] = ("test",),
    acknowledged: Iterable[str] = (),
    sight: bool = True,
    model: str | Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[AuditReport, list[Evaluation]]:
    """Compare a corpus with what is tested on; return what was found, and the evaluations that were meant.

    Args:
        corpus: What is trained on.
        against: Corpora, or names of tasks: a task tests on the corpus's own test images.
        trained: Splits of the corpus that are trained on.
        tested: Splits of the corpora in `against` that are tested on.
        acknowledged: Ids of leaks that a person knows of.
        sight: Look for near-duplicates, and compare decoded pixels.
        model: A run or checkpoint whose features are searched as well.
        progress: Called with what is done, how far, of how much.

    Raises:
        InputError: something in `against` is neither a corpus nor a task.
        EmptyError, ConfigError: as `audit_corpus`.
    """
    from umif.encoder.load import load_encoder

    data = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
    evaluations = [_evaluation(str(name), data, tested) for name in against]
    features = None if model is None else feature_search(load_encoder(model))
    report = audit_corpus(
        data,
        evaluations,
        trained=trained,
        acknowledged=acknowledged,
        sight=sight,
        features=features,
        progress=progress,
    )
    return report, evaluations


def feature_search(encoder: Encoder) -> Callable[[Films, Films, Progress], list[Twin]]:
    """Return a search for twins among the nearest images by the encoder's features (cosine).

    Features bring images of one kind near each other, twins or not, so each pair is looked at as all others are.
    """

    def search(left: Films, right: Films, progress: Progress) -> list[Twin]:
        def encoded(films: Films, what: str) -> NDArray[np.float32]:
            features = encoder.encode_corpus(
                films.corpus, films.rows, progress=lambda done, total: progress(what, done, total)
            )
            length = np.linalg.norm(features, axis=1, keepdims=True)
            unit: NDArray[np.float32] = features / np.maximum(length, 1e-12)
            return unit

        left_ND, right_MD = encoded(left, "encoding what is trained on"), encoded(right, "encoding what is tested on")
        pairs: list[tuple[int, int]] = []
        for begin in range(0, len(right_MD), _CHUNK):
            similarity = right_MD[begin : begin + _CHUNK] @ left_ND.T
            nearest_places = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBOURS]
            pairs += [(int(one), begin + row) for row, ones in enumerate(nearest_places) for one in ones]
        found = []
        for begin in range(0, len(pairs), _CHUNK):
            found += verified(left, right, pairs[begin : begin + _CHUNK])
            progress("looking at neighbours by features", min(begin + _CHUNK, len(pairs)), len(pairs))
        return found

    return search


def _evaluation(name: str, corpus: Corpus, tested: Sequence[str]) -> Evaluation:
    if (Path(name) / MANIFEST).exists():
        return Evaluation(Path(name).name, Corpus.open(name), tuple(tested) or SPLITS)
    tasks = REGISTRY.names("task")
    if name in tasks:
        return Evaluation(name, corpus, ("test",))
    if Path(name).exists():
        Corpus.open(name)  # says what is wrong with the folder
    raise InputError(
        f"{name!r} is neither a corpus nor a task",
        where="--against",
        fix=f"give a corpus folder. {nearest(name, tasks)}",
    )
