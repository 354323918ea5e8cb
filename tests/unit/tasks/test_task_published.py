"""Published splits: the sizes that papers print, the datasets' own parts, and what they tear apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from table_corpus import corpus_of, label, row
from umif.config import REGISTRY
from umif.errors import TaskError
from umif.tasks.base import TaskOptions
from umif.tasks.comparison import Scored, compare_scores
from umif.tasks.problems import Problem, applicable, select
from umif.tasks.published import LEFT_OUT, image_splits, published, published_splits, split_questions

FINDINGS = Problem(name="findings", title="findings", kind="findings")


def images(dataset: str, counts: dict[str | None, int], **columns: Any) -> list[dict[str, Any]]:
    """So many images of each official part; the corpus's own split is train."""
    parts = [part for part, count in counts.items() for _ in range(count)]
    return [
        row(number, [], "train", dataset=dataset, official_split=part, **columns) for number, part in enumerate(parts)
    ]


def sizes(rows: list[dict[str, Any]], use: Any = "classification") -> tuple[int, int, int]:
    counts = Counter(image_splits(corpus_of(rows), "paper", use).tolist())
    return counts["train"], counts["val"], counts["test"]


def test_every_published_split_is_of_a_reader() -> None:
    readers = REGISTRY.names("reader")
    assert {one.dataset for one in published_splits()} <= set(readers)
    for dataset in ("chexpert", "rsna-pneumonia", "covidx", "siim-acr-pneumothorax", "vindr-cxr", "vqa-rad", "slake"):
        assert any(one.dataset == dataset for one in published_splits()), dataset


@pytest.mark.parametrize(
    ("dataset", "use", "counts", "expected"),
    [
        # Sizes as the tables of papers print them.
        ("rsna-pneumonia", "classification", {None: 26_684}, (18_678, 4_003, 4_003)),
        ("rsna-pneumonia", "regions", {None: 26_684}, (16_010, 5_337, 5_337)),
        ("siim-acr-pneumothorax", "regions", {None: 12_047}, (8_433, 1_807, 1_807)),
        ("object-cxr", "regions", {"train": 8_000, "val": 1_000}, (6_400, 1_600, 1_000)),
        ("vindr-cxr", "regions", {"train": 15_000, "test": 3_000}, (13_500, 1_500, 3_000)),
        ("covidx", "classification", {"train": 1_000, "test": 400}, (800, 200, 400)),
    ],
)
def test_sizes_are_those_that_papers_print(
    dataset: str, use: str, counts: dict[str | None, int], expected: tuple[int, int, int]
) -> None:
    assert sizes(images(dataset, counts), use) == expected


def test_chexpert_is_frontal_with_its_validation_part_as_the_test_set() -> None:
    rows = images("chexpert", {"train": 30_000, "val": 202, "test": 50}, view="AP")
    rows += [
        {**one, "image": f"{one['image']}l"} for one in images("chexpert", {"train": 9, "val": 32}, view="LATERAL")
    ]
    found = image_splits(corpus_of(rows), "paper")
    assert Counter(found.tolist()) == {"train": 25_000, "val": 5_000, "test": 202, LEFT_OUT: 50 + 41}
    assert {rows[place]["official_split"] for place in np.flatnonzero(found == "test")} == {"val"}
    assert all(rows[place]["view"] == "AP" for place in np.flatnonzero(found != LEFT_OUT))


def test_the_draw_depends_on_the_images_and_not_on_their_order_or_their_company() -> None:
    rows = images("rsna-pneumonia", {None: 300})
    alone = dict(zip([one["image"] for one in rows], image_splits(corpus_of(rows), "paper").tolist(), strict=True))
    mixed = [*rows[::-1], *images("covidx", {"train": 40, "test": 9})]
    found = dict(zip([one["image"] for one in mixed], image_splits(corpus_of(mixed), "paper").tolist(), strict=True))
    assert {name: found[name] for name in alone} == alone


def test_nih_patients_are_whole_and_datasets_nobody_split_are_in_no_split() -> None:
    rows = images("nih-chestxray14", {None: 400})
    for number, one in enumerate(rows):
        one["patient"] = f"nih-chestxray14/{number // 4}"
    found = image_splits(corpus_of(rows), "paper").reshape(-1, 4)
    assert (found == found[:, :1]).all()
    assert set(image_splits(corpus_of(images("openi", {None: 5})), "paper").tolist()) == {LEFT_OUT}
    assert set(image_splits(corpus_of(images("openi", {None: 5})), "clean").tolist()) == {"train"}


def torn() -> list[dict[str, Any]]:
    """RSNA's images, four to a patient, with the finding in every second; half of them in the corpus's own test."""
    rows = images("rsna-pneumonia", {None: 400})
    for number, one in enumerate(rows):
        one["patient"] = f"nih-chestxray14/{number // 4}"
        one["split"] = ("train", "train", "val", "test", "test", "test")[number // 4 % 6]
        one["findings"] = [label("lung_opacity", ("present", "absent")[number % 2])]
    return rows


def test_what_published_splits_tear_apart_stands_beside_the_number() -> None:
    corpus = corpus_of(torn())
    clean, paper = select(FINDINGS, corpus), select(FINDINGS, corpus, "paper")
    assert clean.overlap is None
    assert paper.split_sha256 != clean.split_sha256
    met = paper.overlap
    assert met is not None
    train, test = (set(paper.patients_N[paper.of(split)]) for split in ("train", "test"))
    own = {one["image"] for one in corpus.rows if one["split"] == "train"}  # type: ignore[attr-defined]
    assert met["test_patients_in_train"] == len(train & test) > 0
    assert met["test_images_in_own_train"] == len(own & set(paper.images_N[paper.of("test")])) > 0
    assert (met["test_patients"], met["test_images"]) == (len(test), 60)
    for cases in (clean, paper):
        scored = [Scored("umif cls", False, np.zeros((len(cases.of("test")), 1)))]
        (result,) = compare_scores("linear", "rules; by patient", 100, cases, scored, TaskOptions(bootstrap=0))
        if cases is clean:
            assert (result.protocol, "splits" in result.extra) == ("rules; by patient", False)
        else:
            assert (result.extra["splits"], result.extra["overlap"]) == ("paper", met)
            assert f"{met['test_patients_in_train']} of {len(test)} test patients are also in train" in result.protocol
            assert f"{met['test_images_in_own_train']} of 60 test images in the corpus's own train" in result.protocol
            assert "by patient" not in result.protocol


def test_data_without_a_published_split_are_refused_with_those_that_have_one() -> None:
    corpus = corpus_of(images("openi", {None: 20}))
    with pytest.raises(TaskError, match=r"no published split is known for openi\n.*rsna-pneumonia"):
        select(FINDINGS, corpus, "paper")
    assert applicable(corpus, "paper") == []
    with pytest.raises(TaskError, match="no splits 'papers'"):
        image_splits(corpus, "papers")  # type: ignore[arg-type]


def asking(number: int, parts: list[str | None], dataset: str = "vqa-rad", split: str = "train") -> dict[str, Any]:
    asked = [
        {
            "question": f"question {place} of {number}?", "answer": "yes", "answer_type": "closed",
            "question_type": None, "official_split": part,
        }
        for place, part in enumerate(parts)
    ]  # fmt: skip
    return row(number, [], split, dataset=dataset, questions=asked)


def test_questions_are_where_the_dataset_puts_them_or_where_their_patient_is() -> None:
    rows = [asking(number, ["train", "train", "test"], split=("train", "test")[number % 2]) for number in range(50)]
    paper = split_questions(corpus_of(rows), "paper")
    # VQA-RAD's release has no val part: a tenth of its training questions.
    assert Counter(one.split for one in paper) == {"train": 90, "val": 10, "test": 50}
    assert {one.question.split()[1] for one in paper if one.split == "test"} == {"2"}
    clean = split_questions(corpus_of(rows), "clean")
    assert len(clean) == 150
    assert all(one.split == rows[one.image_row]["split"] for one in clean)
    patients = {split: {one.patient for one in clean if one.split == split} for split in ("train", "test")}
    assert not patients["train"] & patients["test"]


def test_an_official_val_part_of_questions_is_used_as_it_is() -> None:
    rows = [asking(number, ["train", "val", "test"], "slake") for number in range(20)]
    assert Counter(one.split for one in split_questions(corpus_of(rows), "paper")) == {
        "train": 20,
        "val": 20,
        "test": 20,
    }
    rule = published("slake", "questions")
    assert rule is not None
    assert rule.val == 0
    with pytest.raises(TaskError, match="no question is in the paper splits"):
        split_questions(corpus_of([row(1, [], "train", dataset="openi")]), "paper")
