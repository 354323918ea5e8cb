"""The paper's figures beside ours, each with what keeps the two from being compared."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.report.tables import Row

NAMES = {"umif": "UmiF, published", "med-unic": "Med-UniC, published"}
PAIRS = 1_660_000
BACKBONE = "vit_base_patch16_224"


@dataclass(frozen=True, slots=True)
class Beside:
    """One line of figures under a task: who, the cells by share of labels, and why they cannot be compared.

    Attributes:
        who: `UmiF, published`, a rival, or `here` with the encoder.
        cells: One a column; a dash where there is none.
        differs: Empty for published figures.
    """

    who: str
    cells: tuple[str, ...]
    differs: str = ""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One task of the paper: heading, columns and lines; `measured` = whether any of ours stands there."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Beside, ...]
    measured: bool


@cache
def published() -> dict[str, Any]:
    """Return the paper's figures (`paper.yaml`)."""
    data: dict[str, Any] = yaml.safe_load((resources.files("umif.report") / "paper.yaml").read_text(encoding="utf-8"))
    return data


def published_tables(rows: Sequence[Row], recipes: dict[str, dict[str, Any]]) -> list[PublishedTable]:
    """Set the rows of results beside the paper's figures.

    Of the rows of one run that fit a figure (task, dataset, metric), those of the encoder with the highest mean over
    its shares of labels are shown, so that a line is one encoder throughout.

    Args:
        rows: Of all runs shown, each with `run`.
        recipes: Recipe by run.
    """
    tables = []
    for entry in published()["downstream"]:
        shares = [float(share) for share in entry["labels"]]
        lines = [
            Beside(name, tuple(f"{value:.1f}" for value in entry[key])) for key, name in NAMES.items() if key in entry
        ]
        fitting = [row for row in rows if not row["baseline"] and _fits(row, entry["ours"])]
        for run in dict.fromkeys(row["run"] for row in fitting):
            own = [row for row in fitting if row["run"] == run]
            encoder = max(dict.fromkeys(row["encoder"] for row in own), key=lambda name: _mean(own, name))
            of_share = {row["labels"]: row for row in own if row["encoder"] == encoder}
            cells = tuple(_cell(of_share.get(share)) for share in shares)
            if any(cell != "–" for cell in cells):
                example = next(iter(of_share.values()))
                lines.append(Beside(f"{run}, {encoder}", cells, _differences(example, recipes.get(run, {}))))
        columns = tuple("no labels" if not share else f"{share:g} %" for share in shares)
        title = f"{entry['task'].capitalize()}: {entry['data']}, {entry['metric']}"
        tables.append(PublishedTable(title, columns, tuple(lines), any(line.differs for line in lines)))
    return tables


def _fits(row: Row, ours: dict[str, str]) -> bool:
    datasets = re.split(r",\s*", str(row["data"]).partition(":")[0])
    return bool(row["task"] == ours["task"] and datasets == [ours["dataset"]] and row["metric"] == ours["metric"])


def _mean(rows: Sequence[Row], encoder: str) -> float:
    values = [float(row["value"]) for row in rows if row["encoder"] == encoder]
    return sum(values) / len(values)


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    value = f"{100 * row['value']:.1f}"
    return value if row["low"] is None else f"{value} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _differences(row: Row, recipe: dict[str, Any]) -> str:
    """What keeps our number from being held against the published one, in words; never empty, since weights differ."""
    model, data = recipe.get("model", {}), recipe.get("data", {})
    words = []
    if model.get("backbone") != BACKBONE or model.get("depth") or model.get("width"):
        shape = ", ".join(f"{key} {model[key]}" for key in ("depth", "width") if model.get(key))
        words.append(f"network: {model.get('backbone', 'unknown')}{f' ({shape})' if shape else ''}, theirs ViT-B/16")
    if model.get("image_size", 224) != 224:
        words.append(f"{model['image_size']} px, theirs 224")
    seen = int(recipe.get("pairs_seen", 0))
    if seen:
        words.append(f"{seen:,} pairs seen, theirs 50 epochs over {PAIRS:,}")
    if data.get("datasets"):
        words.append(f"trained on {', '.join(data['datasets'])}")
    protocol = str(row.get("extra", {}).get("protocol", "")) or ("paper" if "paper" in row["protocol"] else "clean")
    if not protocol.startswith("paper"):
        words.append(f"patient-wise split with {row['n_patients']:,} test patients, theirs by image")
    return "not comparable: " + "; ".join(words) if words else "comparable in network and split; other weights"
