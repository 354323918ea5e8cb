"""The films of one corpus that are also in another, however they were cropped, turned, rescaled or encoded again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from umif.corpus.alignment import SAME_FILM, Film, agreement
from umif.corpus.duplicates import HashIndex, nearest_films
from umif.corpus.film_hash import LEFT_WINDOW, SIDE, WINDOWS, Basis, look_through, shrink
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from umif.corpus.store import Corpus

    Progress = Callable[[str, int, int], None]

_FIT_FILMS = 4000  # that the basis is fitted on
_FEW_FILMS = 200  # among so few the nearest are looked at however far they are: a basis fitted on few tells little
_BATCH = 64  # films at a time: 90 MiB of views


@dataclass(frozen=True, slots=True)
class Films:
    """Some images of a corpus."""

    corpus: Corpus
    rows: NDArray[np.int64]

    def read(self, places: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the pictures at some places of `rows`."""
        return [decode_jpeg_grey(jpeg) for jpeg in self.corpus.take_jpegs(self.rows[places])]

    def batches(self) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.uint8]]]]:
        """Yield places and pictures of all films, some at a time."""
        for begin in range(0, len(self.rows), _BATCH):
            places = np.arange(begin, min(begin + _BATCH, len(self.rows)))
            yield places, self.read(places)


@dataclass(frozen=True, slots=True)
class Twin:
    """Two places that show one film; `agreement` is the correlation of their fine detail."""

    left: int
    right: int
    agreement: float


def pixel_hashes(films: Films, progress: Progress) -> list[str]:
    """Return the SHA-256 of each film's size and decoded pixels."""
    found: list[str] = []
    for places, pictures in films.batches():
        for picture in pictures:
            found.append(hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest())
        progress("hashing pixels", int(places[-1]) + 1, len(films.rows))
    return found


def find_twins(left: Films, right: Films, progress: Progress) -> list[Twin]:
    """Return every pair of a left and a right film that are the same, by right film.

    Of each right film the 16 left films of nearest hash are looked at, so one that is repeated more often on the left
    gives 16 pairs.
    """
    if not len(left.rows) or not len(right.rows):
        return []
    basis = _fit(left, right)
    hashes_N = np.zeros(len(left.rows), dtype=np.uint64)
    for places, pictures in left.batches():
        views = np.concatenate([look_through(picture, [LEFT_WINDOW]) for picture in pictures])
        hashes_N[places] = basis.hash(views)
        progress("hashing what is trained on", int(places[-1]) + 1, len(left.rows))
    index = HashIndex(hashes_N)
    found: list[Twin] = []
    for places, pictures in right.batches():
        views_MVP = [look_through(picture, WINDOWS) for picture in pictures]
        hashes_MV = np.stack([basis.hash(views_VP) for views_VP in views_MVP])
        near = nearest_films(index, hashes_MV, everything=len(left.rows) <= _FEW_FILMS)
        pairs = [(each.left, int(places[each.right])) for each in near]
        found += verified(left, right, pairs, dict(zip(places.tolist(), views_MVP, strict=True)))
        progress("comparing what is tested on", int(places[-1]) + 1, len(right.rows))
    return found


def verified(
    left: Films,
    right: Films,
    pairs: Sequence[tuple[int, int]],
    views: dict[int, NDArray[np.float32]] | None = None,
) -> list[Twin]:
    """Return those of some pairs (left place, right place) that show one film.

    The alignment begins from the window on the right film that shows most nearly what the middle of the left one shows.
    Hashes do not say which that is: two windows may be equally near by bits, and one of them far off.

    Args:
        left, right: What the places mean.
        pairs: Which to look at.
        views: What all windows show of right films, where that is at hand.
    """
    found = []
    known = {} if views is None else views
    for begin in range(0, len(pairs), _BATCH):
        some = pairs[begin : begin + _BATCH]
        lefts, rights = (_read(films, {pair[side] for pair in some}) for side, films in enumerate((left, right)))
        for one, other in some:
            if other not in known:
                known = {other: look_through(rights[other].picture, WINDOWS)}  # pairs come by right film: one is enough
            window = int((known[other] @ lefts[one].middle_P).argmax())
            value = agreement(lefts[one].film, rights[other].film, WINDOWS[window])
            if value >= SAME_FILM:
                found.append(Twin(one, other, round(value, 3)))
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    picture: NDArray[np.uint8]
    film: Film
    middle_P: NDArray[np.float32]


def _read(films: Films, places: set[int]) -> dict[int, _Read]:
    wanted = np.array(sorted(places), dtype=np.int64)
    pictures = zip(wanted.tolist(), films.read(wanted), strict=True)
    return {
        place: _Read(picture, Film.of(picture), look_through(picture, [LEFT_WINDOW])[0]) for place, picture in pictures
    }


def _fit(left: Films, right: Films) -> Basis:
    some: list[NDArray[np.uint8]] = []
    for films in (left, right):
        count = min(len(films.rows), _FIT_FILMS // 2)
        places = np.unique(np.linspace(0, len(films.rows) - 1, count).astype(np.int64))
        for begin in range(0, len(places), _BATCH):
            some += [shrink(picture, SIDE).astype(np.uint8) for picture in films.read(places[begin : begin + _BATCH])]
    return Basis.fit(some)
