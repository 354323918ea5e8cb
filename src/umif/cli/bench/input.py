"""`umif bench input`: what reading, decoding and augmenting pictures costs beside other loaders."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umif.cli.bench.shared import Json, Out, Rounds, answer

if TYPE_CHECKING:
    from collections.abc import Mapping


def bench_input(
    corpus: Annotated[
        Path | None, typer.Option(metavar="CORPUS", help="Whose pictures; phantoms are drawn unless told.")
    ] = None,
    images: Annotated[int, typer.Option(min=8, help="Pictures that each loader reads in its turn.")] = 256,
    size: Annotated[int, typer.Option(min=16, help="Side of the crop, pixels.")] = 224,
    rounds: Rounds = 5,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Pictures a second a core from a corpus to crops, beside Pillow, ImageFolder, WebDataset and open_clip."""
    from umif.bench.input import measure_input

    def measure() -> dict[str, Any]:
        return measure_input(corpus, images=images, size=size, rounds=rounds, progress=True)

    answer(measure, _show, out=out, as_json=as_json)


def _show(found: Mapping[str, Any]) -> None:
    pictures, workers = found["pictures"], found["workers"]
    print(
        f"{found['hardware']['processor']}, one thread; JPEGs of {pictures['stored']}, {pictures['jpeg_bytes']} bytes"
    )
    print(f"{'source':<26}{'variant':<10}{'images/s a core':>16}{'of Pillow':>24}")
    for row in found["results"]:
        median, low, high = row["ratio_to_pillow"]
        ratio = f"{median:.2f} ({low:.2f}–{high:.2f})"
        print(f"{row['source']:<26}{row['variant']:<10}{row['images_per_s_per_core']:>16.0f}{ratio:>24}")
    for what, found_of in (("sent by worker processes", workers), ("made and not sent", workers["unsent"])):
        rates = ", ".join(f"{count}: {rate:.0f} pairs/s" for count, rate in found_of["pairs_per_s"].items())
        median, low, high = found_of["ratio"]
        print(f"whole batches, {what}: {rates}; ratio {median:.2f} ({low:.2f}–{high:.2f})")
    spent = workers["processor_ms_a_batch"]
    rates = ", ".join(
        f"{count}: {spent['worker'][count]:.1f} ms by a worker and {spent['main'][count]:.1f} ms by who takes it in"
        for count in spent["worker"]
    )
    print(f"processor time of a batch, {rates}")
