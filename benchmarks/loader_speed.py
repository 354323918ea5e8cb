"""How many pairs a second does one core turn from a corpus into packed batches?

    python benchmarks/loader_speed.py --corpus CORPUS --out benchmarks/results/loader_speed.json

A second is one of this process's CPU time, so other work on the machine changes little. Without --corpus, phantom
radiographs are made first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import torch

from umif.corpus import Corpus, prepare
from umif.tokens import DataConfig, StepDataset, TextTokenizer, vocabulary_texts

SIZES = (128, 224)


def phantom_corpus(folder: Path, images: int) -> Path:
    from umif.corpus.phantom import write_phantom

    write_phantom(folder / "raw", images, size=512)
    prepare(folder / "corpus", [("phantom", folder / "raw")], workers=1, progress=False)
    return folder / "corpus"


def pairs_per_cpu_second(dataset: StepDataset, first: int, steps: int) -> float:
    start = time.process_time()
    pairs = sum(len(dataset[step][0]) for step in range(first, first + steps))
    return pairs / (time.process_time() - start)


def measure(corpus: Path, tokenizer: TextTokenizer, steps: int, repeats: int) -> list[dict[str, Any]]:
    results = []
    for size in SIZES:
        kinds = list(StepDataset(corpus, tokenizer, DataConfig(image_size=size), seed=0).counts)
        for chosen in (kinds, *([kind] for kind in kinds)):
            config = DataConfig(image_size=size, kinds=tuple(chosen), pairs_per_kind=32)
            dataset = StepDataset(corpus, tokenizer, config, seed=0)
            dataset[0]
            rates = [pairs_per_cpu_second(dataset, 1 + repeat * steps, steps) for repeat in range(repeats)]
            row: dict[str, Any] = {
                "image_size": size,
                "kinds": "all" if chosen == kinds else chosen[0],
                "pairs_per_s_per_core": round(statistics.median(rates), 1),
                "lowest": round(min(rates), 1),
                "highest": round(max(rates), 1),
            }
            results.append(row)
            print(row, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--images", type=int, default=300, help="phantom radiographs, without --corpus")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = arguments.corpus or phantom_corpus(Path(folder), arguments.images)
        opened = Corpus.open(corpus)
        tokenizer = TextTokenizer.train(vocabulary_texts(opened))
        results = measure(corpus, tokenizer, arguments.steps, arguments.repeats)
        record = {
            "question": "pairs a second a core from a corpus to packed batches of 128 pairs",
            "hardware": {"machine": platform.machine(), "processor": _processor(), "cores": os.cpu_count()},
            "versions": {"torch": torch.__version__, "cv2": cv2.__version__},
            "corpus": {"images": opened.manifest.images, "pairs": opened.manifest.pairs},
            "results": results,
        }
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
