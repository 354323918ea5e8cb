"""`umif texts`: language-model jobs, estimated first and sent only when asked to."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from umif.cli.output import print_json, standard_output
from umif.errors import InputError

if TYPE_CHECKING:
    from umif.language.llm import Item, LanguageJob, Outcome

Job = Literal["translate", "polish", "reports"]
_SHOWN_REJECTED = 3


def texts(
    job: Annotated[Job, typer.Argument(metavar="JOB", help="translate, polish or reports.")],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A corpus, or a JSONL, CSV or Parquet file.")],
    out: Annotated[Path, typer.Option(help="Table of accepted texts: .parquet or .jsonl.")],
    endpoint: Annotated[str, typer.Option(metavar="URL", help="Base address, such as http://localhost:11434/v1.")],
    model: Annotated[str, typer.Option(help="The model's name at the endpoint.")],
    send: Annotated[bool, typer.Option("--send", help="Send; without it the estimate is printed and no more.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending.")] = False,
    permitted: Annotated[
        bool,
        typer.Option(
            "--i-am-permitted-to-send", help="State that restricted data may go to an endpoint that is not local."
        ),
    ] = False,
    key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable that holds the endpoint's key.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Datasets of a corpus to use; the dataset of a file's rows."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many items only.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Other instructions than UmiF's own.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answers received; beside OUT unless told.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens sent.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Price of a million tokens received.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="Cost of this run at which to stop.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")] = 8,
    requests_per_min: Annotated[float | None, typer.Option(min=0.1, help="Most requests a minute.")] = None,
    tokens_per_min: Annotated[float | None, typer.Option(min=1, help="Most tokens a minute, in and out.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one request may take.")] = 120.0,
    retries: Annotated[int, typer.Option(min=0, max=50, help="Further sendings after failures on the way.")] = 6,
    tries: Annotated[int, typer.Option(min=1, max=10, help="Answers asked for until one is fit.")] = 3,
    variants: Annotated[int, typer.Option(min=1, max=100, help="Different reports for one set of labels.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of the first try.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, help="Of the first try.")] = 0,
    max_tokens: Annotated[int, typer.Option(min=16, help="Longest answer, tokens.")] = 800,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="key=value", help="Set a field of the request, as YAML; null leaves it out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Translate Spanish reports, polish translations, or write reports from labels, by a language model.

    Prints what it will cost and sends nothing without --send. Every answer is kept and checked; stopped half-way, the
    same command goes on where it was. Give the table to: umif prepare … --texts OUT
    """
    from umif.language import llm

    priced = price_in is not None or price_out is not None
    sampling = _sampling(
        {"model": model, "temperature": temperature, "seed": seed, "max_tokens": max_tokens, "tries": tries}
        | {"variants": variants},
        fields or [],
    )
    limits = llm.Limits(concurrency, timeout, retries, requests_per_min, tokens_per_min, budget)
    price = llm.Price(price_in or 0.0, price_out or 0.0)
    _check_usage(out, source, unpriced_budget=budget is not None and not priced)
    items = _items(job, source, dataset or [])[:limit]
    to = llm.endpoint(endpoint, llm.key_from(key_env))
    if send:
        llm.check_permission(items, to, permitted=permitted)
    answers = cache or out.with_name(f"{out.name}.answers.jsonl")
    with standard_output(reserved=as_json), llm.AnswerCache(answers) as kept:
        words = llm.load_prompts(prompts) if prompts else None
        work = llm.LanguageJob(job, items, to, sampling, kept, limits=limits, price=price, prompts=words)
        answer = _tell(work, priced=priced, permitted=permitted)
        outcome = _send(work, out, answer, yes=yes, asked=bool(answer["estimate"]["requests"])) if send else None
    if as_json:
        print_json(answer)
    elif outcome is None:
        print("nothing was sent: add --send")
    else:
        _print_outcome(out, outcome)
    if outcome is not None and outcome.unfinished:
        raise typer.Exit(1)


def _sampling(values: dict[str, Any], fields: list[str]) -> Any:
    from umif.config import apply_overrides, parse_config
    from umif.language.llm import Sampling

    extra = apply_overrides({}, fields)
    for name in ("model", "messages"):
        if name in extra:
            raise InputError(f"{name!r} cannot be set as a field", where="--field")
    return parse_config(Sampling, {**values, "extra": extra}, where="umif texts")


def _check_usage(out: Path, source: Path, *, unpriced_budget: bool) -> None:
    from umif.language.llm.items import OUTPUTS

    if unpriced_budget:
        raise InputError("a budget needs prices", where="--budget", fix="give --price-in and --price-out")
    if out.suffix.lower() not in OUTPUTS:
        raise InputError(
            f"{out.name!r} is no table", where="--out", fix=f"give a name that ends in {', '.join(OUTPUTS)}"
        )
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError("is the input", where=out, fix="choose another --out")


def _items(job: Job, source: Path, datasets: list[str]) -> list[Item]:
    if source.is_dir():
        from umif.corpus import Corpus
        from umif.corpus.texts import corpus_items

        return corpus_items(Corpus.open(source), job, datasets or None)
    from umif.language.llm import read_items

    if len(datasets) > 1:
        raise InputError("a file's rows are of one dataset", where="--dataset", fix="or add a column 'dataset'")
    return read_items(source, datasets[0] if datasets else None)


def _tell(work: LanguageJob, *, priced: bool, permitted: bool) -> dict[str, Any]:
    """Print the estimate and an example on standard error; return both."""
    from umif.language.llm import estimate_lines, restricted

    told = work.plan()
    budget = work.limits.budget
    lines = estimate_lines(work.job, told, model=work.sampling.model, url=work.to.url, budget=budget, priced=priced)
    closed = [] if work.to.local else restricted(work.items)
    if closed:
        stated = "stated as permitted" if permitted else "needs --i-am-permitted-to-send"
        lines.append(f"  restricted {', '.join(closed)}: {stated}")
    example = [dict(message) for message in work.units[0].messages] if work.units else []
    if example:
        lines += [
            "example of a request",
            *(f"  [{m['role']}] {line}" for m in example for line in m["content"].split("\n")),
        ]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return {"job": work.job, "estimate": asdict(told), "restricted": closed, "example": example, "sent": 0}


def _send(work: LanguageJob, out: Path, answer: dict[str, Any], *, yes: bool, asked: bool) -> Outcome:
    """Ask, run, and write the tables."""
    import json

    from umif.corpus.progress import Bar
    from umif.language.llm import table_bytes, write_whole

    if asked and not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody can be asked here", where="--send", fix="read the estimate, then add --yes")
        if not typer.confirm("Send?", err=True):
            raise InputError("not sent", where="--send")
    with Bar(shown=True) as bar:
        bar.start(work.job, len(work.items))
        outcome = work.run(bar.advance)
    rejected = [{"id": r.item.id, "dataset": r.item.dataset, "reasons": list(r.reasons)} for r in outcome.rejected]
    write_whole(out, table_bytes(outcome.accepted, out))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected)
    write_whole(out.with_name(f"{out.name}.rejected.jsonl"), lines.encode())
    answer |= {
        "out": str(out),
        "accepted": len(outcome.accepted),
        "rejected": len(rejected),
        "unfinished": len(outcome.unfinished),
        "nothing_to_ask": len(outcome.idle),
        "stopped_by": outcome.stopped_by,
        "sent": outcome.sent,
        "from_cache": outcome.from_cache,
        "tokens_in": outcome.tokens_in,
        "tokens_out": outcome.tokens_out,
        "cost": outcome.cost,
        "problems": dict(outcome.problems),
    }
    return outcome


def _print_outcome(out: Path, outcome: Outcome) -> None:
    print(
        f"{out}: {len(outcome.accepted)} texts, {len(outcome.rejected)} rejected, "
        f"{len(outcome.unfinished)} unfinished, {len(outcome.idle)} with nothing to ask; {outcome.sent} requests sent, "
        f"cost {outcome.cost:.2f}"
    )
    for one in outcome.rejected[:_SHOWN_REJECTED]:
        print(f"  rejected {one.item.id}: {'; '.join(one.reasons)}")
    for what, count in outcome.problems.most_common(_SHOWN_REJECTED):
        print(f"  on the way, {count} ×: {what}")
    if outcome.stopped_by:
        print(f"  stopped by the {outcome.stopped_by}; the same command goes on from what was saved")
