"""The whole chain on drawn radiographs: raw folder → corpus → run → results → report, resumable at every step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from umif.errors import RunError, TaskError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from umif.tasks.base import Result
    from umif.train import Recipe

IMAGES = 6000
# Findings at full contrast and size, on films taken in a hurry: a few minutes of training must have something to find,
# and what a place on the film alone tells (raw pixels see no more) must not be enough.
CLARITY, SPREAD = 1.0, 3.0
FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Pleural Effusion")  # large enough for 112 pixels
RAW = "phantom"
LABELS = (1.0, 10.0, 100.0)
MOST_RESAMPLES = 300
# Answering questions is the longest of the tasks; its own defaults take half a minute more.
SHORTER = ("vqa.decoder_steps=250", "vqa.steps=12")


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made: a run folder that is a MODEL and holds a CORPUS."""

    model: Path
    corpus: Path
    report: Path
    results: tuple[Result, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "model": str(self.model),
            "corpus": str(self.corpus),
            "report": str(self.report),
            "results": [result.to_json() for result in self.results],
        }


def demo_recipe(out: Path, overrides: dict[str, Any] | None = None) -> Recipe:
    """Return the demo's recipe (`umif/demo.yaml`) for the run folder `out`."""
    from umif.config import parse_config
    from umif.train import Recipe

    file = resources.files("umif") / "demo.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    return parse_config(Recipe, {**data, **(overrides or {}), "corpus": out / "corpus", "out": out}, where="demo.yaml")


def run_demo(
    out: Path,
    *,
    images: int = IMAGES,
    workers: int | None = None,
    overrides: dict[str, Any] | None = None,
    bootstrap: int = 1000,
    progress: Callable[[str], None] = lambda _: None,
) -> Demo:
    """Make the demo in `out`, or finish what is missing of it.

    Args:
        out: Folder; a new one, or one that a demo was begun in.
        images: How many phantom radiographs to draw.
        workers: Processes that draw and encode pictures; all cores unless told.
        overrides: Keys of the recipe to replace, for shorter runs.
        bootstrap: Patient resamplings behind each interval.
        progress: Called with one line before each stage.

    Raises:
        RunError: `out` holds something else.
        UmifError: pre-training was told to stop; what is done is kept.
    """
    from umif.config import REGISTRY
    from umif.corpus import PrepareConfig, prepare
    from umif.report import write_report
    from umif.tasks.base import TaskOptions
    from umif.tasks.evaluation import evaluate
    from umif.train import pretrain

    recipe = demo_recipe(out, overrides)
    progress(f"1/5 drawing {images} phantom radiographs → {out / RAW}")
    _draw(out, images, workers)
    progress(f"2/5 building the corpus → {recipe.corpus}")
    prepare(recipe.corpus, [("phantom", out / RAW)], PrepareConfig(), workers=workers)
    progress(f"3/5 pre-training {recipe.model.backbone} → {out}")
    summary = pretrain(recipe)
    if summary.stopped_by == "SIGINT":
        raise KeyboardInterrupt
    if not summary.finished:
        raise UmifError(f"pre-training was stopped by {summary.stopped_by}", where=out, fix="the same command goes on")
    names = REGISTRY.names("task")
    progress(f"4/5 downstream tasks: {', '.join(names)}")
    results: list[Result] = []
    for name in names:
        # Shares of the labels and fine intervals for one task; they would cost the others more minutes than a demo has.
        full = name == "linear"
        options = TaskOptions(
            labels=LABELS if full else (100.0,),
            bootstrap=bootstrap if full else min(bootstrap, MOST_RESAMPLES),
            settings=SHORTER,
        )
        try:
            results += evaluate(out, name, recipe.corpus, options)
        except TaskError as error:  # a demo of few images has too few boxes, say, and still shows the rest
            progress(f"    {name}: left out, {error.what}")
    if not results:
        raise TaskError("so few images carry no task at all", where=out, fix="choose a larger --images")
    progress(f"5/5 report → {out / 'report'}")
    return Demo(out, recipe.corpus, write_report([out], out / "report"), tuple(results))


def _draw(out: Path, images: int, workers: int | None) -> None:
    from umif.corpus.phantom import write_phantom

    raw = out / RAW
    if not raw.exists() and out.exists() and any(out.iterdir()):
        raise RunError("the folder is not empty and holds no demo", where=out, fix="choose another --out")
    workers = workers or os.cpu_count() or 1
    write_phantom(raw, images, workers=workers, clarity=CLARITY, spread=SPREAD, only=FINDINGS)


def summary_lines(done: Demo) -> list[str]:
    """Return what the demo reached, for a terminal: trained against random and pixels, and where it all lies."""
    from umif.report.tables import results_text

    return [
        results_text([result.to_json() for result in done.results]),
        "",
        f"model   {done.model}",
        f"corpus  {done.corpus}",
        f"report  {done.report}",
    ]
