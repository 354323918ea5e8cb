"""Run folders → report.html, results as CSV, JSON and LaTeX, and a model and a data card."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import umif
from umif.corpus.manifest import write_atomically
from umif.errors import EmptyError, UmifError
from umif.report.cards import data_card, model_card
from umif.report.figures import interval_plot, row_name, training_curves
from umif.report.latex import results_latex
from umif.report.looks import attention_looks, task_sheets
from umif.report.published import PublishedTable, published_tables
from umif.report.roc import roc_figure
from umif.report.runs import RunData, read_runs
from umif.report.tables import (
    Comparison,
    Row,
    Verdict,
    compare,
    distinct,
    interval,
    judge,
    number,
    paired_gains,
    results_csv,
    share,
)
from umif.train.leaks import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.corpus.manifest import Manifest
    from umif.report.sheets import Sheet

# Steps of the run that are made again in search of a pair of each kind.
_SHEET_STEPS = 12


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the report of one or more run folders into `out`; return the path of `report.html`.

    The page holds its figures and pictures and loads nothing. `results.csv`, `results.json` and `results.tex` beside it
    hold the rows of its tables; `model_card.md` and `data_card.md` (with a number from the second run on) describe each
    run.

    Raises:
        EmptyError: no run was given.
        RunError: a folder is no run folder, or holds a damaged file.
        UmifError: `out` cannot be written.
    """
    if not runs:
        raise EmptyError("a report needs a run", fix="umif report RUN --out DIR")
    read = read_runs([Path(run) for run in runs])
    folder = Path(out)
    rows = [row for run in read for row in run.results]
    page = render(read, commands=_commands(read, folder))
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "results.csv", results_csv(rows).encode())
        text = json.dumps({"results": rows}, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(folder / "results.json", f"{text}\n".encode())
        comparisons = compare([{**row, "show_run": len(read) > 1} for row in rows])
        write_atomically(folder / "results.tex", results_latex(comparisons).encode())
        for name, card in _cards(read).items():
            write_atomically(folder / name, card.encode())
        write_atomically(path, page.encode())
    except OSError as error:
        raise UmifError(f"cannot be written: {error.strerror}", where=folder, fix="choose another --out") from error
    return path


def render(runs: Sequence[RunData], *, commands: str) -> str:
    """Return the page of `runs` as HTML."""
    rows = distinct([{**row, "show_run": len(runs) > 1} for run in runs for row in run.results])
    comparisons = compare(rows)
    verdicts = [verdict for verdict in map(judge, comparisons) if verdict is not None]
    manifests = {run.info["corpus"]["fingerprint"]: run for run in reversed(runs)}
    templates = resources.files("umif.report") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        version=umif.__version__,
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),
        title=" · ".join(run.label for run in runs),
        lead=_lead(runs[0]) if len(runs) == 1 else f"{len(runs)} runs side by side.",
        facts=_facts(runs[0]) if len(runs) == 1 else [(str(len(runs)), "runs"), (str(len(rows)), "results")],
        only_phantom=all(run.manifest and _only_phantom(run.manifest) for run in runs),
        verdicts=[_verdict(verdict) for verdict in verdicts],
        blocks=_blocks(comparisons),
        gains=_gains(comparisons),
        runs=[
            {"label": run.label, "path": str(run.path), "ledger": _ledger(run), "leaks": _leaks(run)} for run in runs
        ],
        settings=_settings(runs),
        curves=Markup(training_curves({run.label: run.log for run in runs})),
        sheets=make_sheets(runs[0]),
        published=_published(runs, rows),
        looks=attention_looks(runs[0]),
        task_sheets=task_sheets(rows, {run.label: run.path for run in runs}),
        corpora=[_corpus(run) for run in manifests.values()],
        commands=commands,
        starts=[_start(run.label, start) for run in runs for start in run.info["starts"]],
    )


def _cards(runs: Sequence[RunData]) -> dict[str, str]:
    """File name → text of every card."""
    cards: dict[str, str] = {}
    for number_, run in enumerate(runs, start=1):
        ending = "" if number_ == 1 else f"_{number_}"
        comparisons = compare(run.results)
        verdicts = [verdict for verdict in map(judge, comparisons) if verdict is not None]
        cards[f"model_card{ending}.md"] = model_card(run, comparisons, verdicts)
        if (text := data_card(run)) is not None:
            cards[f"data_card{ending}.md"] = text
    return cards


def _published(runs: Sequence[RunData], rows: Sequence[Row]) -> list[PublishedTable]:
    """Tables of the paper, those with a figure of ours first; none where all is drawn pictures."""
    if all(run.manifest and _only_phantom(run.manifest) for run in runs):
        return []
    recipes = {run.label: {**run.recipe, "pairs_seen": sum(row.get("pairs", 0) for row in run.log)} for run in runs}
    return sorted(published_tables(rows, recipes), key=lambda table: not table.measured)


def make_sheets(run: RunData) -> list[Sheet]:
    """Return sample sheets of the run's first steps; none where its corpus or vocabulary is gone."""
    from tokenizers import Tokenizer

    from umif.report.sheets import choose_sheets
    from umif.tokens.loader import DataConfig, StepDataset
    from umif.tokens.text import TextTokenizer

    if run.manifest is None or not (run.path / "tokenizer").is_dir():
        return []
    tokenizer = TextTokenizer.load(run.path / "tokenizer")
    data = DataConfig.model_validate(run.recipe["data"])
    dataset = StepDataset(run.corpus, tokenizer, data, run.recipe["seed"], 0, 1)
    if dataset.quarantine_sha256 != run.info["corpus"].get("quarantine_sha256"):
        return []  # the list was changed since: these would be other pairs
    drawn = (dataset[step][0] for step in range(_SHEET_STEPS))
    pieces = Tokenizer.from_file(str(run.path / "tokenizer" / "tokenizer.json")).id_to_token
    return choose_sheets(
        (batch for batch in drawn if batch is not None), lambda ids: [pieces(each) for each in ids], data.patch_size
    )


def _lead(run: RunData) -> str:
    model, data = run.recipe["model"], run.recipe["data"]
    kinds = run.manifest.pairs if run.manifest else {}
    words = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    return (
        f"{model['backbone']} at {model['image_size']} px, pre-trained on {words or 'pairs of'} pairs "
        f"in batches of {data['kinds_per_step'] * data['pairs_per_kind']}, then frozen and put to downstream tasks."
    )


def _facts(run: RunData) -> list[tuple[str, str]]:
    facts = []
    if run.manifest:
        facts += [(f"{run.manifest.images:,}", "images"), (f"{sum(run.manifest.pairs.values()):,}", "pairs")]
    if run.log:
        last = run.log[-1]
        facts.append((f"{last['step']:,}", "steps"))
        seen = sum(row.get("pairs", 0) for row in run.log)
        facts.append((f"{seen:,}", "pairs seen"))
        rates = [row["pairs_per_s"] for row in run.log if "pairs_per_s" in row]
        if rates:
            facts.append((f"{sorted(rates)[len(rates) // 2]:.1f}", "pairs a second"))
    facts.append((run.info["corpus"]["fingerprint"][:12], "corpus fingerprint"))
    facts.append((run.info["starts"][-1]["versions"].get("umif", "?"), "umif"))
    return facts


def _only_phantom(manifest: Manifest) -> bool:
    return bool(manifest.readers) and all(reader.name == "phantom" for reader in manifest.readers)


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {
        "task": verdict.comparison.task,
        "data": verdict.comparison.data,
        "labels": share(verdict.comparison.labels),
        "metric": verdict.comparison.metric,
        "trained": number(verdict.ours["value"]),
        "baseline": number(verdict.rival["value"]),
        "rival": verdict.rival["encoder"],
        "outcome": verdict.outcome,
        "words": verdict.words,
    }


def _blocks(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One block per task, data and metric; its shares of labels under one another."""
    grouped: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for comparison in comparisons:
        key = (comparison.task, comparison.data, comparison.protocol, comparison.metric)
        grouped.setdefault(key, []).append(comparison)
    return [
        {
            "task": task,
            "data": data,
            "protocol": protocol,
            "metric": metric,
            "figure": Markup(interval_plot(group)),
            "roc": Markup(roc_figure(group[-1])),
            "patients": f"{group[0].rows[0]['n_patients']:,}",
            "groups": [
                {"labels": share(each.labels), "rows": [_table_row(row) for row in each.rows]} for each in group
            ],
            "classes": _per_class(group[-1]),
            "leaks": _leaks_beside(group),
        }
        for (task, data, protocol, metric), group in grouped.items()
    ]


def _table_row(row: Row) -> dict[str, Any]:
    return {
        "name": row_name(row),
        "baseline": row["baseline"],
        "value": number(row["value"]),
        "interval": interval(row),
    }


def _per_class(comparison: Comparison) -> dict[str, Any] | None:
    """The metric of each class, for the best trained row and the best baseline; `None` where there is one class."""
    rows = [row for row in (comparison.trained, comparison.rival) if row and row.get("extra", {}).get("per_class")]
    if not rows:
        return None
    names = list(rows[0]["extra"]["per_class"])
    return {
        "labels": share(comparison.labels),
        "columns": [row_name(row) for row in rows],
        "rows": [(name, [_class_value(row, name) for row in rows]) for name in names],
    }


def _class_value(row: Row, name: str) -> str:
    """The value of one class; a dash where a task has none, or keeps something else there."""
    value = row["extra"]["per_class"].get(name)
    return number(value if isinstance(value, (int, float)) else None)


def _gains(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    return [
        {
            "task": row["task"],
            "data": row["data"],
            "labels": share(row["labels"]),
            "encoder": row_name(row),
            "over": gain.over,
            "value": f"{gain.value:+.3f}",
            "interval": "" if gain.low is None or gain.high is None else f"[{gain.low:+.3f}, {gain.high:+.3f}]",
        }
        for comparison in comparisons
        for row in [comparison.trained]
        if row is not None
        for gain in paired_gains(row)
    ]


def _settings(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """What was trained, a row per setting and a column per run."""
    return [(name, [_setting(run, keys) for run in runs]) for name, keys in _SETTINGS]


_SETTINGS = (
    ("backbone", "model.backbone"),
    ("depth, width", "model.depth model.width"),
    ("image size", "model.image_size"),
    ("pair kinds", "data.kinds"),
    ("pairs a step", "data.kinds_per_step × data.pairs_per_kind"),
    ("p (image apart from its supervision)", "data.p_separate"),
    ("objectives", "objectives"),
    ("learning rate, weight decay", "optim.lr optim.weight_decay"),
    ("teacher momentum", "optim.teacher_momentum"),
    ("seed", "seed"),
)


def _setting(run: RunData, keys: str) -> str:
    values = []
    for key in keys.split():
        if key == "×":
            values.append(key)
            continue
        here: Any = run.recipe
        for part in key.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        values.append(_words(here))
    return " ".join(values) if "×" in values else ", ".join(values)


def _words(value: Any) -> str:
    if value is None:
        return "the backbone's own"
    if isinstance(value, dict):
        parts = (f"{key} ({_words(inner)})" if inner else str(key) for key, inner in value.items())
        return ", ".join(parts) if any(isinstance(v, dict) for v in value.values()) else _pairs(value)
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _pairs(value: dict[str, Any]) -> str:
    return ", ".join(f"{key} {inner}" for key, inner in value.items())


def _corpus(run: RunData) -> dict[str, Any]:
    manifest = run.manifest
    if manifest is None:
        return {"name": run.corpus.name, "readers": []}
    sentence = (
        f"{manifest.images:,} images and {sum(manifest.pairs.values()):,} pairs; no patient is in two splits. "
        f"{manifest.quarantined:,} images were unreadable, {manifest.dropped_regions:,} regions were dropped, "
        f"{manifest.duplicates:,} files repeat an earlier one and share its split. Fingerprint: {manifest.fingerprint}"
    )
    readers = [
        {
            "name": reader.name,
            "seen": f"{reader.seen:,}",
            "images": f"{reader.images:,}",
            "excluded": f"{sum(reader.excluded.values()):,}",
            "quarantined": f"{reader.quarantined:,}",
            "pairs": _counts(reader.pairs),
            "splits": _counts(reader.splits),
            "reasons": _counts(reader.excluded) or "–",
        }
        for reader in manifest.readers
    ]
    unmapped = _counts(dict(sorted(manifest.unmapped.items(), key=lambda item: -item[1])[:20]))
    return {"name": run.corpus.name, "readers": readers, "sentence": sentence, "unmapped": unmapped}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _leaks(run: RunData) -> str | None:
    """What the run knew of leaks into what it declared as tested on; `None` where it declared nothing."""
    audit = run.info.get(KEY)
    if audit is None:
        return None
    names = ", ".join(sorted({each["name"] for each in audit["about"]["evaluations"]}))
    if not audit["leaks"]:
        return f"audited against {names} before training: no leak was found."
    words = "; ".join(f"{leak['id']} ({leak['count']:,} images of {leak['against']})" for leak in audit["leaks"])
    return f"audited against {names} before training; leaks that the recipe acknowledges: {words}."


def _leaks_beside(comparisons: Sequence[Comparison]) -> str | None:
    """What stands beside numbers that were taken on images of which some were trained on."""
    rows = [row for comparison in comparisons for row in comparison.rows if not row["baseline"]]
    leaks = {leak["id"]: leak["count"] for row in rows for leak in row.get("extra", {}).get("leaks", ())}
    return "; ".join(f"{name} ({count:,} images)" for name, count in sorted(leaks.items())) or None


def _ledger(run: RunData) -> str:
    if not run.ledger:
        return "no sample was dropped and no step skipped in training."
    return f"ledger of training: {_counts(run.ledger)}."


def _start(label: str, start: dict[str, Any]) -> dict[str, str]:
    git = start.get("git")
    source = "no git" if not git else git["commit"][:12] + (" with changes" if git["dirty"] else "")
    return {
        "run": label,
        "time": start["time"],
        "versions": ", ".join(f"{name} {version}" for name, version in start["versions"].items()),
        "source": source,
        "machine": f"{start.get('platform', '?')}, {start.get('cores', '?')} cores, {start.get('dtype', '?')}",
    }


def _commands(runs: Sequence[RunData], out: Path) -> str:
    """The commands that lead to this page from the recipes that the runs keep."""
    lines = []
    for run in runs:
        lines += [f"umif pretrain {_quoted(run.path / 'recipe.yaml')}", *run.commands]
    lines.append(f"umif report {' '.join(_quoted(run.path) for run in runs)} --out {_quoted(out)}")
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
