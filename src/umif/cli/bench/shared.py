"""Options and the answer, which the parts of `umif bench` have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umif.cli.output import plain, print_json, standard_output

if TYPE_CHECKING:
    from collections.abc import Callable

Rounds = Annotated[int, typer.Option(min=1, help="Rounds in which all variants take turns.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the answer there as well.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]


def answer(
    measure: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None], *, out: Path | None, as_json: bool
) -> None:
    """Measure with standard output reserved, keep the answer where the user wants it, and show it."""
    with standard_output(reserved=as_json):
        found = measure()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(plain(found), indent=2, ensure_ascii=False) + "\n")
    if as_json:
        print_json(found)
    else:
        show(found)
