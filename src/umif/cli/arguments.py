"""What the user wrote → values: lists after one flag, percentages, datasets with their folders."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from umif.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import typer

_PERCENTS = re.compile(r"\d+(\.\d+)?%?(,\d+(\.\d+)?%?)*,?")


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """Repeat `--labels` and `--against` before each of their values: lists read best, but parsers want one each.

    After `--labels` only words that are percentages are taken, so a task's name after them stays an argument; after
    `--against` all are, up to the next option; `--` ends either.

    Example:
        >>> spread_lists(["evaluate", "m", "--labels", "1%", "10,100%", "linear"])
        ['evaluate', 'm', '--labels', '1%', '--labels', '10', '--labels', '100%', 'linear']
    """
    if arguments[:1] == ["audit"]:
        return _spread_against(arguments)
    if arguments[:1] == ["evaluate"]:
        arguments = _spread_against(arguments)
    spread: list[str] = []
    listing = False
    for position, argument in enumerate(arguments):
        if argument == "--":
            return spread + list(arguments[position:])
        name, equals, value = argument.partition("=")
        if name == "--labels" and (
            equals or position + 1 == len(arguments) or not _PERCENTS.fullmatch(arguments[position + 1])
        ):
            # One given as --labels=…, or one without a value, which the parser then explains.
            parts = [part for part in value.split(",") if part]
            spread += [word for part in parts for word in ("--labels", part)] or [argument]
            listing = bool(parts)
        elif argument == "--labels":
            listing = True
        elif listing and _PERCENTS.fullmatch(argument):
            spread += [word for part in argument.split(",") if part for word in ("--labels", part)]
        else:
            listing = False
            spread.append(argument)
    return spread


def _spread_against(arguments: Sequence[str]) -> list[str]:
    """Repeat `--against` before each word after it, up to the next option."""
    spread: list[str] = []
    listing = taken = False
    for position, argument in enumerate(arguments):
        if argument == "--":
            return spread + list(arguments[position:])
        if argument.startswith("-"):
            listing, taken = argument == "--against", False
            spread.append(argument)
        else:
            # The first word is the flag's own; the verb and the corpus come before it.
            spread += ["--against", argument] if listing and taken else [argument]
            taken = True
    return spread


def percent(text: str) -> float:
    """Read `10%`, `10` or `0.5%`.

    Raises:
        InputError: no percentage, or one outside (0, 100].
    """
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise InputError(
            f"{text!r} is no share of labels", where="--labels", fix="give percentages, such as 1% 10% 100%"
        )
    return value


def dataset_source(text: str) -> tuple[str, Path | str]:
    """Read `NAME=ROOT`; a URL stays the text that it is.

    Raises:
        InputError: not of that form, or no reader of that name.
    """
    from umif.config import REGISTRY
    from umif.corpus.remote import is_url

    name, equals, root = text.partition("=")
    if not equals or not name or not root:
        known = REGISTRY.names("reader")
        raise InputError(
            f"{text!r} names no dataset and folder",
            where="--from",
            fix=f"write NAME=ROOT, such as {known[0] if known else 'NAME'}=/data/folder; names: {', '.join(known)}",
        )
    if name not in REGISTRY.names("reader"):
        raise InputError(f"no reader is called {name!r}", where="--from", fix=nearest(name, REGISTRY.names("reader")))
    return name, root if is_url(root) else Path(root)


def only_given(context: typer.Context, known: Collection[str], *, needs: str) -> None:
    """Refuse options that would change nothing, because another one is missing.

    Args:
        context: Of the command.
        known: Names of the parameters that count.
        needs: The option that all others belong to.

    Raises:
        InputError: others were written.
    """
    written = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in known
        and (source := context.get_parameter_source(parameter.name or "")) is not None
        and source.name == "COMMANDLINE"
    ]
    if written:
        raise InputError(
            f"{', '.join(written)} would change nothing without {needs}", fix=f"leave it out, or give {needs}"
        )
