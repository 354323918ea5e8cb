"""Zero-shot classification: pictures scored by words alone, beside the same network with random weights.

A class is described by prompts for either side; a picture's score is the difference of its cosines to the two sides'
mean directions. Nothing is fitted and nothing is chosen, so the train and val splits are not touched.

Source: CheXzero's pairs of a positive and a negated prompt.
Differs: several prompts a side, averaged as unit vectors; the raw difference is scored, since AUC needs no temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from umif.config import register
from umif.corpus.progress import Bar
from umif.encoder.encoder import Encoder, finding_prompts
from umif.errors import InputError, TaskError
from umif.tasks.base import Task
from umif.tasks.comparison import Scored, compare_scores
from umif.tasks.contenders import contenders
from umif.tasks.problems import PromptSides, chosen_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.problems import Cases

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
        cases = chosen_cases(corpus, options.problems, options.splits)
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
                    scores_SNF = np.stack([_scores(_reader(each), corpus, one, sides) for each in networks])
                    extra = {"prompts": [side.model_dump(mode="json") for side in sides]}
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


def _sides(cases: Cases) -> list[PromptSides] | None:
    """Prompts of each class of the cases, `None` where words cannot ask it."""
    if cases.problem.kind == "classes":
        return None
    if cases.problem.kind == "findings":
        return [PromptSides(positive=(name,), negative=(f"{_NOT}{name}",)) for name in cases.classes]
    return None if cases.problem.zero_shot is None else [cases.problem.zero_shot]


def _reader(encoder: FrozenEncoder) -> Encoder:
    """Return the encoder as one that reads words; others have no tokeniser and are left out before."""
    if not isinstance(encoder, Encoder):
        raise TaskError("this encoder reads no words", where=encoder.name, fix="leave it out of zero-shot tasks")
    return encoder


def _scores(encoder: Encoder, corpus: Corpus, cases: Cases, sides: Sequence[PromptSides]) -> NDArray[np.float64]:
    """Shape (N, F), N test images."""
    directions_FD = torch.stack(
        [encoder.prompt_direction(side_prompts(side.positive), side_prompts(side.negative)) for side in sides]
    )
    features_ND = torch.from_numpy(encoder.encode_corpus(corpus, cases.rows_N[cases.of("test")]))
    return encoder.cosines(features_ND, directions_FD).numpy().astype(np.float64)
