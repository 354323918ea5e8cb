"""Zero-shot on a corpus that is a test set alone, for findings named on the command line, with its table by finding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from planted_corpus import draw_film, planted_corpus, registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.encoder import Encoder
from umif.errors import TaskError
from umif.models import ModelConfig, build_model
from umif.readers.base import Card, Finding, LabelState, Reader, Record
from umif.tasks import TaskOptions
from umif.tasks.finding_sets import NAMED_SETS, finding_set, scored_cases
from umif.tasks.linear import LinearClassification
from umif.tasks.metrics import macro_auroc_interval
from umif.tasks.zero_shot import ZeroShotClassification, class_table
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from umif.tasks.base import Result

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
STATES = (LabelState.PRESENT, LabelState.ABSENT, LabelState.UNCERTAIN)


class Exam(Reader):
    """Test images only, labelled as CheXpert's 500 test studies are: five findings and a rare sixth."""

    card: ClassVar[Card] = Card(licence="none needed: drawn", citation=None, images=None, kinds=("class",))

    def records(self) -> Iterator[Record]:
        """Yield the films in order."""
        rng = np.random.default_rng(1)
        for number in range(60):
            path = self.root / f"{number:02d}.png"
            cv2.imwrite(str(path), draw_film(rng, visible=False))
            found = tuple(Finding(name, STATES[int(rng.choice(3, p=[0.45, 0.45, 0.1]))]) for name in FIVE)
            rare = Finding("Hernia", LabelState.PRESENT if number < 3 else LabelState.ABSENT)
            yield Record(
                image=path, image_id=path.name, patient=f"{number // 2}", findings=(*found, rare), split="test"
            )


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("exam")
    (folder / "raw").mkdir()
    with registered("reader", "exam", Exam):
        prepare(folder / "corpus", [("exam", folder / "raw")], PrepareConfig(shorter_side=40))
    return Corpus.open(folder / "corpus")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    tokenizer = TextTokenizer.train(["signs of edema", "no evidence of pneumothorax"], vocab_size=100)
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    return Encoder.of_model(build_model(config, seed=7), tokenizer=tokenizer, shorter_side=40, device="cpu")


def run(encoder: Encoder, corpus: Corpus, *problems: str) -> Sequence[Result]:
    return ZeroShotClassification().run(
        encoder, corpus, TaskOptions(problems=problems, bootstrap=40, baselines=False, progress=False)
    )


def test_the_five_competition_findings_are_one_macro_auc_on_a_test_set_alone(encoder: Encoder, exam: Corpus) -> None:
    [row] = run(encoder, exam, "chexpert-five")
    assert (row.metric, row.n_patients, row.extra["n_images"]) == ("macro AUC", 30, 60)
    assert tuple(row.extra["per_class"]) == NAMED_SETS["chexpert-five"]
    assert row.value == pytest.approx(np.mean(list(row.extra["per_class"].values())))
    assert row.data == "exam: 5 findings"
    [same] = run(encoder, exam, "Atelectasis, cardiomegaly,consolidation,edema,pleural effusion")
    assert (same.value, same.split_sha256) == (row.value, row.split_sha256)


def test_what_is_fitted_refuses_such_a_corpus_and_words_do_not(encoder: Encoder, exam: Corpus) -> None:
    with pytest.raises(TaskError):
        LinearClassification().run(encoder, exam, TaskOptions(progress=False))
    [unnamed], [named] = run(encoder, exam), run(encoder, exam, "findings")
    assert unnamed == named
    assert len(unnamed.extra["per_class"]) == 5  # the sixth has three images


def test_a_table_by_finding_has_intervals_and_the_nearer_side(encoder: Encoder, exam: Corpus) -> None:
    cases = scored_cases(exam, NAMED_SETS["chexpert-five"])
    scores = np.random.default_rng(0).normal(size=cases.labels_NF.shape)
    table = class_table(scores, cases, TaskOptions(bootstrap=40))
    json.dumps(table, allow_nan=False)
    each = []
    for column, name in enumerate(cases.classes):
        known = cases.labels_NF[:, column] != -1
        truth, named = cases.labels_NF[known, column], scores[known, column] > 0
        told = table["nearer_side"]["per_class"][name]
        assert told["accuracy"] == pytest.approx(accuracy_score(truth, named))
        assert told["f1"] == pytest.approx(f1_score(truth, named))
        assert (told["positive"], told["negative"]) == ((truth == 1).sum(), (truth == 0).sum())
        one = macro_auroc_interval(
            scores[:, [column]], cases.labels_NF[:, [column]], cases.patients_N.tolist(), replicates=40
        )
        assert table["per_class_interval"][name] == [one.low, one.high]
        each.append(told["f1"])
    assert table["nearer_side"]["f1"] == pytest.approx(np.mean(each))


def test_a_set_on_a_whole_corpus_scores_its_test_patients_only(encoder: Encoder, tmp_path: Path) -> None:
    corpus = planted_corpus(tmp_path, patients=60)
    [row] = run(encoder, corpus, "edema")
    test = corpus.images_table(["split"]).column("split").to_pylist().count("test")
    assert row.extra["n_images"] == test
    assert row.metric == "AUC"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("edema,pneumothorx", "Did you mean 'pneumothorax'"),
        ("edema,hernia", "hernia: 2 positive patients in test, at least 5"),
        ("edema,mass", "mass: 0 positive patients"),
        ("fnidings", "Did you mean 'findings'"),
    ],
)
def test_what_cannot_be_scored_is_named(encoder: Encoder, exam: Corpus, problem: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(encoder, exam, problem)


def test_names_are_ids_names_or_synonyms_each_once() -> None:
    assert finding_set("edema") == ("edema",)
    assert finding_set("Pleural Effusion,pleural_effusion,edema") == ("pleural_effusion", "edema")
    assert finding_set("findings") is None
    assert finding_set("nih-pneumonia") is None
