"""What memory does a large batch take on one device, in chunks of so many pairs, and does it stay flat?

    python benchmarks/large_batch.py [--pairs 2048] [--chunks 2048 512 128 32] [--steps 1000] [--out FILE.json]

Each chunk size runs in a process of its own: two steps of the training loop on synthetic pairs (ViT-Tiny cut to four
blocks of width 96, 64-pixel pictures). Memory is the largest resident size less that before the first step, so the
batch, the activations, gradients and the optimiser's moments are in it. Time is the process's own. Gradients after the
first step are compared with those of one pass. Then a small network does `--steps` steps, and its resident size is
read on the way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from umif.bench.hardware import describe_hardware, memory_mib
from umif.bench.scale_run import Load, build_stepper, shared_pairs
from umif.train.distributed import joined
from umif.train.start import limit_onednn

LARGE = Load(image_size=64, width=96, depth=4, heads=3)
SMALL = Load(pairs=16, image_size=32, width=32, depth=2, heads=2, chunk_pairs=4)


def one_size(pairs: int, chunk: int, gradient: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    with joined("cpu") as processes:
        stepper = build_stepper(replace(LARGE, pairs=pairs, chunk_pairs=chunk), processes)
        batch = shared_pairs(replace(LARGE, pairs=pairs), seed=0)
        before, start = memory_mib("VmRSS"), time.process_time()
        outcome = stepper.step(0, batch, [], stop=False, save=False)
        first = torch.cat([p.grad.flatten() for p in stepper.state.model.parameters() if p.grad is not None])
        stepper.step(1, batch, [], stop=False, save=False)
        seconds = (time.process_time() - start) / 2
    if chunk >= pairs:
        torch.save(first, gradient)
    whole = torch.load(gradient, weights_only=True)
    return {
        "chunk_pairs": chunk,
        "peak_mib": round(memory_mib("VmHWM") - before),
        "cpu_s_per_step": round(seconds, 2),
        "loss": outcome.row["losses"]["total"],
        "gradient_difference": float((first - whole).norm() / whole.norm()),
    }


def many_steps(steps: int) -> list[dict[str, float]]:
    torch.set_num_threads(1)
    rows = []
    with joined("cpu") as processes:
        stepper = build_stepper(SMALL, processes, steps=steps)
        for step in range(steps):
            stepper.step(step, shared_pairs(SMALL, step), [], stop=False, save=False)
            if (step + 1) % max(1, steps // 10) == 0:
                rows.append({"step": step + 1, "resident_mib": round(memory_mib("VmRSS"), 1)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--chunks", type=int, nargs="+", default=[2048, 512, 128, 32])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--gradient", type=Path, default=Path("/tmp/large_batch_gradient.pt"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit_onednn()  # as every run does
    if options.one is not None:
        print(json.dumps(one_size(options.pairs, options.one, options.gradient)))
        return
    results = []
    for chunk in sorted(options.chunks, reverse=True):
        command = [sys.executable, __file__, "--pairs", str(options.pairs), "--one", str(chunk)]
        done = subprocess.run([*command, "--gradient", options.gradient], check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(results[-1], flush=True)
    options.gradient.unlink(missing_ok=True)
    flat = many_steps(options.steps)
    print(flat)
    if options.out:
        found = {"hardware": describe_hardware(), "pairs": options.pairs, "results": results, "many_steps": flat}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
