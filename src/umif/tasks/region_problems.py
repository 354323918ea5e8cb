"""Problems about drawn regions: which of them a corpus can carry, for boxes and for masks alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from umif.errors import TaskError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


class RegionProblem(Protocol):
    """What is asked of a problem here."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets it is about."""


ProblemT = TypeVar("ProblemT", bound=RegionProblem)
CasesT = TypeVar("CasesT")


def chosen_region_cases(
    task: str,
    problems: Iterable[ProblemT],
    names: Sequence[str],
    select: Callable[[ProblemT], CasesT],
    drawn_in: set[str],
    *,
    without: str,
    where: Path,
    fix: str,
) -> list[CasesT]:
    """Return the cases of the problems named; of every one that the corpus can carry if none is named.

    Args:
        task: For messages.
        problems: All there are, in their order.
        names: Those asked for; none = all.
        select: A problem's cases; raises TaskError where the corpus cannot carry it.
        drawn_in: Datasets of the corpus with regions; only of problems about these is it told what they lack.
        without: Why, in words, where no dataset has regions.
        where: The corpus.
        fix: What to do where nothing can be carried.

    Raises:
        TaskError: a named problem is unknown or cannot be carried, or none can; what is missing is told.
    """
    known = {problem.name: problem for problem in problems}
    for name in names:
        if name not in known:
            raise TaskError(f"no {task} problem is called {name!r}", fix=nearest(name, list(known)))
    if names:
        return [select(known[name]) for name in names]
    cases, lacking = [], []
    for problem in known.values():
        try:
            cases.append(select(problem))
        except TaskError as error:
            if drawn_in.intersection(problem.datasets):
                lacking.append(f"{problem.name}: {error.what}")
    if not cases:
        what = f"no {task} problem can be carried by this corpus"
        told = f"{what}: {'; '.join(lacking)}" if lacking else f"{what}, for {without}"
        raise TaskError(told, where=where, fix=fix)
    return cases
