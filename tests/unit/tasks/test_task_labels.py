"""Published problems: what counts as positive, negative and unknown, on clean and on published splits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from table_corpus import SPLITS, corpus_of, label, row
from umif.errors import ConfigError, TaskError
from umif.tasks.definitions import read_problems
from umif.tasks.labels import labels_of
from umif.tasks.measures import measure_of
from umif.tasks.problems import find_problem, select
from umif.tasks.subsets import label_subset

if TYPE_CHECKING:
    from pathlib import Path

FIVE = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")


def image(*findings: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {"findings": list(findings), "view": "AP", "sex": None, "dataset": "chexpert", **columns}


def told(problem: str, one: dict[str, Any], *, published: bool = False) -> list[int]:
    _, labels = labels_of(find_problem(problem), [one], published=published)
    return [int(value) for value in labels[0]]


def test_chexpert_masks_what_is_uncertain_or_not_stated() -> None:
    one = image(label("edema"), label("cardiomegaly", "absent"), label("atelectasis", "uncertain"))
    assert told("chexpert-5", one) == [-1, 0, -1, 1, -1]


def test_no_finding_denies_the_five_unless_one_is_stated_all_the_same() -> None:
    assert told("chexpert-5", image(label("no_finding"))) == [0] * 5
    assert told("chexpert-5", image(label("no_finding"), label("edema"))) == [0, 0, 0, -1, 0]
    assert told("chexpert-5", image(label("no_finding"), label("support_devices"))) == [0] * 5


def test_published_splits_read_chexpert_as_published_work_does() -> None:
    uncertain = image(*(label(name, "uncertain") for name in FIVE))
    assert told("chexpert-5", uncertain, published=True) == [1, 0, 0, 1, 1]
    assert told("chexpert-5", image(label("fracture")), published=True) == [0] * 5
    assert told("chexpert-5", image(), published=True) == [-1] * 5  # nobody has looked
    assert told("nih-14", image(label("mass")), published=True).count(0) == 13
    assert told("nih-14", image(label("mass"))).count(-1) == 13


def test_only_frontal_images_are_of_chexpert() -> None:
    problem = find_problem("chexpert-5")
    assert problem.about(image(view="Frontal"))
    assert problem.about(image(view="pa"))
    assert not problem.about(image(view="Lateral"))
    assert not problem.about(image(view=None))
    assert not problem.about(image(dataset="brax"))


def test_rsna_and_mura_have_two_sides() -> None:
    assert told("rsna-pneumonia", image(label("lung_opacity"))) == [1]
    assert told("rsna-pneumonia", image(label("no_finding"), label("lung_opacity", "absent"))) == [0]
    assert told("rsna-pneumonia", image(label("no_finding", "absent"), label("lung_opacity", "absent"))) == [0]
    assert told("mura", image(label("no_finding", "absent"))) == [1]
    assert told("mura", image(label("no_finding"))) == [0]
    assert told("mura", image()) == [-1]


def test_covidx_has_three_classes_that_exclude_one_another_or_two() -> None:
    from umif.language import vocabulary
    from umif.readers.covidx import CLASSES

    def as_stored(name: str) -> dict[str, Any]:
        found = []
        for finding in CLASSES[name]:
            entry = vocabulary().find(finding.name)
            assert entry is not None
            found.append(label(entry.id, finding.state.value, finding.name))
        return image(*found, dataset="covidx")

    assert told("covidx", as_stored("normal")) == [1, 0, 0]
    assert told("covidx", as_stored("pneumonia")) == [0, 1, 0]
    assert told("covidx", as_stored("COVID-19")) == [0, 0, 1]
    assert told("covidx", as_stored("negative")) == [-1] * 3
    for name, expected in (("normal", [1, 0]), ("COVID-19", [0, 1]), ("negative", [1, 0]), ("positive", [0, 1])):
        assert told("covidx-2", as_stored(name)) == expected
    assert told("covidx", image(label("pneumonia"), label("covid_19"))) == [-1] * 3  # of two at once


def covidx_rows(each: int = 6) -> list[dict[str, Any]]:
    kinds = (label("no_finding"), label("pneumonia"), label("covid_19"))
    return [
        row(1000 * place + 100 * number + count, [kind], split, dataset="covidx")
        for place, split in enumerate(SPLITS)
        for number, kind in enumerate(kinds)
        for count in range(each)
    ]


def test_exclusive_classes_are_judged_by_accuracy_and_stay_together() -> None:
    cases = select(find_problem("covidx"), corpus_of(covidx_rows()))
    assert cases.classes == ("normal", "pneumonia", "covid_19")
    assert measure_of(cases).name == "accuracy"
    assert cases.data == "covidx: normal, pneumonia or COVID-19"
    lacking = [one for one in covidx_rows() if one["split"] != "test" or one["findings"][0]["finding"] != "covid_19"]
    with pytest.raises(TaskError, match="covid_19: 0 positive patients in test"):
        select(find_problem("covidx"), corpus_of(lacking))


def test_even_the_smallest_share_holds_every_exclusive_class() -> None:
    cases = select(find_problem("covidx"), corpus_of(covidx_rows(each=40)))
    train = cases.of("train")
    for seed in range(10):
        used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], 1.0, seed)]
        assert (cases.labels_NF[used] == 1).any(axis=0).all()


def stated_rows(names: tuple[str, ...], each: int = 6) -> list[dict[str, Any]]:
    return [
        row(10_000 * place + number, [label(name, state) for name in names], split, dataset="chexpert", view="AP")
        for place, split in enumerate(SPLITS)
        for number in range(2 * each)
        for state in (("present", "absent")[number % 2],)
    ]


def test_findings_that_cannot_be_measured_are_named_and_fewer_than_half_are_refused() -> None:
    cases = select(find_problem("chexpert-5"), corpus_of(stated_rows(FIVE[:4])))
    assert cases.classes == FIVE[:4]
    assert cases.data == "chexpert: CheXpert's five competition findings (4 of 5)"
    assert list(cases.notes["classes_left_out"]) == ["pleural_effusion"]
    whole = select(find_problem("chexpert-5"), corpus_of(stated_rows(FIVE)))
    assert whole.data.endswith("(5)")
    assert whole.notes == {}
    with pytest.raises(TaskError, match="2 of its 5 findings"):
        select(find_problem("chexpert-5"), corpus_of(stated_rows(FIVE[:2])))


def test_groups_of_the_images_go_with_the_cases() -> None:
    rows = stated_rows(FIVE)
    for index, one in enumerate(rows):
        one["sex"], one["age_years"] = ("F", 30.0) if index % 3 else (None, None)
    cases = select(find_problem("chexpert-5"), corpus_of(rows))
    assert cases.groups["sex"].tolist() == ["F" if index % 3 else "" for index in range(len(rows))]
    assert set(cases.groups["age"].tolist()) == {"", "18–39"}
    kept = cases.keep([0])
    assert {len(group) for group in kept.groups.values()} == {len(kept.rows_N)}


@pytest.mark.parametrize(
    "text",
    [
        "- {name: a, title: a, kind: classes}",
        "- {name: a, title: a, kind: classes, classes: [{name: x, any: [{sex: F}]}]}",
        "- {name: a, title: a, kind: findings, positive: [{sex: F}], negative: [{sex: M}]}",
        "- {name: a, title: a, positive: [{sex: F}], negative: [{sex: M}], findings: [edema]}",
    ],
)
def test_a_problem_that_does_not_fit_its_kind_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "problems.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        read_problems(tmp_path / "problems.yaml")


def test_a_test_set_of_one_class_is_refused() -> None:
    stated = stated_rows(("edema",))
    rows = [one for one in stated if one["split"] != "test" or one["findings"][0]["state"] == "present"]
    with pytest.raises(TaskError, match="0 negative patients in test"):
        select(find_problem("findings"), corpus_of(rows))
    no_val = [one for one in stated if one["split"] != "val"]
    with pytest.raises(TaskError, match="val split lacks"):
        select(find_problem("findings"), corpus_of(no_val))
