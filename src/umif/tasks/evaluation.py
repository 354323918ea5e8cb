"""A model, tasks and a corpus → rows of the results table, printed by the caller and kept beside the model."""

from __future__ import annotations

import json
import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umif.config import REGISTRY
from umif.corpus import Corpus
from umif.corpus.quarantine import read_quarantine
from umif.encoder.encoder import DEFAULT_WEIGHTS
from umif.encoder.foreign import ForeignEncoder, is_foreign, load_foreign
from umif.encoder.load import FEATURES, load_encoder, model_folder
from umif.errors import InputError, RunError, TaskError
from umif.tasks.base import Result, TaskOptions
from umif.tasks.result_files import rows_done, write_rows
from umif.train.durable import to_json
from umif.train.leaks import leaks_into
from umif.train.runfolder import read_run_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.encoder import FrozenEncoder, Weights
    from umif.tasks.base import Task

RESULTS = "results"
ALL = "all"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A task that the corpus cannot carry, with the reason and the way out."""

    task: str
    reason: str
    fix: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"task": self.task, "reason": self.reason, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an evaluation.

    Attributes:
        results: Rows in the order of the tasks.
        left_out: Tasks that `all` named and the corpus cannot carry.
        notes: What a reader of the table has to know.
        taken: Tasks whose rows were there already.
    """

    results: tuple[Result, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    taken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "results": [row.to_json() for row in self.results],
            "left_out": [one.to_json() for one in self.left_out],
            "notes": list(self.notes),
            "taken": list(self.taken),
        }


def evaluate(
    model: str | Path,
    tasks: str | Sequence[str],
    corpus: str | Path | Corpus | None = None,
    options: TaskOptions | None = None,
    *,
    weights: Weights = DEFAULT_WEIGHTS,
    against: Sequence[str | Path] = (),
    out: str | Path | None = None,
    again: bool = False,
) -> list[Result]:
    """Put a frozen encoder to downstream tasks; rows in the order of the tasks. As `run_evaluation`, the rows alone."""
    outcome = run_evaluation(model, tasks, corpus, options, weights=weights, against=against, out=out, again=again)
    for one in outcome.left_out:
        logger.warning("%s is left out: %s", one.task, one.reason)
    return list(outcome.results)


def run_evaluation(
    model: str | Path,
    tasks: str | Sequence[str],
    corpus: str | Path | Corpus | None = None,
    options: TaskOptions | None = None,
    *,
    weights: Weights = DEFAULT_WEIGHTS,
    against: Sequence[str | Path] = (),
    out: str | Path | None = None,
    again: bool = False,
) -> Outcome:
    """Put a frozen encoder, and others beside it, to downstream tasks.

    Each task's rows are written to `MODEL/results/<task>.json` as soon as they are there (of a checkpoint, to its run's
    `results/<checkpoint>/`). A task whose rows are there for the same weights, corpus and options is not done again.
    Else its rows replace those of the same corpus and splits; others stay as long as the weights are the same.

    Args:
        model: A run folder, a checkpoint or an exported folder, or an encoder of others (`umif.encoder.foreign`).
        tasks: Registered names, or `all`: every task that the corpus can carry; the others are left out with a reason.
        corpus: What to evaluate on; `None` = the corpus that the run was trained on (its val and test patients).
        options: What a user can choose.
        weights: The teacher's or the student's.
        against: Encoders of others, as baselines on the same test sets.
        out: Where results and features are kept; `None` = beside the model.
        again: Do tasks again whose rows are there.

    Raises:
        RegistryError: no task of that name.
        TaskError: the corpus cannot carry a task that was named.
        RunError, CheckpointError, InputError: an encoder cannot be loaded.
        StorageError: the results cannot be written.
    """
    lenient, runners = _runners([tasks] if isinstance(tasks, str) else list(tasks))
    data, encoder, folder, features = _opened(model, corpus, weights, out)
    rivals = [_rival(spec, data, features) for spec in dict.fromkeys(map(str, against))]
    options = replace(options or TaskOptions(), against=tuple(rivals))
    signature = _signature(model, encoder, data, weights, options)
    notes = [note for one in (encoder, *rivals) if isinstance(one, ForeignEncoder) for note in one.notes]
    results: list[Result] = []
    left_out: list[LeftOut] = []
    taken: list[str] = []
    for name, task in runners:
        file = folder / f"{name}.json"
        rows = None if again else rows_done(file, encoder, options, signature)
        if rows is not None:
            taken.append(name)
        else:
            try:
                rows = _run(name, task, encoder, data, options, signature)
            except TaskError as error:
                if not lenient:
                    raise
                left_out.append(LeftOut(name, str(error).split("\n")[0], error.fix))
                continue
            write_rows(file, name, rows, encoder, data, _command(model, name, data, options, out), options.splits)
        notes += list(dict.fromkeys(note for row in rows for note in row.extra.get("encoders_left_out", [])))
        results += rows
    return Outcome(tuple(results), tuple(left_out), tuple(notes), tuple(taken))


def _runners(names: list[str]) -> tuple[bool, list[tuple[str, Task]]]:
    """Return whether tasks may be left out, and the tasks, each once."""
    known = REGISTRY.names("task")
    if not names:
        raise TaskError("no task is named", fix=f"choose from: {ALL}, {', '.join(known)}")
    wanted = dict.fromkeys(each for name in names for each in (known if name == ALL else [name]))
    return ALL in names, [(name, REGISTRY.get("task", name)()) for name in wanted]


def _opened(
    model: str | Path, corpus: str | Path | Corpus | None, weights: Weights, out: str | Path | None
) -> tuple[Corpus, FrozenEncoder, Path, Path]:
    """Return the corpus, the encoder, and where results and features are kept."""
    if is_foreign(model):
        if corpus is None:
            raise RunError(
                "an encoder of others does not say which corpus to test on", where=model, fix="name one: --data CORPUS"
            )
        if out is None:
            raise InputError("there is no folder of its own to keep results in", where=model, fix="name one: --out DIR")
        data = corpus if isinstance(corpus, Corpus) else Corpus.open(corpus)
        features = Path(out) / FEATURES
        return data, _rival(str(model), data, features), Path(out) / RESULTS, features
    data = corpus if isinstance(corpus, Corpus) else Corpus.open(_corpus_of(model) if corpus is None else corpus)
    folder = Path(out) / RESULTS if out is not None else _results_folder(Path(model))
    features = (model_folder(model) if out is None else Path(out)) / FEATURES
    return data, load_encoder(model, weights), folder, features


def _rival(spec: str, corpus: Corpus, features: Path) -> ForeignEncoder:
    return load_foreign(spec, shorter_side=corpus.manifest.config.shorter_side, cache=features)


def _run(
    name: str,
    task: Task,
    encoder: FrozenEncoder,
    corpus: Corpus,
    options: TaskOptions,
    signature: dict[str, Any],
) -> list[Result]:
    """Carry out one task; every row tells what it was taken on and which encoders beside the model it lacks.

    Raises:
        TaskError: also where published splits were asked for and the task knows none, which would go unseen.
    """
    if task.reads_words and encoder.tokenizer is None:
        raise TaskError("this encoder reads no words", where=encoder.name, fix=f"leave {name} out")
    # Tasks are written against the whole encoder; those that need its words have been sorted out above.
    rows = list(task.run(encoder, corpus, options))  # type: ignore[arg-type]
    if options.splits != "clean" and any(row.extra.get("splits") != options.splits for row in rows):
        raise TaskError(f"{name} knows no published splits", fix="use --protocol clean")
    absent = [rival for rival in options.against if not any(row.encoder.startswith(rival.title) for row in rows)]
    why = "it reads no words" if task.reads_words else "this task compares no encoders of others"
    told = [f"{name} leaves out {rival.title}: {why}" for rival in absent]
    extra = {**signature, **({"encoders_left_out": told} if told else {})}
    signed = [replace(row, extra={"splits": options.splits, **row.extra, **extra}) for row in rows]
    # As they will be read from the file, so that rows taken from there are equal.
    return [Result.from_json(json.loads(to_json(row.to_json()))) for row in signed]


def _corpus_of(model: str | Path) -> Path:
    record = read_run_json(model_folder(model)) or {}
    path = record.get("corpus", {}).get("path")
    if path is None:
        raise RunError("the model does not say which corpus it learned from", where=model, fix="name one to test on")
    return Path(path)


def _results_folder(model: Path) -> Path:
    folder = model_folder(model)
    return folder / RESULTS if folder == model else folder / RESULTS / model.resolve().name


def _signature(
    model: str | Path, encoder: FrozenEncoder, corpus: Corpus, weights: str, options: TaskOptions
) -> dict[str, Any]:
    """What rows are taken on: exact weights, exact corpus, options, and what the run knew of leaks into the corpus."""
    foreign = isinstance(encoder, ForeignEncoder)
    signature: dict[str, Any] = {
        "corpus": corpus.fingerprint,
        "weights": "as given" if foreign else weights,
        "weights_sha256": encoder.weights_sha256,
        "step": encoder.provenance.get("step"),
        "options": options.to_json(),
    }
    if (quarantine := read_quarantine(corpus.path).sha256) is not None:
        signature["quarantine_sha256"] = quarantine
    leaks = None if foreign else leaks_into(read_run_json(model_folder(model)), corpus.fingerprint)
    if leaks is not None:
        signature["leaks"] = leaks
    return signature


def _command(model: str | Path, task: str, corpus: Corpus, options: TaskOptions, out: str | Path | None) -> str:
    """The command that makes the rows again."""
    labels = " ".join(f"{share:g}%" for share in options.labels)
    parts = [f"umif evaluate {model} {task} --labels {labels} --data {corpus.path} --seed {options.seed}"]
    parts += [f"--seeds {options.seeds}"] if options.seeds > 1 else []
    parts += [f"--protocol {options.splits}"] if options.splits != "clean" else []
    parts += [f"--problem {name}" for name in options.problems]
    parts += [f"--bootstrap {options.bootstrap}"] + (["--full"] if options.full else [])
    parts += [f"--set {shlex.quote(setting)}" for setting in options.settings]
    parts += [] if options.baselines else ["--no-baselines"]
    parts += [f"--against {' '.join(one.title for one in options.against)}"] if options.against else []
    return " ".join(parts + ([] if out is None else [f"--out {out}"]))
