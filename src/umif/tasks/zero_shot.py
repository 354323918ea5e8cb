"""Zero-shot classification: pictures scored by words alone, beside the same network with random weights.

A class is described by prompts for either side; a picture's score is the difference of its cosines to the two sides'
mean directions. Nothing is fitted and nothing is chosen, so the train and val splits are not touched.

Source: CheXzero's pairs of a positive and a negated prompt.
Differs: several prompts a side, averaged as unit vectors; the raw difference is scored, since AUC needs no temperature.
    Accuracy and F1 take the side that is nearer, which is what the soft-max of the pair does at any temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from umif.config import register
from umif.corpus.progress import Bar
from umif.encoder.encoder import finding_prompts
from umif.errors import InputError, TaskError
from umif.tasks.base import Task
from umif.tasks.comparison import Scored, compare_scores
from umif.tasks.contenders import contenders, reader_of
from umif.tasks.finding_sets import finding_set, scored_cases
from umif.tasks.metrics import UNKNOWN, estimate_of, macro_auroc, macro_auroc_replicates
from umif.tasks.problems import PromptSides, chosen_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder, FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.problems import Cases
    from umif.tasks.published import Splits

PROTOCOL = "zero-shot: cosine to positive minus cosine to negative prompts; test patients only"
_NOT = "not "


@register("task", "zero-shot")
class ZeroShotClassification(Task):
    """Cosine to prompts → AUC with a 95 % patient-bootstrap interval."""

    summary: ClassVar[str] = "zero-shot classification by prompts"
    reads_words: ClassVar[bool] = True

    def run(self, encoder: FrozenEncoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate every problem that words can ask; rows by problem, then encoder. Shares of labels play no part.

        Raises:
            TaskError: a problem that was named cannot be asked in words or carried by the corpus, or none can.
        """
        if encoder.tokenizer is None:
            raise TaskError(
                "this encoder has no tokeniser, so it cannot read prompts",
                where=encoder.name,
                fix="choose a task on pictures alone, such as linear",
            )
        cases = _chosen(corpus, options.problems, options.splits)
        asked = [(one, sides) for one in cases if (sides := _sides(one)) is not None]
        silent = [one.problem.name for one in cases if _sides(one) is None]
        if (options.problems and silent) or not asked:
            raise TaskError(
                f"no words ask for {', '.join(silent)}", fix="give the problem `zero_shot` prompts, or leave it out"
            )
        fighters = contenders(encoder, options, words=True)
        results: list[Result] = []
        with Bar(options.progress) as bar:
            bar.start("zero-shot", len(asked) * len(fighters))
            for one, sides in asked:
                scored = []
                for fighter in fighters:
                    networks = fighter.by_seed if fighter.differs else (fighter.encoder,)
                    scores_SNF = np.stack([_scores(reader_of(each), corpus, one, sides) for each in networks])
                    extra = {"prompts": [side.model_dump(mode="json") for side in sides]}
                    extra |= class_table(scores_SNF[0], one, options)
                    scored.append(Scored(f"{fighter.name} cls", fighter.baseline, scores_SNF, extra))
                    bar.advance(1)
                results += compare_scores("zero-shot", PROTOCOL, 0.0, one, scored, options)
        return results


def side_prompts(names: Sequence[str]) -> list[str]:
    """Return the prompts of one side: those of a finding id, or the negated ones of `not <finding id>`.

    Raises:
        TaskError: the vocabulary knows no such finding.
    """
    found: list[str] = []
    for name in names:
        try:
            positive, negative = finding_prompts(name.removeprefix(_NOT))
        except InputError as error:
            raise TaskError(error.what, where="zero_shot prompts", fix=error.fix) from None
        found += negative if name.startswith(_NOT) else positive
    return found


def class_table(scores_NF: NDArray[np.float64], cases: Cases, options: TaskOptions) -> dict[str, Any]:
    """Return each class's interval, accuracy and F1 of the nearer side, and the means of the last two.

    With several seeds, of the first.

    F1 of a class that is neither there nor ever named is 0.

    Shapes: scores_NF, test images in the order of the cases.
    """
    test = cases.of("test")
    labels_NF, patients = cases.labels_NF[test], cases.patients_N[test].tolist()
    intervals: dict[str, list[float | None]] = {}
    nearer: dict[str, dict[str, float]] = {}
    for column, name in enumerate(cases.classes):
        scores_N1, labels_N1 = scores_NF[:, [column]], labels_NF[:, [column]]
        known_N = labels_N1[:, 0] != UNKNOWN
        if {0, 1} <= set(labels_N1[known_N, 0].tolist()):
            [values_R] = macro_auroc_replicates([scores_N1], labels_N1, patients, options.bootstrap, options.seed)
            estimate = estimate_of(macro_auroc(scores_N1, labels_N1)[0], values_R)
            intervals[name] = [estimate.low, estimate.high]
        named_N, there_N = scores_N1[known_N, 0] > 0, labels_N1[known_N, 0] == 1
        both, either = int((named_N & there_N).sum()), int(named_N.sum() + there_N.sum())
        nearer[name] = {
            "accuracy": float((named_N == there_N).mean()),
            "f1": 2 * both / either if either else 0.0,
            "positive": int(there_N.sum()),
            "negative": int((~there_N).sum()),
        }
    mean = {key: float(np.mean([each[key] for each in nearer.values()])) for key in ("accuracy", "f1")}
    return {"per_class_interval": intervals, "nearer_side": {**mean, "per_class": nearer}}


def _chosen(corpus: Corpus, names: Sequence[str], splits: Splits) -> list[Cases]:
    """Return the cases of the problems named, sets of findings among them; of all that can be asked if none is."""
    if names:
        return [one for name in names for one in _named(corpus, name, splits)]
    try:
        return chosen_cases(corpus, (), splits)
    except TaskError:  # nothing can be fitted here, which words need not
        return [scored_cases(corpus)]


def _named(corpus: Corpus, name: str, splits: Splits) -> list[Cases]:
    findings = finding_set(name)
    if findings is not None:
        return [scored_cases(corpus, findings, name)]
    try:
        return chosen_cases(corpus, (name,), splits)
    except TaskError:
        if name != "findings":
            raise
        return [scored_cases(corpus)]


def _sides(cases: Cases) -> list[PromptSides] | None:
    """Prompts of each class of the cases, `None` where words cannot ask it."""
    if cases.problem.kind == "classes":
        return None
    if cases.problem.kind == "findings":
        return [PromptSides(positive=(name,), negative=(f"{_NOT}{name}",)) for name in cases.classes]
    return None if cases.problem.zero_shot is None else [cases.problem.zero_shot]


def _scores(encoder: Encoder, corpus: Corpus, cases: Cases, sides: Sequence[PromptSides]) -> NDArray[np.float64]:
    """Shape (N, F), N test images."""
    directions_FD = torch.stack(
        [encoder.prompt_direction(side_prompts(side.positive), side_prompts(side.negative)) for side in sides]
    )
    features_ND = torch.from_numpy(encoder.encode_corpus(corpus, cases.rows_N[cases.of("test")]))
    return encoder.cosines(features_ND, directions_FD).numpy().astype(np.float64)
