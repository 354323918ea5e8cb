"""`umif bench step`: operations are counted right, ways do what they say, figures come out in the promised shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from umif.bench import step as bench
from umif.bench.flops import Stack, ideal_step, linear, umif_step
from umif.bench.pairs import mixed_batch
from umif.bench.step import StepConfig, bench_step
from umif.bench.step_ways import OURS, RIVALS, Setting, Ways, installed
from umif.cli.bench import bench as verb
from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TINY = Setting("vit_tiny_patch16_224", depth=2, pairs=4, image_size=64, seeds=(0, 1))
EAGER = [name for name in OURS if name != "packed_compiled"]


def counted(run: Callable[[], object]) -> dict[str, int]:
    """Operations that torch itself counts, by operator."""
    with FlopCounterMode(display=False) as counter:
        run()
    return {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}


def products(run: Callable[[], object]) -> int:
    """Operations in matrix products, attention's left out."""
    return sum(flops for operator, flops in counted(run).items() if operator in ("aten.mm", "aten.addmm"))


def test_a_stack_counts_as_torch_counts_it() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64)
    # Attention as plain products: the fused kernels of CPUs are none that torch counts.
    with sdpa_kernel(SDPBackend.MATH):
        flops = counted(lambda: vit.blocks(torch.randn(2, 17, 192)))
    assert sum(flops.values()) == Stack(192, 3).forward([17, 17])


@pytest.mark.parametrize("variant", EAGER)
def test_operations_of_our_step_are_what_torch_counts(variant: str) -> None:
    ways = Ways(TINY)
    way = ways.make(variant, "fp32")
    batch = ways._batches[0]
    # Attention inside our own operator is nothing that torch can count: take its part of the formula away.
    lengths = [*batch.group1.lengths, *batch.group0.lengths]
    full, longest = batch.full.lengths, max(batch.full.lengths)
    if variant == "padded":
        lengths, full = [longest] * len(lengths), [longest] * len(full)
    elif variant == "gathered":
        lengths, full = [max(lengths)] * len(lengths), [longest] * len(full)
    cut = variant in ("packed", "packed_recompute")

    def attention(segments: list[int]) -> float:
        square, line = 4.0 * 192 * sum(n**2 for n in segments), 4.0 * 192 * sum(segments)
        return (TINY.depth - cut) * square + cut * line

    again = (TINY.depth - 1) * 4.0 * 192 * sum(n**2 for n in lengths) if variant == "packed_recompute" else 0.0
    expected = way.flops[0] - 3 * attention(lengths) - attention(full) - again
    # The losses' few small products are not in the formula.
    assert products(way) == pytest.approx(expected, rel=2e-3)


def test_packing_executes_the_ideal_and_the_last_block_saves_beyond_it() -> None:
    ways = Ways(TINY)
    every = ways.make("packed_every_row", "fp32").flops
    assert every == ways.ideal()
    cut = ways.make("packed", "fp32").flops
    padded = ways.make("padded", "fp32").flops
    assert all(a < b < c for a, b, c in zip(cut, every, padded, strict=True))


@pytest.mark.parametrize("variant", RIVALS)
def test_operations_of_rivals_are_about_what_torch_counts(variant: str) -> None:
    if not installed(variant):
        pytest.skip(f"{variant} is not installed")
    way = Ways(TINY).make(variant, "fp32")
    flops = counted(way)
    known = sum(count for operator, count in flops.items() if "attention" not in operator)
    # Heads and losses are small; attention's backward pass is counted in another way.
    assert known == pytest.approx(way.flops[0], rel=0.1)


@pytest.mark.parametrize("variant", EAGER)
def test_every_way_of_ours_takes_the_same_step(variant: str) -> None:
    reference, other = Ways(TINY), Ways(TINY)
    first, second = reference.make("padded", "fp32"), other.make(variant, "fp32")
    for _ in range(2):
        first()
        second()
    before = Ways(TINY)
    before.make("padded", "fp32")
    moved = 0.0
    for start, left, right in zip(
        *(list(ways._model.parameters()) for ways in (before, reference, other)), strict=True
    ):
        moved += float((left - start).detach().abs().max())
        # AdamW's first steps have one size whatever the gradient's; where that is nearly zero its sign is noise.
        assert float((left - right).detach().norm()) <= 0.02 * float((left - start).detach().norm()) + 1e-6
    assert moved > 0


def test_batches_hold_masks_and_texts_of_many_lengths() -> None:
    batch = mixed_batch(0, 8, image_size=64, vocab_size=50)
    assert batch.kinds.count("segment") == 2
    assert len(set(batch.full.lengths)) > 3
    assert torch.equal(batch.group1.rows_T, mixed_batch(0, 8, image_size=64, vocab_size=50).group1.rows_T)


def test_the_result_has_the_promised_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench._SIDE, "cpu", 64)
    config = StepConfig(
        models=("tiny",), variants=("packed",), dtypes=("fp32",), pairs=2, rounds=2, depth=1, image_size=32
    )
    found = bench_step(config)
    assert found["hardware"]["threads"] == 1
    padded, packed = found["results"]
    assert (padded["variant"], packed["variant"]) == ("padded", "packed")
    assert padded["speedup_over_padded"] == 1.0
    assert packed["flops_over_ideal"] < padded["flops_over_ideal"]
    for row in found["results"]:
        assert row["pairs_per_s"] > 0
        assert row["fraction_of_peak"] > 0
        # A process that holds torch and a model of several million weights.
        assert row["peak_mib"] > row["state_mib"] > 100
        low, high = row["speedup_spread"][1:]
        assert low <= row["speedup_over_padded"] <= high


def test_an_unknown_variant_and_an_absent_device_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="no variant 'paked'"):
        bench_step(StepConfig(variants=("paked",)))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA"):
            bench_step(StepConfig(device="cuda"))


def test_the_verb_prints_one_json_object_and_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {"model": "tiny", "depth": 1, "variant": "padded", "dtype": "fp32", "pairs_per_s": 1.0}
    row |= {"speedup_over_padded": 1.0, "speedup_spread": [1.0, 1.0, 1.0], "flops_over_ideal": 2.5}
    row |= {"fraction_of_peak": 0.8, "peak_mib": None}
    asked: list[StepConfig] = []

    def fake(config: StepConfig, *, progress: bool) -> dict[str, Any]:
        asked.append(config)
        hardware = {"processor": "p", "threads": 1, "cores": 2, "torch": "t"}
        return {"hardware": hardware, "pairs": config.pairs, "notes": ["n"], "results": [row]}

    monkeypatch.setattr(bench, "bench_step", fake)
    app = typer.Typer()
    app.add_typer(verb, name="bench")
    out = tmp_path / "deep" / "step.json"
    arguments = ["bench", "step", "--model", "tiny", "--pairs", "4", "--no-memory", "--out", str(out)]
    app(arguments, standalone_mode=False)
    assert "1.00 [1.00, 1.00]" in capfd.readouterr().out
    app([*arguments, "--json"], standalone_mode=False)
    assert json.loads(capfd.readouterr().out) == json.loads(out.read_text())
    assert asked[0].models == ("tiny",)
    assert asked[0].memory is False


def test_linear_counts_two_operations_a_multiply_add() -> None:
    assert linear(2, 3, 5) == 60
    assert Stack(4, 1).forward([2]) == 24 * 16 * 2 + 4 * 4 * 4


def test_a_shallow_models_formula_agrees_with_the_step_of_its_model() -> None:
    ways = Ways(TINY)
    way = ways.make("packed", "fp32")
    model, batch = ways._model, ways._batches[1]
    assert umif_step(model, batch) == way.flops[1] < ideal_step(model, batch)
