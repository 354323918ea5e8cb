"""Does a build that is killed again and again, or that Ray carries out, end in the corpus of an undisturbed one?

    python benchmarks/prepare_exactness.py --kills 20 [--engine ray] [--from NAME=ROOT …] [--out FILE.json]

Prepares a corpus undisturbed by local processes. Then prepares it anew by the engine and kills (-9) the whole group of
processes a random time after it has come to a random point of the build: its start, a shard, the assembling. Then runs
the same command again, five kills to a corpus, until as many have landed as were asked for. Every corpus that comes out
is compared with the first: the manifest with its fingerprint, the ledger, and every value of every row, stored pictures
included. With `--engine ray` an undisturbed build on Ray is compared too. Without `--from` the datasets are phantoms,
laid out for three readers.

A kill has landed if the process was there to be killed and the corpus was not finished; what the kill left running is
waited for. Prints a line for each kill and a verdict; exits with 1 if anything differs or too few kills landed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np
import psutil

from umif.corpus.phantom import write_phantom
from umif.corpus.shards import SHARD_RECORDS

print = partial(print, flush=True)  # a line for each kill when it has landed
_GONE_WITHIN_SECONDS = 60
# Several kills to a corpus, so that builds go on from what was itself gone on from; and several corpora.
_KILLS_OF_A_CORPUS = 5
_CORPORA_FOR_A_KILL = 3  # a moment near the end of a build may come after it
_START_SECONDS = {"local": 3.0, "ray": 10.0}


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a build was when it was killed.

    Attributes:
        seed: Draws the moments of the kills of one corpus.
        target: How far the build had to have come: finished shards, and one more when they are being assembled.
        delay_s: Seconds from then.
        shards: Shards that were finished at the kill.
        stage: What the build was at.
    """

    seed: int
    target: int
    delay_s: float
    shards: int
    stage: str


def make_phantoms(folder: Path, images: int) -> list[str]:
    """Write phantoms as three datasets: with every kind of supervision, as folders of two kinds, and as a table."""
    each = images // 3
    write_phantom(folder / "phantom", each, seed=0, size=128, workers=os.cpu_count() or 1)
    pictures = []
    for seed in (1, 2):
        write_phantom(folder / f"raw{seed}", each, seed=seed, size=128, workers=os.cpu_count() or 1)
        pictures.append(sorted((folder / f"raw{seed}" / "images").glob("*.png")))
    for number, picture in enumerate(pictures[0]):
        kind = folder / "folder" / ("normal", "pneumonia")[number % 2]
        kind.mkdir(parents=True, exist_ok=True)
        picture.rename(kind / picture.name)
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "label"])
        writer.writerows([f"raw2/images/{p.name}", p.name.split("_")[0], "Pneumonia"] for p in pictures[1])
    roots = {"phantom": "phantom", "folder": "folder", "table": "table.csv"}
    return [f"{name}={folder / root}" for name, root in roots.items()]


def start(out: Path, sources: list[str], engine: str, workers: int) -> subprocess.Popen[str]:
    """Start `umif prepare` as the leader of a group of processes."""
    command = [
        sys.executable,
        "-m",
        "umif",
        "prepare",
        str(out),
        "--engine",
        engine,
        "--workers",
        str(workers),
        "--json",
    ]
    command += [word for source in sources for word in ("--from", source)]
    temporary = out.parent / "tmp"  # what a kill leaves behind goes with the rest
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def undisturbed(out: Path, sources: list[str], engine: str, workers: int) -> float:
    """Prepare `out` in one go; return the seconds that it took."""
    began = time.perf_counter()
    finish(start(out, sources, engine, workers))
    return time.perf_counter() - began


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a build that is to succeed."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"prepare ended with exit code {process.returncode}:\n{errors}")


def kill_when(process: subprocess.Popen[str], out: Path, target: int, delay_s: float) -> bool:
    """Kill the group of a build some time after it has come as far as `target`; False if it was done before.

    Returns when all that the build had started is gone.
    """
    while process.poll() is None and progress(out) < target:
        time.sleep(0.003)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _, alive = psutil.wait_procs(started, timeout=_GONE_WITHIN_SECONDS)
        if alive:
            raise RuntimeError(f"left running by the kill: {alive}") from None
        return process.returncode == -signal.SIGKILL
    finish(process)
    return False


def progress(out: Path) -> int:
    """Return how many shards are finished, and one more when they are being assembled."""
    building = out / ".build"
    return len(list(building.glob("*.json"))) + (building / "images.lance").exists()


def where_it_was(out: Path) -> tuple[int, str] | None:
    """Return the number of finished shards and the stage of an unfinished build, or `None` if it is finished."""
    building = out / ".build"
    shards = len(list(building.glob("*.json")))
    if (out / "corpus.json").exists():
        return (shards, "removing the shards") if building.exists() else None
    if any((out / name).exists() for name in ("images.lance", "pairs.lance")):
        return shards, "moving into place"
    if (building / "images.lance").exists():
        return shards, "assembling"
    return shards, "building shards" if shards else "before the first shard"


def content(out: Path) -> dict[str, str]:
    """Return the fingerprint of a corpus and the SHA-256 of all that it promises: two files, and its tables' values.

    The files inside of the Lance datasets have random names and are not promised.
    """
    found = {"fingerprint": json.loads((out / "corpus.json").read_text())["fingerprint"]}
    for name in ("corpus.json", "ledger.jsonl"):
        found[name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    for name in ("images.lance", "pairs.lance"):
        digest = hashlib.sha256()
        for batch in lance.dataset(str(out / name)).to_batches(batch_size=SHARD_RECORDS):
            for row in batch.to_pylist():
                digest.update(repr(row).encode())
        found[name] = digest.hexdigest()
    return found


def differences(whole: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the names of the parts that differ."""
    return [name for name, value in whole.items() if other[name] != value]


def _said(changed: list[str]) -> str:
    return "differs in " + ", ".join(changed) if changed else "the same"


def build_under_kills(
    folder: Path, sources: list[str], options: argparse.Namespace, whole: dict[str, str], shards: int
) -> tuple[list[Kill], int, list[str]]:
    """Build corpora until enough kills have landed; return the kills, the number of corpora and what differed."""
    kills: list[Kill] = []
    found: list[str] = []
    for corpus in range(_CORPORA_FOR_A_KILL * options.kills):
        out = folder / f"killed{corpus}"
        seed = options.seed + corpus
        rng = np.random.default_rng(seed)
        some = min(_KILLS_OF_A_CORPUS, options.kills - len(kills))
        print(f"corpus {corpus}, seed {seed}")
        for target in sorted(rng.integers(0, shards + 2, some).tolist()):
            # At the start there is nothing to go by but time, and it takes seconds.
            delay_s = float(rng.uniform(0, _START_SECONDS[options.engine] if target == 0 else 0.5))
            if kill_when(start(out, sources, options.engine, options.workers), out, target, delay_s):
                was = where_it_was(out)
                if was is not None:
                    kills.append(Kill(seed, target, round(delay_s, 3), *was))
                    print(f"kill {len(kills):3}: {delay_s:.3f} s after {target}: {was[0]} of {shards} shards, {was[1]}")
                    continue
            print(f"          {delay_s:.3f} s after {target}: it was finished before")
            break
        else:
            finish(start(out, sources, options.engine, options.workers))
        changed = differences(whole, content(out))
        print(f"corpus {corpus} is through: {_said(changed)}")
        found += [f"corpus {corpus}: {name}" for name in changed]
        shutil.rmtree(out)
        if len(kills) == options.kills:
            return kills, corpus + 1, found
    return kills, corpus + 1, [*found, f"only {len(kills)} of {options.kills} kills landed"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--from", dest="sources", action="append", metavar="NAME=ROOT")
    parser.add_argument("--images", type=int, default=1500, help="phantoms to build from without --from")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = options.sources or make_phantoms(folder / "raw", options.images)
        local_s = undisturbed(folder / "whole", sources, "local", options.workers)
        whole = content(folder / "whole")
        manifest: dict[str, Any] = json.loads((folder / "whole" / "corpus.json").read_text())
        print(f"undisturbed, local: {manifest['images']} images in {local_s:.1f} s, {whole['fingerprint']}")
        usual_s, found = local_s, []
        if options.engine == "ray":
            usual_s = undisturbed(folder / "ray", sources, "ray", options.workers)
            changed = differences(whole, content(folder / "ray"))
            print(
                f"undisturbed, ray: in {usual_s:.1f} s, {'differs in ' + ', '.join(changed) if changed else 'the same'}"
            )
            found += [f"undisturbed on ray: {name}" for name in changed]
        shards = sum(math.ceil(reader["yielded"] / SHARD_RECORDS) for reader in manifest["readers"])
        kills, corpora, differed = build_under_kills(folder, sources, options, whole, shards)
    found += differed
    verdict = "; ".join(found) if found else "every corpus is the same, bit for bit"
    print(f"{len(kills)} kills ({options.engine}), {corpora} corpora, {manifest['images']} images: {verdict}")
    if options.out:
        result = {
            "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
            "engine": options.engine,
            "readers": {reader["name"]: reader["images"] for reader in manifest["readers"]},
            "shards": shards,
            "undisturbed_s": round(usual_s, 1),
            "corpora": corpora,
            "kills": [asdict(kill) for kill in kills],
            "differences": found,
            "fingerprint": whole["fingerprint"],
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
