"""Splits: no patient and no file in two, official test sets kept, others stable."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.corpus.splits import assign_splits, components, share_of
from umif.errors import ShapeError

IMAGES = st.lists(
    st.tuples(
        st.sampled_from([f"a/{i}" for i in range(8)] + [f"b/{i}" for i in range(8)]),
        st.sampled_from([f"hash{i}" for i in range(12)]),
        st.sampled_from([None, "train", "val", "test"]),
    ),
    max_size=30,
)


def _split(images: list[tuple[str, str, str | None]], **options: float) -> list[str]:
    columns = [list(column) for column in zip(*images, strict=True)] if images else [[], [], []]
    return list(assign_splits(*columns, **options))  # type: ignore[arg-type]


def _reference_components(images: list[tuple[str, str, str | None]]) -> list[frozenset[int]]:
    """Breadth-first search over the graph of images: independent of union-find."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for index, (patient, file_hash, _) in enumerate(images):
        by_key["patient " + patient].append(index)
        by_key["file " + file_hash].append(index)
    found: list[frozenset[int]] = [frozenset()] * len(images)
    for start in range(len(images)):
        reached, queue = {start}, [start]
        while queue:
            patient, file_hash, _ = images[queue.pop()]
            for neighbour in by_key["patient " + patient] + by_key["file " + file_hash]:
                if neighbour not in reached:
                    reached.add(neighbour)
                    queue.append(neighbour)
        found[start] = frozenset(reached)
    return found


@settings(deadline=None)
@given(IMAGES)
def test_components_equal_those_found_by_breadth_first_search(images: list[tuple[str, str, str | None]]) -> None:
    names = components([image[0] for image in images], [image[1] for image in images])
    reference = _reference_components(images)
    for i in range(len(images)):
        assert {j for j in range(len(images)) if names[j] == names[i]} == reference[i]
        assert names[i] == min(images[j][0] for j in reference[i])


@settings(deadline=None)
@given(IMAGES, st.integers(0, 3))
def test_no_patient_and_no_file_lies_in_two_splits(images: list[tuple[str, str, str | None]], seed: int) -> None:
    splits = _split(images, seed=seed)
    for part in (0, 1):
        places = defaultdict(set)
        for image, split in zip(images, splits, strict=True):
            places[image[part]].add(split)
        assert all(len(found) == 1 for found in places.values())


@settings(deadline=None)
@given(IMAGES)
def test_official_held_out_images_stay_held_out(images: list[tuple[str, str, str | None]]) -> None:
    for image, split in zip(images, _split(images), strict=True):
        if image[2] == "test":
            assert split == "test"
        if image[2] == "val":
            assert split in ("val", "test")


@settings(deadline=None)
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_changes_nothing(images: list[tuple[str, str, str | None]], random: object) -> None:
    before = dict(zip(images, _split(images), strict=True))
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert dict(zip(shuffled, _split(shuffled), strict=True)) == before


@settings(deadline=None)
@given(IMAGES, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10))
def test_another_dataset_moves_nothing_that_it_is_not_joined_to(
    images: list[tuple[str, str, str | None]], others: list[tuple[int, int]]
) -> None:
    added: list[tuple[str, str, str | None]] = [(f"c/{patient}", f"other{file}", "test") for patient, file in others]
    assert _split(images + added)[: len(images)] == _split(images)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_shares_are_met_in_large_numbers(seed: int, val_share: float, test_share: float) -> None:
    patients = [f"a/{i}" for i in range(4000)]
    splits = assign_splits(
        patients, patients, [None] * len(patients), seed=seed, val_share=val_share, test_share=test_share
    )
    counts = Counter(splits)
    # Five standard deviations of a binomial share of 4,000: 5 × √(0.25 / 4000) = 0.04.
    assert counts["val"] / 4000 == pytest.approx(val_share, abs=0.04)
    assert counts["test"] / 4000 == pytest.approx(test_share, abs=0.04)


def test_the_seed_changes_who_goes_where() -> None:
    patients = [f"a/{i}" for i in range(200)]
    assert [share_of(p, 0) for p in patients] != [share_of(p, 1) for p in patients]


def test_a_released_corpus_keeps_its_splits() -> None:
    # Frozen values: changing them moves patients of corpora that are out there from train to test.
    assert [round(share_of(name, 0), 6) for name in ("a/1", "a/2", "nih-chestxray14/13118")] == [
        0.345382,
        0.538472,
        0.862385,
    ]


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(ShapeError):
        components(["a"], [])
    with pytest.raises(ShapeError):
        assign_splits(["a"], ["b"], [])
