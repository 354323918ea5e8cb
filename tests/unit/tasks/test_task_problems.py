"""Which images a problem takes, which side they are on, and which corpora can carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from table_corpus import SPLITS, both_sides, corpus_of, label, row
from umif.errors import ConfigError, TaskError
from umif.language import vocabulary
from umif.tasks.problems import (
    MIN_PATIENTS,
    Problem,
    applicable,
    built_in_problems,
    chosen_cases,
    find_problem,
    ids_sha256,
    read_problems,
    select,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_built_in_problems_name_findings_that_the_vocabulary_has() -> None:
    known = {entry.id for entry in vocabulary().entries}
    for problem in built_in_problems():
        conditions = [*problem.positive, *problem.negative, *(c for one in problem.classes for c in one.any)]
        named = {c.finding for c in conditions if c.finding is not None} | set(problem.findings)
        if problem.zero_shot is not None:
            named |= {n.removeprefix("not ") for n in (*problem.zero_shot.positive, *problem.zero_shot.negative)}
        assert named <= known, problem.name
    asked = {"findings", "nih-pneumonia", "pneumonia-children", "bacterial-viral", "nih-sex", "nih-view"}
    published = {"chexpert-5", "nih-14", "rsna-pneumonia", "covidx", "covidx-2", "mura"}
    assert {problem.name for problem in built_in_problems()} == asked | published


def test_sides_are_told_apart_and_the_rest_is_left_out() -> None:
    rows = both_sides(label("pneumonia"), label("no_finding"))
    rows += [
        row(1, [label("pneumonia"), label("no_finding")], "test"),  # both
        row(2, [label("edema")], "test"),  # neither
        row(3, [label("pneumonia", "absent")], "test"),
        row(4, [label("pneumonia", "uncertain")], "test"),
        row(5, [label("pneumonia")], "test", dataset="another"),
        row(6, [label("edema"), label("pneumonia")], "test"),
    ]
    cases = select(find_problem("nih-pneumonia"), corpus_of(rows))
    assert len(cases.rows_N) == 37
    assert cases.images_N[-1] == "nih-chestxray14/6"
    assert cases.labels_NF[-1, 0] == 1
    expected = [1 if rows[index]["findings"][-1]["finding"] == "pneumonia" else 0 for index in cases.rows_N]
    assert cases.labels_NF[:, 0].tolist() == expected
    assert cases.data == "nih-chestxray14: pneumonia vs no finding"


def test_findings_keep_unknown_apart_from_absent() -> None:
    rows = both_sides(label("edema"), label("edema", "absent"), dataset="phantom")
    extra = row(1, [label("edema", "uncertain"), label("mass")], "test", dataset="phantom")
    contradictory = row(2, [label("edema"), label("edema", "absent")], "test", dataset="phantom")
    not_mentioned = row(3, [label("edema", "not_mentioned")], "test", dataset="phantom")
    cases = select(find_problem("findings"), corpus_of([*rows, extra, contradictory, not_mentioned]))
    assert cases.classes == ("edema",)  # a mass is never absent
    assert len(cases.rows_N) == len(rows)
    assert set(cases.labels_NF[:, 0].tolist()) == {0, 1}


def test_findings_mask_what_an_image_does_not_say() -> None:
    rows = both_sides(label("edema"), label("edema", "absent"), each=12, dataset="phantom")
    rows += [row(number, [label("no_finding")], "test", dataset="phantom") for number in range(8)]
    for index, one in enumerate(rows[:72]):
        if index % 2:
            one["findings"].append(label("mass", "present" if index % 4 == 1 else "absent"))
    cases = select(find_problem("findings"), corpus_of(rows))
    assert cases.classes == ("edema", "mass")
    assert len(cases.rows_N) == 72
    assert cases.labels_NF[:, 1].tolist() == [-1, 1, -1, 0] * 18


def test_sex_and_view_are_problems_too() -> None:
    rows = both_sides(label(None), label(None))
    for index, one in enumerate(rows):
        one["sex"], one["view"] = ("F", "ap") if index % 2 else ("M", "PA")
    rows.append(row(1, [], "test", sex=None, view="LATERAL"))
    for name in ("nih-sex", "nih-view"):
        cases = select(find_problem(name), corpus_of(rows))
        assert cases.labels_NF[:, 0].tolist() == [index % 2 for index in range(36)]


def test_no_test_patient_is_fitted_on() -> None:
    cases = select(find_problem("nih-pneumonia"), corpus_of(both_sides(label("pneumonia"), label("no_finding"))))
    patients = {split: set(cases.patients_N[cases.of(split)].tolist()) for split in SPLITS}
    assert all(patients.values())
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & patients["test"]
    assert not patients["train"] & patients["val"]


def test_the_hash_of_the_split_is_that_of_the_test_images() -> None:
    rows = both_sides(label("pneumonia"), label("no_finding"))
    problem = find_problem("nih-pneumonia")
    first = select(problem, corpus_of(rows))
    assert first.split_sha256 == ids_sha256([one["image"] for one in rows if one["split"] == "test"])
    assert select(problem, corpus_of(rows[::-1])).split_sha256 == first.split_sha256
    assert select(problem, corpus_of([*rows, row(1, [label("pneumonia")], "train")])).split_sha256 == first.split_sha256
    assert select(problem, corpus_of([*rows, row(1, [label("pneumonia")], "test")])).split_sha256 != first.split_sha256
    assert first.test_patients == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [r for r in rows if r["split"] != "test"], "0 positive patients in test"),
        (lambda rows: [r for r in rows if r["split"] != "train"], "0 positive patients in train"),
        (lambda rows: [r for r in rows if r["split"] != "val"], "val split lacks"),
        (lambda rows: [r for r in rows if r["findings"][0]["finding"] == "pneumonia"], "0 negative patients in train"),
        (lambda rows: [], "no image of nih-chestxray14"),
        (lambda rows: [{**r, "patient": "one"} for r in rows], "1 positive patients in train"),
    ],
)  # fmt: skip
def test_a_corpus_that_cannot_carry_a_problem_is_told_what_it_lacks(change: Any, message: str) -> None:
    rows = change(both_sides(label("pneumonia"), label("no_finding")))
    with pytest.raises(TaskError, match=message) as caught:
        select(find_problem("nih-pneumonia"), corpus_of(rows))
    assert caught.value.fix is not None
    assert caught.value.exit_code == 2


def test_applicable_lists_what_a_corpus_can_carry() -> None:
    rows = both_sides(label("pneumonia"), label("no_finding"))
    assert [problem.name for problem in applicable(corpus_of(rows))] == ["nih-pneumonia"]
    for index, one in enumerate(rows):
        one["view"] = "AP" if index % 2 else "PA"
    assert [problem.name for problem in applicable(corpus_of(rows))] == ["nih-pneumonia", "nih-view"]
    children = both_sides(label("pneumonia"), label("pneumonia", "absent"), dataset="chest-xray-pneumonia")
    for one in children:
        if one["findings"][0]["state"] == "absent":
            one["findings"].append(label("no_finding"))
    assert [problem.name for problem in applicable(corpus_of(children))] == ["findings", "pneumonia-children"]


def test_without_names_every_problem_that_can_be_carried_is_chosen() -> None:
    rows = both_sides(label("pneumonia"), label("no_finding"))
    assert [cases.problem.name for cases in chosen_cases(corpus_of(rows), ())] == ["nih-pneumonia"]
    with pytest.raises(TaskError, match="no classification problem"):
        chosen_cases(corpus_of(rows[: 2 * MIN_PATIENTS]), ())
    with pytest.raises(TaskError, match="bacterial-viral"):
        chosen_cases(corpus_of(rows), ("nih-pneumonia", "bacterial-viral"))
    with pytest.raises(TaskError, match="Did you mean 'nih-pneumonia'"):
        chosen_cases(corpus_of(rows), ("nih-pneumonja",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "list of problems"),
        ("- {name: x, title: x}", "needs positive and negative"),
        ("- {name: x, title: x, positive: [{}], negative: [{sex: F}]}", "needs finding, raw, sex or view"),
        ("- {name: x, title: x, positiv: []}", "Did you mean 'positive'"),
        ("- {name: x, title: x, positive: [{state: gone, raw: x}], negative: [{sex: F}]}", "state"),
        ("- {name: x, title: x, kind: findings}\n- {name: x, title: x, kind: findings}", "twice"),
        ("- [", "cannot be read"),
    ],
)
def test_a_malformed_file_of_problems_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "problems.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_problems(file)
    assert str(file) in str(caught.value)


def test_a_condition_on_raw_spelling_ignores_case() -> None:
    problem = Problem.model_validate(
        {"name": "x", "title": "x", "positive": [{"raw": "Normal"}], "negative": [{"raw": "normal", "state": "absent"}]}
    )
    rows = both_sides(label(None, raw="NORMAL"), label(None, "absent", raw="NORMAL"))
    assert np.bincount(select(problem, corpus_of(rows)).labels_NF[:, 0]).tolist() == [18, 18]
