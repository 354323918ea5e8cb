import itertools

import pytest
import torch

from umif.bench.hardware import describe_hardware, matmul_peak
from umif.bench.timing import paired_ratio, take_turns


def test_ways_take_turns_in_an_order_that_is_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert "".join(order) == "baabbaab"
    assert [len(spent) for spent in seconds.values()] == [3, 3]


def test_seconds_are_those_of_the_way_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.accumulate([0, 5, 1, 7, 1, 2, 1, 3])
    monkeypatch.setattr("umif.bench.timing.clock", lambda _: next(ticks))
    assert take_turns({"a": lambda: None, "b": lambda: None}, rounds=1) == {"a": [2], "b": [3]}


def test_ratios_are_paired_by_round() -> None:
    ratio = paired_ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert ratio.to_json() == [3.0, 2.0, 4.0]


def test_the_hardware_is_described_and_multiplies() -> None:
    hardware = describe_hardware()
    assert hardware["processor"]
    assert hardware["cores"] >= 1
    assert matmul_peak(torch.float32, size=64, repeats=3) > 0
