"""`umif bench scale`: what many processes cost here, what they would elsewhere, and what the paper's run costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from umif.cli.bench.shared import Json, Out, Rounds, Threads, answer

if TYPE_CHECKING:
    from collections.abc import Sequence


def scale(
    processes: Annotated[
        list[int] | None, typer.Option(min=1, help="Processes to share a batch out to; may be given several times.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of the global batch that is measured.")] = 64,
    chunk_pairs: Annotated[int | None, typer.Option(min=1, help="As train.chunk_pairs.")] = None,
    shard: Annotated[bool, typer.Option("--shard", help="Share the weights out too, as train.shard=full.")] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Hours and energy of the paper's run; measures nothing.")
    ] = False,
    pairs_per_s: Annotated[
        float | None, typer.Option(min=0.001, help="A measured rate of one device, instead of assumed ones.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="With --cost: devices of the measured rate.")] = 1,
    watts: Annotated[float, typer.Option(min=1, help="With --cost: of a device and its part of the host.")] = 1200.0,
    rounds: Rounds = 5,
    threads: Threads = 1,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Share a step out to many processes: rate, bytes, a model of 8 to 512 GPUs; or the cost of the paper's run."""
    from umif.bench.cost import measured_cost, paper_cost
    from umif.bench.scale import Cluster, bench_scale
    from umif.bench.scale_run import Load

    def costs() -> dict[str, Any]:
        rows = paper_cost()
        if pairs_per_s is not None:
            rows.append(measured_cost(pairs_per_s * devices, devices=devices, watts=watts))
        return {"cost": rows}

    def measured() -> dict[str, Any]:
        cluster = Cluster() if pairs_per_s is None else Cluster(pairs_per_s=pairs_per_s)
        load = Load(pairs=pairs, chunk_pairs=chunk_pairs, shard="full" if shard else "none")
        return bench_scale(processes or [1, 2], load, cluster, rounds=rounds, threads=threads, progress=not as_json)

    answer(costs if cost else measured, _show_cost if cost else _show, out=out, as_json=as_json)


def _show(found: dict[str, Any]) -> None:
    rows = [
        (
            row["processes"],
            f"{row['pairs_per_s']:.1f}",
            _share(row["efficiency"]),
            _share(row["work"]),
            f"{row['sent_bytes'] / 2**20:.2f}",
            row["messages"],
            f"{row['peak_mib']:,.0f}",
        )
        for row in found["results"]
    ]
    _table(
        "Measured here",
        ["processes", "pairs/s", "efficiency", "work", "MiB sent", "messages", "peak MiB"],
        rows,
    )
    for title, key in (("2,048 pairs shared out", "same_batch"), ("256 pairs on each GPU", "same_share")):
        rows = [
            (
                row["gpus"],
                f"{row['pairs_per_s']:,.0f}",
                _share(row["efficiency"]),
                f"{row['sent_mib']:,.0f}",
                *(f"{row[name]:.1f}" for name in ("compute_ms", "gather_ms", "exposed_ms")),
            )
            for row in found["model"][key]
        ]
        columns = ["GPUs", "pairs/s", "efficiency", "MiB sent", "compute ms", "gather ms", "gradients not hidden ms"]
        _table(f"Predicted, not measured: ViT-B/16, {title}", columns, rows)
    print("assumed: " + ", ".join(f"{key} {value:g}" for key, value in found["model"]["assumptions"].items()))


def _show_cost(found: dict[str, Any]) -> None:
    rows = [
        (
            row["machine"],
            _range(row["pairs_per_s"], ",.0f"),
            _range(row["hours"], ".1f"),
            _range(row["kwh"], ".0f"),
            row["rate_from"],
        )
        for row in found["cost"]
    ]
    _table("50 epochs over 1.66 million pairs, ViT-B/16", ["machine", "pairs/s", "hours", "kWh", "rate"], rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console().print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _range(values: Sequence[float], form: str) -> str:
    low, high = (format(value, form) for value in values)
    return low if low == high else f"{low} – {high}"
