"""A series on disk: the same bytes whoever writes it, whole or not at all, and readable as it was drawn."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from umif.corpus import phantom
from umif.corpus.phantom import draw_phantom, encode_runs, write_phantom
from umif.corpus.phantom_description import FINDINGS, Description
from umif.errors import InputError, RunError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES, SIZE = 70, 32  # two parts


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "series"
    write_phantom(out, IMAGES, seed=4, size=SIZE)
    return out


def test_the_folder_holds_what_the_layout_says(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {"phantom.json", "records.jsonl", "images"}
    assert json.loads((written / "phantom.json").read_text()) == {
        "format": 1,
        "images": IMAGES,
        "seed": 4,
        "clarity": 0.0,
        "spread": 1.0,
        "only": list(FINDINGS),
        "size": SIZE,
    }
    records = lines(written)
    assert len(records) == IMAGES
    assert {record["image"] for record in records} == {
        path.relative_to(written).as_posix() for path in (written / "images").iterdir()
    }


def test_records_and_pictures_are_those_of_the_drawing(written: Path) -> None:
    for index, record in list(enumerate(lines(written)))[::7]:
        case = draw_phantom(4, index, SIZE)
        picture = cv2.imread(str(written / record["image"]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(picture, case.image)
        assert record["labels"] == case.labels
        assert record["report"] in (None, case.report)
        assert record["caption"] in (None, case.caption)
        assert record["questions"] == case.questions
        assert Description.from_json(record["description"]) == case.description
        if record["regions"] is not None:
            assert [(r["finding"], r["side"]) for r in record["regions"]] == [(r.name, r.side) for r in case.regions]
            for given_region, region in zip(record["regions"], case.regions, strict=True):
                assert np.array_equal(decode(given_region["runs"], SIZE, SIZE), region.mask)
                assert given_region["box"] == list(region.box)


def test_kinds_of_supervision_differ_between_images(written: Path) -> None:
    records = lines(written)
    for kind, share in phantom.SHARES.items():
        # 70 draws: four standard deviations of the share.
        assert np.mean([record[kind] is not None for record in records]) == pytest.approx(share, abs=0.24)
    assert len({tuple(record[kind] is None for kind in phantom.SHARES) for record in records}) >= 6
    assert all(len(record["labels"]) == 10 for record in records)


def test_any_number_of_workers_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "two", IMAGES, seed=4, size=SIZE, workers=2)
    assert digests(tmp_path / "two") == digests(written)


def test_a_longer_series_begins_with_the_shorter_one(written: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "short", 5, seed=4, size=SIZE)
    assert lines(tmp_path / "short") == lines(written)[:5]


def test_a_stopped_series_goes_on_and_keeps_what_is_done(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, drawn = tmp_path / "out", []
    draw = phantom.draw_phantom

    def stop_at_66(seed: int, index: int, size: int, **series: Any) -> Any:
        if index == 66:
            raise KeyboardInterrupt
        return draw(seed, index, size, **series)

    def note(seed: int, index: int, size: int, **series: Any) -> Any:
        drawn.append(index)
        return draw(seed, index, size, **series)

    monkeypatch.setattr(phantom, "draw_phantom", stop_at_66)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(out, IMAGES, seed=4, size=SIZE)
    assert not (out / "phantom.json").exists()
    monkeypatch.setattr(phantom, "draw_phantom", note)
    write_phantom(out, IMAGES, seed=4, size=SIZE)
    assert drawn == list(range(64, IMAGES))
    assert digests(out) == digests(written)


@pytest.mark.parametrize("boundary", range(0, 12, 2))
def test_a_crash_at_any_write_leaves_a_series_that_goes_on(
    boundary: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_phantom(whole, 6, seed=4, size=SIZE)
    replace, calls = phantom._replace, []

    def full(path: Path, data: bytes, **options: bool) -> None:
        calls.append(path)
        if len(calls) > boundary:
            path.with_name(f".{path.name}.part").write_bytes(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, data, **options)

    monkeypatch.setattr(phantom, "_replace", full)
    if boundary < 10:  # plan, six pictures, one part, records and the seal are ten writes
        with pytest.raises(StorageError, match="No space left") as caught:
            write_phantom(out, 6, seed=4, size=SIZE)
        assert caught.value.where == str(out)
        assert not (out / "phantom.json").exists()
    monkeypatch.setattr(phantom, "_replace", replace)
    write_phantom(out, 6, seed=4, size=SIZE)
    assert digests(out) == digests(whole)


def test_writing_again_changes_nothing(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_phantom(written, IMAGES, seed=4, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


@pytest.mark.parametrize(
    "changes", [{"images": 3}, {"seed": 5}, {"size": 33}, {"clarity": 0.5}, {"spread": 2.0}, {"only": ["Edema"]}]
)
def test_another_series_in_the_same_folder_is_refused(written: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="other phantoms"):
        write_phantom(written, **{"images": IMAGES, "seed": 4, "size": SIZE, **changes})


def test_a_finding_that_nobody_draws_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'Gout' cannot be drawn"):
        write_phantom(tmp_path / "series", 1, size=SIZE, only=["Edema", "Gout"])
    assert not (tmp_path / "series").exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        write_phantom(tmp_path, 1, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("mark", ["phantom.json", "parts/plan.json"])
def test_a_torn_mark_is_a_typed_error(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text('{"format": 1, "ima')
    with pytest.raises(InputError, match="other phantoms"):
        write_phantom(tmp_path, 1, size=SIZE)


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with (tmp_path / "parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process"):
            write_phantom(tmp_path, 1, size=SIZE)
    write_phantom(tmp_path, 1, size=SIZE)
    assert (tmp_path / "phantom.json").exists()


@pytest.mark.parametrize(
    ("arguments", "where"),
    [({"images": 0}, "images"), ({"size": 31}, "size"), ({"size": 4096}, "size"), ({"workers": 0}, "workers")],
)
def test_impossible_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        write_phantom(tmp_path / "out", **{"images": 1, **arguments})
    assert caught.value.where == where
    assert not (tmp_path / "out").exists()


def decode(runs: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """The plain way: one pixel after the other, down each column."""
    mask = np.zeros((height, width), dtype=bool)
    at = 0
    for number, run in enumerate(runs):
        for pixel in range(at, at + run):
            mask[pixel % height, pixel // height] = number % 2 == 1
        at += run
    assert at == height * width
    return mask


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_runs_give_the_mask_back(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(decode(encode_runs(mask), *mask.shape), mask)
