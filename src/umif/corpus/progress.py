"""A progress bar for work that takes a while; quick work shows none."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_QUIET_SECONDS = 2.0


class Bar:
    """A bar on standard error that appears when work has taken two seconds; nothing if not `shown`."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._what, self._done = "", 0
        self._total: int | None = None

    def start(self, what: str, total: int | None = None) -> None:
        """Begin a stage of `total` parts, or of as many as there will be."""
        self._what, self._total, self._done = what, total, 0
        if self._progress is not None:
            self._task = self._progress.add_task(what, total=total)

    def advance(self, parts: int) -> None:
        """Count `parts` of the stage as done."""
        self._done += parts
        if self._progress is None:
            if not self._shown or time.monotonic() - self._started < _QUIET_SECONDS:
                return
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=self._total)
        self._progress.update(self._task, completed=self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def stages(shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function to be called with what is being done, how far, of how much; it moves a bar."""
    now: list[tuple[str, int]] = []
    with Bar(shown) as bar:

        def progress(what: str, done: int, total: int) -> None:
            if not now or now[-1][0] != what or done <= now[-1][1]:
                bar.start(what, total)
                now.append((what, 0))
            bar.advance(done - now[-1][1])
            now[-1] = (what, done)

        yield progress
