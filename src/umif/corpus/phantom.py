"""Phantoms: drawn radiographs with every kind of supervision, for tests, demonstrations and comparisons.

One seeded description (`phantom_description`) gives the picture, the regions, the labels and the texts, so they agree
by construction; nuisances are drawn apart from it and carry no hint. `write_phantom` lays a series out on disk as a
dataset of its own, which the reader `phantom` reads like any other.

Layout:

    phantom.json            format, seed, size and number of images; written last
    records.jsonl           one line per image: labels, regions, report, caption, questions, description
    images/p00001_0.png     8-bit grey, patient and follow-up

Shapes: S = size of the picture.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from umif.corpus.phantom_anatomy import draw_chest
from umif.corpus.phantom_bones import draw_bones
from umif.corpus.phantom_description import FINDINGS, Description, describe
from umif.corpus.phantom_film import expose
from umif.corpus.phantom_findings import PhantomRegion, draw_findings
from umif.corpus.phantom_text import Question, write_caption, write_questions, write_report
from umif.corpus.processes import work_in_processes
from umif.errors import InputError, RunError, StorageError, UmifError
from umif.rng import keyed_rng

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = 1
SIZES = (32, 2048)
# Every image has its labels; texts and regions are given to some only, so that kinds differ as they do in real corpora.
SHARES = {"report": 0.5, "caption": 0.3, "regions": 0.4}
# Film grain does not repeat, so looking for repetitions costs a third of the time and makes the files larger.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
_PART = 64  # images drawn and noted together
_DONE, _RECORDS, _IMAGES, _PARTS = "phantom.json", "records.jsonl", "images", "parts"


@dataclass(frozen=True, slots=True)
class PhantomCase:
    """One phantom: the film, what is on it and where."""

    image: NDArray[np.uint8]
    regions: tuple[PhantomRegion, ...]
    description: Description

    @property
    def labels(self) -> dict[str, str]:
        """State of each label, `No Finding` included."""
        return dict(self.description.labels)

    @property
    def report(self) -> str:
        """Findings and impression."""
        return write_report(self.description)

    @property
    def caption(self) -> str:
        """One sentence."""
        return write_caption(self.description)

    @property
    def questions(self) -> list[Question]:
        """Questions with answers."""
        return write_questions(self.description)

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The mask of each finding, both sides together. Shapes: (S, S) each."""
        masks: dict[str, NDArray[np.bool_]] = {}
        for region in self.regions:
            masks[region.name] = masks[region.name] | region.mask if region.name in masks else region.mask
        return masks


def draw_phantom(
    seed: int,
    index: int,
    size: int = 224,
    *,
    clarity: float = 0.0,
    spread: float = 1.0,
    only: Collection[str] = FINDINGS,
) -> PhantomCase:
    """Return phantom `index` of the series `seed`; see `write_phantom` for the arguments.

    Shapes: image (S, S) uint8.

    Example:
        >>> draw_phantom(0, 3, 64).image.shape
        (64, 64)
    """
    return draw_description(describe(seed, index, clarity=clarity, spread=spread, only=only), size)


def draw_description(description: Description, size: int) -> PhantomCase:
    """Return the phantom of a description."""
    layers = draw_chest(description, size)
    regions = tuple(draw_findings(layers))
    draw_bones(layers)
    return PhantomCase(expose(layers), regions, description)


def write_phantom(
    out: Path,
    images: int,
    seed: int = 0,
    size: int = 224,
    workers: int = 1,
    *,
    clarity: float = 0.0,
    spread: float = 1.0,
    only: Collection[str] = FINDINGS,
) -> None:
    """Write a series of phantoms as a dataset on disk.

    Safe to stop and to call again: finished parts are kept, a finished dataset is left as it is. The bytes depend on
    arguments only, not on `workers`; the first images of a longer series are those of a shorter one.

    Args:
        out: Folder to make; may exist if it is empty or holds this very series, whole or in part.
        images: How many.
        seed: Names the series.
        size: Pixels along a side.
        workers: Processes that draw.
        clarity: Least contrast and size of a finding, 0 to 1.
        spread: How far place and exposure of the films stray, as a multiple of the usual, 0 to 3.
        only: Findings that may be drawn and spoken of; all unless told.

    Raises:
        InputError: an argument out of its range, or a folder that holds something else.
        RunError: another process is writing there.
        StorageError: the disk refused.
    """
    _check(images, size, workers)
    for name, value, largest in (("clarity", clarity, 1), ("spread", spread, 3)):
        if not 0 <= value <= largest:
            raise InputError(f"a {name} of {value:g} cannot be drawn", where=name, fix=f"choose 0 to {largest}")
    for name in only:
        if name not in FINDINGS:
            raise InputError(f"{name!r} cannot be drawn", where="only", fix=f"known: {', '.join(FINDINGS)}")
    chosen = [name for name in FINDINGS if name in only]
    series = {"clarity": float(clarity), "spread": float(spread), "only": chosen}
    plan = {"format": FORMAT, "images": images, "seed": seed, "size": size, **series}
    try:
        with _owned(out, plan) as finished:
            if not finished:
                _draw_parts(out, plan, workers)
                _finish(out, plan)
            shutil.rmtree(out / _PARTS, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"the phantoms cannot be written: {error.strerror or error}", where=out) from error


def _check(images: int, size: int, workers: int) -> None:
    if images < 1:
        raise InputError(f"{images} phantoms cannot be drawn", where="images", fix="ask for one at least")
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(
            f"a size of {size} pixels cannot be drawn", where="size", fix=f"choose {SIZES[0]} to {SIZES[1]}"
        )
    if workers < 1:
        raise InputError(f"{workers} workers cannot draw", where="workers", fix="choose one at least")


@contextlib.contextmanager
def _owned(out: Path, plan: dict[str, Any]) -> Iterator[bool]:
    """Hold the folder for this process alone; gives whether it is finished."""
    out.mkdir(parents=True, exist_ok=True)
    parts = out / _PARTS
    done, begun = out / _DONE, parts / "plan.json"
    held = next((file for file in (done, begun) if file.exists()), None)
    if held is None and any(entry.name != _PARTS for entry in out.iterdir()):
        raise InputError("the folder is not empty and holds no phantoms", where=out, fix="choose another one")
    if held is not None and _read_plan(held) != plan:
        raise InputError("the folder holds other phantoms", where=held, fix="choose another folder, or remove this one")
    if held == done:
        yield True
        return
    parts.mkdir(exist_ok=True)
    with (parts / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("another process draws phantoms here", where=out, fix="wait for it") from None
        _replace(begun, json.dumps(plan).encode())
        (out / _IMAGES).mkdir(exist_ok=True)
        yield False


def _read_plan(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _draw_parts(out: Path, plan: dict[str, Any], workers: int) -> None:
    starts = [start for start in range(0, plan["images"], _PART) if not _part_file(out, start).exists()]
    draw = partial(_draw_part, out, plan)

    def died(_: object) -> UmifError:
        return UmifError("a process that draws phantoms died", where=out, fix="the same call goes on")

    for _ in work_in_processes(draw, starts, min(workers, len(starts)), died):
        pass


def _draw_part(out: Path, plan: dict[str, Any], start: int) -> None:
    """Draw some images, and note them once all are there."""
    lines = []
    for index in range(start, min(start + _PART, plan["images"])):
        chosen = {key: plan[key] for key in ("clarity", "spread", "only")}
        case = draw_phantom(plan["seed"], index, plan["size"], **chosen)
        record = to_record(case)
        _replace(out / record["image"], encode_png(case.image))
        lines.append(json.dumps(record, separators=(",", ":")) + "\n")
    _replace(_part_file(out, start), "".join(lines).encode())


def _finish(out: Path, plan: dict[str, Any]) -> None:
    parts = (_part_file(out, start) for start in range(0, plan["images"], _PART))
    _replace(out / _RECORDS, b"".join(part.read_bytes() for part in parts), durable=True)
    _replace(out / _DONE, (json.dumps(plan) + "\n").encode(), durable=True)


def to_record(case: PhantomCase) -> dict[str, Any]:
    """Return a line of `records.jsonl`: everything about an image, with `null` for supervision that it lacks."""
    description = case.description
    rng = keyed_rng(description.seed, "phantom-supervision", step=description.index)
    given = {kind: rng.random() < share for kind, share in SHARES.items()}
    regions = [
        {"finding": region.name, "side": region.side, "box": region.box, "runs": encode_runs(region.mask)}
        for region in case.regions
    ]
    return {
        "image": f"{_IMAGES}/{description.patient}_{description.followup}.png",
        "width": case.image.shape[1],
        "height": case.image.shape[0],
        "patient": description.patient,
        "study": description.study,
        "view": description.view,
        "sex": description.sex,
        "age_years": description.age_years,
        "labels": case.labels,
        "report": case.report if given["report"] else None,
        "caption": case.caption if given["caption"] else None,
        "regions": regions if given["regions"] else None,
        "questions": case.questions,
        "description": description.to_json(),
    }


def encode_png(image_SS: NDArray[np.uint8]) -> bytes:
    """Return the picture's file."""
    done, data = cv2.imencode(".png", image_SS, _PNG)
    if not done:
        raise UmifError(f"a picture of shape {image_SS.shape} cannot be encoded as PNG")
    return bytes(data)


def encode_runs(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Return lengths of alternating background and foreground runs, column by column (COCO's order).

    Example:
        >>> encode_runs(np.array([[True, False], [True, True]]))
        [0, 2, 1, 1]
    """
    flat = mask_HW.T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [len(flat)]])
    runs: list[int] = np.diff(bounds).tolist()
    return [0, *runs] if flat[0] else runs


def _part_file(out: Path, start: int) -> Path:
    return out / _PARTS / f"{start:08d}.jsonl"


def _replace(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write a file that is there whole or not at all."""
    partial_path = path.parent / f".{path.name}.part"
    with partial_path.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial_path.replace(path)
