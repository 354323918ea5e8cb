"""What every registered reader keeps to, whoever wrote it.

A reader brings `reader_fixtures/<name>.py` (with `_` for `-`): `build(root)` writes a small folder in its native
layout. `GOLDEN` (image id → [(raw label, state)]) and `EXCLUDED` (reason → count) are what reading it gives;
`REQUIRED` names what may not be missing, `MALFORMED` lists (file, text, replacement, error or None, where),
`NOT_IMAGES` the folders whose pictures are masks, and `UNMAPPED` the labels that the vocabulary is not meant to know.
"""

from __future__ import annotations

import csv
import importlib.util
import locale
import os
import random
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from umif.config import REGISTRY
from umif.errors import LayoutError, UmifError
from umif.language import vocabulary
from umif.readers.base import SUPERVISION, Access, CheckedOn, LabelState, Reader, Record
from umif.readers.folders import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

FIXTURES = Path(__file__).with_name("reader_fixtures")
# Plug-ins that other tests register have no folder here.
NAMES = [name for name in REGISTRY.names("reader") if REGISTRY.get("reader", name).__module__.startswith("umif.")]


def load_fixture(name: str) -> ModuleType:
    path = FIXTURES / f"{name.replace('-', '_')}.py"
    if not path.is_file():
        pytest.fail(f"the reader {name!r} has no {path.name} in tests/conformance/reader_fixtures")
    spec = importlib.util.spec_from_file_location(f"reader_fixture_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fixture(name: str) -> ModuleType:
    return load_fixture(name)


@pytest.fixture(scope="module")
def built(fixture: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("native")
    fixture.build(root)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "native"))


def make(name: str, root: Path) -> Reader:
    reader = REGISTRY.get("reader", name)(root)
    assert isinstance(reader, Reader)
    return reader


def read(name: str, root: Path) -> tuple[list[Record], Reader]:
    reader = make(name, root)
    return list(reader.read()), reader


def test_card_says_what_a_user_must_know(name: str) -> None:
    card = REGISTRY.get("reader", name).card
    assert card.licence
    assert card.citation or card.access == "built-in", "only what nobody published needs no citation"
    assert card.title
    assert card.how_to_get
    assert card.layout
    assert card.checked_against
    assert card.checked_on in get_args(CheckedOn)
    assert card.images is None or card.images > 0
    assert card.access in get_args(Access)
    assert card.kinds
    assert set(card.kinds) <= set(SUPERVISION)


def test_reading_twice_gives_the_same_records_in_the_same_order(name: str, built: Path) -> None:
    records, reader = read(name, built)
    assert records
    assert records == read(name, built)[0]
    assert records == list(reader.read()), "a second pass of one reader differs"


def test_order_does_not_depend_on_the_file_system(name: str, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(name, built)
    listdir, scandir = os.listdir, os.scandir

    class Backwards:
        def __init__(self, *args: Any) -> None:
            with scandir(*args) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return self.entries

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

        def close(self) -> None: ...

    monkeypatch.setattr(os, "listdir", lambda *args: sorted(listdir(*args), reverse=True))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert read(name, built)[0] == expected


def test_everything_met_is_yielded_or_excluded_once(name: str, fixture: ModuleType, built: Path) -> None:
    records, reader = read(name, built)
    account = reader.account
    assert account.yielded == len(records) == len({record.image_id for record in records})
    assert account.seen == account.yielded + sum(account.excluded.values())
    assert all(exclusion.reason and exclusion.item for exclusion in account.exclusions)
    if hasattr(fixture, "EXCLUDED"):
        assert account.excluded == fixture.EXCLUDED
    accounted = {exclusion.item for exclusion in account.exclusions}
    used = {record.image for record in records}
    masks = {region.mask_path for record in records for region in record.regions}
    for path in sorted(built.rglob("*")):
        relative = path.relative_to(built)
        is_mask = path in masks or relative.parts[0] in getattr(fixture, "NOT_IMAGES", ())
        if path.suffix.lower() in PICTURE_SUFFIXES and path not in used and not is_mask:
            assert accounted & {relative.as_posix(), path.name, path.stem}, f"{relative} was dropped silently"


def test_raw_labels_and_states_are_kept(name: str, fixture: ModuleType, built: Path) -> None:
    records, _ = read(name, built)
    for record in records:
        names = [finding.name for finding in record.findings]
        assert len(names) == len(set(names)), "a finding has two states"
        assert all(isinstance(finding.state, LabelState) for finding in record.findings)
        assert all(name and name == name.strip() for name in names)
    if hasattr(fixture, "GOLDEN"):
        found = {record.image_id: [(f.name, f.state.value) for f in record.findings] for record in records}
        assert found == fixture.GOLDEN


def test_vocabulary_knows_every_label(name: str, fixture: ModuleType, built: Path) -> None:
    records, _ = read(name, built)
    raw = {finding.name for record in records for finding in record.findings}
    raw |= {region.finding for record in records for region in record.regions}
    unknown = {label for label in raw if vocabulary().find(label) is None}
    assert unknown == set(getattr(fixture, "UNMAPPED", ())), "give them to vocabulary.yaml, or list them as UNMAPPED"


def test_records_are_well_formed(name: str, built: Path) -> None:
    records, reader = read(name, built)
    for record in records:
        assert record.image.is_file()
        assert record.image.is_relative_to(built)
        assert record.where
        assert str(built) not in record.where, "a path of this machine would enter the corpus"
        assert record.age_years is None or 0 <= record.age_years <= 120
        assert record.patient != ""
        supervision: set[str] = {text.kind for text in record.texts}
        supervision |= {"class"} if record.findings else set()
        supervision |= {"segment"} if record.regions else set()
        supervision |= {"question"} if record.questions else set()
        assert supervision <= set(reader.card.kinds)
        assert all(text.text == text.text.strip() != "" for text in record.texts)
        for question in record.questions:
            assert question.question == question.question.strip() != ""
            assert question.answer == question.answer.strip() != ""
        for region in record.regions:
            given_shapes = {
                "box": region.box is not None,
                "points": bool(region.points),
                "runs": bool(region.runs),
                "mask": region.mask_path is not None,
            }
            expected = {"polygon": "points", "rle": "runs", "mask": "mask"}.get(region.shape, "box")
            assert [shape for shape, given in given_shapes.items() if given] == [expected]
            assert region.finding
            assert region.frame is None or min(region.frame) > 0
            assert region.box is None or min(region.box[2:]) > 0
            assert region.mask_path is None or region.mask_path.is_file()


def test_no_global_state_is_touched(name: str, built: Path) -> None:
    def state() -> tuple[Any, ...]:
        numpy_state: Any = np.random.get_state()  # noqa: NPY002
        return (
            random.getstate(),
            [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
            dict(os.environ),
            Path.cwd(),
            list(warnings.filters),
            csv.field_size_limit(),
            locale.setlocale(locale.LC_ALL),
            pydicom.config.settings.reading_validation_mode,
        )

    before = state()
    read(name, built)
    assert state() == before


def test_no_pixel_is_decoded(name: str, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a reader decoded pixels")

    monkeypatch.setattr(Image, "open", refuse)
    for function in ("imread", "imdecode", "imreadmulti"):
        monkeypatch.setattr(cv2, function, refuse)
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(refuse))
    assert read(name, built)[0]


def test_missing_folder_is_a_typed_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError):
        make(name, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError) as caught:
        read(name, tmp_path / "empty")
    assert str(tmp_path / "empty") in str(caught.value)


def test_missing_part_is_a_typed_error(name: str, fixture: ModuleType, built: Path, tmp_path: Path) -> None:
    for number, part in enumerate(getattr(fixture, "REQUIRED", ())):
        copy = Path(shutil.copytree(built, tmp_path / str(number)))
        for path in copy.glob(f"{part}*"):  # a second folder must not stand in for the first
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if part.startswith("images"):
            for path in copy.glob("images*"):
                shutil.rmtree(path)
        with pytest.raises(LayoutError):
            read(name, copy)


def test_malformed_tables_are_typed_errors_that_name_the_line(name: str, fixture: ModuleType, root: Path) -> None:
    for file, text, replacement, error, where in getattr(fixture, "MALFORMED", ()):
        path = root / file
        whole = path.read_text(encoding="utf-8")
        assert text in whole, f"the case {text!r} no longer fits {file}"
        path.write_text(whole.replace(text, replacement, 1), encoding="utf-8")
        if error is None:
            read(name, root)
        else:
            with pytest.raises(error) as caught:
                read(name, root)
            assert where in str(caught.value.where), f"{replacement!r}: {caught.value}"
            assert str(root) in str(caught.value.where)
        path.write_text(whole, encoding="utf-8")


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_mutated_tables_never_escape_as_untyped_errors(name: str, built: Path, data: st.DataObject) -> None:
    tables = [path for path in sorted(built.rglob("*")) if path.suffix in (".csv", ".txt", ".json", ".jsonl")]
    if not tables:
        pytest.skip("reads no table")
    path = data.draw(st.sampled_from(tables))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, 40))
    junk = data.draw(st.one_of(st.binary(max_size=12), st.sampled_from(JUNK), st.just(whole[start - 200 : start])))
    path.write_bytes(whole[:start] + junk + whole[start + length :])
    records: list[Record] = []
    reader = complaint = None
    try:
        records, reader = read(name, built)
    except UmifError as error:
        complaint = error
    finally:
        path.write_bytes(whole)
    if complaint is not None:
        assert complaint.where
    elif reader is not None:
        assert reader.account.seen == len(records) + len(reader.account.exclusions)
        assert all(record.image.is_relative_to(built) for record in records)


JUNK = (
    b'"', b"\r", b"\n", b"\0", b",", b'""', b"../", b"/etc/passwd", b"nan", b"inf", b"1e999", b"-1", b"null", b"[]",
    b"\xff\xfe", b"\xef\xbb\xbf", b"|", b"\xe2\x80\xae", b"9" * 400, b"true", b"{}", b"[" * 600, b"x" * 140_000,
)  # fmt: skip
