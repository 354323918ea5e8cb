"""How long does a search among a million hashes take, and which altered films does it find among real ones?

    python benchmarks/near_duplicates.py --search 1000000 --out benchmarks/results/near_duplicates_speed.json
    python benchmarks/near_duplicates.py --corpus CORPUS --out benchmarks/results/near_duplicates_found.json

The first generates hashes: a million on the left; as many on the right, of which 1,000 are near one on the left. The
second alters films of a corpus (rescaled, encoded again, cropped by a tenth, turned by up to 5 degrees, other
brightness, contrast and gamma, and all of these at once), puts them among as many films of other patients, and audits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from umif.corpus import Corpus, PrepareConfig, prepare
from umif.corpus.duplicates import RADIUS, HashIndex
from umif.corpus.twins import Films, find_twins
from umif.imaging import decode_jpeg_grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("rescaled", "re-encoded", "cropped", "turned", "brightness", "all at once")


def search(count: int, queries: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    right = rng.integers(0, 1 << 64, queries, dtype=np.uint64)
    planted = rng.choice(min(count, queries), min(1000, queries, count), replace=False)
    for place in planted:
        flips = rng.choice(64, int(rng.integers(0, RADIUS + 1)), replace=False).astype(np.uint64)
        right[place] = left[place] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
    begun, cpu = time.perf_counter(), time.process_time()
    found: set[tuple[int, int]] = set()
    for one, other, _ in HashIndex(left).near(right):
        found.update(zip(one.tolist(), other.tolist(), strict=True))
    return {
        "left_hashes": count,
        "right_hashes": queries,
        "radius_bits": RADIUS,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "planted": len(planted),
        "planted_found": sum((int(place), int(place)) in found for place in planted),
        "pairs": len(found),
    }


def altered(film: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    every = kind == "all at once"
    if every or kind == "cropped":
        height, width = (round(side * 0.9) for side in film.shape)
        top, left = (
            int(rng.integers(0, side - kept + 1)) for side, kept in zip(film.shape, (height, width), strict=True)
        )
        film = film[top : top + height, left : left + width]
    if every or kind == "turned":
        height, width = film.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-5, 5), 1)
        film = cv2.warpAffine(film, turn, (width, height)).astype(np.uint8)
    if every or kind == "rescaled":
        scale = rng.uniform(0.5, 0.9)
        film = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
    if every or kind == "brightness":
        grey = (film / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.75, 1.1) + rng.uniform(-0.08, 0.08)
        film = np.clip(grey * 255, 0, 255).astype(np.uint8)
    return film


def plant(corpus: Corpus, rows: NDArray[np.int64], others: NDArray[np.int64], root: Path, seed: int) -> None:
    """Write the altered films, named by row and kind, and the others as they are."""
    rng = np.random.default_rng(seed)
    for folder in ("planted", "other"):
        (root / folder).mkdir(parents=True)
    for number, (row, jpeg) in enumerate(zip(rows, corpus.take_jpegs(rows), strict=True)):
        kind = KINDS[number % len(KINDS)]
        film = altered(decode_jpeg_grey(jpeg), kind, rng)
        quality = int(rng.integers(40, 90)) if kind in ("re-encoded", "all at once") else 95
        name = f"{row:06d}_{number % len(KINDS)}.jpg"
        cv2.imwrite(str(root / "planted" / name), film, [cv2.IMWRITE_JPEG_QUALITY, quality])
    for row, jpeg in zip(others, corpus.take_jpegs(others), strict=True):
        (root / "other" / f"{row:06d}_9.jpg").write_bytes(jpeg)


def found_among(corpus: Corpus, datasets: list[str] | None, count: int, seed: int) -> dict[str, Any]:
    table = corpus.images_table(["patient", "image"])
    patients, names = (table.column(name).to_pylist() for name in ("patient", "image"))
    rng = np.random.default_rng(seed)
    rows = corpus.image_rows(datasets=datasets)
    order = rng.permutation(sorted({patients[row] for row in rows})).tolist()
    apart: set[str] = set()  # patients of whom nothing is on the left
    while sum(patients[row] in apart for row in rows) < count:
        apart.add(order.pop())
    left_rows = np.array([row for row in rows if patients[row] not in apart])
    others = np.array([row for row in rows if patients[row] in apart])[:count]
    planted = np.sort(rng.choice(left_rows, count, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        plant(corpus, planted, others, Path(folder) / "films", seed)
        config = PrepareConfig(bad_share_max=0)
        prepare(Path(folder) / "corpus", [("folder", Path(folder) / "films")], config, workers=1, progress=False)
        right = Corpus.open(Path(folder) / "corpus")
        labels = [Path(name).stem for name in right.images_table(["image"]).column("image").to_pylist()]
        begun = time.process_time()
        twins = find_twins(Films(corpus, left_rows), Films(right, right.image_rows()), lambda what, done, total: None)
        seconds = time.process_time() - begun
    pairs = [(int(left_rows[twin.left]), *map(int, labels[twin.right].split("_")), twin.agreement) for twin in twins]
    hit = {source for one, source, kind, _ in pairs if one == source and kind < len(KINDS)}
    total, right_kind = Counter(KINDS[n % len(KINDS)] for n in range(count)), Counter[str]()
    for number, row in enumerate(planted):
        right_kind[KINDS[number % len(KINDS)]] += int(row) in hit
    wrong = [pair for pair in pairs if pair[0] != pair[1] and patients[pair[0]] != patients[pair[1]]]
    again = [pair for pair in pairs if pair[0] != pair[1] and patients[pair[0]] == patients[pair[1]]]
    return {
        "left_films": len(left_rows),
        "planted": count,
        "other_films": len(others),
        "recall": round(len(hit) / count, 4),
        "recall_by_kind": {kind: round(right_kind[kind] / total[kind], 4) for kind in KINDS},
        "precision": round(len(hit) / max(1, len(hit) + len(wrong)), 4),
        "precision_if_other_films_of_the_patient_count_as_wrong": round(len(hit) / max(1, len(pairs)), 4),
        "pairs_of_another_patient": [[names[one], names[other], value] for one, other, _, value in wrong],
        "pairs_of_the_same_patient": [[names[one], names[other], value] for one, other, _, value in again],
        "least_agreement_found": min((pair[3] for pair in pairs if pair[0] == pair[1]), default=None),
        "missed": [names[row] for row in planted if int(row) not in hit],
        "cpu_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=int, metavar="N", help="search so many generated hashes among as many")
    parser.add_argument(
        "--queries", type=int, metavar="M", help="hashes on the right, if not as many; time is linear in them"
    )
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--datasets", nargs="+", help="of the corpus; all unless told")
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    record: dict[str, Any] = {
        "question": "near-duplicates: time of a search, and what is found",
        "hardware": {"machine": platform.machine(), "cores_used": 1},
        "versions": {"numpy": np.__version__, "cv2": cv2.__version__},
    }
    if arguments.search:
        queries = arguments.queries or arguments.search
        record["search"] = search(arguments.search, queries, arguments.seed)
    if arguments.corpus:
        corpus = Corpus.open(arguments.corpus)
        record["found"] = found_among(corpus, arguments.datasets, arguments.planted, arguments.seed)
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
