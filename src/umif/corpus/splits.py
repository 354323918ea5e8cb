"""Splits by patient: whatever is one patient, or one file, lies in one split.

Images that share a patient key, or whose files are the same bytes, are joined (and so are those joined to them).
Each such component is placed as a whole: where the dataset's own test or validation split holds one of its images,
it goes there; else a keyed hash of its name places it. A component's place depends on nothing outside it, so
preparing a corpus again with one more dataset moves only what that dataset is joined to.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from umif.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.readers.base import Split

_WORD = 1 << 64


def components(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """Return for each image the name of its component: the smallest patient key in it.

    Args:
        patients: Patient key of each image.
        hashes: SHA-256 of each image's raw file.

    Raises:
        ShapeError: the two differ in length.
    """
    if len(patients) != len(hashes):
        raise ShapeError(f"{len(patients)} patients and {len(hashes)} hashes cannot be paired", where="components")
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        top = patient
        while parent[top] != top:
            top = parent[top]
        while parent[patient] != top:  # shorten the path, so that long chains stay cheap
            parent[patient], patient = top, parent[patient]
        return top

    first_with: dict[str, str] = {}
    for patient, file_hash in zip(patients, hashes, strict=True):
        one, other = root(first_with.setdefault(file_hash, patient)), root(patient)
        # The smaller key stays on top, so the root of a component is its smallest key.
        if one < other:
            parent[other] = one
        elif other < one:
            parent[one] = other
    return [root(patient) for patient in patients]


def share_of(component: str, seed: int) -> float:
    """Return the place of a component in [0, 1): uniform over names, fixed by name and seed."""
    digest = hashlib.blake2b(
        component.encode(), digest_size=8, key=b"umif split", salt=(seed % _WORD).to_bytes(8, "little")
    )
    return int.from_bytes(digest.digest(), "little") / _WORD


def assign_splits(
    patients: Sequence[str],
    hashes: Sequence[str],
    official: Sequence[str | None],
    *,
    seed: int = 0,
    val_share: float = 0.1,
    test_share: float = 0.2,
) -> list[Split]:
    """Return the split of each image.

    Args:
        patients: Patient key of each image, unique over datasets.
        hashes: SHA-256 of each image's raw file.
        official: The dataset's own split of each image, `None` where it has none. A component with an official test
            image goes to test, else one with an official validation image to val; the rest goes by hash.
        seed: Changes who goes where among those placed by hash.
        val_share: Share of the components placed by hash that go to val.
        test_share: Share of them that go to test.

    Raises:
        ShapeError: the three sequences differ in length.
    """
    names = components(patients, hashes)
    if len(official) != len(names):
        raise ShapeError(
            f"{len(names)} images and {len(official)} official splits cannot be paired", where="assign_splits"
        )
    held_out: dict[str, Split] = {}
    for name, split in zip(names, official, strict=True):
        if split == "test":
            held_out[name] = "test"
        elif split == "val":
            held_out.setdefault(name, "val")

    def place(name: str) -> Split:
        share = share_of(name, seed)
        return "test" if share < test_share else "val" if share < test_share + val_share else "train"

    for name in set(names).difference(held_out):
        held_out[name] = place(name)
    return [held_out[name] for name in names]
