"""The nearest images or texts by cosine: one search for retrieval, neighbour votes and `umif search`.

The search is exact: every query meets every candidate. Products are taken in double precision and rounded to ten
decimals, so that what is equal is a tie on every machine, whatever the order of its sums. FAISS, where it is
installed, takes over beyond a million candidates; its index is a flat one, so it is exact as well, in single precision.

Shape legend: Q queries, N candidates, D features, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from umif.errors import EmptyError, InputError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Engine = Literal["auto", "exact", "faiss"]
LARGE = 1_000_000  # candidates from which FAISS is worth its index
DECIMALS = 10
NOBODY = -1
# So many (query, candidate) cells are held at a time: 64 MiB of float64.
_CELLS = 8 * 2**20
_ROWS = 8192  # candidates that are made double at a time


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest candidates of each query, best first; equal ones in the order of the candidates.

    Shapes: places_Qk int64, positions among the candidates, `NOBODY` where there are no more; cosines_Qk float64, −inf
    there.
    """

    places_Qk: NDArray[np.int64]
    cosines_Qk: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Barred:
    """Who may not be whose neighbour: candidates of the query's own group, such as images of the same patient.

    Shapes: queries_Q, candidates_N int64; equal numbers are one group.
    """

    queries_Q: NDArray[np.int64]
    candidates_N: NDArray[np.int64]

    @classmethod
    def same(cls, queries_Q: NDArray[np.str_], candidates_N: NDArray[np.str_]) -> Barred:
        """Bar candidates of the same name (patient)."""
        _, codes = np.unique(np.concatenate([queries_Q, candidates_N]), return_inverse=True)
        codes = codes.astype(np.int64)
        return cls(codes[: len(queries_Q)], codes[len(queries_Q) :])


def unit_rows(features_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return each row at length one; a row of zeros stays one. Shape (N, D), fp32."""
    values = np.asarray(features_ND, dtype=np.float64)
    length_N1 = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (values / np.where(length_N1 > 0, length_N1, 1.0)).astype(np.float32)
    return unit


def cosine_blocks(
    queries_QD: NDArray[np.float32], candidates_ND: NDArray[np.float32], barred: Barred | None = None
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the cosines of some queries to all candidates, queries in order; −inf where a candidate is barred.

    Args:
        queries_QD, candidates_ND: Rows of length one (`unit_rows`).
        barred: Who may not be whose neighbour.

    Shapes: yields (q queries, (q, N)). Memory: 64 MiB at a time, or one query's row.
    Raises:
        ShapeError: the widths differ, or a feature is not finite.
    """
    if queries_QD.shape[1] != candidates_ND.shape[1]:
        raise ShapeError(f"queries of width {queries_QD.shape[1]} for candidates of width {candidates_ND.shape[1]}")
    if not (np.isfinite(queries_QD).all() and np.isfinite(candidates_ND).all()):
        raise ShapeError("features hold NaN or infinity, so nothing is near anything")
    count = len(candidates_ND)
    step = max(1, _CELLS // max(1, count))
    for start in range(0, len(queries_QD), step):
        some = slice(start, min(start + step, len(queries_QD)))
        double_qD = queries_QD[some].astype(np.float64)
        scores_qN = np.empty((len(double_qD), count))
        for begin in range(0, count, _ROWS):
            scores_qN[:, begin : begin + _ROWS] = double_qD @ candidates_ND[begin : begin + _ROWS].astype(np.float64).T
        np.round(scores_qN, DECIMALS, out=scores_qN)
        if barred is not None:
            scores_qN[barred.queries_Q[some, None] == barred.candidates_N[None]] = -np.inf
        yield some, scores_qN


def nearest(
    queries_QD: NDArray[np.float32],
    candidates_ND: NDArray[np.float32],
    k: int,
    *,
    barred: Barred | None = None,
    engine: Engine = "auto",
) -> Neighbours:
    """Return the `k` candidates nearest to each query.

    Args:
        queries_QD, candidates_ND: Rows of length one (`unit_rows`).
        k: How many; fewer where there are not as many.
        barred: Who may not be whose neighbour.
        engine: `exact`, `faiss`, or `auto`: FAISS where it is installed and there are over a million candidates.

    Raises:
        EmptyError: there is no candidate, or `k` is below 1.
        InputError: FAISS is asked for and not installed.
        ShapeError: the widths differ, or a feature is not finite.
    """
    if k < 1 or not len(candidates_ND):
        raise EmptyError("there is nothing to find", fix="ask for at least one neighbour among at least one candidate")
    if engine not in ("auto", "exact", "faiss"):
        raise InputError(f"no search is called {engine!r}", where="engine", fix="choose auto, exact or faiss")
    library = _faiss(asked=engine == "faiss") if engine != "exact" and _wants_faiss(engine, candidates_ND) else None
    if library is not None:
        return _by_faiss(library, queries_QD, candidates_ND, k, barred)
    count = min(k, len(candidates_ND))
    places_Qk = np.full((len(queries_QD), count), NOBODY, dtype=np.int64)
    cosines_Qk = np.full((len(queries_QD), count), -np.inf)
    for some, scores_qN in cosine_blocks(queries_QD, candidates_ND, barred):
        least_q = np.partition(scores_qN, len(candidates_ND) - count, axis=1)[:, len(candidates_ND) - count]
        for row, scores_N in enumerate(scores_qN):
            near = np.flatnonzero((scores_N >= least_q[row]) & (scores_N > -np.inf))
            best = near[np.argsort(-scores_N[near], kind="stable")][:count]
            places_Qk[some.start + row, : len(best)] = best
            cosines_Qk[some.start + row, : len(best)] = scores_N[best]
    return Neighbours(places_Qk, cosines_Qk)


def _wants_faiss(engine: Engine, candidates_ND: NDArray[np.float32]) -> bool:
    return engine == "faiss" or len(candidates_ND) > LARGE


def _faiss(*, asked: bool) -> Any:
    """Return the library; `None` where it is not installed and nobody asked for it."""
    try:
        import faiss
    except ImportError:
        if asked:
            raise InputError(
                "FAISS is not installed", where="engine", fix="pip install 'umif[faiss]', or use the exact search"
            ) from None
        return None
    return faiss


def _by_faiss(
    library: Any,
    queries_QD: NDArray[np.float32],
    candidates_ND: NDArray[np.float32],
    k: int,
    barred: Barred | None,
) -> Neighbours:
    """Search a flat index; so many more are fetched as a group may bar."""
    if not (np.isfinite(queries_QD).all() and np.isfinite(candidates_ND).all()):
        raise ShapeError("features hold NaN or infinity, so nothing is near anything")
    count = min(k, len(candidates_ND))
    spare = 0 if barred is None else int(np.unique(barred.candidates_N, return_counts=True)[1].max())
    index = library.IndexFlatIP(candidates_ND.shape[1])
    index.add(np.ascontiguousarray(candidates_ND, dtype=np.float32))
    found_cosines, found = index.search(
        np.ascontiguousarray(queries_QD, dtype=np.float32), min(count + spare, len(candidates_ND))
    )
    places_Qk = np.full((len(queries_QD), count), NOBODY, dtype=np.int64)
    cosines_Qk = np.full((len(queries_QD), count), -np.inf)
    for row, (places, cosines) in enumerate(zip(found, found_cosines.astype(np.float64), strict=True)):
        allowed = places >= 0
        if barred is not None:
            allowed &= barred.candidates_N[places] != barred.queries_Q[row]
        kept, values = places[allowed], cosines[allowed]
        best = np.lexsort((kept, -values))[:count]
        places_Qk[row, : len(best)], cosines_Qk[row, : len(best)] = kept[best], values[best]
    return Neighbours(places_Qk, cosines_Qk)
