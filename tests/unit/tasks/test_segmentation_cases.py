"""Which images a segmentation problem takes, what is drawn, absent or unknown in them, and which corpora carry it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest

from umif.corpus.regions import encode_mask, region_mask
from umif.corpus.schema import IMAGES, PAIRS
from umif.errors import TaskError
from umif.tasks.problems import MIN_PATIENTS
from umif.tasks.segmentation_cases import SIDE, DrawnMasks, built_in_mask_problems, chosen_mask_cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus import Corpus
    from umif.tasks.segmentation_cases import MaskCases

BOX = (0.25, 0.25, 0.5, 0.25)
SPLITS = ("train",) * MIN_PATIENTS + ("val",) + ("test",) * MIN_PATIENTS


class TableCorpus:
    """Rows of a corpus's images, each with its regions, without pictures."""

    path = Path("table")

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows
        self.pairs = [
            {"kind": "segment", "image_row": index, "dataset": row["dataset"], "regions": row["regions"]}
            for index, row in enumerate(rows)
            if row.get("regions")
        ]

    def images_table(self, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([IMAGES.field(name) for name in columns])
        return pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in self.rows], schema=schema)

    def pair_rows(self, kind: str) -> NDArray[np.int64]:
        assert kind == "segment"
        return np.arange(len(self.pairs)) + 100

    def pair_batches(self, columns: Sequence[str], where: str) -> Iterator[pa.RecordBatch]:
        assert where == "kind = 'segment'"
        schema = pa.schema([PAIRS.field(name) for name in columns])
        for start in range(0, len(self.pairs), 3):
            rows = [{name: row[name] for name in columns} for row in self.pairs[start : start + 3]]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    def take_pairs(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        return [{name: self.pairs[row - 100][name] for name in columns} for row in rows]


def corpus_of(rows: Sequence[dict[str, Any]]) -> Corpus:
    return cast("Corpus", TableCorpus(rows))


def region(finding: str | None = "pneumothorax", raw: str | None = None, box: Any = BOX) -> dict[str, Any]:
    return {"finding": finding, "raw": raw or finding, "shape": "box", "box": box}


def label(finding: str | None, state: str = "present", raw: str | None = None) -> dict[str, Any]:
    return {"finding": finding, "raw": raw or finding, "state": state}


def films(
    dataset: str, regions: Sequence[dict[str, Any]], findings: Sequence[dict[str, Any]], prefix: str = "p"
) -> list[dict[str, Any]]:
    """One film of each of enough patients, all alike."""
    return [
        {
            "image": f"{dataset}/{prefix}{number}",
            "dataset": dataset,
            "patient": f"{dataset}/{prefix}{number}",
            "split": split,
            "findings": list(findings),
            "regions": list(regions),
        }
        for number, split in enumerate(SPLITS)
    ]


def only_case(rows: Sequence[dict[str, Any]], name: str = "") -> MaskCases:
    [cases] = chosen_mask_cases(corpus_of(rows), [name] if name else [])
    return cases


def states(cases: MaskCases, prefix: str) -> set[tuple[int, ...]]:
    """What is known of the films of a prefix; empty where they take no part."""
    return {
        tuple(row) for name, row in zip(cases.images_N, cases.states_NF.tolist(), strict=True) if f"/{prefix}" in name
    }


def test_the_built_in_problems_are_read() -> None:
    names = [problem.name for problem in built_in_mask_problems()]
    assert names == ["siim-pneumothorax", "rsna-opacity", "lungs", "covid-structures"]


def test_drawn_is_one_absent_is_nought_and_the_rest_takes_no_part() -> None:
    siim = "siim-acr-pneumothorax"
    cases = only_case(
        films(siim, [region()], [label("pneumothorax")], "drawn")
        + films(siim, [], [label("pneumothorax", "absent")], "absent")
        + films(siim, [], [label("pneumothorax")], "undrawn")
        + films(siim, [], [label("pneumothorax", "uncertain")], "uncertain")
        + films(siim, [], [], "silent")
        + films(siim, [region()], [label("pneumothorax", "absent")], "contradictory")
    )
    assert cases.classes == ("siim-pneumothorax",)
    assert states(cases, "drawn") == {(1,)}
    assert states(cases, "absent") == {(0,)}
    assert all(states(cases, prefix) == set() for prefix in ("undrawn", "uncertain", "silent", "contradictory"))
    assert cases.data == f"{siim}: pneumothorax"


def test_no_finding_means_absent_for_findings_and_nothing_for_anatomy() -> None:
    mine = films("mine", [region("pneumothorax"), region("lung")], [], "drawn")
    cases = only_case(mine + films("mine", [], [label("no_finding")], "clear"))
    assert cases.problem.name == "regions-mine"
    assert cases.classes == ("lung", "pneumothorax")
    assert states(cases, "drawn") == {(1, 1)}
    assert states(cases, "clear") == {(-1, 0)}


def test_a_label_of_the_finding_outweighs_no_finding() -> None:
    cases = only_case(
        films("mine", [region()], [], "drawn")
        + films("mine", [], [label("no_finding"), label("pneumothorax", "uncertain")], "odd")
    )
    assert states(cases, "odd") == set()


def test_classes_that_the_vocabulary_does_not_know_go_by_their_own_name() -> None:
    cases = only_case(
        films("mine", [region(None, "Wire tip")], [], "drawn")
        + films("mine", [], [label(None, "absent", raw="Wire tip")], "absent")
    )
    assert cases.classes == ("Wire tip",)
    assert states(cases, "absent") == {(0,)}


def test_lungs_are_masks_of_two_datasets_and_their_boxes_do_not_count() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 1:4] = True
    lung = {"finding": "lung", "raw": "lung", "shape": "mask", "mask": encode_mask(mask)}
    rows = films("covid-chestxray", [lung, region("left_lung")], [], "a") + films("lung-segmentation", [lung], [], "b")
    cases = only_case([*rows, *films("covid-chestxray", [region("left_lung")], [], "boxed")], "lungs")
    assert cases.data == "covid-chestxray, lung-segmentation: lungs"
    assert states(cases, "a") == states(cases, "b") == {(1,)}
    assert states(cases, "boxed") == set()
    drawn = DrawnMasks(corpus_of(rows), cases, np.arange(3)).take(np.array([2, 0]))
    np.testing.assert_array_equal(drawn, np.broadcast_to(region_mask(lung, SIDE, SIDE), drawn.shape))


def test_a_finding_with_too_few_patients_is_left_out() -> None:
    rows = films("mine", [region()], [], "drawn")
    rows[0]["regions"] = [region(), region("mass")]
    cases = only_case(rows)
    assert cases.classes == ("pneumothorax",)


@pytest.mark.parametrize("split", ["train", "test", "val"])
def test_too_few_patients_with_regions_are_named(split: str) -> None:
    rows = films("siim-acr-pneumothorax", [region()], [])
    first = next(row for row in rows if row["split"] == split)
    first["regions"] = []
    with pytest.raises(TaskError, match=f"patients with a region in {split}") as caught:
        only_case(rows, "siim-pneumothorax")
    assert caught.value.fix
    with pytest.raises(TaskError, match="no segmentation problem can be carried") as caught:
        only_case(rows)
    assert "siim-pneumothorax" in str(caught.value)


def test_a_corpus_without_regions_and_one_without_the_dataset_are_told_so() -> None:
    with pytest.raises(TaskError, match="it has no regions") as caught:
        only_case(films("mine", [], [label("no_finding")]))
    assert caught.value.fix
    with pytest.raises(TaskError, match="no region of rsna-pneumonia") as caught:
        only_case(films("mine", [region()], []), "rsna-opacity")
    assert caught.value.fix


def test_an_unknown_problem_is_answered_with_the_nearest() -> None:
    with pytest.raises(TaskError) as caught:
        only_case(films("mine", [region()], []), "regions-mime")
    assert "regions-mine" in str(caught.value)


def test_regions_of_one_class_are_joined_and_others_lie_in_their_own_plane() -> None:
    left, right = region(box=(0.0, 0.0, 0.25, 1.0)), region(box=(0.75, 0.0, 0.25, 1.0))
    rows = films("mine", [left, right, region("mass")], [])
    cases = only_case(rows)
    assert cases.classes == ("mass", "pneumothorax")
    masks = DrawnMasks(corpus_of(rows), cases, np.array([1, 4]))
    drawn = masks.take(np.array([4]))[0]
    assert drawn[0].mean() == pytest.approx(0.125)
    assert drawn[1].mean() == 0.5
    assert drawn[1, :, : SIDE // 4].all()
    assert not drawn[1, :, SIDE // 4 : SIDE * 3 // 4].any()
    # Not asked for when drawn: nothing there.
    assert not masks.take(np.array([0])).any()


def test_covered_shares_keep_the_area_at_any_size() -> None:
    rows = films("mine", [region()], [])
    cases = only_case(rows)
    masks = DrawnMasks(corpus_of(rows), cases, np.arange(2))
    for size in (7, 16, 28, 224):
        covered = masks.covered(np.array([1, 5]), size, size)
        assert covered.shape == (2, 1, size, size)
        # Each pixel is rounded to 1/255.
        assert covered[0].mean() == pytest.approx(0.125, abs=1 / 255)
        assert not covered[1].any()


def test_a_mask_that_a_label_contradicts_is_not_looked_at() -> None:
    both = [region(), region("mass")]
    rows = films("mine", both, [label("mass", "absent")], "odd")[:1] + films("mine", both, [])
    cases = only_case(rows)
    assert cases.states_NF[:2].tolist() == [[-1, 1], [1, 1]]
    drawn = DrawnMasks(corpus_of(rows), cases, np.arange(2)).take(np.arange(2))
    assert drawn.any(axis=(2, 3)).tolist() == [[False, True], [True, True]]
