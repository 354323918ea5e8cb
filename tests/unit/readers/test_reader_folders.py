"""Pictures on disk: one order, links followed, nothing outside the folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import pytest

from umif.readers.base import Card, Reader, Record
from umif.readers.folders import is_file, pictures, relative_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Empty(Reader):
    card: ClassVar[Card] = Card(licence="none", citation=None, images=None)

    def records(self) -> Iterator[Record]:
        return iter(())


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../a.png", "a/../../b.png", "a/..", "/etc/passwd", "//server/share/a.png", "C:\\a.png",
        "C:a.png", "..\\a.png", "a\\..\\..\\b.png", "\\\\server\\a.png", "\\a.png", "a\0.png", "x" * 256 + ".png",
        "x/" * 2000 + "a.png",
    ],
)  # fmt: skip
def test_path_that_leaves_the_folder_is_refused(name: str) -> None:
    assert relative_name(name) is None


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.png", "a.png"),
        ("./a/b.png", "a/b.png"),
        ("a//b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("a..png", "a..png"),
    ],
)
def test_plain_path_is_kept(name: str, plain: str) -> None:
    assert relative_name(name) == plain


def test_pictures_are_sorted_and_the_rest_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, "b.PNG", "a/z.jpeg", "a/y.dcm", "notes.txt", "._b.png", ".DS_Store")
    reader = Empty(tmp_path)
    found = list(pictures(reader, tmp_path))
    assert [name for name, _ in found] == ["a/y.dcm", "a/z.jpeg", "b.PNG"]
    assert found == [(name, tmp_path / name) for name, _ in found]
    assert reader.account.notes == {"file that is no picture": 3}


def test_linked_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    fill(tmp_path, "elsewhere/a.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    assert [name for name, _ in pictures(Empty(root), root)] == ["images/a.png"]


def test_link_that_leads_nowhere_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    reader = Empty(tmp_path)
    assert list(pictures(reader, tmp_path)) == []
    assert reader.account.notes == {"link that leads nowhere": 1}


def test_file_name_that_is_no_text_is_excluded(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb"):  # noqa: PTH123 (a Path cannot hold these bytes)
        pass
    fill(tmp_path, "a\nb.png")
    reader = Empty(tmp_path)
    assert list(pictures(reader, tmp_path)) == []
    assert reader.account.excluded == {"file name is no valid text": 2}
    assert all(exclusion.item.isascii() for exclusion in reader.account.exclusions)


def test_what_cannot_be_asked_for_is_not_there(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("x" * 5000))
