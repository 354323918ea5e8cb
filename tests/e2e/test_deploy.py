"""The files of deploy/ run as they are given, as far as one machine can show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from train_runs import make_corpus, tiny_recipe
from umif.config import apply_overrides
from umif.train.recipe import Recipe
from umif.train.runfolder import read_run_json

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BINARIES = Path(sys.executable).parent


@pytest.fixture
def recipe(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    corpus = make_corpus(tmp_path_factory.getbasetemp())
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny_recipe(corpus, tmp_path / "run", steps=2)), encoding="utf-8")
    return file


def trained_on(run: Path) -> int:
    info = read_run_json(run)
    assert info is not None
    assert read_run_json(run, "summary.json") is not None
    return int(info["settings"]["world_size"])


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.slow
def test_the_slurm_script_starts_a_run(recipe: Path, tmp_path: Path) -> None:
    """With stand-ins for Slurm's own two programs: a node list of this host, and a step that runs what it is given."""
    programs = tmp_path / "programs"
    programs.mkdir()
    executable(programs / "scontrol", "echo localhost")
    executable(programs / "srun", 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"')
    given = {"JOB_NODELIST": "n[1-1]", "GPUS_ON_NODE": "2", "CPUS_PER_TASK": "2", "JOB_NUM_NODES": "1", "JOB_ID": "7"}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in given.items()},
        "PATH": f"{programs}:{BINARIES}:{os.environ['PATH']}",
    }
    command = ["bash", str(DEPLOY / "slurm.sbatch"), str(recipe), "train.log_every=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert trained_on(tmp_path / "run") == 2


def test_the_slurm_script_wants_a_recipe() -> None:
    done = subprocess.run(["bash", str(DEPLOY / "slurm.sbatch")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "RECIPE.yaml" in done.stderr


@pytest.mark.slow
def test_the_ray_script_trains_on_two_processes(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, str(DEPLOY / "ray_pretrain.py"), str(recipe), "train.log_every=1", "--processes", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["finished"]
    assert trained_on(tmp_path / "run") == 2


def test_the_kubernetes_job_is_whole_and_its_command_is_ours() -> None:
    job: dict[str, Any] = yaml.safe_load((DEPLOY / "pytorchjob.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    spec = job["spec"]
    assert spec.keys() == {"nprocPerNode", "elasticPolicy", "runPolicy", "pytorchReplicaSpecs"}
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    elastic = spec["elasticPolicy"]
    assert elastic["minReplicas"] <= worker["replicas"] <= elastic["maxReplicas"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    # The operator looks for a container of this name, and puts torchrun's rendezvous into its environment.
    assert container["name"] == "pytorch"
    assert container["command"] == ["torchrun", "-m", "umif", "pretrain"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == spec["nprocPerNode"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    file, *changes = container["args"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    recipe = Recipe.model_validate(apply_overrides({}, changes))
    for path in (file, str(recipe.corpus), str(recipe.out)):
        assert any(path.startswith(f"{mount}/") for mount in mounts)
