"""How long does a search for near hashes among a million take, in how much memory, and does it find all that is there?

    python benchmarks/hash_search.py --left 1000000 --right 1000000 --out benchmarks/results/hash_search.json
    python benchmarks/hash_search.py --left 1000000 --out …     # one set within itself

With `--right`, the search of `umif audit` (`corpus/duplicates.py`, 11 bits) between two sets of hashes; without, the
search of `umif inspect` (`corpus/image_hash.py`, 4 bits) within one. Hashes are generated: of the first kind even, as
that hash is made to be; of the second with bits as uneven as real films', so that bands collide much oftener. Near ones
are planted at every distance up to one bit over the limit.

What is found is compared with two truths in the same run: with what was planted, and, for a sample of hashes, with a
brute-force search of the sample against the whole other set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from umif.corpus.duplicates import RADIUS, HashIndex
from umif.corpus.image_hash import near_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

WITHIN = 4  # bits, as `umif inspect` searches
# How far the share of ones of the 64 bits lies from a half, sorted: 0, a quarter, … of 2,572 real films of three sets.
UNEVEN = ((0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.075, 0.15, 0.36, 0.49))
_BLOCK = 64  # hashes of the sample that are compared with all at a time


def generated(count: int, rng: np.random.Generator, *, uneven: bool) -> NDArray[np.uint64]:
    if not uneven:
        return rng.integers(0, 1 << 64, count, dtype=np.uint64)
    away = np.interp(np.linspace(0, 1, 64), *UNEVEN) * rng.choice((-1, 1), 64)
    hashes = np.zeros(count, dtype=np.uint64)
    for bit, share in zip(rng.permutation(64), 0.5 + away, strict=True):
        hashes |= (rng.random(count) < share).astype(np.uint64) << np.uint64(bit)
    return hashes


def flipped(hashes: NDArray[np.uint64], bits: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint64]:
    """Return each hash with so many of its bits flipped."""
    out = hashes.copy()
    for place, count in enumerate(bits):
        for bit in rng.choice(64, int(count), replace=False):
            out[place] ^= np.uint64(1) << np.uint64(bit)
    return out


def keys(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    return (left << 32) | right


def brute_force(left: NDArray[np.uint64], right: NDArray[np.uint64], radius: int) -> Iterator[tuple[Any, Any]]:
    for begin in range(0, len(right), _BLOCK):
        near = np.bitwise_count(right[begin : begin + _BLOCK, None] ^ left[None, :]) <= radius
        there, place = np.nonzero(near)
        yield place.astype(np.int64), there.astype(np.int64) + begin


def searched(left: NDArray[np.uint64], right: NDArray[np.uint64] | None) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the pairs found (as keys, sorted, once each), and what finding them cost."""
    begun, cpu = time.perf_counter(), time.process_time()
    if right is None:
        found = [keys(one, other) for one, other in near_pairs(left, WITHIN)]
    else:
        found = [keys(one, other) for one, other, _ in HashIndex(left).near(right)]
    pairs = np.unique(np.concatenate([*found, np.zeros(0, np.int64)]))
    cost = {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "pairs": len(pairs),
    }
    return pairs, cost


def measured(left_count: int, right_count: int | None, planted: int, sample: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    within = right_count is None
    radius = WITHIN if within else RADIUS
    left = generated(left_count, rng, uneven=within)
    right = None if right_count is None else generated(right_count, rng, uneven=False)
    other = left if right is None else right
    # Sources and places do not overlap, so that in one set no planted hash is a source of another.
    chosen = rng.permutation(min(len(left), len(other)))[: 2 * planted]
    source, place = chosen[:planted], chosen[planted:]
    bits = rng.integers(0, radius + 2, planted)
    other[place] = flipped(left[source], bits, rng)
    pairs, cost = searched(left, right)
    low, high = (np.minimum(source, place), np.maximum(source, place)) if within else (source, place)
    hit = np.isin(keys(low, high), pairs)
    rows = np.sort(np.concatenate([rng.choice(len(other), sample, replace=False)[: sample // 2], place[: sample // 2]]))
    rows = np.unique(rows)
    begun = time.process_time()
    truth = []
    for one, there in brute_force(left, other[rows], radius):
        apart = one != rows[there] if within else np.ones(len(one), dtype=bool)
        a, b = one[apart], rows[there][apart]
        truth.append(keys(np.minimum(a, b), np.maximum(a, b)) if within else keys(a, b))
    brute_seconds = time.process_time() - begun
    expected = np.unique(np.concatenate(truth))
    a, b = pairs >> 32, pairs & 0xFFFFFFFF
    mine = pairs[np.isin(b, rows) | np.isin(a, rows)] if within else pairs[np.isin(b, rows)]
    return {
        "search": "umif inspect, within one set" if within else "umif audit, between two sets",
        "left_hashes": left_count,
        "right_hashes": right_count,
        "radius_bits": radius,
        **cost,
        "planted": {
            f"{n} bits": {"planted": int((bits == n).sum()), "found": int(hit[bits == n].sum())}
            for n in range(radius + 2)
        },
        "brute_force": {
            "hashes": len(rows),
            "against": len(left),
            "pairs": len(expected),
            "missed": len(np.setdiff1d(expected, mine)),
            "found_beyond": len(np.setdiff1d(mine, expected)),
            "cpu_seconds": round(brute_seconds, 1),
            "cpu_hours_for_all": round(brute_seconds / len(rows) * len(other) / 3600, 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", type=int, default=1_000_000)
    parser.add_argument("--right", type=int, help="a second set; without it one set is searched within itself")
    parser.add_argument("--planted", type=int, default=12_000)
    parser.add_argument("--sample", type=int, default=20_000, help="hashes that are also searched by brute force")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    smaller = min(arguments.left, arguments.right or arguments.left)
    planted = min(arguments.planted, smaller // 4)
    record = {
        "question": "near hashes among many: time, memory, and whether all are found",
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "cores_used": 1},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        **measured(arguments.left, arguments.right, planted, min(arguments.sample, smaller), arguments.seed),
    }
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
