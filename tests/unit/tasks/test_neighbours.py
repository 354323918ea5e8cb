"""The search against scikit-learn, who may be whose neighbour, and FAISS where it is there and where it is not."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from umif.errors import EmptyError, InputError, ShapeError
from umif.tasks import neighbours
from umif.tasks.neighbours import NOBODY, Barred, cosine_blocks, nearest, unit_rows


def unit(count: int, seed: int = 0, width: int = 7) -> Any:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, width)))


def test_finds_what_scikit_learn_finds() -> None:
    candidates, queries = unit(200), unit(30, 1)
    found = nearest(queries, candidates, 9)
    distances, places = NearestNeighbors(n_neighbors=9, metric="cosine").fit(candidates).kneighbors(queries)
    assert np.array_equal(found.places_Qk, places)
    # Single precision in, rounded to ten decimals: the reference works in single precision.
    assert found.cosines_Qk == pytest.approx(1 - distances, abs=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, queries = unit(50), unit(11, 1)
    whole = nearest(queries, candidates, 5)
    monkeypatch.setattr(neighbours, "_CELLS", 120)
    monkeypatch.setattr(neighbours, "_ROWS", 7)
    parts = nearest(queries, candidates, 5)
    assert np.array_equal(whole.places_Qk, parts.places_Qk)
    assert np.array_equal(whole.cosines_Qk, parts.cosines_Qk)
    assert [some for some, _ in cosine_blocks(queries, candidates)][:2] == [slice(0, 2), slice(2, 4)]


def test_equal_candidates_come_in_their_own_order() -> None:
    candidates = np.repeat(unit(3), 4, axis=0)
    found = nearest(unit(3), candidates, 4)
    assert found.places_Qk.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert found.cosines_Qk == pytest.approx(1.0, abs=1e-6)


def test_the_own_patient_is_nobodys_neighbour() -> None:
    patients = np.array(["a", "a", "b", "c", "c", "c"])
    features = unit(6)
    found = nearest(features, features, 6, barred=Barred.same(patients, patients))
    for row, places in enumerate(found.places_Qk):
        there = places[places != NOBODY]
        assert set(there.tolist()) == set(np.flatnonzero(patients != patients[row]).tolist())
        assert (found.cosines_Qk[row, len(there) :] == -np.inf).all()


def test_a_row_of_zeros_is_near_nothing() -> None:
    assert np.array_equal(unit_rows(np.zeros((1, 3))), np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("queries", "candidates", "k", "engine", "error"),
    [
        (unit(2), unit(0), 1, "exact", EmptyError),
        (unit(2), unit(3), 0, "exact", EmptyError),
        (unit(2, width=4), unit(3), 1, "exact", ShapeError),
        (unit(2) * np.float32("nan"), unit(3), 1, "exact", ShapeError),
        (unit(2), unit(3), 1, "quick", InputError),
    ],
)
def test_what_cannot_be_searched_is_refused(
    queries: Any, candidates: Any, k: int, engine: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        nearest(queries, candidates, k, engine=engine)


class TestFaiss:
    def test_asked_for_and_absent_is_an_error_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(InputError, match="FAISS is not installed") as caught:
            nearest(unit(1), unit(3), 1, engine="faiss")
        assert "umif[faiss]" in str(caught.value)

    def test_absent_and_not_asked_for_the_exact_search_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "faiss", None)
        monkeypatch.setattr(neighbours, "LARGE", 2)
        assert nearest(unit(3), unit(3), 1).places_Qk[:, 0].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("real", [True, False])
    def test_finds_what_the_exact_search_finds(self, real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if real:
            pytest.importorskip("faiss")
        else:
            monkeypatch.setitem(sys.modules, "faiss", flat_index_module())
        candidates, queries = unit(300), unit(20, 1)
        patients = np.random.default_rng(2).integers(40, size=300).astype(str)
        barred = Barred.same(patients[:20], patients)
        ours = nearest(queries, candidates, 6, barred=barred, engine="exact")
        theirs = nearest(queries, candidates, 6, barred=barred, engine="faiss")
        assert np.array_equal(ours.places_Qk, theirs.places_Qk)
        assert ours.cosines_Qk == pytest.approx(theirs.cosines_Qk, abs=1e-6)  # it sums in single precision

    def test_many_candidates_go_to_it_unasked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = flat_index_module()
        monkeypatch.setitem(sys.modules, "faiss", module)
        monkeypatch.setattr(neighbours, "LARGE", 2)
        nearest(unit(3), unit(3), 1)
        nearest(unit(3), unit(2), 1)
        assert module.sizes == [3]


def flat_index_module() -> Any:
    """A stand-in with the two calls that are made."""
    module = types.SimpleNamespace(sizes=[])

    class IndexFlatIP:
        def __init__(self, width: int) -> None:
            self.rows = np.zeros((0, width), dtype=np.float32)

        def add(self, rows: Any) -> None:
            module.sizes.append(len(rows))
            self.rows = np.concatenate([self.rows, rows])

        def search(self, queries: Any, k: int) -> tuple[Any, Any]:
            products = queries @ self.rows.T
            order = np.argsort(-products, axis=1)[:, :k]
            return np.take_along_axis(products, order, 1), order

    module.IndexFlatIP = IndexFlatIP
    return module
