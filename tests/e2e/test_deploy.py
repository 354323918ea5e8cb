"""The files of deploy/ run as they are given, as far as one machine can show it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from train_runs import make_corpus, steps_done, tiny_recipe
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


SCHEMA: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "pytorchjob_schema.json").read_text(encoding="utf-8")
)["objects"]
_PLAIN = {"str": str, "int": int, "bool": bool}


def faults(value: Any, kind: str, where: str) -> list[str]:
    """What of a value the schema does not know, lacks, or has as another type."""
    kind = kind.rstrip("!")
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [each for index, item in enumerate(value) for each in faults(item, listed[1], f"{where}[{index}]")]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    if mapped := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return [each for key, item in value.items() for each in faults(item, mapped[1], f"{where}.{key}")]
    if kind not in SCHEMA:
        return [f"{where}: pytorchjob_schema.json has no {kind}"]
    known = SCHEMA[kind]
    found = [f"{where}: {kind} lacks {key}" for key, of in known.items() if of.endswith("!") and key not in value]
    for key, item in value.items():
        found += faults(item, known[key], f"{where}.{key}") if key in known else [f"{where}: {kind} has no {key}"]
    return found


@pytest.fixture
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "pytorchjob.yaml").read_text(encoding="utf-8"))
    return loaded


def test_every_field_of_the_kubernetes_job_is_one_of_the_operators_schema(job: dict[str, Any]) -> None:
    assert faults(job, "KubeflowOrgV1PyTorchJob", "job") == []
    # What the schema leaves open, from the comments in the operator's and in Kubernetes' own types.
    spec = job["spec"]
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    assert spec["pytorchReplicaSpecs"].keys() == {"Worker"}
    assert spec["elasticPolicy"]["rdzvBackend"] in {"c10d", "etcd", "etcd-v2"}
    assert spec["runPolicy"]["cleanPodPolicy"] in {"All", "Running", "None"}
    assert worker["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
    assert spec["nprocPerNode"].isdigit()


@pytest.mark.parametrize(
    ("at", "key", "value", "fault"),
    [
        ((), "nProcPerNode", "8", "job.spec: KubeflowOrgV1PyTorchJobSpec has no nProcPerNode"),
        (("elasticPolicy",), "minReplicas", "1", "job.spec.elasticPolicy.minReplicas: '1' is no int"),
        (("pytorchReplicaSpecs", "Worker"), "restartpolicy", "Never", "KubeflowOrgV1ReplicaSpec has no restartpolicy"),
        (
            ("pytorchReplicaSpecs", "Worker", "template", "spec"),
            "containers",
            [{"image": "i"}],
            "V1Container lacks name",
        ),
        (("pytorchReplicaSpecs", "Worker", "template", "spec"), "volumes", {}, "volumes: {} is no list"),
        (("pytorchReplicaSpecs", "Worker", "template", "spec"), "affinity", {}, "pytorchjob_schema.json has no V1Aff"),
    ],
)
def test_a_wrong_field_of_the_kubernetes_job_is_found(
    job: dict[str, Any], at: tuple[str, ...], key: str, value: Any, fault: str
) -> None:
    place = job["spec"]
    for name in at:
        place = place[name]
    place[key] = value
    (found,) = faults(job, "KubeflowOrgV1PyTorchJob", "job")
    assert fault in found


def test_the_schema_is_that_of_the_packages_it_was_taken_from() -> None:
    operator = pytest.importorskip("kubeflow.training.models")
    kubernetes = pytest.importorskip("kubernetes.client")
    for name, known in SCHEMA.items():
        model = getattr(operator if name.startswith("Kubeflow") else kubernetes, name)
        current = {key: model.openapi_types[attribute] for attribute, key in model.attribute_map.items()}
        # Other versions may have more; what the job uses must be there, and of the same type.
        assert {key: kind.rstrip("!") for key, kind in known.items()}.items() <= current.items()


def told_by_the_operator(job: dict[str, Any], endpoint: str) -> dict[str, str]:
    """The environment of each pod: its own, and what the operator (1.8 and later) makes of the job.

    Source: pkg/controller.v1/pytorch/envvar.go and elastic.go of kubeflow/training-operator.
    """
    elastic = job["spec"]["elasticPolicy"]
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    return {
        **{each["name"]: each["value"] for each in container["env"]},
        "PET_NPROC_PER_NODE": job["spec"]["nprocPerNode"],
        "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
        "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
        "PET_RDZV_BACKEND": elastic["rdzvBackend"],
        "PET_RDZV_ENDPOINT": endpoint,
    }


def test_torchrun_reads_what_the_operator_sets(monkeypatch: pytest.MonkeyPatch, job: dict[str, Any]) -> None:
    from torch.distributed.run import config_from_args, parse_args

    for name, value in told_by_the_operator(job, "umif-pretrain-worker-0:23456").items():
        monkeypatch.setenv(name, value)
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert container["command"][0] == "torchrun"
    command = container["command"][1:] + container["args"]
    config, _, arguments = config_from_args(parse_args(command))
    assert (config.min_nodes, config.max_nodes, config.nproc_per_node) == (1, 4, 8)
    assert (config.rdzv_backend, config.rdzv_endpoint) == ("c10d", "umif-pretrain-worker-0:23456")
    assert config.max_restarts == job["spec"]["elasticPolicy"]["maxRestarts"]
    assert arguments[-len(container["args"]) :] == container["args"]


@pytest.mark.slow
def test_nodes_that_join_and_leave_the_kubernetes_job_change_the_run_on_its_way(
    recipe: Path, tmp_path: Path, job: dict[str, Any]
) -> None:
    """Two launchers on this machine, as two pods would start them; the second comes later and is then killed."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **told_by_the_operator(job, f"localhost:{port}")}
    # One process a node here, and less patience with nodes that may still come.
    environment |= {"PET_NPROC_PER_NODE": "1", "PET_RDZV_CONF": "last_call_timeout=3", "PYTHONUNBUFFERED": "1"}
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    command = [str(BINARIES / "torchrun"), *container["command"][1:], str(recipe)]
    command += ["train.steps=100000", "train.save_every=5", "train.log_every=1"]
    logs = [(tmp_path / f"node{index}.log").open("wb") for index in range(2)]

    def started_on(sizes: list[int]) -> None:
        """Wait until the run has begun on so many processes, one start after the other, and made steps since."""
        until = time.monotonic() + 240
        before = -1
        while time.monotonic() < until:
            info = read_run_json(tmp_path / "run") or {"starts": []}
            if [start["world_size"] for start in info["starts"]] == sizes:
                now = steps_done(tmp_path / "run")
                before = now if before < 0 else before
                if now > before + 5:
                    return
            time.sleep(0.2)
        pytest.fail("\n".join((tmp_path / f"node{index}.log").read_text()[-3000:] for index in range(2)))

    nodes = [subprocess.Popen(command, env=environment, stdout=logs[0], stderr=logs[0])]
    try:
        started_on([1])
        nodes.append(subprocess.Popen(command, env=environment, stdout=logs[1], stderr=logs[1]))
        started_on([1, 2])
        for process in [*psutil.Process(nodes[1].pid).children(), psutil.Process(nodes[1].pid)]:
            process.kill()
        started_on([1, 2, 1])
        nodes[0].terminate()
        nodes[0].wait(60)
    finally:
        for node in nodes:
            if node.poll() is None:
                for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
                    process.kill()
            node.wait(30)
        for log in logs:
            log.close()
    assert "goes on after step" in (tmp_path / "node0.log").read_text()


def test_the_kubernetes_job_is_whole_and_its_command_is_ours(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    spec = job["spec"]
    assert spec.keys() == {"nprocPerNode", "elasticPolicy", "runPolicy", "pytorchReplicaSpecs"}
    # Admission asks for a name that is a DNS label of RFC 1035.
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"])
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
