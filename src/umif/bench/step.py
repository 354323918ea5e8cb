"""What a training step costs here: time, operations and memory, packed beside padded and beside other methods.

All ways take turns in one process, and so do large matrix products, whose rate is the peak that fractions refer to.
Peak memory is taken in a fresh process for each way, since a process never gives back what one way has touched.
"""

from __future__ import annotations

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field

from umif.bench.hardware import describe_hardware, memory_mib
from umif.bench.step_ways import DTYPES, OURS, RIVALS, Setting, Way, Ways, installed
from umif.bench.timing import paired_ratio, take_turns
from umif.config import Config
from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Model = Literal["tiny", "small", "base"]
# Blocks that a model is cut to unless its full depth is asked for: about as much work each.
CUT_DEPTH: dict[str, int] = {"tiny": 6, "small": 3, "base": 2}
FULL_DEPTH = 12
REFERENCE = ("padded", "fp32")
_SIDE = {"cpu": 2048, "cuda": 8192}
_MIB = 2**20


class StepConfig(Config):
    """What `umif bench step` measures."""

    models: tuple[Model, ...] = Field(("tiny", "small", "base"), min_length=1, description="ViTs of these sizes")
    variants: tuple[str, ...] = Field((), description="These ways only, and the padded reference; all unless told")
    dtypes: tuple[Literal["fp32", "bf16"], ...] = Field((), description="fp32 always; bf16 where the device has it")
    pairs: int = Field(8, ge=2, description="Pairs a step")
    rounds: int = Field(3, ge=1, description="Rounds in which all ways take turns")
    full_depth: bool = Field(False, description="All 12 blocks, instead of 6, 3 and 2 of Tiny, Small and Base")
    depth: int | None = Field(None, gt=0, description="So many blocks of every model")
    image_size: int = Field(224, gt=0, description="Side of the pictures, pixels")
    memory: bool = Field(True, description="Measure peak memory as well, in a process for each way")
    threads: int = Field(1, ge=1, description="CPU threads")
    device: str = Field("cpu", description="Where to compute: cpu or cuda")


def bench_step(config: StepConfig, *, progress: bool = False) -> dict[str, Any]:
    """Measure, and return `hardware` and `results` as plain JSON values.

    Ratios are medians over rounds; `…_spread` holds [median, lowest, highest].

    Raises:
        ConfigError: a variant that does not exist, or a device that is not there.
    """
    ways = _chosen(config)
    torch.set_num_threads(config.threads)
    results: list[dict[str, Any]] = []
    for model in config.models:
        depth = config.depth or (FULL_DEPTH if config.full_depth else CUT_DEPTH[model])
        setting = Setting(
            f"vit_{model}_patch16_224", depth, config.pairs, image_size=config.image_size, device=config.device
        )
        rows = _time(setting, ways, config.rounds, model, progress=progress)
        for row, way in zip(rows, ways, strict=True):
            row["peak_mib"], row["state_mib"] = (
                _memory(setting, *way, config.threads) if config.memory else (None, None)
            )
        results += rows
    notes = [f"{name} is not installed" for name in RIVALS if not installed(name)]
    return {
        "hardware": describe_hardware(config.device),
        "pairs": config.pairs,
        "rounds": config.rounds,
        "image_size": config.image_size,
        "notes": notes,
        "results": results,
    }


def _chosen(config: StepConfig) -> list[tuple[str, str]]:
    """(variant, dtype) of every way to time, the reference first."""
    known = [*OURS, *RIVALS]
    for name in config.variants:
        if name not in known:
            raise ConfigError(f"there is no variant {name!r}", where="variants", fix=f"known are {', '.join(known)}")
    cuda = config.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here", where="device", fix="use cpu")
    # Compiling pays on CUDA only, and is left out elsewhere unless asked for.
    usual = [name for name in known if name != "packed_compiled" or cuda]
    names = [name for name in config.variants or usual if installed(name)]
    dtypes = config.dtypes or (("fp32", "bf16") if cuda or describe_hardware()["bf16"] else ("fp32",))
    ways = [REFERENCE, *((name, dtype) for dtype in dtypes for name in names if _worth(name, dtype, config))]
    return list(dict.fromkeys(ways))


def _worth(name: str, dtype: str, config: StepConfig) -> bool:
    """Whether a variant is timed in a dtype: variations of ours are told apart in fp32, unless asked for by name."""
    return dtype == "fp32" or name in config.variants or name in ("padded", "packed", "packed_compiled", *RIVALS)


def _time(
    setting: Setting, names: Sequence[tuple[str, str]], rounds: int, model: str, *, progress: bool
) -> list[dict[str, Any]]:
    """Time every way; one row each."""
    ways = Ways(setting)
    made: dict[tuple[str, str], Way] = {name: ways.make(*name) for name in names}
    ideal = sum(ways.ideal()) / len(setting.seeds)
    turns: dict[str, Callable[[], object]] = {f"{variant} {dtype}": way for (variant, dtype), way in made.items()}
    products = {dtype: _products(dtype, setting.device) for dtype in dict.fromkeys(dtype for _, dtype in names)}
    turns |= {f"peak {dtype}": run for dtype, (run, _) in products.items()}
    seconds = take_turns(turns, rounds=rounds, device=setting.device, title=f"ViT-{model} steps", progress=progress)
    rows = []
    for (variant, dtype), way in made.items():
        spent, peak = seconds[f"{variant} {dtype}"], seconds[f"peak {dtype}"]
        # Round 0 was not counted, so round n is on batch n + 1.
        flops = [way.flops[(number + 1) % len(way.flops)] for number in range(rounds)]
        share = [done * s / products[dtype][1] for done, s in zip(flops, peak, strict=True)]
        speedup = paired_ratio(seconds[" ".join(REFERENCE)], spent)
        fraction = paired_ratio(share, spent)
        mean = sum(way.flops) / len(way.flops)
        rows.append(
            {
                "model": model,
                "depth": setting.depth,
                "variant": variant,
                "dtype": dtype,
                "pairs_per_s": round(setting.pairs / statistics.median(spent), 3),
                "speedup_over_padded": round(speedup.median, 3),
                "speedup_spread": speedup.to_json(),
                "gflops_per_pair": round(mean / setting.pairs / 1e9, 2),
                "flops_over_ideal": round(mean / ideal, 3),
                "fraction_of_peak": round(fraction.median, 3),
                "fraction_spread": fraction.to_json(),
                "peak_gflops_per_s": round(products[dtype][1] / statistics.median(peak) / 1e9, 1),
            }
        )
    return rows


def _products(dtype: str, device: str) -> tuple[Callable[[], object], float]:
    """What the peak is: square products of `matmul_peak`'s size, four in a row, and their operations."""
    side, times = _SIDE[device.partition(":")[0]], 4
    a, b = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))

    def run() -> None:
        for _ in range(times):
            torch.mm(a, b)

    return run, times * 2.0 * side**3


def _memory(setting: Setting, variant: str, dtype: str, threads: int) -> tuple[float, float]:
    """Peak memory of two steps in a fresh process, and what model, gradients' space aside, held before them. MiB."""
    # Forked from a process that has imported what takes long and computed nothing: as fresh as a spawned one, and
    # quicker. Nothing that opens a corpus is imported there, since that must not be forked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "umif.models", "umif.objectives"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peak_memory, setting, variant, dtype, threads).result()


def peak_memory(setting: Setting, variant: str, dtype: str, threads: int) -> tuple[float, float]:
    """Do two steps and return the process's peak memory and its memory before them, MiB; on CUDA, the device's.

    Two steps, so that the optimiser's moments are there while the second one's activations are.
    """
    torch.set_num_threads(threads)
    way = Ways(setting).make(variant, dtype)
    cuda = setting.device != "cpu"
    before = torch.cuda.memory_allocated(setting.device) / _MIB if cuda else memory_mib("VmRSS")
    for _ in range(2):
        way()
    peak = torch.cuda.max_memory_allocated(setting.device) / _MIB if cuda else memory_mib("VmHWM")
    return round(peak, 1), round(before, 1)
