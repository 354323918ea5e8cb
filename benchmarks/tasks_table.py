"""Every row of one evaluation, with its interval and its gains, as Markdown.

    python benchmarks/tasks_table.py runs/real_tasks > table.md

Reads what `umif evaluate` wrote into the folder's `results`. A gain is paired on the same resampled patients, and is
told over the same readout of random weights and over pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ORDER = ("linear", "knn", "mlp", "zero-shot", "segmentation", "detection", "retrieval", "vqa")


def rows_of(folder: Path) -> list[Row]:
    files = {file: json.loads(file.read_bytes())["results"] for file in sorted((folder / "results").glob("*.json"))}
    rows = [row for found in files.values() for row in found]
    return sorted(rows, key=lambda row: ORDER.index(row["task"]) if row["task"] in ORDER else len(ORDER))


def readout(encoder: str) -> str:
    """`umif cls` and `random cls` are one readout of two encoders."""
    return " ".join(encoder.split()[1:])


def gain(row: Row, over: str) -> str:
    """The gain over the baseline that is called `over` and read out alike; pixels have one readout only."""
    for one in row["extra"].get("gains", []):
        name = one["over"].split()[0]
        if name == over and (name == "pixels" or readout(one["over"]) == readout(row["encoder"])):
            return f"{one['value']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    task = None
    for row in rows_of(options.folder):
        if row["task"] != task:
            task = row["task"]
            print(f"\n### {task}\n")
            print("| data | metric | encoder | value [95 % interval] | over random weights | over pixels | patients |")
            print("|---|---|---|---|---|---|---|")
        name = row["encoder"] if row["baseline"] else f"**{row['encoder']}**"
        metric = row["metric"] if row["labels"] in (0, 100) else f"{row['metric']}, {row['labels']:g} % of labels"
        value = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        print(
            f"| {row['data']} | {metric} | {name} | {value} | {gain(row, 'random')} | {gain(row, 'pixels')} "
            f"| {row['n_patients']} |"
        )


if __name__ == "__main__":
    main()
