"""The run folder: one owner at a time, and a record of what made it.

run.json         written first: resolved recipe, versions, git state, corpus and its fingerprint, each start
recipe.yaml      the same recipe, to start another run from
tokenizer/       the vocabulary that the run uses
log.jsonl        one line per step
ledger.jsonl     one line per sample that was dropped and per step whose update was skipped
checkpoints/     see `checkpoint.py`
summary.json     written when the run is finished
lock             held while a process trains here
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import yaml

import umif
from umif.errors import RunError, StorageError
from umif.train.checkpoint import FOLDER
from umif.train.durable import replace_file, to_json
from umif.train.recipe import differing_key

if TYPE_CHECKING:
    from umif.train.recipe import Recipe

FORMAT = 1
_PACKAGES = ("torch", "timm", "numpy", "opencv-python-headless", "pylance", "tokenizers", "transformers")


class RunFolder:
    """A run folder that this process owns until `close`.

    Raises:
        RunError: another process trains there, or it belongs to another corpus or recipe.
        StorageError: it cannot be made or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] = (self.path / "lock").open("ab")
        except OSError as error:
            raise StorageError(
                f"the run folder cannot be made: {error.strerror or error}", where=self.path, fix="choose another `out`"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunError(
                "another process is training in this run folder",
                where=self.path,
                fix="wait for it or stop it, or choose another `out`",
            ) from None
        except OSError as error:
            self._lock.close()
            raise StorageError(
                f"the run folder cannot be locked against other processes: {error.strerror or error}",
                where=self.path,
                fix="choose an `out` whose file system has locks (NFS 4; Lustre mounted with `flock`)",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def claim(
        self,
        recipe: Recipe,
        fingerprint: str,
        settings: dict[str, Any],
        *,
        resume: bool,
        quarantine: str | None = None,
    ) -> dict[str, Any]:
        """Write `run.json`, or check that the one there belongs to the same run; return the run's settings.

        Args:
            recipe: As resolved.
            fingerprint: Of the corpus.
            settings: What `auto` came to here (`dtype`, `threads`, `steps`, …). A run that goes on keeps those it
                began with.
            resume: Whether going on is wanted.
            quarantine: Hash of what the corpus's quarantine list excludes; `None` if nothing.

        Raises:
            RunError: naming the key that differs and the way out.
        """
        known = self.read("run.json")
        if known is None:
            known = {
                "format": FORMAT,
                "name": recipe.name,
                "recipe": recipe.model_dump(mode="json"),
                "corpus": {"path": str(recipe.corpus.resolve()), "fingerprint": fingerprint},
                "settings": settings,
                "starts": [],
            }
            if quarantine is not None:
                known["corpus"]["quarantine_sha256"] = quarantine
        else:
            self._check(known, recipe, fingerprint, settings, resume=resume)
            self._check_quarantine(known, quarantine)
        known["starts"].append(_circumstances(settings))
        self.write("run.json", known)
        if not (self.path / "recipe.yaml").exists():
            text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            self._replace("recipe.yaml", text.encode())
        kept: dict[str, Any] = known["settings"]
        return kept

    def _check(
        self, known: dict[str, Any], recipe: Recipe, fingerprint: str, settings: dict[str, Any], *, resume: bool
    ) -> None:
        way_out = "choose another `out` for a new run"
        if not resume and (self.path / FOLDER).exists():
            raise RunError("the folder already holds a run", where=self.path, fix=f"go on with it, or {way_out}")
        if known.get("format") != FORMAT:
            raise RunError(
                f"the run folder is of format {known.get('format')}, this version of UmiF reads {FORMAT}",
                where=self.path,
                fix=f"use the version of UmiF that made it, or {way_out}",
            )
        if known["corpus"]["fingerprint"] != fingerprint:
            raise RunError(
                f"the run learns from the corpus {known['corpus']['path']} ({known['corpus']['fingerprint'][:12]}…), "
                f"not from {recipe.corpus} ({fingerprint[:12]}…)",
                where=self.path,
                fix=f"give the corpus that it began with, or {way_out}",
            )
        key = differing_key(known["recipe"], recipe.model_dump(mode="json"))
        if key is None and recipe.train.dtype not in ("auto", known["settings"]["dtype"]):
            key = "train.dtype"
        if key is not None:
            old, new = _at(known["recipe"], key), _at(recipe.model_dump(mode="json"), key)
            raise RunError(
                f"the run began with {key} = {old!r}, not {new!r}", where=self.path, fix=f"set {key} back, or {way_out}"
            )

    def _check_quarantine(self, known: dict[str, Any], quarantine: str | None) -> None:
        before = known["corpus"].get("quarantine_sha256")
        if before != quarantine:
            raise RunError(
                f"the run began with another quarantine list (hash {_short(before)}, now {_short(quarantine)})",
                where=self.path,
                fix="put quarantine.csv in the corpus's folder back as it was, or choose another `out` for a new run",
            )

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the folder, `None` if there is none.

        Raises:
            RunError: it is damaged.
        """
        return read_run_json(self.path, name)

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a JSON file of the folder; a reader sees the old one or the new.

        Raises:
            StorageError: the disk refused.
        """
        self._replace(name, to_json(value))

    def _replace(self, name: str, data: bytes) -> None:
        try:
            replace_file(self.path / name, data)
        except OSError as error:
            raise StorageError(
                f"cannot be written: {error.strerror or error}",
                where=self.path / name,
                fix="make room, or mend the disk",
            ) from error

    def truncate(self, name: str, step: int) -> None:
        """Drop the lines of a log that are of later steps than `step`, and a last line cut short by a crash.

        Lines of the same step again are also dropped, so the log of an interrupted run equals that of one which was
        never interrupted.
        """
        file = self.path / name
        if not file.exists():
            return
        kept = []
        for line in file.read_bytes().splitlines(keepends=True):
            try:
                if line.endswith(b"\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
        self._replace(name, b"".join(kept))


def read_run_json(run: str | Path, name: str = "run.json") -> dict[str, Any] | None:
    """Return a JSON file of a run folder, `None` if there is none; needs no lock.

    Raises:
        RunError: it is damaged.
    """
    file = Path(run) / name
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot be read: {error}", where=file, fix="restore it from a copy of the run") from None
    if not isinstance(value, dict):
        raise RunError("holds no JSON object", where=file, fix="restore it from a copy of the run")
    return value


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `log.jsonl`; a last line that is being written is left out."""
    file = Path(run) / "log.jsonl"
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _circumstances(settings: dict[str, Any]) -> dict[str, Any]:
    """What a start ran on, without naming the machine or its user."""
    versions = {"umif": umif.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions,
        "git": git_state(Path.cwd()),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        **settings,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a git working tree and whether it has changes; `None` outside one or without git."""

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _short(digest: str | None) -> str:
    return "of nothing" if digest is None else f"{digest[:12]}…"


def _at(recipe: dict[str, Any], key: str) -> Any:
    here: Any = recipe
    for part in key.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here
