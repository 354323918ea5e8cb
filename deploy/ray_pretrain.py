"""Pre-training on a Ray cluster: one actor for each process, torch's own process group between them.

    python deploy/ray_pretrain.py recipes/real_small.yaml [key=value …] --processes 16 --gpus-per-process 1

It connects to the cluster of RAY_ADDRESS, or starts one on this machine. The recipe, the corpus and the run folder
must lie where every node sees them under the same path. Run it again after any end: the run goes on where it stopped,
with as many processes as are then asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import ray


class Process:
    """One process of the run."""

    def address(self) -> tuple[str, int]:
        """Return where this node is reached, and a free port there."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def train(self, recipe: str, changes: list[str], environment: dict[str, str]) -> dict[str, Any]:
        """Train with the others; return the summary, or what went wrong."""
        os.environ.update(environment)
        from umif.config import load_recipe
        from umif.errors import UmifError
        from umif.train import Recipe, pretrain

        try:
            return pretrain(load_recipe(Recipe, recipe, changes), progress=False).to_json()
        except UmifError as error:
            return {"error": str(error), "exit_code": error.exit_code}


def main() -> int:
    """Start the processes, wait for all and print the summary of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("changes", nargs="*", metavar="key=value")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--gpus-per-process", type=float, default=0)
    parser.add_argument("--cpus-per-process", type=float, default=1)
    options = parser.parse_args()
    address = os.environ.get("RAY_ADDRESS")
    # A cluster of our own gets a password of its own, which Ray would else write to the home folder.
    own = {} if address else {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", **own, **os.environ})
    local: dict[str, Any] = {"num_cpus": options.processes * options.cpus_per_process, "include_dashboard": False}
    ray.init(address=address or "local", log_to_driver=True, **({} if address else local))
    try:
        resources = {"num_cpus": options.cpus_per_process, "num_gpus": options.gpus_per_process}
        actors = [ray.remote(Process).options(**resources).remote() for _ in range(options.processes)]
        host, port = ray.get(actors[0].address.remote())
        # Ray shows a process no other device than its own, so that is always the first it sees.
        shared = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(len(actors)), "LOCAL_RANK": "0"}
        recipe = str(options.recipe.resolve())
        answers = ray.get(
            [
                actor.train.remote(recipe, options.changes, {**shared, "RANK": str(rank)})
                for rank, actor in enumerate(actors)
            ]
        )
    finally:
        ray.shutdown()
    failed = next((answer for answer in answers if "error" in answer), None)
    if failed is not None:
        print(failed["error"], file=sys.stderr)
        return int(failed["exit_code"])
    print(json.dumps(answers[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
