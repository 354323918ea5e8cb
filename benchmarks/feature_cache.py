"""What do features that are kept save a linear evaluation, against running the backbone in every epoch?

    python benchmarks/feature_cache.py [--images 600] [--epochs 10] [--out benchmarks/results/feature_cache.json]

Both score the same frozen ViT on the same phantoms at 1, 10 and 100 % of the labels, from pictures on disk to test AUC:

    kept       features of all images once, then a logistic regression at every share, as `umif evaluate … linear` does
    kept again the same with the features on disk already
    published  at every share, a linear layer trained for epochs by AdamW, the backbone run over train and val
               images in each (as GLoRIA and MGCA do, without their augmentation, which would cost them more)

Each is a process of its own, in turn, order turned every other round. Figures are CPU seconds of the process (medians)
and its peak resident memory; nothing is extrapolated to more epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umif.corpus import Corpus, PrepareConfig, prepare
from umif.corpus.phantom import write_phantom
from umif.encoder import Encoder
from umif.models import ModelConfig, build_model
from umif.tasks.logistic import fit_linear_head
from umif.tasks.metrics import UNKNOWN, macro_auroc
from umif.tasks.problems import Cases, find_problem, select
from umif.tasks.subsets import label_subset

SHARES = (1.0, 10.0, 100.0)
BACKBONE, SIZE, BATCH = "vit_tiny_patch16_224", 224, 48


def encoder_of(cache: Path | None) -> Encoder:
    model = build_model(ModelConfig(backbone=BACKBONE, image_size=SIZE, vocab_size=64), seed=0)
    return Encoder.of_model(model, cache=cache, device="cpu")


def kept(corpus: Corpus, cases: Cases, cache: Path) -> dict[str, float]:
    """Logistic regressions on features that are extracted once."""
    features_ND = encoder_of(cache).encode_corpus(corpus, cases.rows_N)
    train, val, test = (cases.of(split) for split in ("train", "val", "test"))
    found = {}
    for share in SHARES:
        used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], share, 0)]
        head = fit_linear_head(
            features_ND[used], cases.labels_NF[used], features_ND[val], cases.labels_NF[val],
            statistics_ND=features_ND[train],
        )  # fmt: skip
        found[f"{share:g} %"] = macro_auroc(head.scores(features_ND[test]), cases.labels_NF[test])[0]
    return found


def published(corpus: Corpus, cases: Cases, epochs: int) -> dict[str, float]:
    """A linear layer trained by gradient steps, the backbone run over every batch of every epoch."""
    encoder = encoder_of(None)
    train, val, test = (cases.of(split) for split in ("train", "val", "test"))

    def batches(places: np.ndarray, rng: np.random.Generator | None = None) -> Any:
        order = places if rng is None else rng.permutation(places)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            features = torch.from_numpy(encoder.encode_corpus(corpus, cases.rows_N[chosen], batch_size=BATCH))
            yield features, torch.from_numpy(cases.labels_NF[chosen])

    found = {}
    for share in SHARES:
        used = train[label_subset(cases.patients_N[train], cases.labels_NF[train], share, 0)]
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        head = torch.nn.Linear(encoder.width, len(cases.classes))
        optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4, weight_decay=1e-6)
        best, kept_state = float("inf"), {key: value.clone() for key, value in head.state_dict().items()}
        for _ in range(epochs):
            for features, labels in batches(used, rng):
                loss = masked_loss(head(features), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                losses = [float(masked_loss(head(features), labels)) for features, labels in batches(val)]
            if statistics.fmean(losses) < best:
                best = statistics.fmean(losses)
                kept_state = {key: value.clone() for key, value in head.state_dict().items()}
        head.load_state_dict(kept_state)
        with torch.no_grad():
            scores = torch.cat([head(features) for features, _ in batches(test)]).numpy()
        found[f"{share:g} %"] = macro_auroc(scores, cases.labels_NF[test])[0]
    return found


def masked_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    known = labels != UNKNOWN
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float().clamp(min=0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def one(variant: str, folder: Path, epochs: int) -> None:
    """Run one variant and print what it took."""
    torch.set_num_threads(1)
    corpus = Corpus.open(folder / "corpus")
    cases = select(find_problem("findings"), corpus)
    wall, cpu = time.perf_counter(), time.process_time()
    values = published(corpus, cases, epochs) if variant == "published" else kept(corpus, cases, folder / "features")
    answer = {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "auc": values,
        "images": len(cases.rows_N),
        "train_images": len(cases.of("train")),
        "classes": len(cases.classes),
    }
    print(json.dumps(answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], Path(options.one[1]), options.epochs)
        return
    folder = Path(tempfile.mkdtemp(prefix="umif-feature-cache-"))
    try:
        write_phantom(folder / "raw", options.images, workers=1)
        prepare(folder / "corpus", [("phantom", folder / "raw")], PrepareConfig(), workers=1)
        runs: dict[str, list[dict[str, Any]]] = {"kept": [], "kept again": [], "published": []}
        for number in range(options.rounds):
            for variant in list(runs) if number % 2 == 0 else ["published", "kept", "kept again"]:
                if variant == "kept":
                    shutil.rmtree(folder / "features", ignore_errors=True)
                command = [sys.executable, __file__, "--one", variant, str(folder), "--epochs", str(options.epochs)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                runs[variant].append(json.loads(done.stdout.splitlines()[-1]))
                print(variant, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratios = {
        name: [slow["cpu_s"] / fast["cpu_s"] for slow, fast in zip(runs["published"], runs[name], strict=True)]
        for name in ("kept", "kept again")
    }
    answer = {
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread a process",
        "torch": torch.__version__,
        "network": f"{BACKBONE}, {SIZE} px, random weights, CLS",
        "shares": list(SHARES),
        "epochs": options.epochs,
        "rounds": options.rounds,
        "published_over_kept_cpu": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name, values in ratios.items()
        },
        "results": [
            {
                "variant": name,
                **{key: statistics.median(each[key] for each in found) for key in ("cpu_s", "wall_s", "peak_mib")},
                **{key: found[0][key] for key in ("images", "train_images", "classes", "auc")},
            }
            for name, found in runs.items()
        ],
    }
    text = json.dumps(answer, indent=1, ensure_ascii=False)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
