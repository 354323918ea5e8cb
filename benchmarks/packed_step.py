"""How much faster is a packed training step than the padded reference, and what does it cost in memory?

    python benchmarks/packed_step.py [--threads 1] [--rounds 5] [--out benchmarks/results/packed_step.json]

Both variants run the same batches in turn, order reversed every other round; the figure is the median of the paired
ratios of process CPU time, with its spread. A step = both forwards, losses, backward, clipping, AdamW, teacher.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from umif.models import ModelConfig, UmiF, build_model
from umif.objectives import PAPER, compute_losses
from umif.tokens.batch import Batch, Example, pack
from umif.tokens.grouping import draw_groups, draw_ratio

VOCABULARY, IMAGE = 4000, 128


def mixed_batch(seed: int, pairs: int) -> Batch:
    """Three quarters texts of 16 to 128 tokens, one quarter masks: about the mix of a real corpus."""
    rng = np.random.default_rng(seed)
    patches, examples = (IMAGE // 16) ** 2, []
    for slot in range(pairs):
        length = int(np.clip(round(rng.normal(60, 22)), 16, 128))
        masked = slot % 4 == 3
        ratio = draw_ratio(0.2, rng)
        examples.append(
            Example(
                kind="segment" if masked else "report",
                pair=slot,
                slot=slot,
                ratio=ratio,
                bits=draw_groups(patches, patches if masked else length, ratio, rng),
                image=rng.integers(0, 256, (IMAGE, IMAGE), dtype=np.uint8),
                text_ids=None if masked else rng.integers(0, VOCABULARY, length),
                mask=rng.integers(0, 256, (IMAGE, IMAGE, 3), dtype=np.uint8) if masked else None,
            )
        )
    return pack(examples, patch_size=16)


def step(model: UmiF, optimizer: torch.optim.Optimizer, batch: Batch, packing: str) -> float:
    start = time.process_time()
    features = model(batch, packing=packing)
    compute_losses(features, PAPER)["total"].backward()
    torch.nn.utils.clip_grad_norm_(model.student.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    model.update_teacher(0.996)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for name, changes in {
        "Ti, 6 blocks": {"backbone": "vit_tiny_patch16_224", "depth": 6},
        "S, 3 blocks": {"backbone": "vit_small_patch16_224", "depth": 3},
        "B, 2 blocks": {"backbone": "vit_base_patch16_224", "depth": 2},
    }.items():
        model = build_model(ModelConfig(image_size=IMAGE, vocab_size=VOCABULARY, **changes))
        optimizer = torch.optim.AdamW(model.student.parameters(), lr=1e-5)
        batches = [mixed_batch(seed, options.pairs) for seed in range(3)]
        for packing in ("packed", "padded"):
            step(model, optimizer, batches[0], packing)
        ratios, seconds = [], []
        for index in range(options.rounds * len(batches)):
            order = ("packed", "padded") if index % 2 == 0 else ("padded", "packed")
            spent = {packing: step(model, optimizer, batches[index % len(batches)], packing) for packing in order}
            ratios.append(spent["padded"] / spent["packed"])
            seconds.append(spent["packed"])
        results.append(
            {
                "model": name,
                "speedup_over_padded": round(statistics.median(ratios), 3),
                "spread": [round(min(ratios), 3), round(max(ratios), 3)],
                "pairs_per_cpu_s": round(options.pairs / statistics.median(seconds), 2),
            }
        )
        print(results[-1])
    if options.out:
        hardware = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"hardware": hardware, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
