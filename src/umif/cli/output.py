"""Values → what the user reads: one JSON object, or a few lines and tables."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from umif.readers.base import Card


@contextlib.contextmanager
def standard_output(*, reserved: bool) -> Iterator[None]:
    """With `reserved`, send what anything prints meanwhile, child processes included, to standard error."""
    if not reserved:
        yield
        return
    sys.stdout.flush()
    try:
        out, error = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # streams that are no files, as inside a notebook
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    kept = os.dup(out)
    os.dup2(error, out)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, out)
        os.close(kept)


def print_json(answer: dict[str, Any]) -> None:
    """Print `answer` as one line of JSON."""
    print(json.dumps(plain(answer), ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """Return `value` in JSON's own types; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def print_cards(cards: dict[str, Card]) -> None:
    """Print all readers as one table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("name", "supervision", "images", "access", "licence"):
        table.add_column(column, justify="right" if column == "images" else "left", overflow="fold")
    for name, card in cards.items():
        images = "any" if card.images is None else f"{card.images:,}"
        cells = (name, ", ".join(card.kinds), images, card.access, card.licence.split("\n")[0])
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    console.print(table)
    console.print("\numif datasets NAME shows layout, citation, how to get it and what it overlaps with.", style="dim")


def print_card(name: str, card: Card) -> None:
    """Print everything about one reader."""
    rows = [
        ("supervision", ", ".join(card.kinds)),
        ("images", "any number" if card.images is None else f"{card.images:,}"),
        ("access", card.access),
        ("licence", card.licence),
        ("citation", card.citation or "none"),
        ("how to get it", card.how_to_get),
        ("layout", card.layout),
        ("overlaps with", "; ".join(card.overlaps) or "nothing known"),
        ("left out", card.excluded),
        ("checked on", card.checked_on),
        ("checked against", card.checked_against),
    ]
    print(f"{name}: {card.title}" if card.title else name)
    for label, text in rows:
        if text:
            print(f"  {label + ':':<17}" + text.strip("\n").replace("\n", "\n" + " " * 19))


def print_inspection(answer: dict[str, Any]) -> None:
    """Print what was found in a corpus, and where to look."""
    for issue in answer["issues"]:
        if issue["count"]:
            where = ", ".join(f"{name} {count}" for name, count in issue["datasets"].items())
            print(f"{issue['severity']:<8} {issue['count']:>7}  {issue['title']} ({where})")
    listed = answer["quarantine"]
    print(f"{listed['file']}: {listed['exclude']} excluded, {listed['review']} to review, {listed['added']} new")
    print(answer["report"])


def print_manifest(out: Path, answer: dict[str, Any]) -> None:
    """Print what a new corpus holds, and what was left out of it."""
    for reader in answer["readers"]:
        left_out = ", ".join(f"{count} {reason}" for reason, count in reader["excluded"].items())
        print(
            f"{reader['name']}: {reader['yielded']} of {reader['seen']} read"
            + (f" (left out: {left_out})" if left_out else "")
        )
        for note, count in reader["notes"].items():
            print(f"  {count} × {note}")
    pairs = ", ".join(f"{count} {kind}" for kind, count in answer["pairs"].items())
    print(f"{out}: {answer['images']} images, pairs: {pairs}, quarantined: {answer['quarantined']}")
    if unmapped := ", ".join(f"{label} ({count})" for label, count in answer["unmapped"].items()):
        print(f"labels that the vocabulary does not know (kept under their own spelling): {unmapped}")
    print(f"fingerprint {answer['fingerprint']}")


def print_evaluation(answer: dict[str, Any]) -> None:
    """Print the rows as tables, then what stands beside them: tasks left out, notes, rows that were there already."""
    from umif.report.tables import results_text

    print(results_text(answer["results"]))
    for one in answer["left_out"]:
        print(f"left out: {one['task']}: {one['reason']}")
    for note in answer["notes"]:
        print(f"note: {note}")
    if answer["taken"]:
        print(f"taken from an earlier run (--again does them again): {', '.join(answer['taken'])}")


def print_audit(answer: dict[str, Any], page: Path | None) -> None:
    """Print the leaks of an audit, what is open, and where to look at the pairs."""
    # Plain lines: an id that a table breaks over two lines cannot be copied.
    width = max((len(leak["id"]) for leak in answer["leaks"]), default=0)
    for leak in answer["leaks"]:
        met = f"{leak['count']:,} images of {leak['against']} meet {leak['left_count']:,}"
        print(f"{leak['id']:<{width}}  {met}; acknowledged: {'yes' if leak['acknowledged'] else 'NO'}")
    for each in answer["open_questions"]:
        seen = "nobody looked" if each["found_by_sight"] is None else f"{each['found_by_sight']} met by sight"
        print(f"open: {each['left']} and {each['right']} ({each['against']}): {each['note']}; {seen}")
    for each in answer["torn"]:
        many = {"patient": "patients", "study": "studies", "file": "files"}[each["unit"]]
        print(f"torn over splits: {each['count']} of {each['of']} {many} of {each['dataset']}, by {each['column']}")
    for each in answer["shortcuts"][:5]:
        print(f"shortcut: {each['finding']} is told by {each['by']} alone with AUC {each['auc']:.3f}")
    for name in answer["unused"]:
        print(f"acknowledged, but not found: {name}")
    if page is not None:
        print(f"pairs side by side: {page}")
    print("clean" if answer["clean"] else "it leaks: leave these images out, or acknowledge each id")
