"""What many processes cost: bytes and messages of a step, efficiency measured here, and a model of 8 to 512 GPUs."""

from __future__ import annotations

import math
import multiprocessing
import socket
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from umif.bench.hardware import describe_hardware
from umif.bench.scale_run import Load, model_config, time_process
from umif.corpus.progress import Bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.models.umif import UmiF

FP32 = 4
# Values in the one message that settles what all processes do alike: broken, stop, save, bad samples, pairs.
AGREED = 5


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one process sends in a step, bytes, where collectives go round a ring.

    Attributes:
        gradients: All-reduce of the gradients, 2 (N − 1) / N of their size; half of that where weights are shared.
        features: All-gather of features and slots, N − 1 times what a process has.
        agreement: The message that settles what all do alike.
        messages: Collectives in all.
        weights: All-gathers of weights, where processes share them.
    """

    gradients: int
    features: int
    agreement: int
    messages: int
    weights: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return self.gradients + self.features + self.agreement + self.weights


def traffic(parameters: int, width: int, pairs: int, processes: int, *, features: int = 3) -> Traffic:
    """Compute what one of `processes` sends in a step.

    Args:
        parameters: Trainable ones, fp32.
        width: Of a feature.
        pairs: Of the global batch.
        processes: N.
        features: Feature vectors of a pair: two groups' and the teacher's; five with a predictor.
    """
    from umif.objectives.features import message_columns
    from umif.train.gradients import BUCKET_BYTES

    if processes == 1:
        return Traffic(0, 0, 0, 0)
    held = math.ceil(pairs / processes) * message_columns([width] * features) * FP32
    share = 2 * (processes - 1) / processes
    return Traffic(
        gradients=round(share * parameters * FP32),
        features=(processes - 1) * held,
        agreement=round(share * AGREED * 8),
        messages=2 + math.ceil(parameters * FP32 / BUCKET_BYTES),
    )


def sharded_traffic(model: UmiF, pairs: int, processes: int, *, passes: int = 1) -> Traffic:
    """Compute what one of `processes` sends in a step with `train.shard: full`.

    A student's block is gathered for its forward and again for its backward pass, a teacher's once, and what lies
    around the blocks once; then gradients are scattered. Rows are dealt out in equal parts, so a tensor with fewer
    rows than processes is sent as if it had as many.

    Args:
        model: Student and teacher, not sharded yet.
        pairs: Of the global batch.
        processes: N.
        passes: Chunks of a process's pairs (`train.chunk_pairs`); with more than one the student runs forward twice.
    """
    from umif.train.shard import units

    if processes == 1:
        return Traffic(0, 0, 0, 0)
    plain = traffic(0, model.student.width, pairs, processes)
    part = (processes - 1) * FP32
    weights, gradients, messages = 0, 0, plain.messages
    for unit, tensors in units(model).items():
        held = sum(math.ceil(t.shape[0] / processes) * t[0].numel() for t in tensors)
        trained = sum(math.ceil(t.shape[0] / processes) * t[0].numel() for t in tensors if t.requires_grad)
        # A student's block: forward without a graph (in chunks), forward, backward.
        times = (2 if passes == 1 else 3) if trained and unit != "around" else 1
        gathers = times * passes
        scatters = passes if trained else 0
        weights += gathers * part * held
        gradients += scatters * part * trained
        messages += gathers + scatters
    # One more all-reduce: the gradient's norm, of which every process knows its part.
    return replace(plain, weights=weights, gradients=gradients, messages=messages + 1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the model assumes of GPUs and of the wires between them; every value is an assumption until it is measured.

    Attributes:
        pairs_per_s: Of one GPU with enough pairs to fill it.
        launch_s: The shortest step, however few pairs: the host launching a step's kernels.
        node: GPUs of a node.
        inside, between: Bytes/s that each GPU sends and receives within a node, and between nodes.
        latency_s: Of a collective, for each doubling of the number of GPUs.
        overlapped: Share of the computation behind which gradients are summed: the backward pass, 2 of 4 parts.
        flops: Sustained rate for the losses' similarity matrix, fp32, which every process computes whole.
    """

    pairs_per_s: float = 1350.0
    launch_s: float = 0.025
    node: int = 8
    inside: float = 300e9
    between: float = 40e9
    latency_s: float = 20e-6
    overlapped: float = 0.5
    flops: float = 40e12


def predict(
    gpus: int, pairs: int, *, parameters: int, width: int, buckets: int, cluster: Cluster = Cluster()
) -> dict[str, float]:
    """Predict a step on so many GPUs: seconds by part, pairs/s, and efficiency against GPUs that need not talk.

    The slowest wire sets the pace: within a node `inside`, over several nodes `between`.
    """
    sent = traffic(parameters, width, pairs, gpus)
    rate = cluster.inside if gpus <= cluster.node else cluster.between
    latency = cluster.latency_s * math.ceil(math.log2(gpus)) if gpus > 1 else 0.0
    share = pairs / gpus
    # Similarities of 2B features, forward once and backward twice.
    losses = 3 * 2 * (2 * pairs) ** 2 * width / cluster.flops
    compute = max(share / cluster.pairs_per_s, cluster.launch_s) + losses
    reduce = sent.gradients / rate + latency * buckets
    # What the backward pass does not hide, but at least the last bucket, which nothing is left to hide behind.
    exposed = max(reduce - cluster.overlapped * compute, reduce / max(1, buckets)) if gpus > 1 else 0.0
    gather = sent.features / rate + 2 * latency
    seconds = compute + exposed + (gather if gpus > 1 else 0.0)
    return {
        "gpus": gpus,
        "pairs": pairs,
        "pairs_per_gpu": share,
        "compute_ms": 1e3 * compute,
        "gather_ms": 1e3 * gather if gpus > 1 else 0.0,
        "reduce_ms": 1e3 * reduce,
        "exposed_ms": 1e3 * exposed,
        "sent_mib": sent.total / 2**20,
        "pairs_per_s": pairs / seconds,
        "efficiency": pairs / seconds / (gpus * cluster.pairs_per_s),
    }


# ViT-B/16 with BioClinicalBERT's vocabulary: trainable parameters and width.
PAPER_PARAMETERS, PAPER_WIDTH, PAPER_BATCH = 109_000_000, 768, 2048


def predict_many(cluster: Cluster, gpus: Sequence[int] = (1, 8, 16, 32, 64, 128, 256, 512)) -> dict[str, Any]:
    """Predict the paper's network: with the paper's batch shared out, and with 256 pairs on every GPU."""
    from umif.train.gradients import BUCKET_BYTES

    buckets = math.ceil(PAPER_PARAMETERS * FP32 / BUCKET_BYTES)
    size: dict[str, Any] = {"parameters": PAPER_PARAMETERS, "width": PAPER_WIDTH, "buckets": buckets}
    return {
        "measured": False,
        "assumptions": {**asdict(cluster), **size},
        "same_batch": [predict(n, PAPER_BATCH, cluster=cluster, **size) for n in gpus],
        "same_share": [predict(n, 256 * n, cluster=cluster, **size) for n in gpus],
    }


def measure(
    processes: Sequence[int], load: Load, *, rounds: int, threads: int = 1, progress: bool = False
) -> list[dict[str, Any]]:
    """Time steps of one global batch on this machine, shared out to so many processes over gloo.

    Efficiency is the rate over that of one process, per process; where there are fewer cores than processes, cores
    are what is missing, and where others work on the machine their share is. `work` is free of both: processor time of
    one process over that of all, for the same step.
    """
    model = _model(load)
    results: list[dict[str, Any]] = []
    with Bar(progress) as bar:
        bar.start("steps on many processes", len(processes))
        for count in processes:
            seconds, spent, held = _measured(count, load, rounds, threads)
            sent = _traffic(model, load, count)
            row: dict[str, Any] = {"processes": count, "seconds": seconds, "processor_s": spent, "peak_mib": held}
            row["pairs_per_s"] = load.pairs / seconds
            row |= {"sent_bytes": sent.total, "messages": sent.messages, "traffic": asdict(sent)}
            results.append(row)
            bar.advance(1)
    alone = next((row for row in results if row["processes"] == 1), None)
    for row in results:
        speedup = None if alone is None else row["pairs_per_s"] / alone["pairs_per_s"]
        row |= {"speedup": speedup, "efficiency": None if speedup is None else speedup / row["processes"]}
        row["work"] = None if alone is None else alone["processor_s"] / row["processor_s"]
    return results


def bench_scale(
    processes: Sequence[int], load: Load, cluster: Cluster, *, rounds: int, threads: int = 1, progress: bool = False
) -> dict[str, Any]:
    """Measure here and predict elsewhere; plain JSON values."""
    return {
        "hardware": describe_hardware(),
        "load": asdict(load),
        "results": measure(processes, load, rounds=rounds, threads=threads, progress=progress),
        "model": predict_many(cluster),
    }


def _model(load: Load) -> UmiF:
    """The network of a load, without weights."""
    import torch

    from umif.models.umif import UmiF

    with torch.device("meta"):
        return UmiF(model_config(load))


def _traffic(model: UmiF, load: Load, processes: int) -> Traffic:
    from umif.train.optim import trainable

    if load.shard == "full":
        held = math.ceil(load.pairs / processes)
        return sharded_traffic(model, load.pairs, processes, passes=math.ceil(held / (load.chunk_pairs or held)))
    parameters = sum(parameter.numel() for parameter in trainable(model).values())
    return traffic(parameters, model.student.width, load.pairs, processes)


def _measured(count: int, load: Load, rounds: int, threads: int) -> tuple[float, float, float]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers = [
        context.Process(target=time_process, args=(rank, count, port, load, rounds, threads, queue))
        for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        wall, processor, held = queue.get(timeout=3600)
    finally:
        for worker in workers:
            worker.join(60)
            if worker.is_alive():
                worker.kill()
    return wall, processor, held
