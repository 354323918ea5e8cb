"""Visual question answering: the encoder and a text decoder, fine-tuned on questions with answers.

The network is a copy; the encoder itself is never changed. Answers are ranked by likelihood over a list of candidates,
and generated freely beside that. The same questions are also asked about a blank picture and about another patient's:
what a model still gets right then, it has from the question alone.

Source: the answer ranking of ALBEF's line, an encoder with an auto-regressive decoder (docs/tasks.md tells more).
Differs: splits without a shared image or patient by default; candidates without the test's answers by default.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from umif.config import apply_overrides, parse_config, register
from umif.corpus.progress import Bar
from umif.errors import TaskError
from umif.tasks.base import Task
from umif.tasks.subsets import label_subset
from umif.tasks.vqa_answering import answer
from umif.tasks.vqa_config import VqaConfig
from umif.tasks.vqa_data import (
    BLANK,
    Pictures,
    candidate_answers,
    chosen_questions,
    majority_answers,
    shuffled_rows,
)
from umif.tasks.vqa_model import build_vqa_model
from umif.tasks.vqa_scores import KINDS, Judged, accuracies, compare_answers
from umif.tasks.vqa_training import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.encoder import Encoder
    from umif.tasks.base import Result, TaskOptions
    from umif.tasks.vqa_answering import Answered
    from umif.tasks.vqa_data import Questions
    from umif.tasks.vqa_model import VqaModel
    from umif.tasks.vqa_training import Fitted

NAME = "vqa"
MAJORITY = "majority answer"
_SPLITS = {
    "clean": "clean: questions where the corpus has their image, no image or patient on two sides",
    "paper": "paper: the dataset's own parts of questions, which may share images",
}


@register("task", NAME)
class VisualQuestionAnswering(Task):
    """Fine-tuned encoder and decoder → open, closed and overall accuracy with 95 % patient-bootstrap intervals."""

    reads_words: ClassVar[bool] = True
    summary: ClassVar[str] = "visual question answering, fine-tuned; answers ranked by likelihood"

    def run(self, encoder: Encoder, corpus: Corpus, options: TaskOptions) -> Sequence[Result]:
        """Evaluate each dataset that has questions, at every share of the labels; rows by kind, then encoder.

        Raises:
            TaskError: the corpus has no questions, the encoder no tokeniser, or the splits cannot carry the task.
            ConfigError: a setting `vqa.…` that there is not.
            NonFiniteError: training diverged.
        """
        config = vqa_config(options.settings)
        if encoder.tokenizer is None:
            raise TaskError(
                "this encoder has no tokeniser, so it can read no question",
                where=encoder.name,
                fix="use an encoder of a run, which keeps its tokeniser",
            )
        pictures = Pictures(corpus, encoder.preprocessing)
        results: list[Result] = []
        with Bar(options.progress) as bar:
            for questions in chosen_questions(corpus, options.problems, options.splits):
                for share in options.labels:
                    judged = _judge_all(encoder, _exam(pictures, questions, share, config, options, bar))
                    results += compare_answers(questions, _protocol(config, options), share, judged, options)
        return results


def vqa_config(settings: Sequence[str]) -> VqaConfig:
    """Return the defaults with the settings `vqa.key=value` applied; those of other tasks play no part.

    Raises:
        ConfigError: there is no such key, or no such value.
    """
    own = [text.strip().removeprefix(f"{NAME}.") for text in settings if text.strip().startswith(f"{NAME}.")]
    return parse_config(VqaConfig, apply_overrides({}, own), where=f"settings of {NAME}")


def _protocol(config: VqaConfig, options: TaskOptions) -> str:
    trained = "decoder only, encoder frozen" if config.frozen else "encoder and decoder fine-tuned"
    return f"{_SPLITS[options.splits]}; {trained}; answers ranked over those of {config.candidates}"


@dataclass(frozen=True, slots=True)
class _Exam:
    """What every encoder is trained on and asked, at one share of the labels; `used` are the training questions."""

    pictures: Pictures
    questions: Questions
    used: NDArray[np.int64]
    candidates: tuple[str, ...]
    told: dict[str, Any]
    config: VqaConfig
    options: TaskOptions
    bar: Bar


def _exam(
    pictures: Pictures, questions: Questions, share: float, config: VqaConfig, options: TaskOptions, bar: Bar
) -> _Exam:
    train = questions.of("train")
    no_strata = np.zeros((len(train), 1), dtype=np.int8)
    used = train[label_subset(questions.patients_N[train], no_strata, share, options.seed)]
    candidates = candidate_answers(questions, config.candidates.split("+"))
    told = _told_of_data(questions, used, candidates, options.seed)
    return _Exam(pictures, questions, used, candidates, told, config, options, bar)


def _judge_all(encoder: Encoder, exam: _Exam) -> list[Judged]:
    """Answers of every encoder, then of the most frequent answer."""
    judged = _judge("umif", encoder, exam)
    if exam.options.baselines:
        judged += _judge("random", encoder.random_like(exam.options.seed), exam)
        questions, test = exam.questions, exam.questions.of("test")
        guessed = majority_answers(questions, exam.used, test)
        judged.append(Judged(MAJORITY, True, guessed == questions.answers_N[test], exam.told))
    return judged


def _judge(name: str, encoder: Encoder, exam: _Exam) -> list[Judged]:
    """Train one encoder and ask it about the test's pictures, about blank ones and about another patient's."""
    test = exam.questions.of("test")
    truth_N, closed_N = exam.questions.answers_N[test], exam.questions.closed_N[test]
    model = build_vqa_model(encoder, exam.config, exam.options.seed)
    exam.bar.start(f"training: {name}", exam.config.decoder_steps + exam.config.steps)
    fitted = fit(model, exam.pictures, exam.questions, exam.used, exam.config, exam.options.seed, exam.bar.advance)
    answers = _ask(model, exam, f"answering: {name}", controls=name == "umif")
    named = np.array(exam.candidates, dtype=np.str_)
    rights = {picture: named[one.choice_N] == truth_N for picture, one in answers.items()}
    true_ids = [model.tokens.encode(text) for text in truth_N.tolist()]
    free_N = np.array([mine == true for mine, true in zip(answers[""].generated_N, true_ids, strict=True)])
    free = accuracies(free_N, closed_N)
    per_kind: dict[str, dict[str, Any]] = {kind: {"generated_accuracy": free[kind]} for kind in KINDS}
    for picture, right_N in rights.items():
        if picture:
            for kind, value in accuracies(right_N, closed_N).items():
                per_kind[kind].setdefault("image_reliance", {})[f"{picture} image"] = value
    extra = {**exam.told, **_told_of_training(fitted, exam.config), "exact_ranking": answers[""].exact}
    judged = [Judged(name, name != "umif", rights[""], extra, per_kind)]
    if name == "umif" and exam.options.baselines:
        judged += [Judged(f"{name}, {p} image", True, right, exam.told) for p, right in rights.items() if p]
    return judged


def _ask(model: VqaModel, exam: _Exam, what: str, *, controls: bool) -> dict[str, Answered]:
    """Answers about the true pictures (`""`); with `controls` also about blank ones and those of other patients."""
    test = exam.questions.of("test")
    rows = {"": exam.questions.rows_N[test]}
    if controls:
        rows["blank"] = np.full(len(test), BLANK, dtype=np.int64)
    if controls and (shuffled := shuffled_rows(exam.questions, test, exam.options.seed)) is not None:
        rows["shuffled"] = shuffled
    exam.bar.start(what, len(rows))
    answers = {}
    for picture, rows_N in rows.items():
        answers[picture] = answer(
            model,
            exam.pictures,
            rows_N,
            exam.questions.questions_N[test],
            exam.candidates,
            exam.config.rank_k,
            generate=not picture,
        )
        exam.bar.advance(1)
    return answers


def _told_of_data(
    questions: Questions, used: NDArray[np.int64], candidates: tuple[str, ...], seed: int
) -> dict[str, Any]:
    train, test = questions.of("train"), questions.of("test")
    truth = questions.answers_N[test]
    return {
        **questions.counts,
        "n_train_questions": len(used),
        "n_train_images": len(np.unique(questions.rows_N[used])),
        "n_train_patients": len(np.unique(questions.patients_N[used])),
        "n_candidates": len(candidates),
        "test_answers_absent_from_train": float((~np.isin(truth, questions.answers_N[train])).mean()),
        "test_answers_outside_candidates": int((~np.isin(truth, np.array(candidates))).sum()),
        "seed": seed,
    }


def _told_of_training(fitted: Fitted, config: VqaConfig) -> dict[str, Any]:
    return {
        **asdict(fitted),
        "capped_at_steps": config.steps,
        "settings": config.model_dump(mode="json"),
    }
