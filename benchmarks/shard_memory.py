"""What memory does a process need for weights, gradients and moments, with copies of them and with parts?

    python benchmarks/shard_memory.py [--processes 1 2 4] [--out FILE.json]

Steps of the training loop on eight synthetic pairs over gloo: a network of ViT-B/16's blocks (width 768, 12 blocks)
on 32-pixel pictures, so that activations are small. Memory is the largest resident size of a process in the steps less
what it held before it had a model; the largest of all processes counts. Freed buffers are given back to the system at
once (glibc would keep those of some megabytes for later, which hides what is in use). Bytes sent are computed, and a
test counts those of a real step.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from umif.bench.hardware import describe_hardware
from umif.bench.scale import measure
from umif.bench.scale_run import Load
from umif.train.start import limit_onednn

BASE = Load(pairs=8, image_size=32, width=768, depth=12, heads=12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    limit_onednn()  # as every run does
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # read by glibc when the processes that measure start
    rows: list[dict[str, Any]] = []
    for shard in ("none", "full"):
        for row in measure(options.processes, replace(BASE, shard=shard), rounds=options.rounds, progress=True):
            rows.append({"shard": shard, **row})
            sent = row["sent_bytes"] / 2**20
            print(f"{row['processes']} processes, {shard}: {row['peak_mib']:,.0f} MiB each, sent {sent:,.0f} a step")
    if options.out is not None:
        found = {"hardware": describe_hardware(), "load": asdict(BASE), "results": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
