"""Which picture on disk a table means, where people write less (or other capitals) than the whole path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Where pictures usually lie beside a table, and folders whose pictures are no radiographs.
IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "segmentations", "segmentation")


def in_mask_folder(name: str) -> bool:
    """Return whether a folder of this path holds masks (`COVID/masks/1.png`, `lung masks/1.png`).

    The innermost folder that says masks or images decides: `lung segmentation/images/1.png` is an image.
    """
    for part in reversed(name.casefold().split("/")[:-1]):
        if part in IMAGE_FOLDERS:
            return False
        if part.endswith(MASK_FOLDERS):
            return True
    return False


class PictureIndex:
    """All pictures of a folder, found by their path, by its end (`a.png` for `images/a.png`), or without suffix.

    The end of a path is believed only if one picture fits: two are both returned, and the reader refuses them. A mask
    never stands in for a picture: what lies in a folder of masks is found only by a path that names such a folder.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        # By number of parts: looking through all pictures of one name would be quadratic where all have the same.
        self._ends: dict[int, dict[str, list[str]]] = {}

    def find(self, name: str, exact: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the pictures that `name`, a path as `relative_name` gives it, can mean.

        Args:
            name: The path, whole or its end; capitals and the suffix may be missing or differ.
            exact: Whole paths that are looked for first, in this order.

        Returns:
            None, one, or several paths, if only the end fits and fits more than once.
        """
        for path in exact:
            if path in self._names:
                return (path,)
        depth = name.count("/") + 1
        if depth not in self._ends:
            self._ends[depth] = self._index(depth)
        found = self._ends[depth].get(name.casefold(), [])
        return tuple(found if in_mask_folder(name) else (path for path in found if not in_mask_folder(path)))

    def _index(self, depth: int) -> dict[str, list[str]]:
        ends: dict[str, list[str]] = {}
        for path in self._names:
            parts = path.casefold().split("/")
            if len(parts) >= depth:
                end = "/".join(parts[-depth:])
                for key in dict.fromkeys((end, end.rpartition(".")[0])):
                    ends.setdefault(key, []).append(path)
        return ends
