"""Classification problems as data: which images are positive, negative or of which class (`problems.yaml`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from umif.config import Config, parse_config
from umif.errors import ConfigError, TaskError, nearest

BUILT_IN = Path(__file__).with_name("problems.yaml")


class Condition(Config):
    """What an image must have; all keys that are given must hold."""

    finding: str | None = Field(None, description="Vocabulary id of a label")
    raw: str | None = Field(None, description="The dataset's own spelling of a label, case apart")
    state: Literal["present", "absent", "uncertain"] = Field("present", description="State of that label")
    sex: Literal["F", "M"] | None = Field(None, description="Sex of the patient")
    view: str | None = Field(None, description="View as the dataset spells it, case apart")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.finding is self.raw is self.sex is self.view is None:
            raise ValueError("a condition needs finding, raw, sex or view")
        return self

    def holds(self, image: dict[str, Any]) -> bool:
        """Whether a row of the corpus's images has all that is asked for."""
        if self.sex is not None and image["sex"] != self.sex:
            return False
        if self.view is not None and (image["view"] or "").casefold() != self.view.casefold():
            return False
        return (self.finding is self.raw is None) or any(self._names(label) for label in image["findings"])

    def _names(self, label: dict[str, Any]) -> bool:
        return (
            label["state"] == self.state
            and (self.finding is None or label["finding"] == self.finding)
            and (self.raw is None or label["raw"].casefold() == self.raw.casefold())
        )


class PromptSides(Config):
    """Whose prompts describe the two sides: finding ids, or `not <finding id>` for the negated ones."""

    positive: tuple[str, ...] = Field(min_length=1, description="Prompts of the positive side")
    negative: tuple[str, ...] = Field(min_length=1, description="Prompts of the negative side")


class ExclusiveClass(Config):
    """One of several classes that exclude one another."""

    name: str = Field(min_length=1, description="What the class is called")
    any: tuple[Condition, ...] = Field(min_length=1, description="Its images: any of these")


class PublishedLabels(Config):
    """What published work makes of labels that say neither yes nor no; for published splits alone."""

    uncertain: dict[str, Literal["present", "absent"]] = Field({}, description="Finding → what an uncertain label is")
    unstated: Literal["absent"] | None = Field(None, description="What a finding is that no label states")


class Problem(Config):
    """One classification problem, two-sided, of exclusive classes, or of findings: one class for each.

    Of kind `findings` without names: every finding with enough of both states.
    """

    name: str = Field(min_length=1, description="What the problem is called on the command line")
    title: str = Field(min_length=1, description="What it asks, for tables")
    kind: Literal["two-sided", "findings", "classes"] = Field(
        "two-sided", description="Two sides, one class per finding, or classes that exclude one another"
    )
    datasets: tuple[str, ...] = Field((), description="Datasets it is about; empty = all of a corpus")
    positive: tuple[Condition, ...] = Field((), description="Positive images: any of these")
    negative: tuple[Condition, ...] = Field((), description="Negative images: any of these")
    views: tuple[str, ...] = Field((), description="Only images of these views; empty = all")
    findings: tuple[str, ...] = Field((), description="Of kind findings: which; empty = all that have enough")
    classes: tuple[ExclusiveClass, ...] = Field((), description="Of kind classes: the classes, in their order")
    published: PublishedLabels | None = Field(None, description="How published work reads unclear labels")
    zero_shot: PromptSides | None = Field(None, description="Prompts of both sides, where words can ask it")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "two-sided") != bool(self.positive and self.negative) or (
            self.positive and self.kind != "two-sided"
        ):
            raise ValueError("a two-sided problem needs positive and negative; others have no positive")
        if (self.kind == "classes") != bool(self.classes) or len(self.classes) == 1:
            raise ValueError("a problem of classes needs two or more, others have none")
        if self.kind == "classes" and self.negative:
            raise ValueError("a problem of classes has no negative")
        if self.kind != "findings" and (self.findings or self.published is not None):
            raise ValueError("findings and published labels are for problems of kind findings")
        return self

    def about(self, image: dict[str, Any]) -> bool:
        """Whether an image is of the problem's datasets and views."""
        view = (image["view"] or "").casefold()
        seen = not self.views or view in {one.casefold() for one in self.views}
        return seen and (not self.datasets or image["dataset"] in self.datasets)


@cache
def built_in_problems() -> tuple[Problem, ...]:
    """The problems of `problems.yaml`, in its order."""
    return read_problems(BUILT_IN)


def read_problems(path: str | Path) -> tuple[Problem, ...]:
    """Read a YAML list of problems.

    Raises:
        ConfigError: it is no such list, an unknown key, or a name used twice.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=path) from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError("must hold a list of problems", where=path)
    problems = tuple(
        parse_config(Problem, entry, where=f"{path}, problem {number}") for number, entry in enumerate(entries, 1)
    )
    names = [problem.name for problem in problems]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the problem {name!r} occurs twice", where=path, fix="give it another name")
    return problems


def find_problem(name: str) -> Problem:
    """Return the built-in problem `name`.

    Raises:
        TaskError: there is none; the nearest name is offered.
    """
    for problem in built_in_problems():
        if problem.name == name:
            return problem
    raise TaskError(f"no problem is called {name!r}", fix=nearest(name, [p.name for p in built_in_problems()]))
