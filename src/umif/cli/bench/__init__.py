"""`umif bench`: what a step, the input and many processes cost here."""

from __future__ import annotations

import typer

from umif.cli.bench.input import bench_input
from umif.cli.bench.scale import scale
from umif.cli.bench.step import step

bench = typer.Typer(
    help="Speed, memory and fraction of the hardware's limit, beside the baselines.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

bench.command("step")(step)
bench.command("input")(bench_input)
bench.command("scale")(scale)
