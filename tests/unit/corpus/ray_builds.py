"""A program that builds the toy's corpus on Ray and says what came of it; run as a process of its own by the tests.

Ray leaves its handlers, threads and open files in the process that it is used from. The functions given to workers
belong to `__main__`, so they travel with their code.

    python ray_builds.py slow RAW OUT        a shard takes 0.3 s; to be stopped half-way
    python ray_builds.py faults RAW FOLDER   one answer for each fault, as JSON, on a Ray that it is connected to
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toy_dataset import ToyReader

from umif.config import REGISTRY
from umif.corpus import PrepareConfig, build, prepare, ray_engine, workers
from umif.corpus.progress import Bar
from umif.corpus.shards import Encoding, Shard, build_shard, shard_of
from umif.corpus.sources import read_source
from umif.corpus.texts import GeneratedTexts
from umif.errors import ImageError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = PrepareConfig(shorter_side=32, bad_share_max=0.1)


def use_toy() -> None:
    REGISTRY.names("reader")
    REGISTRY.register("reader", "toy")(ToyReader)
    vars(build)["SHARD_RECORDS"] = 2


def slow(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    time.sleep(0.3)
    return build_shard(shard, folder, encoding)


def refuses_the_second(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    if shard.items[0].image.endswith("002.png"):
        raise ImageError("is not to be had", reason="planted", where="002.png", fix="take another")
    return build_shard(shard, folder, encoding)


def finds_the_disk_full(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    raise OSError(errno.ENOSPC, "No space left on device")


def dies_once(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    mark = folder / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build_shard(shard, folder, encoding)


def always_dies(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def writes_nothing(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    return {"images": 1, "pairs": 0, "ledger": [], "retry": False, "files": {f"{shard.key}.images.arrow": {"size": 1}}}


def attempt(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"fingerprint": call().fingerprint}
    except UmifError as error:
        return {
            "type": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "fix": error.fix,
            "reason": getattr(error, "reason", None),
        }


def faults(raw: str, folder: Path) -> dict[str, Any]:
    def made(name: str, work: Callable[..., dict[str, Any]] = build_shard) -> dict[str, Any]:
        vars(workers)["build_shard"] = work
        options: dict[str, Any] = {"workers": 2, "progress": False}
        return attempt(lambda: prepare(folder / name, [("toy", raw)], CONFIG, engine="ray", **options))

    answers = {
        "a typed error": made("typed", refuses_the_second),
        "after a typed error": made("typed"),
        "a full disk": made("full", finds_the_disk_full),
        "a worker lost once": made("lost", dies_once),
        "a worker lost again and again": made("gone", always_dies),
    }
    real_versions, real_patience = ray_engine.library_versions, ray_engine._SEEN_WITHIN_SECONDS
    ray_engine.library_versions = lambda: {**real_versions(), "numpy": "0.1"}
    answers["other libraries"] = made("other")
    ray_engine.library_versions, ray_engine._SEEN_WITHIN_SECONDS = real_versions, 0.0
    answers["a shard out of sight"] = made("unseen", writes_nothing)
    ray_engine._SEEN_WITHIN_SECONDS = real_patience
    source = read_source("toy", ToyReader(raw), Bar(False), GeneratedTexts.read([]))
    here = shard_of(source.items[:2], Encoding(32, 95, CONFIG.limits))
    away = replace(here, items=tuple(replace(item, root=Path("/no/such/folder")) for item in here.items))
    answers["a raw folder out of sight"] = attempt(
        lambda: list(workers.build_shards([away], folder, Encoding(32, 95, CONFIG.limits), 1, ray_engine.run_on_ray))
    )
    return answers


def main() -> None:
    use_toy()
    what, raw, out = sys.argv[1:]
    if what == "slow":
        vars(workers)["build_shard"] = slow
        print("ready", flush=True)
        print(prepare(out, [("toy", raw)], CONFIG, engine="ray", workers=2, progress=False).fingerprint)
    else:
        import ray

        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else it leaves one in the home folder
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20
        )
        found = faults(raw, Path(out))
        found["still connected"] = ray.is_initialized()
        ray.shutdown()
        print(json.dumps(found))


if __name__ == "__main__":
    main()
