"""How long until the first batch from a corpus in an object store, by row or whole, and what do kept rows cost?

    python benchmarks/remote_rows.py --corpus CORPUS --out benchmarks/results/remote_rows.json

The store is the tests' own small server on the loopback, whose latency and bandwidth are no network's; so it is
measured as it is, with a wait before each answer, and with a limit to its bandwidth too (--line DELAY_MS:MBIT). Bytes
are counted there and hold anywhere. The corpus is measured as it is and with its rows repeated (--times). Each first
batch is made by a process of its own with an empty cache, after its imports. Without --corpus, phantom radiographs are
made first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import s3fs

from s3_server import ObjectStore, object_store, settings
from umif.bench.hardware import describe_hardware
from umif.corpus import Corpus, prepare
from umif.corpus.manifest import IMAGES_FOLDER, MANIFEST, PAIRS_FOLDER, json_bytes
from umif.corpus.phantom import write_phantom
from umif.tokens import DataConfig, StepDataset, TextTokenizer, vocabulary_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "s3://bucket/corpus"
PAIRS_PER_KIND = 32
READS, READ_ROWS = 10, 128


def grown(corpus: Path, times: int, folder: Path) -> Path:
    """The corpus with its rows repeated, each copy with names and hashes of its own, as those fill tables."""
    if times == 1:
        return corpus
    manifest = json.loads((corpus / MANIFEST).read_text())
    rows = manifest["images"]

    def batches(name: str) -> Iterator[pa.RecordBatch]:
        for copy in range(times):
            for batch in lance.dataset(str(corpus / name)).to_batches(batch_size=1024, scan_in_order=True):
                for column in {"image", "pair", "patient"} & set(batch.schema.names):
                    at = batch.schema.get_field_index(column)
                    named = pc.binary_join_element_wise(batch.column(column), f"-{copy}", "")
                    batch = batch.set_column(at, batch.schema.field(column), named)
                for column in {"sha256", "hash"} & set(batch.schema.names):
                    at = batch.schema.get_field_index(column)
                    values = [f"{value}{copy}".encode() for value in batch.column(column).to_pylist()]
                    hashes = pa.array([hashlib.sha256(value).hexdigest() for value in values])
                    batch = batch.set_column(at, batch.schema.field(column), hashes)
                if name == PAIRS_FOLDER:
                    at = batch.schema.get_field_index("image_row")
                    moved = pc.add(batch.column("image_row"), pa.scalar(copy * rows, pa.int64()))
                    batch = batch.set_column(at, batch.schema.field("image_row"), moved)
                yield batch

    out = folder / f"times{times}"
    out.mkdir()
    for name in (IMAGES_FOLDER, PAIRS_FOLDER):
        schema = lance.dataset(str(corpus / name)).schema
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches(name)), str(out / name), schema=schema)
    manifest |= {
        "images": rows * times,
        "pairs": {kind: count * times for kind, count in manifest["pairs"].items()},
        "fingerprint": f"{times:064x}",
    }
    (out / MANIFEST).write_bytes(json_bytes(manifest))
    return out


def first_batch(tokenizer: TextTokenizer, environment: dict[str, str]) -> float:
    """Seconds from opening to the first batch; runs in a process of its own."""
    os.environ.update(environment)
    config = DataConfig(image_size=224, pairs_per_kind=PAIRS_PER_KIND)
    started = time.perf_counter()
    dataset = StepDataset(URL, tokenizer, config, seed=0)
    dataset[0]
    return time.perf_counter() - started


def unread_rows(environment: dict[str, str]) -> float:
    """Pictures a second that nobody has read yet; runs in a process of its own."""
    os.environ.update(environment)
    corpus = Corpus.open(URL)
    order = np.random.default_rng(1).permutation(corpus.manifest.images)[: READS * READ_ROWS]
    corpus.take_jpegs(order[:1])
    started = time.perf_counter()
    for first in range(0, len(order), READ_ROWS):
        corpus.take_jpegs(order[first : first + READ_ROWS])
    return len(order) / (time.perf_counter() - started)


def in_a_process(function: Any, *arguments: Any) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(function, arguments))


def spread(values: list[float], digits: int = 2) -> list[float]:
    """Median, lowest, highest."""
    return [round(value, digits) for value in (statistics.median(values), min(values), max(values))]


def from_the_store(
    store: ObjectStore, tokenizer: TextTokenizer, line: tuple[float, float], rounds: int, folder: Path
) -> dict[str, Any]:
    """First batches by row, again from the same cache, and whole; the ways take turns."""
    store.delay_seconds, store.bytes_per_second = line[0] / 1000, line[1] * 1e6 / 8
    seconds: dict[str, list[float]] = {"rows": [], "again": [], "whole": []}
    sent: dict[str, int] = {}
    rates = []
    for number in range(rounds):
        for way in ("rows", "again", "whole") if number % 2 == 0 else ("whole", "rows", "again"):
            cache = folder / ("whole" if way == "whole" else "rows")
            if way != "again":
                shutil.rmtree(cache, ignore_errors=True)
            store.sent.clear()
            environment = {**settings(store, cache), "UMIF_FETCH": "whole" if way == "whole" else "rows"}
            seconds[way].append(in_a_process(first_batch, tokenizer, environment))
            sent[way] = sum(store.sent.values())
        shutil.rmtree(folder / "unread", ignore_errors=True)
        rates.append(in_a_process(unread_rows, settings(store, folder / "unread")))
    ratios = [whole / rows for whole, rows in zip(seconds["whole"], seconds["rows"], strict=True)]
    return {
        "delay_ms": line[0],
        "mbit_per_s": line[1] or None,
        "corpus_bytes": sum(map(len, store.objects.values())),
        "bytes_until_first_batch": sent,
        "seconds_until_first_batch": {way: spread(values) for way, values in seconds.items()},
        "whole_over_rows_seconds": spread(ratios),
        "whole_over_rows_bytes": round(sent["whole"] / sent["rows"], 1),
        "unread_pictures_per_s": spread(rates, 0),
    }


def kept_rows(store: ObjectStore, corpus: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Rates of reading JPEGs at random from the folder and from the rows that are kept; the two take turns."""
    store.delay_seconds = store.bytes_per_second = 0.0
    os.environ.update({**settings(store, folder / "kept"), "UMIF_FETCH": "rows"})
    s3fs.S3FileSystem.clear_instance_cache()
    sources = {"folder": Corpus.open(corpus), "kept": Corpus.open(URL)}
    count = min(sources["folder"].manifest.images, 4096)
    for source in sources.values():
        for first in range(0, count, READ_ROWS):
            source.take_jpegs(np.arange(first, min(first + READ_ROWS, count)))
    rng = np.random.default_rng(0)
    wall: dict[str, list[float]] = {name: [] for name in sources}
    processor: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds):
        drawn = rng.integers(count, size=(READS, READ_ROWS))
        for name in sorted(sources, reverse=number % 2 == 0):
            started, used = time.perf_counter(), time.process_time()
            for rows in drawn:
                sources[name].take_jpegs(rows)
            wall[name].append(drawn.size / (time.perf_counter() - started))
            processor[name].append(drawn.size / (time.process_time() - used))
    ratios = {
        "wall": [a / b for a, b in zip(wall["kept"], wall["folder"], strict=True)],
        "processor": [a / b for a, b in zip(processor["kept"], processor["folder"], strict=True)],
    }
    return {
        "pictures_per_s": {name: spread(values, 0) for name, values in wall.items()},
        "pictures_per_processor_s": {name: spread(values, 0) for name, values in processor.items()},
        "kept_over_folder": {name: spread(values) for name, values in ratios.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="phantom radiographs, without --corpus")
    parser.add_argument("--times", type=int, action="append", help="how often rows are repeated; default 1 and 8")
    parser.add_argument("--line", action="append", help="DELAY_MS:MBIT, 0 for none; default 0:0, 30:0 and 30:1000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, object_store() as store:
        folder = Path(name)
        corpus = arguments.corpus
        if corpus is None:
            write_phantom(folder / "raw", arguments.images, size=512)
            prepare(folder / "corpus", [("phantom", folder / "raw")], workers=1, progress=False)
            corpus = folder / "corpus"
        opened = Corpus.open(corpus)
        tokenizer = TextTokenizer.train(vocabulary_texts(opened))
        results = []
        for times in arguments.times or (1, 8):
            store.objects.clear()
            large = grown(corpus, times, folder)
            store.upload(large, "bucket/corpus")
            for line in arguments.line or ("0:0", "30:0", "30:1000"):
                delay, mbit = map(float, line.split(":"))
                row = {"images": opened.manifest.images * times}
                row |= from_the_store(store, tokenizer, (delay, mbit), arguments.rounds, folder)
                print(row, flush=True)
                results.append(row)
        store.objects.clear()
        store.upload(corpus, "bucket/corpus")
        kept = kept_rows(store, corpus, 2 * arguments.rounds + 1, folder)
        print(kept)
    report = {"hardware": describe_hardware(), "rounds": arguments.rounds, "first_batch": results, "kept": kept}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
