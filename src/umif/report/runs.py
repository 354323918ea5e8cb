"""A run folder as a report reads it: what was trained, how it went, what it reached, and from which data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umif.corpus.manifest import Manifest, read_manifest
from umif.errors import CorpusError, RunError
from umif.tasks.base import Result
from umif.train.runfolder import read_log, read_run_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.report.tables import Row


_NEEDED = [column.name for column in fields(Result) if column.name != "extra"]


@dataclass(frozen=True, slots=True)
class RunData:
    """Everything that a report shows of one run.

    Attributes:
        label: The run's name, made unique among those of a report.
        info: `run.json`: recipe, settings, corpus, starts.
        log: Rows of `log.jsonl`, one a step.
        results: Rows of all `results/*.json`, with `run` = label.
        commands: What made those results.
        ledger: Dropped samples and skipped steps, counted by stage.
        manifest: Of the corpus trained on; `None` where that is no longer at its place.
    """

    path: Path
    label: str
    info: dict[str, Any]
    log: list[dict[str, Any]]
    results: list[Row]
    commands: list[str]
    ledger: dict[str, int]
    manifest: Manifest | None

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as resolved."""
        recipe: dict[str, Any] = self.info["recipe"]
        return recipe

    @property
    def corpus(self) -> Path:
        """Folder of the corpus trained on."""
        return Path(self.info["corpus"]["path"])


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """Read run folders; of equal names all but the first get their folder's name added.

    Raises:
        RunError: a folder is no run folder, or holds a damaged file.
    """
    runs: list[RunData] = []
    for folder in folders:
        run = read_run(Path(folder))
        taken = {other.label for other in runs}
        label, count = run.label, 1
        while label in taken:
            count += 1
            label = f"{run.label} {count}"
        runs.append(replace(run, label=label, results=[{**row, "run": label} for row in run.results]))
    return runs


def read_run(folder: Path) -> RunData:
    """Read one run folder.

    Raises:
        RunError: it is no run folder, or holds a damaged file.
    """
    info = read_run_json(folder)
    if info is None:
        raise RunError(
            "this is no run folder: it holds no run.json", where=folder, fix="make one by: umif pretrain RECIPE"
        )
    files = [_read_results(file) for file in sorted((folder / "results").glob("*.json"))]
    results = [row for rows, _ in files for row in rows]
    commands = [command for _, command in files if command]
    try:
        manifest = read_manifest(Path(info["corpus"]["path"]))
    except CorpusError:
        manifest = None  # moved or deleted since; the report says so
    label = str(info["name"])
    return RunData(
        folder, label, info, read_log(folder), results, commands, _count_ledger(folder / "ledger.jsonl"), manifest
    )


def _read_results(file: Path) -> tuple[list[Row], str]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        rows: list[Row] = data["results"]
        missing = sorted({column for row in rows for column in _NEEDED if column not in row})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot be read: {error!r}", where=file, fix="run umif evaluate again") from None
    if missing:
        raise RunError(f"rows lack {', '.join(missing)}", where=file, fix="run umif evaluate again")
    return rows, str(data.get("command", ""))


def _count_ledger(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    counts: Counter[str] = Counter()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise RunError("is no JSON", where=f"{file}:{number}", fix="delete the line") from None
        counts[str(row.get("stage", row.get("kind", "unknown")))] += 1
    return dict(sorted(counts.items()))
