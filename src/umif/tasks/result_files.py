"""`MODEL/results/<task>.json`: rows that outlive the command, and whether they still answer the same question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import umif
from umif.errors import StorageError
from umif.tasks.base import Result
from umif.train.durable import replace_file, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from umif.corpus import Corpus
    from umif.encoder import FrozenEncoder
    from umif.tasks.base import TaskOptions

FORMAT = 1
# What must be the same for rows to be taken as they are.
_SIGNED = ("corpus", "weights", "weights_sha256", "quarantine_sha256", "options")


def write_rows(
    file: Path, task: str, rows: Sequence[Result], encoder: FrozenEncoder, corpus: Corpus, command: str, splits: str
) -> None:
    """Write the rows of a task; those of other corpora and splits stay as long as the weights are the same.

    Raises:
        StorageError: the disk refused.
    """
    kept = [row for row in _rows_there(file, encoder) if _taken_on(row["extra"]) != (corpus.fingerprint, splits)]
    content: dict[str, Any] = {
        "format": FORMAT,
        "task": task,
        "umif": umif.__version__,
        "command": command,
        "corpus": corpus.fingerprint,
        "weights_sha256": encoder.weights_sha256,
        "provenance": encoder.provenance,
        "results": kept + [row.to_json() for row in rows],
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, to_json(content))
    except OSError as error:
        raise StorageError(
            f"the results cannot be written: {error.strerror or error}", where=file, fix="make room, or mend the disk"
        ) from error


def rows_done(
    file: Path, encoder: FrozenEncoder, options: TaskOptions, signature: dict[str, Any]
) -> list[Result] | None:
    """Return a task's rows that are there already, `None` where it has to be done.

    They must be of this version of UmiF, of the same weights, corpus, quarantine list and options.
    """
    found = [
        row
        for row in _rows_there(file, encoder, version=umif.__version__)
        if _taken_on(row["extra"]) == (signature["corpus"], options.splits)
    ]
    if not found or any(row["extra"].get(key) != signature.get(key) for row in found for key in _SIGNED):
        return None
    try:
        return [Result.from_json(row) for row in found]
    except (KeyError, TypeError):
        return None


def _taken_on(extra: dict[str, Any]) -> tuple[str | None, str]:
    """Return the corpus and the splits that a row was taken on."""
    return extra.get("corpus"), extra.get("splits", "clean")


def _rows_there(file: Path, encoder: FrozenEncoder, version: str | None = None) -> list[dict[str, Any]]:
    """Rows of an earlier evaluation of the same weights; none where the file is missing or cannot be read."""
    try:
        content = json.loads(file.read_bytes())
        if content["weights_sha256"] != encoder.weights_sha256 or version not in (None, content["umif"]):
            return []
        return [row for row in content["results"] if isinstance(row["extra"], dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
