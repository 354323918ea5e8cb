"""Searching hashes finds what comparing every pair finds; hashes and alignment tell altered films from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from leaky_corpora import altered, draw_film
from umif.corpus.alignment import SAME_FILM, Film, agreement
from umif.corpus.duplicates import CANDIDATES, RADIUS, HashIndex, nearest_films
from umif.corpus.film_hash import BITS, LEFT_WINDOW, SIDE, WINDOW_SIDE, WINDOWS, Basis, Window, look_through
from umif.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def films() -> list[NDArray[np.uint8]]:
    """Films that share all that is coarse, as chest films do, and have detail of their own."""
    return [draw_film(seed) for seed in range(20)]


def every_pair(left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int) -> set[tuple[int, int, int]]:
    return {
        (i, j, (int(a) ^ int(b)).bit_count())
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (int(a) ^ int(b)).bit_count() <= radius
    }


def crowded(count: int, seed: int) -> NDArray[np.uint64]:
    """Hashes in clusters, so that many are near: a few centres with up to 14 bits flipped."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).integers(0, 1 << 64, 12, dtype=np.uint64)
    hashes = centres[rng.integers(0, len(centres), count)]
    for place in range(count):
        for bit in rng.choice(64, int(rng.integers(0, 15)), replace=False):
            hashes[place] ^= np.uint64(1) << np.uint64(bit)
    return hashes


@pytest.mark.parametrize("radius", [0, 3, 4, 8, RADIUS])
@pytest.mark.parametrize("small", [True, False])
def test_search_finds_exactly_what_comparing_all_pairs_finds(
    radius: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umif.corpus.duplicates._FEW_HASHES", 2048 if small else 0)
    monkeypatch.setattr("umif.corpus.duplicates._CHUNK", 97)  # many chunks
    left, right = crowded(150, 1), crowded(130, 2)
    found = {
        (int(i), int(j), int(d))
        for lefts, rights, distances in HashIndex(left).near(right, radius)
        for i, j, d in zip(lefts, rights, distances, strict=True)
    }
    assert found == every_pair(left, right, radius)
    assert found or radius == 0


def test_a_radius_that_bands_cannot_serve_is_refused() -> None:
    with pytest.raises(ConfigError, match="12 bits"):
        list(HashIndex(crowded(5, 1)).near(crowded(5, 2), 12))


def test_nearest_films_keep_the_nearest_with_their_best_window() -> None:
    left = crowded(60, 3)
    right = crowded(40, 4).reshape(8, 5)
    got = nearest_films(HashIndex(left), right)
    for film in range(8):
        distance = np.bitwise_count(right[film][:, None] ^ left[None, :]).astype(int)
        best = sorted((int(distance[:, i].min()), i) for i in range(60) if distance[:, i].min() <= RADIUS)[:CANDIDATES]
        mine = [each for each in got if each.right == film]
        assert [(each.distance, each.left) for each in mine] == best
        assert all(distance[each.window, each.left] == each.distance for each in mine)
    everything = nearest_films(HashIndex(left), right, everything=True)
    assert len(everything) == 8 * CANDIDATES


def test_a_window_maps_its_corners_where_its_numbers_say() -> None:
    corners = np.array([[0, 0, 1], [WINDOW_SIDE - 1, 0, 1], [(WINDOW_SIDE - 1) / 2, (WINDOW_SIDE - 1) / 2, 1]]).T
    straight = Window(0.5, 0.0, 0.1, -0.05).matrix(WINDOW_SIDE, SIDE) @ corners
    middle = (SIDE - 1) / 2
    half = 0.5 * SIDE * (WINDOW_SIDE - 1) / WINDOW_SIDE / 2
    expected = np.array([middle + 0.1 * SIDE, middle - 0.05 * SIDE])
    np.testing.assert_allclose(straight[:, 2], expected, atol=1e-4)  # fp32
    np.testing.assert_allclose(straight[:, 0], expected - half, atol=1e-4)
    turned = Window(0.5, 90.0, 0.0, 0.0).matrix(WINDOW_SIDE, SIDE) @ corners
    np.testing.assert_allclose(turned[:, 0] - middle, [half, -half], atol=1e-4)


def test_bits_of_different_films_agree_by_chance_and_brightness_changes_none_of_note(
    films: list[NDArray[np.uint8]],
) -> None:
    basis = Basis.fit(films)
    hashes = basis.hash(np.concatenate([look_through(film, [LEFT_WINDOW]) for film in films]))
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    others = distance[np.triu_indices(len(films), 1)]
    assert abs(float(np.median(others)) - BITS / 2) < 8
    darker = [(film * 0.6 + 20).astype(np.uint8) for film in films]
    again = basis.hash(np.concatenate([look_through(film, [LEFT_WINDOW]) for film in darker]))
    assert int(np.bitwise_count(hashes ^ again).max()) <= RADIUS < int(others.min()) + RADIUS


def test_a_constant_film_has_a_hash_and_agrees_with_nothing(films: list[NDArray[np.uint8]]) -> None:
    flat = np.full((90, 70), 128, dtype=np.uint8)
    views = look_through(flat, WINDOWS)
    assert np.isfinite(views).all()
    assert len(Basis.fit([flat]).hash(views)) == len(WINDOWS)
    assert agreement(Film.of(flat), Film.of(films[0]), LEFT_WINDOW) == 0.0
    assert agreement(Film.of(flat), Film.of(flat), LEFT_WINDOW) == 0.0


def test_a_film_agrees_with_its_cropped_turned_darkened_copy_and_not_with_another(
    films: list[NDArray[np.uint8]],
) -> None:
    basis = Basis.fit(films)
    for film, other in zip(films[:6], films[6:12], strict=True):
        copy = altered(film)
        hashes = basis.hash(look_through(copy, WINDOWS))
        mine = basis.hash(look_through(film, [LEFT_WINDOW]))[0]
        window = WINDOWS[int(np.bitwise_count(hashes ^ mine).argmin())]
        assert agreement(Film.of(film), Film.of(copy), window) >= SAME_FILM
        assert agreement(Film.of(other), Film.of(copy), window) < SAME_FILM
