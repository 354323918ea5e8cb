"""Rows of many runs of one sweep → one table a task, settings down, encoders across; Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from typing import TYPE_CHECKING, Any, TypeAlias

from umif.corpus.manifest import write_atomically
from umif.errors import StorageError
from umif.report.published import published
from umif.report.tables import Row, share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# (setting, seed, rows of all tasks).
Measured: TypeAlias = tuple[str, int, list[Row]]
_KEY = ("task", "data", "labels", "metric")
_COLUMNS = ("setting", "seed", *_KEY, "encoder", "baseline", "value", "low", "high", "n_patients", "split_sha256")


def write_table(
    folder: Path, name: str, measured: Sequence[Measured], settings: Sequence[str], paper: str | None = None
) -> Path:
    """Write `sweep.md`, `sweep.csv` and `sweep.json` into `folder`; return the path of the first.

    Args:
        folder: Where to.
        name: Of the sweep, for the heading.
        measured: What each run gave.
        settings: Their order in the tables.
        paper: Which of the paper's tables to print beside: `separate` or `kinds`.

    Raises:
        StorageError: the disk refused.
    """
    flat = [
        {"setting": setting, "seed": seed, **{key: row[key] for key in _COLUMNS[2:]}}
        for setting, seed, rows in measured
        for row in rows
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    files = {
        "sweep.csv": stream.getvalue(),
        "sweep.json": json.dumps({"name": name, "rows": flat}, indent=1, ensure_ascii=False) + "\n",
        "sweep.md": markdown(name, measured, settings, paper),
    }
    try:
        for file, text in files.items():
            write_atomically(folder / file, text.encode())
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror or error}", where=folder) from error
    return folder / "sweep.md"


def markdown(name: str, measured: Sequence[Measured], settings: Sequence[str], paper: str | None = None) -> str:
    """Return the tables as Markdown: means over seeds, with the lowest and the highest seed in brackets."""
    seeds = sorted({seed for _, seed, _ in measured})
    said = f"Means over {len(seeds)} seeds, in brackets the lowest and the highest." if len(seeds) > 1 else "One seed."
    lines = [f"# {name}", "", said]
    tables: dict[tuple[Any, ...], dict[str, dict[str, list[float]]]] = {}
    baselines: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for setting, _, rows in measured:
        for row in rows:
            key = tuple(row[part] for part in _KEY)
            if not row["baseline"]:
                tables.setdefault(key, {}).setdefault(setting, {}).setdefault(row["encoder"], []).append(row["value"])
            elif setting == settings[0]:  # the same for all settings of a seed
                baselines.setdefault(key, {}).setdefault(row["encoder"], []).append(row["value"])
    figures = published()[paper] if paper else None
    for key, table in tables.items():
        task, data, labels, metric = key
        encoders = list(dict.fromkeys(encoder for cells in table.values() for encoder in cells))
        beside = [f"published: {figures['what']}"] if figures else []
        lines += ["", f"## {task} · {data} · labels: {share(labels)} · {metric}", ""]
        lines += [
            "| " + " | ".join(["setting", *encoders, *beside]) + " |",
            "|---" * (1 + len(encoders) + len(beside)) + "|",
        ]
        for setting in (one for one in settings if one in table):
            cells = [_cell(table[setting].get(encoder, [])) for encoder in encoders]
            known = [_published(figures, setting)] if figures else []
            lines.append("| " + " | ".join([setting, *cells, *known]) + " |")
        if rivals := baselines.get(key):
            lines += [
                "",
                "Baselines: " + ", ".join(f"{rival} {_cell(values)}" for rival, values in rivals.items()) + ".",
            ]
    if figures:
        lines += [
            "",
            "Published: a ViT-B/16 trained on 1.66 million pairs. Compare how settings rank, not levels.",
        ]
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.3f}, {max(values):.3f}]"


def _published(figures: dict[str, Any], setting: str) -> str:
    """The paper's figure for a setting: by its whole name, or by what follows `=` in it."""
    value = figures["settings"].get(setting, figures["settings"].get(setting.partition("=")[2]))
    return "–" if value is None else f"{value:.1f} %"
