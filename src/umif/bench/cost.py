"""Hours and energy of the paper's run, from rates that are measured or assumed, and that say which.

50 epochs over 1.66 million pairs, ViT-B/16 at 224 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PAIRS, EPOCHS = 1_660_000, 50
# Operations of a step for one pair (three parts student, one teacher; CLS rows alone in the last block), ViT-B/16 at
# 224 pixels, three quarters texts of about 60 tokens and one quarter masks: what `umif.bench.flops` counts in batches
# of `umif.bench.pairs`, which a test holds it to.
GFLOP_PER_PAIR = 192.7


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and what is assumed of it.

    Attributes:
        name: What it is.
        devices: Accelerators.
        tflops: Rate of large bf16 (V100: fp16) matrix products of one device, 10¹² operations/s.
        low, high: Share of that rate that a step reaches.
        watts: Of one device with its part of the host, under load.
        scaling: Share of the devices' joint rate that many of them reach.
    """

    name: str
    devices: int
    tflops: float
    low: float
    high: float
    watts: float
    scaling: float = 1.0


# H200: 788 Tflop/s is what large products reach; 700 W of the device and its part of a host. V100: 125 Tflop/s of
# tensor cores on paper, of which large products reach about three quarters; 300 W and its part of a host.
MACHINES = (
    Machine("1 × H200", 1, 788, 0.35, 0.50, 1200),
    Machine("8 × H200", 8, 788, 0.35, 0.50, 1200, 0.95),
    Machine("16 × V100 (the paper's)", 16, 94, 0.25, 0.40, 450, 0.90),
)


def paper_cost(*, pairs: int = PAIRS, epochs: float = EPOCHS) -> list[dict[str, Any]]:
    """Return hours and kWh on each machine as [least, most], with the rates that they follow from; none is measured."""
    rows = []
    for machine in MACHINES:
        per_device = [machine.tflops * 1e3 * share / GFLOP_PER_PAIR for share in (machine.high, machine.low)]
        rates = [machine.devices * machine.scaling * rate for rate in per_device]
        rows.append(_row(machine.name, rates, machine.devices * machine.watts, pairs, epochs, rate_from="assumed"))
    return rows


def measured_cost(
    pairs_per_s: float, *, devices: int = 1, watts: float = 1200.0, pairs: int = PAIRS, epochs: float = EPOCHS
) -> dict[str, Any]:
    """Return hours and kWh at a measured rate.

    Args:
        pairs_per_s: Of all devices together.
        devices: How many there are.
        watts: Of one device with its part of the host.
        pairs: Of an epoch.
        epochs: Passes.
    """
    name = f"{devices} × measured"
    return _row(name, [pairs_per_s, pairs_per_s], devices * watts, pairs, epochs, rate_from="measured")


def _row(name: str, rates: list[float], watts: float, pairs: int, epochs: float, *, rate_from: str) -> dict[str, Any]:
    hours = [pairs * epochs / rate / 3600 for rate in rates]
    return {
        "machine": name,
        "rate_from": rate_from,
        "pairs_per_s": rates[::-1],
        "watts": watts,
        "hours": hours,
        "kwh": [watts * hour / 1e3 for hour in hours],
    }
