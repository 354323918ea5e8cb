"""One hierarchy of errors: every error says what was wrong, where, and what to do.

The command line prints `str(error)` and exits with `exit_code`; a user never sees a bare traceback for something
that they can mend. Library users catch `UmifError` or one of its branches.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class UmifError(Exception):
    """Base of all errors that UmiF raises on purpose.

    Args:
        what: What was wrong, in one sentence.
        where: The file, `file:line`, field or key that it was found in.
        fix: What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return text if self.fix is None else f"{text}\n  → {self.fix}"

    def __reduce__(self) -> tuple[Any, ...]:
        # By its state: constructors take keywords, which an exception's own pickling does not pass on.
        return _revive, (type(self), self.args, dict(self.__dict__))


class InputError(UmifError):
    """The user gave something that cannot be used; exit code 2."""

    exit_code = 2


class ConfigError(InputError):
    """A recipe, key or value that no config accepts."""


class RegistryError(InputError):
    """An unknown name, or a name registered twice."""


class LayoutError(InputError):
    """A dataset folder that does not look as its reader expects (missing folder, file or column)."""


class RemoteError(InputError):
    """A URL that data cannot be fetched from: a package is missing, no right, not there, or it keeps breaking off."""


class TableError(LayoutError):
    """A row or a cell outside a table's documented encoding; `where` is `file:line`."""


class ImageError(InputError):
    """Bytes that are no readable, complete, single radiograph within the limits.

    Attributes:
        reason: A short stable word for counting (`truncated`, `too_large`, `multi_frame`, `unsupported`, …).
    """

    def __init__(self, what: str, *, reason: str, where: str | Path | None = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class CorpusError(InputError):
    """A corpus that is missing, unfinished, of another format or not the one expected."""


class LeakError(InputError):
    """What is trained on overlaps with what is tested on, and nobody has acknowledged it."""


class EmptyError(InputError):
    """Nothing is left to work on (no image, no pair, no patient in a split)."""


class RunError(InputError):
    """A run folder that is in use, belongs to another corpus or recipe, or holds no usable checkpoint."""


class CheckpointError(RunError):
    """A checkpoint whose files do not match its manifest."""


class StorageError(UmifError):
    """The disk refused a write (full, read-only, gone)."""


class EndpointError(UmifError):
    """A language model's endpoint that cannot be used: no right, no such model, or it keeps failing."""


class LoaderError(UmifError):
    """Worker processes that made batches died, hung or failed, and starting them again did not help."""


class ProcessLostError(UmifError):
    """Another process of the same run ended or cannot be reached; what it said before tells why."""


class ShapeError(UmifError):
    """Tensors whose shapes do not fit together."""


class CollapseError(UmifError):
    """Training that has collapsed (all features alike) and was stopped."""


class NonFiniteError(UmifError):
    """NaN or Inf in pixels, features, loss or gradients, several steps in a row."""


class TaskError(InputError):
    """A downstream task that cannot be carried out on the data given (one class only, no split, no labels)."""


class ReaderContractError(UmifError):
    """A reader that lost or invented items: yielded + excluded differs from seen."""


def _revive(kind: type[UmifError], args: tuple[Any, ...], state: dict[str, Any]) -> UmifError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` with the nearest known name, or the list of names when none is near."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return "Known names: " + (", ".join(names) if names else "none") + "."
