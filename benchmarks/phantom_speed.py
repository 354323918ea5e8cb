"""How many phantoms does one core draw a second, and where does the time go?

    python benchmarks/phantom_speed.py [--size 224] [--images 200] [--rounds 5] [--out FILE.json]

Process CPU time of one thread. On a machine that does other work at the same time the slower rounds measure that work
too, so each image's best round counts; the median round is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from umif.corpus.phantom import draw_phantom, encode_png, to_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from umif.corpus.phantom import PhantomCase


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    draw_phantom(0, 0, options.size)  # fills the caches that all phantoms share
    results: list[dict[str, Any]] = []
    variants: dict[str, Callable[[int], Callable[[], Any]]] = {
        "draw": lambda index: lambda: draw_phantom(0, index, options.size),
        "texts and runs": lambda index: _with_case(index, options.size, to_record),
        "PNG": lambda index: _with_case(index, options.size, lambda case: encode_png(case.image)),
    }
    for name, make in variants.items():
        rounds = [[seconds(make(index)) for index in range(options.images)] for _ in range(options.rounds)]
        best = statistics.mean(min(times) for times in zip(*rounds, strict=True))
        median = statistics.mean(statistics.median(times) for times in zip(*rounds, strict=True))
        results.append({"variant": name, "best_ms": best * 1e3, "median_ms": median * 1e3})
        print(f"{name:16} best {best * 1e3:6.2f} ms   median {median * 1e3:6.2f} ms a phantom")
    parts = list(results)
    for which in ("best_ms", "median_ms"):
        rate = 1e3 / sum(row[which] for row in parts)
        results.append({"variant": f"everything, {which.removesuffix('_ms')}", "images_per_s_per_core": rate})
        print(f"everything, {which.removesuffix('_ms')} round: {rate:.0f} images/s a core")
    hardware = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "opencv": cv2.__version__,
    }
    if options.out:
        report = {"hardware": hardware, "size": options.size, "results": results}
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def _with_case(index: int, size: int, work: Callable[[PhantomCase], Any]) -> Callable[[], Any]:
    case = draw_phantom(0, index, size)
    return lambda: work(case)


if __name__ == "__main__":
    main()
