"""A model, tasks and a corpus → rows of the results table, printed by the caller and kept beside the model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import umif
from umif.config import REGISTRY
from umif.corpus import Corpus
from umif.encoder.encoder import DEFAULT_WEIGHTS
from umif.encoder.load import load_encoder, model_folder
from umif.errors import RunError, StorageError, TaskError
from umif.tasks.base import TaskOptions
from umif.train.durable import replace_file, to_json
from umif.train.leaks import leaks_into
from umif.train.runfolder import read_run_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.encoder import Encoder, Weights
    from umif.tasks.base import Result

FORMAT = 1
RESULTS = "results"


def evaluate(
    model: str | Path,
    tasks: str | Sequence[str],
    corpus: str | Path | Corpus | None = None,
    options: TaskOptions | None = None,
    *,
    weights: Weights = DEFAULT_WEIGHTS,
) -> list[Result]:
    """Put a frozen encoder to downstream tasks; rows in the order of the tasks.

    Each task's rows are also written to `MODEL/results/<task>.json` (of a checkpoint, to its run's
    `results/<checkpoint>/`). Evaluating again replaces the rows of the same corpus; those of other corpora stay as long
    as the weights are the same.

    Args:
        model: A run folder, a checkpoint or an exported folder.
        tasks: Registered names.
        corpus: What to evaluate on; `None` = the corpus that the run was trained on (its val and test patients).
        options: What a user can choose.
        weights: The teacher's or the student's.

    Raises:
        RegistryError: no task of that name.
        TaskError: the corpus cannot carry a task.
        RunError, CheckpointError: the model cannot be loaded.
        StorageError: the results cannot be written.
    """
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    if not names:
        raise TaskError("no task is named", fix=f"choose from: {', '.join(REGISTRY.names('task'))}")
    options = options or TaskOptions()
    runners = [(name, REGISTRY.get("task", name)()) for name in names]
    data = corpus if isinstance(corpus, Corpus) else Corpus.open(_corpus_of(model) if corpus is None else corpus)
    encoder = load_encoder(model, weights)
    folder = _results_folder(Path(model))
    leaks = leaks_into(read_run_json(model_folder(model)), data.fingerprint)
    results: list[Result] = []
    for name, task in runners:
        rows = [_signed(row, encoder, data, weights, leaks) for row in task.run(encoder, data, options)]
        _write(folder / f"{name}.json", name, rows, encoder, data, _command(model, name, data, options))
        results += rows
    return results


def _corpus_of(model: str | Path) -> Path:
    record = read_run_json(model_folder(model)) or {}
    path = record.get("corpus", {}).get("path")
    if path is None:
        raise RunError("the model does not say which corpus it learned from", where=model, fix="name one to test on")
    return Path(path)


def _results_folder(model: Path) -> Path:
    folder = model_folder(model)
    return folder / RESULTS if folder == model else folder / RESULTS / model.resolve().name


def _signed(row: Result, encoder: Encoder, corpus: Corpus, weights: str, leaks: list[dict[str, Any]] | None) -> Result:
    """Return the row with what it was taken on: exact weights, exact corpus, and what the run knew of leaks into it."""
    signature: dict[str, Any] = {
        "corpus": corpus.fingerprint,
        "weights": weights,
        "weights_sha256": encoder.weights_sha256,
        "step": encoder.provenance.get("step"),
    }
    if leaks is not None:
        signature["leaks"] = leaks
    return replace(row, extra={**row.extra, **signature})


def _command(model: str | Path, task: str, corpus: Corpus, options: TaskOptions) -> str:
    labels = " ".join(f"{share:g}%" for share in options.labels)
    text = f"umif evaluate {model} {task} --labels {labels} --data {corpus.path} --seed {options.seed}"
    text += f" --bootstrap {options.bootstrap}" + ("" if options.baselines else " --no-baselines")
    text += "" if options.splits == "clean" else f" --splits {options.splits}"
    return text + "".join(f" --set {shlex.quote(setting)}" for setting in options.settings)


def _write(file: Path, task: str, rows: list[Result], encoder: Encoder, corpus: Corpus, command: str) -> None:
    kept = [row for row in _rows_there(file, encoder) if row["extra"].get("corpus") != corpus.fingerprint]
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


def _rows_there(file: Path, encoder: Encoder) -> list[dict[str, Any]]:
    """Rows of an earlier evaluation of the same weights; none where the file is missing or cannot be read."""
    try:
        content = json.loads(file.read_bytes())
        if content["weights_sha256"] != encoder.weights_sha256:
            return []
        return [row for row in content["results"] if isinstance(row["extra"], dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
