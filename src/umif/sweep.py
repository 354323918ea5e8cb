"""`umif sweep`: one recipe under several settings and seeds, each trained, evaluated and set side by side.

Everything is resumable by giving the same command again: a run goes on where it stopped, a finished run is not touched,
and rows that are there are not taken again. Seeds come first, settings second, so a sweep that is stopped early has
compared all settings under the seeds that it has.
"""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from umif.config import REGISTRY, Config, apply_overrides, parse_config, read_yaml
from umif.errors import ConfigError, RunError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from umif.report.sweep import Measured
    from umif.train import Recipe

DEMO = "demo"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


class PhantomSeries(Config):
    """A series of phantoms that the sweep draws for itself."""

    images: int = Field(3000, gt=0, description="How many to draw")
    clarity: float = Field(1.0, ge=0, le=1, description="Least contrast and size of a finding")
    spread: float = Field(3.0, ge=0, le=3, description="How far place and exposure stray")
    findings: tuple[str, ...] = Field((), description="Findings that may be drawn; empty = all")
    seed: int = Field(0, ge=0, description="Names the series")


class Setting(Config):
    """One row of the sweep's table."""

    name: str = Field(description="What it is called; also part of the run folder's name")
    set: dict[str, Any] = Field(default_factory=dict, description="Keys of the recipe, dotted, and their values")

    @model_validator(mode="after")
    def _is_a_file_name(self) -> Self:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot be part of a folder's name; use letters, digits, . _ = + -")
        return self


class SweepConfig(Config):
    """What is varied, what it is varied on, and how each setting is put to the test."""

    name: str = Field(description="For tables")
    out: Path = Field(description="Folder of the runs and of the table")
    base: str = Field(description="Recipe that is varied: a path, from the sweep's own folder, or `demo`")
    set: dict[str, Any] = Field(default_factory=dict, description="Keys of the recipe that hold for every setting")
    phantom: PhantomSeries | None = Field(
        None, description="Phantoms to draw and learn from; null = the recipe's corpus"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Each setting is trained once a seed")
    settings: tuple[Setting, ...] = Field(min_length=2, description="What is compared")
    tasks: tuple[str, ...] = Field(("linear",), min_length=1, description="Downstream tasks")
    problems: tuple[str, ...] = Field((), description="Some of the tasks' problems; empty = all")
    labels: tuple[float, ...] = Field((1.0, 10.0, 100.0), min_length=1, description="Shares of the labels, percent")
    bootstrap: int = Field(1000, ge=0, description="Patient resamplings behind each interval")
    published: Literal["separate", "kinds"] | None = Field(None, description="The paper's figures to print beside")

    @model_validator(mode="after")
    def _names_are_different(self) -> Self:
        names = [setting.name for setting in self.settings]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two settings are called {doubled[0]!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is named twice")
        return self


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a sweep; `base` becomes a path from where the file lies.

    Raises:
        ConfigError: the file, a key or an override is wrong; it is named.
    """
    data = apply_overrides(dict(read_yaml(path)), overrides)
    config = parse_config(SweepConfig, data, where=path)
    if config.base != DEMO:
        config = config.model_copy(update={"base": str(Path(path).parent / config.base)})
    return config


def recipe_of(config: SweepConfig, setting: Setting, seed: int) -> Recipe:
    """Return the recipe of one run.

    Raises:
        ConfigError: the base or a key of the setting is wrong.
    """
    from umif.train import Recipe

    if config.base == DEMO:
        import yaml

        data = yaml.safe_load((resources.files("umif") / "demo.yaml").read_text(encoding="utf-8"))
    else:
        data = dict(read_yaml(config.base))
    own = {"seed": seed, "out": str(run_folder(config, setting, seed)), "name": f"{config.name} {setting.name}"}
    if config.phantom is not None:
        own["corpus"] = str(config.out / "corpus")
    merged = {**config.set, **setting.set}
    if clash := sorted(own.keys() & merged.keys()):
        raise ConfigError(f"{clash[0]!r} is the sweep's to set", where=f"settings: {setting.name}", fix="leave it out")
    for key, value in {**merged, **own}.items():
        _set(data, key, value, setting.name)
    return parse_config(Recipe, data, where=f"{config.base} with {setting.name}")


def run_folder(config: SweepConfig, setting: Setting, seed: int) -> Path:
    """Return where one run lies."""
    return config.out / f"{setting.name}-seed{seed}"


def run_sweep(
    config: SweepConfig, *, workers: int | None = None, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Train and evaluate every setting under every seed, or what is missing of them; write the table.

    `sweep.md`, `sweep.csv` and `sweep.json` in `config.out` are written anew after each seed, from what there is.

    Args:
        config: The sweep.
        workers: Processes that draw phantoms and encode pictures; all cores unless told.
        progress: Called with one line before each stage.

    Returns:
        The path of `sweep.md`.

    Raises:
        ConfigError: a setting does not fit the recipe, or a task or problem is not known; before anything is trained.
        KeyboardInterrupt: Ctrl-C; what is done is kept.
        UmifError: what drawing, preparing, training or evaluating raise.
    """
    from umif.report.sweep import write_table
    from umif.train import pretrain

    for name in config.tasks:
        REGISTRY.get("task", name)
    recipes = {
        (setting.name, seed): recipe_of(config, setting, seed) for seed in config.seeds for setting in config.settings
    }
    _claim(config)
    _draw(config, workers, progress)
    measured: list[Measured] = []
    path = config.out / "sweep.md"
    total = len(recipes)
    for number, ((name, seed), recipe) in enumerate(recipes.items(), start=1):
        progress(f"{number}/{total} {name}, seed {seed} → {recipe.out}")
        summary = pretrain(recipe)
        if summary.stopped_by == "SIGINT":
            raise KeyboardInterrupt
        if not summary.finished:
            raise UmifError(
                f"pre-training was stopped by {summary.stopped_by}", where=recipe.out, fix="the same command goes on"
            )
        measured.append((name, seed, _rows(config, recipe)))
        if name == config.settings[-1].name:
            path = write_table(
                config.out, config.name, measured, [one.name for one in config.settings], config.published
            )
    return path


def _claim(config: SweepConfig) -> None:
    """Refuse a folder that holds another sweep: rows of different recipes in one table would mislead."""
    file = config.out / "sweep.config.json"
    free = {"out", "seeds", "settings", "tasks", "bootstrap", "name"}  # more seeds and settings may be added
    mine = config.model_dump(mode="json", exclude=free)
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = None
    except ValueError as error:
        raise RunError("cannot be read", where=file, fix="remove it; runs check their recipes themselves") from error
    if known is not None and known != mine:
        key = next(key for key in mine if known.get(key) != mine[key])
        raise RunError(
            f"the sweep began with {key} = {known.get(key)!r}, not {mine[key]!r}",
            where=config.out,
            fix="choose another out",
        )
    config.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")


def _draw(config: SweepConfig, workers: int | None, progress: Callable[[str], None]) -> None:
    series = config.phantom
    if series is None:
        return
    from umif.corpus import PrepareConfig, prepare
    from umif.corpus.phantom import write_phantom
    from umif.corpus.phantom_description import FINDINGS

    progress(f"drawing {series.images} phantom radiographs → {config.out / 'phantom'}")
    write_phantom(
        config.out / "phantom",
        series.images,
        series.seed,
        workers=workers or os.cpu_count() or 1,
        clarity=series.clarity,
        spread=series.spread,
        only=series.findings or FINDINGS,
    )
    progress(f"building the corpus → {config.out / 'corpus'}")
    prepare(config.out / "corpus", [("phantom", config.out / "phantom")], PrepareConfig(), workers=workers)


def _rows(config: SweepConfig, recipe: Recipe) -> list[dict[str, Any]]:
    """Rows of the tasks for one run; those that are there for its weights are taken, as `evaluate` does."""
    from umif.tasks import evaluate
    from umif.tasks.base import TaskOptions

    options = TaskOptions(labels=config.labels, problems=config.problems, bootstrap=config.bootstrap, seed=recipe.seed)
    return [row.to_json() for row in evaluate(recipe.out, config.tasks, recipe.corpus, options)]


def _set(data: dict[str, Any], key: str, value: Any, setting: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key!r} leads into a value", where=f"settings: {setting}", fix="check its spelling")
        # A copy, so that settings do not see one another's.
        data[parent] = inner = dict(inner)
        data = inner
    data[last] = value
