"""What figures were taken on, and how fast its matrix products can be."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umif.errors import ConfigError

if TYPE_CHECKING:
    import torch


def describe_hardware(device: str = "cpu") -> dict[str, Any]:
    """Return processor, cores, memory, instruction sets that matter, accelerator and versions, as plain JSON values."""
    import torch

    threads = torch.get_num_threads()
    hardware: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in _flags()],
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        hardware["accelerator"] = torch.cuda.get_device_name(device)
        hardware["accelerator_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    return hardware


def matmul_peak(dtype: torch.dtype, device: str = "cpu", *, size: int | None = None, repeats: int = 7) -> float:
    """Return the rate of a large square matrix product, the most that this machine does. Floating-point operations/s.

    Args:
        dtype: Of both factors.
        device: Where to multiply.
        size: Side of the square; 2,048 on a CPU and 8,192 elsewhere unless told.
        repeats: Products that the median is taken over, after one that is not counted.
    """
    import torch

    side = size or (2048 if device == "cpu" else 8192)
    a = torch.randn(side, side, dtype=torch.float32, device=device).to(dtype)
    b = torch.randn(side, side, dtype=torch.float32, device=device).to(dtype)
    seconds = []
    for _ in range(repeats + 1):
        start = clock(device)
        torch.mm(a, b)
        seconds.append(clock(device) - start)
    return 2.0 * side**3 / statistics.median(seconds[1:])


def clock(device: str = "cpu") -> float:
    """Seconds on the clock that a device's work is timed with.

    On a CPU that is the processor time of this process, divided by its threads: other jobs on a shared machine then
    count for little. Elsewhere it is the wall's, after the device has finished.
    """
    import torch

    if device == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def memory_mib(key: str) -> float:
    """Return one of this process's memory figures: `VmRSS`, what it holds, or `VmHWM`, the most that it held. MiB.

    The kernel's `ru_maxrss` would include the parent's, before `exec`.

    Raises:
        ConfigError: this system does not tell.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise ConfigError("this system does not tell a process's peak memory", fix="measure without memory")


def forget_peak() -> None:
    """Let this process's `VmHWM` begin anew at what it holds now, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _processor() -> str:
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _flags() -> set[str]:
    return next((set(line.split()) for line in _cpuinfo().splitlines() if line.startswith("flags")), set())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
