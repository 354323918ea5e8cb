"""How fast is `umif inspect`, and does its memory grow with the corpus?

    python benchmarks/inspect_speed.py --images 2000 8000 --out benchmarks/results/inspect_speed.json

Corpora of phantoms of several sizes are made (kept under --folder, if one is given), and each is inspected from nothing
in a process of its own: pictures measured, all checks run, the page written. Reported are images a second of processor
time and the process's peak memory, before the corpus was opened and at the end; from the sizes, the bytes an image adds
and what a hundred thousand would take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2

from umif.corpus import Corpus, PrepareConfig, prepare
from umif.corpus.phantom import write_phantom
from umif.corpus.quality import inspect_corpus
from umif.report import write_inspection

EXTRAPOLATED = 100_000


def peak_mib() -> float:
    """Return this process's peak. Not by getrusage, whose figure begins with that of the process that started this."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def make(folder: Path, images: int, size: int) -> Path:
    corpus = folder / f"corpus-{images}"
    if not corpus.exists():
        write_phantom(folder / f"phantoms-{images}", images, size=size)
        prepare(corpus, [("phantom", folder / f"phantoms-{images}")], PrepareConfig(), workers=1, progress=False)
    return corpus


def inspected(path: Path) -> dict[str, Any]:
    """Inspect one corpus in this process."""
    cv2.setNumThreads(1)
    before = peak_mib()
    corpus = Corpus.open(path)
    with tempfile.TemporaryDirectory() as out:
        begun, cpu = time.perf_counter(), time.process_time()
        found = inspect_corpus(corpus, out, workers=1)
        checked = time.process_time()
        write_inspection(corpus, found, out)
        whole = time.process_time() - cpu
        return {
            "images": found.images,
            "pairs": sum(found.pairs.values()),
            "issues": sum(issue.count for issue in found.issues),
            "seconds": round(time.perf_counter() - begun, 1),
            "cpu_seconds": round(whole, 2),
            "cpu_seconds_page": round(time.process_time() - checked, 2),
            "images_per_cpu_s": round(found.images / whole, 1),
            "mib_before": round(before),
            "peak_mib": round(peak_mib()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 8_000])
    parser.add_argument("--size", type=int, default=64, help="pixels along a side of the phantoms")
    parser.add_argument("--folder", type=Path, help="where corpora are, or are made; kept")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # a corpus to inspect in this process
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(inspected(arguments.one)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = []
        for count in sorted(arguments.images):
            path = make(folder, count, arguments.size)
            command = [sys.executable, __file__, "--one", str(path)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    record: dict[str, Any] = {
        "question": "umif inspect: images a second and peak memory by size of the corpus",
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "cores_used": 1},
        "size_px": arguments.size,
        "results": results,
    }
    if len(results) > 1:
        small, large = results[0], results[-1]
        images = large["images"] - small["images"]
        mib = (large["peak_mib"] - small["peak_mib"]) / images
        cpu = (large["cpu_seconds"] - small["cpu_seconds"]) / images
        rest = EXTRAPOLATED - large["images"]
        record["extrapolated"] = {
            "images": EXTRAPOLATED,
            "bytes_per_image": round(mib * 2**20),
            "peak_mib": round(large["peak_mib"] + mib * rest),
            "cpu_minutes": round((large["cpu_seconds"] + cpu * rest) / 60, 1),
        }
    print(json.dumps(record, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
