"""Two-phase checkpoints: a crash at any moment leaves the last good one.

A checkpoint is a folder `checkpoints/step-00001234` of

    model.safetensors, optimizer.safetensors    tensors
    state.json                                  everything else
    manifest.json                               size and SHA-256 of each of the others, written last

Where processes share the weights, each writes its own part of the tensors (`parts.py`), and the first the rest.

It is written under a hidden name, synced file by file, renamed, and the parent is synced. Loading verifies every byte.
One that fails is renamed to `step-00001234.bad` with a message, and the one before is used; two are kept, so one is
left. Tensors are safetensors and the rest is JSON: loading runs no code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from umif.errors import CheckpointError, RunError, StorageError
from umif.train.durable import DISK, Disk, file_sha256, remove_folder, sync, to_json, write_file
from umif.train.parts import SavedTensors, part_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from umif.train.distributed import Processes

    # Size and SHA-256 of files, by name.
    Files = dict[str, tuple[int, str]]

# Of a checkpoint in parts, and of any other, which older versions read too.
FORMAT_PARTS, FORMAT = 2, 1
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

logger = logging.getLogger(__name__)


def save_checkpoint(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int = 2,
    disk: Disk = DISK,
) -> Path:
    """Write the checkpoint of `step` under `run` and remove all but the `keep` newest; return its folder.

    `tensors` holds one mapping per file (`{"model": …, "optimizer": …}`). A sound checkpoint of the same step is left
    as it is: the state after a step is a pure function of the run.

    Raises:
        StorageError: the disk refused a write (full, read-only, gone); earlier checkpoints are untouched.
    """
    final, temporary = _places(run, step)
    with _writing(temporary, step):
        if _begin(run, step, disk):
            names = {name: f"{name}.safetensors" for name in tensors}
            files = _write_tensors(temporary, names, tensors, disk)
            _finish(run, step, files, state, FORMAT, keep, disk)
    return final


def save_checkpoint_together(
    run: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    processes: Processes,
    *,
    keep: int = 2,
    disk: Disk = DISK,
) -> Path:
    """Write a checkpoint in parts: every process calls this with the tensors that are its own (`shard.own_part`).

    Otherwise as `save_checkpoint`; what fails on one process is an error on all.

    Raises:
        StorageError: a disk refused a write; earlier checkpoints are untouched. On the other processes a `RunError`.
    """
    final, temporary = _places(run, step)

    def begin() -> bool:
        with _writing(temporary, step):
            return _begin(run, step, disk)

    if not processes.on_main(begin):
        return final
    names = {name: part_file(name, processes.rank, processes.world_size) for name in tensors}
    files, failure = {}, None
    try:
        files = _write_tensors(temporary, names, tensors, disk)
    except OSError as error:
        failure = f"{error.strerror or error} (process {processes.rank})"
    # Each process's word that its bytes are on the disk: the manifest comes after all of them.
    told = processes.gather({"files": files, "failure": failure})

    def finish() -> None:
        with _writing(temporary, step):
            for part in told:
                if part["failure"] is not None:
                    raise OSError(part["failure"])
            every = {name: (size, digest) for part in told for name, (size, digest) in part["files"].items()}
            _finish(run, step, every, state, FORMAT_PARTS, keep, disk)

    processes.on_main(finish)
    return final


def latest_checkpoint(run: str | Path, *, set_aside: bool = False, disk: Disk = DISK) -> Path | None:
    """Return the newest checkpoint of a run that verifies, or `None` if the run has none yet.

    Args:
        run: A run folder.
        set_aside: Rename those that do not verify to `*.bad`. For the process that owns the run; a reader leaves them.
        disk: Where the rename goes through.

    Raises:
        RunError: there are checkpoints and none of them verifies; or they cannot be read.
    """
    parent = Path(run) / FOLDER
    try:
        for path in _checkpoints(parent):
            problem = _problem(path)
            if problem is None:
                return path
            if set_aside:
                _set_aside(path, problem, disk)
            else:
                logger.warning("%s: %s; the one before it is used", path, problem)
        damaged = sorted(parent.glob("step-*")) if parent.is_dir() else []
    except OSError as error:
        raise RunError(f"checkpoints cannot be read: {error.strerror or error}", where=parent) from error
    if damaged:
        raise RunError(
            f"none of {len(damaged)} checkpoints is intact",
            where=parent,
            fix="restore the folder from a copy, or remove it to train from the first step again",
        )
    return None


def verify_checkpoint(path: str | Path) -> None:
    """Check every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: a file is missing, cut, changed, or of a newer format.
    """
    problem = _problem(Path(path))
    if problem is not None:
        raise CheckpointError(problem, where=path, fix="use another checkpoint of the same run")


def load_tensors(path: str | Path, name: str = "model") -> dict[str, Tensor]:
    """Return the tensors called `name` in a checkpoint, whole, on the CPU.

    Verify the checkpoint first (`latest_checkpoint` does).

    Raises:
        CheckpointError: there is no such file, a part is missing, or it is no safetensors file.
    """
    saved = SavedTensors(path, name)
    return {tensor: saved.whole(tensor) for tensor in saved.names}


def load_state(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint holds beside tensors.

    Raises:
        CheckpointError: `state.json` is missing or no JSON object.
    """
    file = Path(path) / STATE
    try:
        state = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=file) from None
    if not isinstance(state, dict):
        raise CheckpointError("holds no JSON object", where=file)
    return state


def safetensors_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """Yield a safetensors file piece by piece, one tensor at a time.

    The library's own writer needs a second copy of all weights in memory and does not say which byte failed.

    Source: the format's description, huggingface/safetensors: 8 bytes little-endian header length, JSON header padded
        with spaces to 8 bytes, tensors without holes.
    """
    header: dict[str, Any] = {}
    offset = 0
    # Wide types first, so that every tensor is aligned to its own width whatever the sizes of the others.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            yield flat.view(torch.uint8).numpy().data


def _places(run: Path, step: int) -> tuple[Path, Path]:
    """Where the checkpoint of a step belongs, and where it is written."""
    final = run / FOLDER / f"step-{step:08d}"
    return final, final.with_name(f".{final.name}.tmp")


@contextmanager
def _writing(temporary: Path, step: int) -> Iterator[None]:
    """Turn what the disk refuses into a typed error, and tidy up."""
    try:
        yield
    except OSError as error:
        _clean_up(temporary)
        raise StorageError(
            f"the checkpoint of step {step} could not be written: {error.strerror or error}",
            where=temporary.parent,
            fix="make room or mend the disk, then start the same command again: it goes on from the last checkpoint",
        ) from error


def _begin(run: Path, step: int, disk: Disk) -> bool:
    """Make the hidden folder; `False` if there is a sound checkpoint of the step already."""
    final, temporary = _places(run, step)
    parent = final.parent
    if not parent.exists():
        disk.mkdir(parent)
        sync(run, disk)
    _sweep(parent, disk)
    if final.exists():
        problem = _problem(final)
        if problem is None:
            return False
        _set_aside(final, problem, disk)
    disk.mkdir(temporary)
    return True


def _write_tensors(
    folder: Path, names: Mapping[str, str], tensors: Mapping[str, Mapping[str, Tensor]], disk: Disk
) -> Files:
    """Write a file for each group of tensors, under the name that `names` gives it."""
    return {
        names[group]: write_file(folder / names[group], safetensors_chunks(held), disk)
        for group, held in tensors.items()
    }


def _finish(run: Path, step: int, files: Files, state: Mapping[str, Any], version: int, keep: int, disk: Disk) -> None:
    """Write the rest, give the folder its name, and remove the oldest checkpoints."""
    final, temporary = _places(run, step)
    files = {**files, STATE: write_file(temporary / STATE, [to_json(dict(state))], disk)}
    manifest: dict[str, Any] = {
        "format": version,
        "step": step,
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()},
    }
    write_file(temporary / MANIFEST, [_sealed(manifest)], disk)
    sync(temporary, disk)
    disk.rename(temporary, final)
    sync(final.parent, disk)
    for old in _checkpoints(final.parent)[keep:]:
        # Renamed first: a crash in mid-removal leaves no folder that looks like a checkpoint.
        hidden = final.parent / f".{old.name}.old"
        disk.rename(old, hidden)
        remove_folder(hidden, disk)


def _sealed(manifest: dict[str, Any]) -> bytes:
    """Return the manifest's bytes with a hash over itself, so that a flipped bit in it is noticed too."""
    return to_json({**manifest, "sha256": hashlib.sha256(to_json(manifest)).hexdigest()})


def _problem(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, or `None`.

    Raises:
        CheckpointError: it is sound, but of a newer format.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
        manifest = json.loads(raw)
        manifest.pop("sha256")
        if _sealed(manifest) != raw:
            return f"{MANIFEST} is damaged"
        version, files = manifest["format"], manifest["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is damaged"
    if version > FORMAT_PARTS:
        raise CheckpointError(
            f"is of format {version}, this version of UmiF reads up to {FORMAT_PARTS}",
            where=path,
            fix="use a newer UmiF",
        )
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if (size := file.stat().st_size) != expected["bytes"]:
            return f"{name} has {size} bytes instead of {expected['bytes']}"
        if file_sha256(file) != expected["sha256"]:
            return f"the content of {name} differs from what was saved (SHA-256)"
    return None


def _set_aside(path: Path, problem: str, disk: Disk) -> None:
    target = path.with_name(path.name + ".bad")
    if target.exists():
        remove_folder(target, disk)
    disk.rename(path, target)
    sync(path.parent, disk)
    logger.warning("%s: %s; set aside as %s, the one before it is used", path, problem, target.name)


def _checkpoints(parent: Path) -> list[Path]:
    """Return the checkpoints, newest first."""
    found = [(int(match[1]), path) for path in parent.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _sweep(parent: Path, disk: Disk) -> None:
    """Remove what a crash in mid-save or mid-removal left."""
    for left in sorted([*parent.glob(".step-*.tmp"), *parent.glob(".step-*.old")]):
        remove_folder(left, disk)


def _clean_up(temporary: Path) -> None:
    """Give a full disk its space back; what cannot be removed is swept by the next save."""
    try:
        if temporary.exists():
            remove_folder(temporary)
    except OSError:
        logger.warning("%s: could not be removed", temporary)
