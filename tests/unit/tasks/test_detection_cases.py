"""Which images take part in detection, what is known of them, and what is said where a corpus cannot carry it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from planted_corpus import planted_corpus, registered
from umif.corpus import Corpus, PrepareConfig, prepare
from umif.errors import TaskError
from umif.readers.base import Card, Finding, LabelState, Reader, Record, Region
from umif.tasks.detection_cases import (
    BoxProblem,
    _cases,
    _truth,
    built_in_box_problems,
    chosen_box_cases,
    without_boxes_drawn_down,
)
from umif.tasks.problems import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Drawn(Reader):
    """Pictures with the regions that a file beside them tells."""

    card = Card(licence="none needed: drawn", citation=None, images=None, kinds=("class", "segment"))

    def records(self) -> Iterator[Record]:
        for number, row in enumerate(json.loads((self.root / "rows.json").read_text())):
            yield Record(
                image=self.root / f"{number:03d}.png",
                image_id=f"{number:03d}",
                patient=row.get("patient", str(number)),
                split=row["split"],
                findings=tuple(Finding(name, LabelState(state)) for name, state in row.get("labels", {}).items()),
                regions=tuple(Region(raw, "box", box=tuple(box)) for raw, box in row.get("boxes", [])),
            )


def drawn_corpus(folder: Path, rows: list[dict[str, Any]], name: str = "drawn-films") -> Corpus:
    films = folder / "films"
    films.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(len(rows)):
        cv2.imwrite(str(films / f"{number:03d}.png"), rng.integers(0, 255, (40, 80), dtype=np.uint8))
    (films / "rows.json").write_text(json.dumps(rows))
    with registered("reader", name, Drawn):
        prepare(folder / "corpus", [(name, films)], PrepareConfig(shorter_side=40, val_share=0, test_share=0))
    return Corpus.open(folder / "corpus")


LEFT = ["Mass", [8.0, 4.0, 16.0, 10.0]]


def enough(**more: Any) -> list[dict[str, Any]]:
    """Five train and test patients and one in val with a box."""
    return [{"split": split, "boxes": [LEFT], **more} for split in ["train"] * 5 + ["test"] * 5 + ["val"]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rows = [
        *enough(),
        {"split": "train", "labels": {"Mass": "absent"}},
        {"split": "train", "labels": {"No Finding": "present"}},
        {"split": "train", "labels": {"Mass": "present"}},  # somewhere, but nobody drew where
        {"split": "train"},
        {"split": "test", "boxes": [["Nodule", [0.0, 0.0, 4.0, 4.0]]]},
    ]
    return drawn_corpus(tmp_path_factory.mktemp("mixed"), rows)


def test_boxes_are_fractions_and_images_of_which_nothing_is_known_are_left_out(mixed: Corpus) -> None:
    [cases] = chosen_box_cases(mixed, ())
    assert (cases.problem.name, cases.classes) == ("boxes-drawn-films", ("mass",))
    names = [str(image).rpartition("/")[2] for image in cases.images_N]
    assert names == [f"{number:03d}" for number in range(13)]
    np.testing.assert_allclose(cases.truths[0].boxes_G4, [[0.1, 0.1, 0.3, 0.35]], atol=1e-6)
    assert cases.states_NK[:, 0].tolist() == [1] * 11 + [0] * 2
    assert cases.data == "drawn-films: boxes"


def image(**labels: str) -> dict[str, Any]:
    findings = [{"raw": name, "finding": name, "state": state} for name, state in labels.items()]
    return {
        "image": "d/1",
        "patient": "d/1",
        "split": "train",
        "dataset": "d",
        "sex": None,
        "view": None,
        "findings": findings,
    }


def test_a_class_is_known_where_it_is_boxed_or_said_to_be_absent() -> None:
    problem = BoxProblem(name="p", title="t", datasets=("d",), absent=(Condition(finding="no_finding"),))
    box = {"mass": np.array([[0.1, 0.1, 0.2, 0.2]])}
    classes = ("pleural_effusion", "mass")

    def states(labels: dict[str, str], boxes: dict[str, Any]) -> list[int]:
        return [int(state) for state in _truth(problem, image(**labels), boxes, classes).states_K]

    assert states({"pleural_effusion": "present"}, box) == [-1, 1]
    assert states({"pleural_effusion": "absent"}, box) == [0, 1]
    assert states({"pleural_effusion": "uncertain"}, box) == [-1, 1]
    assert states({"mass": "absent"}, box) == [-1, 1]
    assert states({"no_finding": "present"}, {}) == [0, 0]
    assert states({"no_finding": "present", "mass": "present"}, {}) == [0, -1]
    one = _cases(
        problem, [image(pleural_effusion="absent"), image(pleural_effusion="absent", mass="absent")], {}, classes
    )
    assert one.rows_N.tolist() == [1]


def test_a_film_without_findings_has_lungs_and_may_have_devices() -> None:
    problem = BoxProblem(name="p", title="t", datasets=("d",), absent=(Condition(finding="no_finding"),))
    classes = ("central_venous_line", "left_lung", "mass", "something of one's own")
    assert _truth(problem, image(no_finding="present"), {}, classes).states_K.tolist() == [-1, -1, 0, -1]


def test_one_class_takes_all_boxes_and_only_the_problem_says_what_absent_means() -> None:
    absent = (Condition(finding="opacity", state="absent"),)
    problem = BoxProblem(name="p", title="t", datasets=("d",), target="one", absent=absent)
    assert _truth(problem, image(opacity="absent"), {}, ("p",)).states_K.tolist() == [0]
    assert _truth(problem, image(mass="absent"), {}, ("p",)).states_K.tolist() == [-1]


def test_what_is_missing_is_told_with_a_way_out(mixed: Corpus, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no detection problem is called 'boxes-drawn'") as caught:
        chosen_box_cases(mixed, ("boxes-drawn",))
    assert "boxes-drawn-films" in str(caught.value.fix)
    with pytest.raises(TaskError, match="no box of rsna-pneumonia"):
        chosen_box_cases(mixed, ("rsna-pneumonia",))
    no_test = [{**row, "split": "train"} if row["split"] == "test" else row for row in enough()]
    with pytest.raises(TaskError, match="0 patients with a box in test, at least 5") as caught:
        chosen_box_cases(drawn_corpus(tmp_path / "a", no_test), ())
    assert caught.value.fix
    with pytest.raises(TaskError, match="val has no box"):
        chosen_box_cases(drawn_corpus(tmp_path / "b", enough()[:-1]), ())
    with pytest.raises(TaskError, match="nothing in it is drawn as a box"):
        chosen_box_cases(drawn_corpus(tmp_path / "c", [{"split": "train", "labels": {"Mass": "absent"}}]), ())


def test_built_in_problems_name_what_the_readers_name() -> None:
    names = [problem.name for problem in built_in_box_problems()]
    assert len(names) == len(set(names)) == 6
    from umif.config import REGISTRY

    for problem in built_in_box_problems():
        assert set(problem.datasets) <= set(REGISTRY.names("reader"))


def test_images_without_a_box_are_drawn_down_to_as_many_as_have_one(tmp_path: Path) -> None:
    cases = planted_corpus_cases(tmp_path)
    train = cases.of("train")
    train = np.concatenate([train[cases.has_box_N[train]][:10], train[~cases.has_box_N[train]]])
    rng = np.random.default_rng(0)
    drawn = without_boxes_drawn_down(cases, train, None, rng)
    assert cases.has_box_N[drawn].sum() == 10
    assert len(drawn) == 20
    few = without_boxes_drawn_down(cases, train, 6, rng)
    assert (len(few), cases.has_box_N[few].sum()) == (6, 3)
    assert (np.diff(few) > 0).all()
    assert len(without_boxes_drawn_down(cases, train, 1, rng)) == 1


def planted_corpus_cases(folder: Path) -> Any:
    [cases] = chosen_box_cases(planted_corpus(folder, patients=80), ())
    return cases
