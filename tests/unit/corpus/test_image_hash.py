"""The perceptual hash, and the search for near ones against comparing all with all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from umif.corpus import image_hash
from umif.corpus.image_hash import hamming, near_pairs, perceptual_hash
from umif.corpus.phantom import draw_phantom

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray


def found(hashes: NDArray[np.uint64], distance: int) -> list[tuple[int, int]]:
    return [
        pair for left, right in near_pairs(hashes, distance) for pair in zip(left.tolist(), right.tolist(), strict=True)
    ]


def test_the_bits_are_those_of_the_cosine_transform_by_its_definition() -> None:
    film = draw_phantom(0, 0, 160).image
    small = cv2.resize(film.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    place = np.arange(32)
    basis = np.cos(np.pi / 32 * (place[None, :] + 0.5) * place[:, None]) * np.sqrt(2 / 32)
    basis[0] /= np.sqrt(2)
    waves = basis @ small.astype(np.float64) @ basis.T
    low = waves[:8, :8].ravel()
    low[0] = waves[0, 8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low)
    assert perceptual_hash(film) == int(bits, 2)
    assert bits.count("1") == 32


def test_scaling_encoding_and_brightness_change_few_bits_and_another_film_many() -> None:
    films = [draw_phantom(1, index, 256).image for index in range(0, 40, 2)]
    same, other = [], []
    for film, neighbour in zip(films, films[1:] + films[:1], strict=True):
        small = cv2.resize(film, (190, 190), interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", (small * 0.9).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 60])
        again = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        same.append(hamming(perceptual_hash(film), perceptual_hash(again)))
        other.append(hamming(perceptual_hash(film), perceptual_hash(neighbour)))
    assert max(same) <= 4
    assert np.median(other) >= 8


def test_a_hash_is_64_bits_also_of_a_flat_or_tiny_picture() -> None:
    for picture in (np.zeros((1, 1), np.uint8), np.full((40, 500), 255, np.uint8)):
        assert 0 <= perceptual_hash(picture) < 1 << 64


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 7), st.integers(0, 60))
def test_near_pairs_are_exactly_those_of_comparing_all_with_all(seed: int, distance: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 1 << 63, 4, dtype=np.uint64)
    # Few bits flipped around few centres: many pairs near and at the edge of the distance.
    hashes = np.array(
        [int(rng.choice(centres)) ^ sum(1 << int(bit) for bit in rng.choice(64, int(rng.integers(0, 7)), replace=False))
         for _ in range(count)], dtype=np.uint64,
    )  # fmt: skip
    expected = [
        (i, j) for i in range(count) for j in range(i + 1, count) if hamming(int(hashes[i]), int(hashes[j])) <= distance
    ]
    pairs = found(hashes, distance)
    assert sorted(pairs) == expected
    assert len(set(pairs)) == len(pairs)


def test_chunks_lose_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.array([7, 7, 7, 7, 9, 7, 9, 7], dtype=np.uint64)
    whole = sorted(found(hashes, 0))
    assert len(whole) == 15 + 1
    for size in (1, 2, 3, 5, 16):
        monkeypatch.setattr(image_hash, "_CHUNK_PAIRS", size)
        assert sorted(found(hashes, 0)) == whole
