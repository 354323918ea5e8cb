"""Do a step's draw and its memory stay the same from ten thousand pairs to a hundred million, and how long is a start?

    python benchmarks/sampler_growth.py --out benchmarks/results/sampler_growth.json

The first part simulates the index: sets of rows and orders of so many pairs, no pictures. The second (`--corpus-pairs`)
writes a pairs.lance of so many real rows and opens it as a run does. Seconds are CPU seconds of this process, but for
the start, which is the wall's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lance
import numpy as np
import pyarrow as pa

from umif.bench.hardware import describe_hardware
from umif.corpus.manifest import IMAGES_FOLDER, MANIFEST, PAIRS_FOLDER, PrepareConfig, json_bytes
from umif.corpus.schema import FORMAT, IMAGES, PAIR_KINDS, PAIRS
from umif.corpus.store import Corpus
from umif.tokens.loader import DataConfig
from umif.tokens.rows import RowSet
from umif.tokens.sampler import PairSampler
from umif.tokens.selection import select_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = tuple(10**power for power in range(4, 9))
STEPS = 400
_WRITE_ROWS = 1 << 16


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def simulated(pairs: int) -> dict[str, Any]:
    """One size, in a process of its own: four kinds, each a quarter of all rows."""
    before = resident_mib()
    started = time.process_time()
    rows = {}
    for code, kind in enumerate(PAIR_KINDS):
        chosen = np.zeros(pairs, dtype=bool)
        chosen[code :: len(PAIR_KINDS)] = True
        rows[kind] = RowSet(chosen)
    del chosen
    sampler = PairSampler({kind: len(found) for kind, found in rows.items()}, seed=0)
    sampler.draw(0)
    start = time.process_time() - started
    spent = []
    for first in range(0, 5 * STEPS, STEPS):
        began = time.process_time()
        for step in range(first, first + STEPS):
            slots = sampler.draw(step)
            for kind in {kind for kind, _ in slots}:
                rows[kind].take([place for other, place in slots if other == kind])
        spent.append((time.process_time() - began) / STEPS)
    return {
        "pairs": pairs,
        "start_s": round(start, 3),
        "ms_per_step": round(1e3 * float(np.median(spent)), 3),
        "index_bytes_per_pair": round(sum(found.nbytes for found in rows.values()) / pairs, 3),
        "resident_mib_more": round(resident_mib() - before, 1),
    }


def write_corpus(folder: Path, pairs: int) -> Path:
    """A corpus of one blank image and so many pairs of all kinds, as like real ones as a start looks at."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = {field.name: None if field.nullable else _blank(field.type) for field in IMAGES}
    lance.write_dataset(pa.Table.from_pylist([image], schema=IMAGES), str(folder / IMAGES_FOLDER))
    names = ["edema", "pneumonia", "cardiomegaly", "atelectasis", "nodule"]
    states = ["present", "absent", "uncertain", "not_mentioned"]
    labels = [
        [{"raw": name.title(), "finding": name, "state": states[int(rng.integers(4))]} for name in names]
        for _ in range(1024)
    ]

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, pairs, _WRITE_ROWS):
            count = min(_WRITE_ROWS, pairs - first)
            columns = {field.name: pa.nulls(count, field.type) for field in PAIRS}
            ids = [f"made/{first + row:09d}" for row in range(count)]
            columns["pair"] = columns["image"] = columns["patient"] = columns["hash"] = pa.array(ids)
            columns["kind"] = pa.array(PAIR_KINDS).take(pa.array(np.arange(count) % len(PAIR_KINDS)))
            columns["dataset"] = pa.array(["made"] * count)
            columns["split"] = pa.array(["train", "train", "train", "test"]).take(pa.array(rng.integers(0, 4, count)))
            columns["image_row"] = pa.array(np.zeros(count, dtype=np.int64))
            shared = pa.array(labels, PAIRS.field("findings").type)
            columns["findings"] = shared.take(pa.array(rng.integers(0, len(labels), count)))
            columns["regions"] = pa.array([[]] * count, PAIRS.field("regions").type)
            yield pa.record_batch([columns[field.name] for field in PAIRS], schema=PAIRS)

    lance.write_dataset(pa.RecordBatchReader.from_batches(PAIRS, batches()), str(folder / PAIRS_FOLDER))
    counts = {kind: len(range(code, pairs, len(PAIR_KINDS))) for code, kind in enumerate(PAIR_KINDS)}
    about: dict[str, Any] = {"format": FORMAT, "fingerprint": "0" * 64, "inputs": "", "umif": ""}
    about |= {"config": PrepareConfig().model_dump(mode="json"), "readers": [], "images": 1, "pairs": counts}
    about |= {"splits": {}, "quarantined": 0, "dropped_regions": 0, "duplicates": 0, "unmapped": {}}
    (folder / MANIFEST).write_bytes(json_bytes(about))
    return folder


def _blank(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    return b"" if pa.types.is_large_binary(kind) else 0 if pa.types.is_integer(kind) else ""


def start_of(corpus: Path) -> dict[str, Any]:
    """One start, in a process of its own."""
    before, wall, began = resident_mib(), time.perf_counter(), time.process_time()
    opened = Corpus.open(corpus)
    rows, _ = select_rows(opened, DataConfig())
    PairSampler({kind: len(found) for kind, found in rows.items()}, seed=0).draw(0)
    return {
        "pairs": sum(opened.manifest.pairs.values()),
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - began, 2),
        "resident_mib_more": round(resident_mib() - before, 1),
    }


def alone(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus-pairs", type=int, nargs="*", default=[10**6], help="rows that are really written")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        print(json.dumps(simulated(arguments.simulate)))
        return
    if arguments.start:
        print(json.dumps(start_of(arguments.start)))
        return
    record: dict[str, Any] = {"hardware": describe_hardware()}
    record["simulated"] = [alone("--simulate", str(pairs)) for pairs in SIZES]
    record["start"] = []
    for pairs in arguments.corpus_pairs:
        with tempfile.TemporaryDirectory() as folder:
            record["start"].append(alone("--start", str(write_corpus(Path(folder) / "corpus", pairs))))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
