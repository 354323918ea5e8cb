"""Does a run that is killed go on as if nothing had happened?

Trains a small run once undisturbed and once killed (-9) at random moments, in steps, in saves and while it starts, and
compares the bytes of the last checkpoints and every logged number.

    python benchmarks/resume_exactness.py --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from train_runs import differences, finish, kill_at_random, make_corpus, start, tiny_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder))
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        began = time.perf_counter()
        if finish(start(tiny_recipe(corpus, whole, steps=options.steps))) != 0:
            raise RuntimeError("the undisturbed run failed")
        undisturbed_s = time.perf_counter() - began
        began = time.perf_counter()
        kills = kill_at_random(tiny_recipe(corpus, killed, steps=options.steps), options.kills, options.seed)
        found = differences(whole, killed)
        result = {
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
            "steps": options.steps,
            "kills": len(kills),
            "kills_while_saving": sum(kill.saving for kill in kills),
            "kills_before_the_first_step": sum(kill.step == 0 for kill in kills),
            "killed_after_steps": [kill.step for kill in kills],
            "undisturbed_s": round(undisturbed_s, 1),
            "killed_s": round(time.perf_counter() - began, 1),
            "differences": found,
            "bitwise": not found,
        }
    print(json.dumps(result, indent=1))
    return 0 if result["bitwise"] and result["kills"] == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
