"""The command line, in the order of the data: one function call per verb.

Nothing heavy is imported before a verb needs it. Progress and errors go to standard error; standard output holds the
answer only, and with `--json` exactly one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from umif import __version__
from umif.cli.arguments import dataset_source, only_given, percent, spread_lists
from umif.cli.bench import bench
from umif.cli.embed import embed
from umif.cli.output import (
    plain,
    print_card,
    print_cards,
    print_evaluation,
    print_inspection,
    print_json,
    print_manifest,
    standard_output,
)
from umif.cli.search import search
from umif.cli.texts import texts
from umif.errors import UmifError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.readers.base import Card

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells report them

app = typer.Typer(
    help="One robust radiograph encoder from every kind of supervision that medical datasets carry.",
    epilog="Verbs are in the order of the data. 'umif VERB --help' explains one.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"umif {__version__}")
        raise typer.Exit


@app.callback()
def umif(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Hold the options that belong to no verb."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run; holds the corpus as well.")] = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """Phantom radiographs → corpus → short pre-training → downstream tasks → HTML report.

    Takes minutes on two cores and needs no data. Stopped half-way, the same command goes on where it was.
    """
    from umif.demo import run_demo, summary_lines

    with standard_output(reserved=as_json):
        done = run_demo(out, progress=_say)
    if as_json:
        print_json(done.to_json())
    else:
        print("\n".join(summary_lines(done)))


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show everything about this one.")] = None,
    as_json: Json = False,
) -> None:
    """Every dataset that can be read: supervision, size, licence, how to get it, expected layout, overlaps."""
    from umif.config import REGISTRY

    names = REGISTRY.names("reader") if name is None else [name]
    cards: dict[str, Card] = {each: REGISTRY.get("reader", each).card for each in names}
    if as_json:
        keys = ("kinds", "licence", "access", "images", "checked_on", "checked_against", "overlaps")
        rows = [
            {"name": each, **{key: plain(getattr(card, key)) for key in (*keys, "title", "citation", "how_to_get")}}
            for each, card in cards.items()
        ]
        print_json({"readers": rows})
    elif name is not None:
        print_card(name, cards[name])
    else:
        print_cards(cards)


@app.command()
def prepare(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the new corpus.")],
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME=ROOT", help="A dataset and its folder or URL; give one --from for each."),
    ] = None,
    shorter_side: Annotated[int, typer.Option(min=32, help="Stored pictures' shorter side, pixels.")] = 256,
    jpeg_scaling: Annotated[
        bool, typer.Option("--jpeg-scaling", help="Decode large JPEGs at a smaller scale: quicker, other fingerprint.")
    ] = False,
    splits: Annotated[
        Literal["official", "patients"],
        typer.Option(help="Keep datasets' own test and validation images, or place all patients by a hash."),
    ] = "official",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores unless told.")] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Processes of this machine, or of a Ray cluster (RAY_ADDRESS, else one started here)."),
    ] = "local",
    added: Annotated[
        list[Path] | None, typer.Option("--texts", metavar="FILE", help="Add reports that 'umif texts' wrote.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where datasets behind URLs are kept; the user's cache folder.")
    ] = None,
    cache_limit: Annotated[
        float | None, typer.Option(min=0, metavar="GIB", help="Stop at a URL that holds more than this.")
    ] = None,
    pixels: Annotated[
        bool,
        typer.Option(
            "--pixels",
            help="Also keep the pictures decoded, 4 to 5 times the room: training reads them faster, batches are the "
            "same. Without --from: of the finished corpus OUT.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a corpus that is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Raw dataset folders → one corpus. Resumable; every item is kept or counted with the reason it was left out."""
    from umif.corpus import PrepareConfig, add_pixels
    from umif.corpus import prepare as build

    pairs = [dataset_source(text) for text in sources or ()]
    with standard_output(reserved=as_json):
        if pixels and not pairs:
            only_given(context, {"out", "pixels", "as_json"}, needs="--from")
            manifest = add_pixels(out)
        else:
            manifest = build(
                out,
                pairs,
                PrepareConfig(shorter_side=shorter_side, jpeg_scaling=jpeg_scaling, splits=splits),
                workers=workers,
                engine=engine,
                overwrite=overwrite,
                progress=True,
                texts=added or (),
                cache=cache,
                cache_limit=None if cache_limit is None else int(cache_limit * 2**30),
                pixels=pixels,
            )
    answer = manifest.model_dump(mode="json")
    if as_json:
        print_json(answer)
    else:
        print_manifest(out, answer)


app.command()(texts)


@app.command()
def inspect(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of the corpus.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page; 'inspect' in the corpus's folder unless told.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores unless told.")] = None,
    as_json: Json = False,
) -> None:
    """Look a corpus over: counts, defects, sample sheets as one HTML page; lists what to leave out of training."""
    from umif.corpus import Corpus
    from umif.corpus.quality import inspect_corpus
    from umif.report import write_inspection

    with standard_output(reserved=as_json):
        opened = Corpus.open(corpus)
        found = inspect_corpus(opened, out, workers=workers, progress=True)
        page = write_inspection(opened, found, out or corpus / "inspect")
    answer = {**found.to_json(), "report": str(page)}
    if as_json:
        print_json(answer)
    else:
        print_inspection(answer)


@app.command()
def audit(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="The corpus that is trained on.")],
    against: Annotated[
        list[str],
        typer.Option(
            "--against",
            metavar="TASK-OR-CORPUS …",
            help="What is tested on: corpora, or tasks, which test on CORPUS's own test images.",
        ),
    ],
    trained: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT", help="Split that is trained on; repeat for more. train")
    ] = None,
    tested: Annotated[
        list[str] | None,
        typer.Option(metavar="SPLIT", help="Split of the corpora tested on; repeat for more. test"),
    ] = None,
    acknowledge: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A leak that is known and accepted; repeat for more.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Also search by the features of this run or checkpoint.")
    ] = None,
    sight: Annotated[bool, typer.Option(help="Look for near-duplicates and equal pixels too.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for audit.html, to look at the pairs, and audit.json.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Overlaps between what is trained on and what is tested on; exit code 1 on a leak that is not acknowledged."""
    from umif.cli.output import print_audit
    from umif.corpus import Corpus
    from umif.corpus.progress import stages
    from umif.report.audit_page import write_audit
    from umif.tasks.audit import audit as compare

    data = Corpus.open(corpus)
    with standard_output(reserved=as_json), stages() as progress:
        found, evaluations = compare(
            data,
            against,
            trained=tuple(trained or ["train"]),
            tested=tuple(tested or ["test"]),
            acknowledged=acknowledge or (),
            sight=sight,
            model=model,
            progress=progress,
        )
        page = None if out is None else write_audit(found, data, evaluations, out)
    if as_json:
        print_json({**found.to_json(), "report": None if page is None else str(page)})
    else:
        print_audit(found.to_json(), page)
    if not found.clean:
        raise typer.Exit(1)


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/*.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Replace values of the recipe.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, or go on where the run stopped. On many processes: torchrun --nproc-per-node N -m umif pretrain …"""
    from umif.config import load_recipe
    from umif.train import Recipe
    from umif.train import pretrain as train

    with standard_output(reserved=as_json):
        summary = train(load_recipe(Recipe, recipe, overrides or []), progress=_is_first_process())
    answer = summary.to_json()
    if as_json and _is_first_process():
        print_json(answer)
    elif _is_first_process():
        losses = ", ".join(f"{name} {value:.4f}" for name, value in answer["losses"].items())
        print(f"{answer['run']}: {answer['steps']} steps, {answer['pairs_per_s']:.1f} pairs/s, last losses: {losses}")
    if not summary.finished:
        # The loop finished its step and saved before it came back.
        raise typer.Exit(INTERRUPTED if summary.stopped_by == "SIGINT" else TERMINATED)


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run folder, a checkpoint, or an encoder as in --against."),
    ],
    tasks: Annotated[list[str], typer.Argument(metavar="TASK …", help="Downstream tasks, by name, or all.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PERCENT …", help="Shares of the training patients' labels, such as: --labels 1% 10% 100%"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="CORPUS", help="Corpus to test on; the one trained on unless told.")
    ] = None,
    problems: Annotated[
        list[str] | None,
        typer.Option("--problem", metavar="NAME", help="One of a task's problems; repeat for more, all unless told."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "--splits",
            metavar="clean|paper",
            help="The corpus's own splits, by patient, or those of published work.",
        ),
    ] = "clean",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENCODER …",
            help="Encoders of others beside the model: timm:NAME[@weights.safetensors], hf:NAME, script.pt, model.onnx",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from --seed on; rows give the mean.")] = 1,
    seed: Annotated[int, typer.Option(help="Draws the subsets of labels and the bootstrap.")] = 0,
    bootstrap: Annotated[int, typer.Option(min=0, help="Patient resamplings behind each interval; 0 = none.")] = 1000,
    baselines: Annotated[bool, typer.Option(help="Random initialisation and raw pixels beside the model.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Do tasks again whose rows are there.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of results and features; the model's unless told.")] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Train heads on all images, for as long as papers do, not for about a minute."),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TASK.KEY=VALUE", help="A setting of one task; repeat for more."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put the frozen encoder to downstream tasks; every number with its 95 % interval, baselines beside it."""
    from umif.tasks.base import TaskOptions
    from umif.tasks.evaluation import run_evaluation
    from umif.tasks.published import checked_splits

    shares = tuple(percent(text) for text in labels or ["100%"])
    options = TaskOptions(
        labels=shares,
        seed=seed,
        baselines=baselines,
        bootstrap=bootstrap,
        problems=tuple(problems or ()),
        splits=checked_splits(protocol),
        seeds=seeds,
        full=full,
        settings=tuple(settings or ()),
    )
    with standard_output(reserved=as_json):
        outcome = run_evaluation(model, tasks, data, options, against=against or (), out=out, again=again)
    if as_json:
        print_json(outcome.to_json())
    else:
        print_evaluation(outcome.to_json())


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep, such as recipes/sweeps/table*.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Replace values of the sweep.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw and encode; all cores unless told.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train and evaluate one recipe under several settings and seeds, and set them side by side; resumable."""
    from umif.sweep import load_sweep, run_sweep

    chosen = load_sweep(config, overrides or [])
    with standard_output(reserved=as_json):
        table = run_sweep(chosen, workers=workers, progress=_say)
    if as_json:
        print_json({"table": str(table), **json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))})
    else:
        print(table.read_text(encoding="utf-8"))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN …", help="Run folders, shown side by side.")],
    out: Annotated[Path, typer.Option(help="Folder of the report.")],
    as_json: Json = False,
) -> None:
    """Curves, sheets and results of runs as one HTML file; tables as CSV, JSON and LaTeX; model and data cards."""
    from umif.report import write_report

    with standard_output(reserved=as_json):
        path = write_report(runs, out)
    if as_json:
        print_json({"report": str(path), "runs": [str(run) for run in runs]})
    else:
        print(path)


app.command()(embed)
app.command()(search)
app.add_typer(bench, name="bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 = done, 1 = the work failed, 2 = bad usage or input, 130 = interrupted."""
    arguments = spread_lists(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = app(arguments, prog_name="umif", standalone_mode=False)
        sys.stdout.flush()
    except UmifError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _fail(_usage_message(error), 2)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output stopped reading (`umif datasets | head`): nothing is wrong with the work.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        what = error.strerror or str(error)
        return _fail(f"{error.filename}: {what}" if error.filename else f"{what} (UMIF_DEBUG=1 shows where)", 1)
    except Exception as error:
        return _fail(
            f"unexpected {type(error).__name__}: {error}\n  → this is a fault in UmiF; UMIF_DEBUG=1 shows where", 1
        )
    if code in (INTERRUPTED, TERMINATED):
        return _fail("interrupted; the same command goes on from what was saved", code)
    return code if isinstance(code, int) else 0


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(message: str, code: int) -> int:
    if os.environ.get("UMIF_DEBUG") == "1" and sys.exc_info()[0] is not None:
        traceback.print_exc()
    _say(f"umif: {message}")
    return code


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "umif"
    return f"{error.format_message()}\n  → {path} --help"
