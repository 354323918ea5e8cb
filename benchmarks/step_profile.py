"""Where does a training step spend its time? One minute of steps under torch's profiler, operators grouped.

    python benchmarks/step_profile.py [--model base] [--dtype fp32] [--seconds 60] [--out FILE.json]

Shares are of the operators' own processor time. `ideal` is what the ideal operations (umif.bench.flops) would take at
the rate of large matrix products, measured in the same run: the distance from there to the whole is what remains.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from umif.bench.hardware import describe_hardware, matmul_peak
from umif.bench.step_ways import DTYPES, Setting, Ways

# Group → parts of operators' names; the first group that matches counts.
GROUPS = {
    "matrix products": ("addmm", "aten::mm", "aten::bmm", "matmul", "linear"),
    "attention kernel": ("flash_attention",),
    "GELU": ("gelu",),
    "layer norm": ("layer_norm",),
    "AdamW, clipping, teacher": ("adamw", "lerp", "_foreach", "linalg_vector_norm"),
    "copies, casts, joins": ("copy_", "aten::cat", "index", "clone", "contiguous", "segment_attention", "split"),
    "additions, sums": ("aten::add", "aten::sum", "aten::mul", "aten::div", "aten::sub"),
    "zeroing": ("zero", "fill_"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", choices=("tiny", "small", "base"))
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = Ways(Setting(f"vit_{options.model}_patch16_224", options.depth, options.pairs))
    way, ideal = ways.make("packed", options.dtype), ways.ideal()
    way()
    operations, start = 0.0, time.process_time()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        while time.process_time() - start < options.seconds:
            operations += ideal[way.calls % len(ideal)]
            way()
    spent = time.process_time() - start
    shares: dict[str, float] = defaultdict(float)
    events = seen.key_averages()
    for event in events:
        group = next((name for name, parts in GROUPS.items() if any(part in event.key for part in parts)), "rest")
        shares[group] += event.self_cpu_time_total
    whole = sum(shares.values())
    found = {
        "hardware": describe_hardware(),
        **{key: getattr(options, key) for key in ("model", "dtype", "pairs", "depth")},
        "cpu_seconds": round(spent, 1),
        "steps": way.calls - 1,
        "share_of_ideal": round(operations / matmul_peak(DTYPES[options.dtype]) * options.threads / spent, 3),
        "operators_per_step": round(sum(event.count for event in events) / (way.calls - 1)),
        "shares": {name: round(value / whole, 3) for name, value in sorted(shares.items(), key=lambda x: -x[1])},
        "rest": [event.key for event in sorted(events, key=lambda e: -e.self_cpu_time_total) if _rest(event.key)][:8],
    }
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


def _rest(key: str) -> bool:
    return not any(part in key for parts in GROUPS.values() for part in parts)


if __name__ == "__main__":
    main()
