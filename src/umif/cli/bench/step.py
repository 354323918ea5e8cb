"""`umif bench step`: what a training step costs, packed beside padded and beside other methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from umif.cli.bench.shared import Json, Out, Rounds, Threads, answer

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLUMNS = {
    "variant": "variant",
    "pairs_per_s": "pairs/s",
    "speedup_over_padded": "over padded",
    "flops_over_ideal": "of ideal",
    "fraction_of_peak": "of peak",
    "peak_mib": "peak MiB",
}


def step(
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="tiny, small or base; may be given again. All three unless told."),
    ] = None,
    variants: Annotated[
        list[str] | None,
        typer.Option("--variant", help="Time this way, and the padded reference; may be given again. All unless told."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs a step.")] = 8,
    rounds: Rounds = 3,
    full_depth: Annotated[
        bool, typer.Option("--full-depth", help="All 12 blocks, instead of 6, 3 and 2: four times as long.")
    ] = False,
    memory: Annotated[bool, typer.Option(help="Measure peak memory too, in a process for each way.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = 1,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Time one training step: padded, packed, in bf16, and CLIP, two views and labels in its place; equal pairs."""

    def measure() -> dict[str, Any]:
        from umif.bench.step import StepConfig, bench_step
        from umif.config import parse_config

        options = {
            "models": models or ["tiny", "small", "base"],
            "variants": variants or [],
            "pairs": pairs,
            "rounds": rounds,
            "full_depth": full_depth,
            "memory": memory,
            "device": device,
            "threads": threads,
        }
        return bench_step(parse_config(StepConfig, options, where="umif bench step"), progress=True)

    answer(measure, _show, out=out, as_json=as_json)


def _show(found: dict[str, Any]) -> None:
    """Print one table a model."""
    from rich.console import Console
    from rich.table import Table

    hardware = found["hardware"]
    console = Console()
    console.print(
        f"{hardware['processor']}, {hardware['threads']} of {hardware['cores']} cores, torch {hardware['torch']}"
    )
    for model in dict.fromkeys(row["model"] for row in found["results"]):
        rows = [row for row in found["results"] if row["model"] == model]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for number, title in enumerate(_COLUMNS.values()):
            table.add_column(title, justify="left" if not number else "right", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row))
        console.print(f"\nViT-{model}, {rows[0]['depth']} blocks, {found['pairs']} pairs a step", style="bold")
        console.print(table)
    for note in found["notes"]:
        console.print(note, style="dim")


def _cells(row: dict[str, Any]) -> Iterable[str]:
    for key in _COLUMNS:
        value = row[key]
        if key == "speedup_over_padded":
            _, low, high = row["speedup_spread"]
            yield f"{value:.2f} [{low:.2f}, {high:.2f}]"
        elif key == "variant":
            yield f"{value} {row['dtype']}"
        elif key == "peak_mib":
            yield "–" if value is None else f"{value:,.0f}"
        else:
            yield f"{value:.2f}"
