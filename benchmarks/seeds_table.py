"""Sum up the results of one recipe trained with several seeds, as Markdown.

    python benchmarks/seeds_table.py runs/real_small-0 runs/real_small-1 runs/real_small-2 > table.md

Reads what `umif evaluate` wrote into each run folder. Every cell is the mean over seeds with the lowest and highest in
brackets; a gain is paired on the same resampled patients within a seed, and its interval is that seed's 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows_of(run: Path) -> list[Row]:
    return [
        row for file in sorted((run / "results").glob("*.json")) for row in json.loads(file.read_bytes())["results"]
    ]


def cell(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    runs = [rows_of(path) for path in parser.parse_args().runs]
    keys: dict[tuple[str, str, float], list[str]] = {}
    for row in runs[0]:
        keys.setdefault((row["task"], row["data"], row["labels"]), []).append(row["encoder"])
    print("| task | data | labels | features | AUC, mean over seeds [lowest, highest] | test patients |")
    print("|---|---|---|---|---|---|")
    for (task, data, labels), encoders in keys.items():
        for encoder in encoders:
            found = [row for run in runs for row in run if same(row, task, data, labels) and row["encoder"] == encoder]
            # Pixels do not depend on the seed of the network: one number, said once.
            values = [row["value"] for row in found]
            shown = cell(values if len(set(values)) > 1 else values[:1])
            name = encoder if found[0]["baseline"] else f"**{encoder}**"
            share = f"{labels:g} %" if labels else "–"
            print(f"| {task} | {data} | {share} | {name} | {shown} | {found[0]['n_patients']} |")
    print()
    print("| task | data | labels | gain of | over | mean over seeds | each seed, 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    for (task, data, labels), encoders in keys.items():
        for encoder in encoders:
            found = [row for run in runs for row in run if same(row, task, data, labels) and row["encoder"] == encoder]
            for index, gain in enumerate(found[0]["extra"].get("gains", [])):
                # Like with like: the same readout of random weights, or pixels.
                if (
                    gain["over"].removeprefix("random ") != encoder.removeprefix("umif ")
                    and "pixels" not in gain["over"]
                ):
                    continue
                gains = [row["extra"]["gains"][index] for row in found]
                each = ", ".join(f"{g['value']:+.3f} [{g['low']:+.3f}, {g['high']:+.3f}]" for g in gains)
                mean = statistics.mean(g["value"] for g in gains)
                share = f"{labels:g} %" if labels else "–"
                print(f"| {task} | {data} | {share} | {encoder} | {gain['over']} | {mean:+.3f} | {each} |")


def same(row: Row, task: str, data: str, labels: float) -> bool:
    return (row["task"], row["data"], row["labels"]) == (task, data, labels)


if __name__ == "__main__":
    main()
