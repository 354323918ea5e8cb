"""Which picture a part of a path means, against looking through all names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umif.readers.picture_index import PictureIndex, in_mask_folder

PARTS = st.lists(st.sampled_from(["a", "B", "b", "images", "masks", "c.png", "C.png", "c.jpg"]), min_size=1, max_size=4)
PATHS = st.lists(PARTS.map("/".join), max_size=12, unique=True)


@given(PATHS, PARTS.map("/".join))
def test_ends_of_paths_are_found_as_by_looking_through_all(paths: list[str], name: str) -> None:
    def fits(path: str) -> bool:
        path, end = path.casefold(), name.casefold()
        return any(f"/{one}".endswith(f"/{end}") for one in (path, path.rpartition(".")[0]))

    # A suffix is what follows the last dot of the file's name; none of these folders has one.
    expected = [path for path in paths if fits(path) and (in_mask_folder(name) or not in_mask_folder(path))]
    assert list(PictureIndex(paths).find(name)) == expected


def test_whole_paths_come_first_in_the_order_given() -> None:
    index = PictureIndex(["masks/1.png", "x/1.png", "y/1.png"])
    assert index.find("1.png", ["gone/1.png", "y/1.png", "x/1.png"]) == ("y/1.png",)
    assert index.find("1.png", ["masks/1.png"]) == ("masks/1.png",), "a whole path is meant, masks or not"
    assert index.find("1.png") == ("x/1.png", "y/1.png")
    assert index.find("masks/1") == ("masks/1.png",)


@pytest.mark.parametrize(
    ("path", "masks"),
    [
        ("masks/1.png", True),
        ("COVID/lung masks/1.png", True),
        ("Segmentation/a/1.png", True),
        ("segmentation/images/1.png", False),
        ("images/masks/1.png", True),
        ("images/mask.png", False),
        ("unmasked/1.png", False),
    ],
)
def test_the_innermost_folder_decides_whether_a_path_is_a_masks(path: str, masks: bool) -> None:
    assert in_mask_folder(path) is masks
