"""A package that UmiF has never heard of adds a reader, an objective and a task, by one file and one entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = '''
import csv

import umif
from umif.tasks.base import Result, Task


@umif.register("reader", "my_hospital")
class MyHospital(umif.Reader):
    card = umif.Card(licence="private", citation=None, images=None, kinds=("report", "class"), title="My hospital")

    def records(self):
        with self.require("labels.csv").open() as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                if row["quality"] == "bad":
                    self.exclude(row["image"], "marked as bad")
                    continue
                state = umif.LabelState.PRESENT if row["effusion"] == "1" else umif.LabelState.ABSENT
                yield umif.Record(
                    image=self.root / row["image"],
                    image_id=row["image"],
                    patient=row["patient"],
                    split=row["split"],
                    texts=(umif.Text("report", row["report"], "report"),),
                    findings=(umif.Finding("Effusion", state),),
                    where=f"labels.csv:{number}",
                )


@umif.register("objective", "spread")
def spread(features, strength=1.0):
    """Push the mean feature to the origin."""
    return strength * features.f1_BD.mean(dim=0).square().sum()


@umif.register("task", "feature-norm")
class FeatureNorm(Task):
    summary = "mean length of the features of the test images"

    def run(self, encoder, corpus, options):
        rows = corpus.image_rows("test")
        features = encoder.encode_images([self.picture(jpeg) for jpeg in corpus.take_jpegs(rows)])
        return [
            Result(
                task="feature-norm", data="my_hospital", protocol="test images", labels=0.0, metric="mean norm",
                value=float(features.norm(dim=1).mean()), low=None, high=None, encoder="umif", baseline=False,
                split_sha256="0" * 64, n_patients=len(rows),
            )
        ]

    @staticmethod
    def picture(jpeg):
        return umif.imaging.decode_jpeg_grey(jpeg)
'''

RECIPE = """
name: third-party
corpus: corpus
out: run
model: {backbone: vit_tiny_patch16_224, image_size: 64, depth: 1}
data: {kinds_per_step: 2, pairs_per_kind: 2}
tokenizer: {vocab_size: 200}
objectives: {align: {}, con: {}, spread: {strength: 2.0, weight: 0.5}}
train: {steps: 2, tensorboard: false, threads: 1}
"""

SCRIPT = """
from umif.cli import main

for arguments in (
    ["datasets", "my_hospital", "--json"],
    ["prepare", "corpus", "--from", "my_hospital=raw", "--shorter-side", "64", "--workers", "1", "--json"],
    ["pretrain", "recipe.yaml", "--json"],
    ["evaluate", "run", "feature-norm", "--json"],
):
    assert main(arguments) == 0, arguments
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What four verbs answered in a process that has the package on its path."""
    home = tmp_path_factory.mktemp("third_party")
    write_package(home / "site")
    write_dataset(home / "raw")
    (home / "recipe.yaml").write_text(RECIPE)
    environment = {**os.environ, "PYTHONPATH": str(home / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def write_package(site: Path) -> None:
    info = site / "my_hospital_umif-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_hospital_umif.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-hospital-umif\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[umif.plugins]\nmy_hospital = my_hospital_umif\n")


def write_dataset(raw: Path) -> None:
    raw.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,patient,split,effusion,quality,report"]
    for index in range(24):
        split = ("train", "train", "val", "test")[index % 4]
        quality = "bad" if index == 23 else "good"
        cv2.imwrite(str(raw / f"{index}.png"), rng.integers(0, 255, (80, 96), dtype=np.uint8))
        lines.append(f"{index}.png,p{index},{split},{index % 2},{quality},No change since study {index}.")
    (raw / "labels.csv").write_text("\n".join(lines) + "\n")


def test_its_reader_is_listed_with_its_card(answers: list[dict[str, Any]]) -> None:
    (reader,) = answers[0]["readers"]
    assert (reader["name"], reader["licence"], reader["title"]) == ("my_hospital", "private", "My hospital")


def test_its_reader_fills_a_corpus_and_accounts_for_what_it_left_out(answers: list[dict[str, Any]]) -> None:
    (reader,) = answers[1]["readers"]
    assert (reader["seen"], reader["yielded"], reader["excluded"]) == (24, 23, {"marked as bad": 1})
    assert answers[1]["pairs"] == {"report": 23, "caption": 0, "class": 23, "segment": 0}


def test_its_objective_is_trained_with_beside_the_others(answers: list[dict[str, Any]]) -> None:
    assert answers[2]["steps"] == 2
    assert set(answers[2]["losses"]) == {"align", "con", "spread"}
    assert answers[2]["losses"]["spread"] > 0


def test_its_task_evaluates_the_trained_encoder(answers: list[dict[str, Any]]) -> None:
    (result,) = answers[3]["results"]
    assert (result["task"], result["metric"]) == ("feature-norm", "mean norm")
    assert result["value"] > 0
