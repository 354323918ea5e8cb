"""The reader of phantoms gives what the generator drew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from umif.corpus.phantom import draw_phantom, write_phantom
from umif.errors import LayoutError, TableError
from umif.readers.phantom import Phantom

if TYPE_CHECKING:
    from pathlib import Path

IMAGES, SIZE = 30, 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "series"
    write_phantom(folder, IMAGES, seed=11, size=SIZE)
    return folder


def test_records_are_those_that_were_drawn(root: Path) -> None:
    reader = Phantom(root)
    records = list(reader.read())
    assert len(records) == reader.account.seen == IMAGES
    for index, record in enumerate(records):
        case = draw_phantom(11, index, SIZE)
        assert record.image_id == f"images/{case.description.patient}_{case.description.followup}.png"
        assert (record.patient, record.study) == (case.description.patient, case.description.study)
        assert (record.view, record.sex) == (case.description.view, case.description.sex)
        assert record.age_years == case.description.age_years
        assert {finding.name: finding.state.value for finding in record.findings} == case.labels
        assert {text.text for text in record.texts} <= {case.report, case.caption}
        assert record.where == f"records.jsonl:{index + 1}"
        assert record.split is None


def test_regions_are_the_masks_column_by_column(root: Path) -> None:
    checked = 0
    for index, record in enumerate(Phantom(root).read()):
        case = draw_phantom(11, index, SIZE)
        if record.regions:
            assert [region.finding for region in record.regions] == [region.name for region in case.regions]
        for region, drawn in zip(record.regions, case.regions, strict=False):
            assert (region.shape, region.frame) == ("rle", (SIZE, SIZE))
            values = np.repeat(np.arange(len(region.runs)) % 2 == 1, region.runs)
            assert np.array_equal(values.reshape(SIZE, SIZE).T, drawn.mask)
            checked += 1
    assert checked > 5


def test_questions_are_those_that_were_asked(root: Path) -> None:
    for index, record in enumerate(Phantom(root).read()):
        case = draw_phantom(11, index, SIZE)
        assert [
            (question.question, question.answer, question.question_type or "") for question in record.questions
        ] == [(question["question"], question["answer"], question["finding"]) for question in case.questions]
        assert record.questions[0].answer_type == "open"
        for question in record.questions:
            assert (question.answer_type == "closed") == (question.answer in ("yes", "no"))


def test_every_kind_of_supervision_occurs(root: Path) -> None:
    records = list(Phantom(root).read())
    kinds = {text.kind for record in records for text in record.texts}
    assert kinds == {"report", "caption"}
    assert any(record.regions for record in records)
    assert any(not record.regions for record in records)
    assert all(record.findings for record in records)
    assert all(text.source == "template" for record in records for text in record.texts)


def test_an_unfinished_series_is_refused_with_the_way_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "records.jsonl").write_bytes((root / "records.jsonl").read_bytes())
    with pytest.raises(LayoutError, match=r"phantom\.json") as caught:
        list(Phantom(tmp_path).read())
    assert caught.value.fix is not None
    assert "unfinished" in caught.value.fix


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", "/etc/passwd"),
        ("image", "images/../../secret.png"),
        ("image", 3),
        ("patient", ""),
        ("view", None),
        ("report", "\ud800"),
        ("sex", "X"),
        ("age_years", -1),
        ("age_years", True),
        ("labels", ["Edema"]),
        ("labels", {"Edema": 1}),
        ("labels", {" ": "present"}),
        ("regions", {}),
        ("regions", [{"finding": "Edema", "runs": "3 4"}]),
        ("regions", [{"finding": "", "runs": [SIZE * SIZE]}]),
        ("regions", [{"finding": "Edema", "runs": [1, 2]}]),
    ],
)
def test_a_value_outside_the_layout_is_an_error_of_its_line(
    root: Path, tmp_path: Path, key: str, value: object
) -> None:
    rows = [json.loads(line) for line in (root / "records.jsonl").read_text().splitlines()]
    rows[2][key] = value
    (tmp_path / "phantom.json").write_bytes((root / "phantom.json").read_bytes())
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TableError) as caught:
        list(Phantom(tmp_path).read())
    assert caught.value.where == f"{tmp_path / 'records.jsonl'}:3"


def test_a_region_without_a_frame_is_refused(root: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (root / "records.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["regions"])
    row["width"] = 0
    (tmp_path / "phantom.json").write_bytes((root / "phantom.json").read_bytes())
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / "records.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(TableError, match="width"):
        list(Phantom(tmp_path).read())
