"""Shards: a few hundred records read, re-encoded and written by one worker process, whole or not at all.

A shard's key is a hash of everything that it is made from. Its two Arrow files are written first and its sidecar
`<key>.json` last, each in one move; so a sidecar that names files of the right size and hash means a finished shard,
which a later run takes over, and anything else is made again.

Workers get plain data and write files: they run no reader, map no label and need no Lance.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umif.corpus.geometry import RegionProblem, stored_region
from umif.corpus.manifest import write_atomically
from umif.corpus.schema import FORMAT, IMAGES, PAIRS
from umif.errors import ImageError
from umif.imaging import DecodeLimits, decode, encode_jpeg, resize_shorter_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from umif.readers.base import Record

# Large enough that a shard costs more than its bookkeeping, small enough that a kill loses seconds.
SHARD_RECORDS = 256
# Staged images have no split yet (it needs all hashes), and carry the stored picture's hash for the fingerprint.
STAGED_IMAGES = pa.schema([column for column in IMAGES if column.name != "split"]).append(
    pa.field("jpeg_sha256", pa.string(), nullable=False)
)
# `image_row` counts from the shard's first image here.
STAGED_PAIRS = pa.schema([column for column in PAIRS if column.name != "split"])


@dataclass(frozen=True, slots=True)
class Item:
    """A record on its way into the corpus; its paths are relative to `root`.

    Attributes:
        findings: The vocabulary's id of each of the record's findings, or `None`.
        region_findings: The same for its regions.
    """

    dataset: str
    root: Path
    record: Record
    findings: tuple[str | None, ...]
    region_findings: tuple[str | None, ...]

    @property
    def image(self) -> str:
        """The image's id in the corpus."""
        return f"{self.dataset}/{self.record.image_id}"

    @property
    def patient(self) -> str:
        """The patient's key in the corpus; an image of nobody known is a patient of its own."""
        if self.record.patient is None:
            return f"{self.dataset}/image:{self.record.image_id}"
        return f"{self.record.patient_namespace or self.dataset}/{self.record.patient}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """The settings that a shard's content depends on."""

    shorter_side: int
    jpeg_quality: int
    limits: DecodeLimits
    # Not in `repr`, so that shards made without it keep their keys.
    jpeg_scaling: bool = field(default=False, repr=False)


@dataclass(frozen=True, slots=True)
class Shard:
    """Records to be built together, and the key that names the result."""

    key: str
    dataset: str
    items: tuple[Item, ...]


def shard_of(items: Sequence[Item], encoding: Encoding) -> Shard:
    """Return the shard of `items`, keyed by the settings, the records, and the size and time of each file."""
    digest = hashlib.sha256(repr((FORMAT, encoding)).encode())
    if encoding.jpeg_scaling:
        digest.update(b"jpeg_scaling")
    for item in items:
        masks = [region.mask_path for region in item.record.regions if region.mask_path is not None]
        stats = [_file_state(item.root / path) for path in (item.record.image, *masks)]
        known = (item.dataset, item.record, item.findings, item.region_findings, stats)
        digest.update(repr(known).encode())
        if item.record.questions:  # not in the record's repr, so that images without any keep their keys
            digest.update(repr(item.record.questions).encode())
    return Shard(digest.hexdigest(), items[0].dataset, tuple(items))


def _file_state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def read_sidecar(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the sidecar of a finished shard, or `None` if the shard has to be made (again)."""
    try:
        sidecar = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        for name, expected in sidecar["files"].items():
            data = (folder / name).read_bytes()
            if len(data) != expected["size"] or hashlib.sha256(data).hexdigest() != expected["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # A file that the disk would not give, or not in time, may come next time; bytes that are no picture stay so.
    return None if not isinstance(sidecar, dict) or sidecar.get("retry") else sidecar


def build_shard(shard: Shard, folder: Path, encoding: Encoding) -> dict[str, Any]:
    """Read, re-encode and write one shard into `folder`; return its sidecar.

    Raises:
        OSError: the shard could not be written.
    """
    images: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    retry = False
    for item in shard.items:
        where = item.record.image.as_posix()
        try:
            row, original, stored = _image_row(item, encoding)
        except ImageError as error:
            retry = retry or error.reason == "too_slow"  # the machine may have been busy
            ledger.append(ledger_row(item.dataset, item.record.image_id, "image", error.reason, error.what, where))
            continue
        except OSError as error:
            retry = retry or not isinstance(error, FileNotFoundError)
            reason = "missing file" if isinstance(error, FileNotFoundError) else "unreadable file"
            ledger.append(ledger_row(item.dataset, item.record.image_id, "image", reason, error.strerror, where))
            continue
        regions, hashes = _region_rows(item, original, stored, ledger)
        pairs += _pair_rows(item, row, len(images), regions, hashes)
        images.append(row)
    files = {}
    for name, rows, schema in (("images", images, STAGED_IMAGES), ("pairs", pairs, STAGED_PAIRS)):
        files[f"{shard.key}.{name}.arrow"] = _write_rows(folder / f"{shard.key}.{name}.arrow", rows, schema)
    sidecar = {"images": len(images), "pairs": len(pairs), "files": files, "ledger": ledger, "retry": retry}
    write_atomically(folder / f"{shard.key}.json", json.dumps(sidecar).encode())
    return sidecar


def ledger_row(
    dataset: str, item: str, stage: str, reason: str, error: str | None = None, where: str | None = None
) -> dict[str, Any]:
    """Return a line of the ledger: `stage` is read, image or region."""
    return {"dataset": dataset, "item": item, "stage": stage, "reason": reason, "error": error, "where": where}


def _write_rows(file: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> dict[str, Any]:
    sink = BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema).combine_chunks())
    data = sink.getvalue()
    write_atomically(file, data)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read_bounded(file: Path, max_bytes: int) -> bytes:
    """Return a regular file's bytes; one over the limit is refused before it is read."""
    if not file.is_file():
        if file.exists():
            raise ImageError("is no regular file", reason="not a file", where=file)
        raise FileNotFoundError(2, "there is no such file")
    size = os.stat(file).st_size  # noqa: PTH116 - reads as what it is beside the limit
    if size > max_bytes:
        raise ImageError(f"has {size} bytes, the limit is {max_bytes}", reason="too_large", where=file)
    return file.read_bytes()


def small_jpeg(data: bytes, name: str, encoding: Encoding) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """Return a file's bytes as the JPEG that is stored, and its size (height, width) before and after.

    Raises:
        ImageError: it is no readable, whole picture; errors call it `name`.
    """
    side = encoding.shorter_side
    image = decode(data, name=name, limits=encoding.limits, shorter_side=side if encoding.jpeg_scaling else None)
    small = resize_shorter_side(image.pixels, side)
    height, width = image.full_size or image.pixels.shape
    return encode_jpeg(small, encoding.jpeg_quality), (height, width), (small.shape[0], small.shape[1])


def _image_row(item: Item, encoding: Encoding) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
    """Return the image's row and its size (height, width) before and after it was made smaller."""
    record = item.record
    data = _read_bounded(item.root / record.image, encoding.limits.max_bytes)
    name = record.image.as_posix()
    jpeg, original, stored = small_jpeg(data, name, encoding)
    row = {
        "image": item.image,
        "dataset": item.dataset,
        "source": record.image.as_posix(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "jpeg": jpeg,
        "jpeg_sha256": hashlib.sha256(jpeg).hexdigest(),
        "height": stored[0],
        "width": stored[1],
        "original_height": original[0],
        "original_width": original[1],
        "patient": item.patient,
        "study": record.study,
        "view": record.view,
        "sex": record.sex,
        "age_years": record.age_years,
        "official_split": record.split,
        "findings": [
            {"raw": finding.name, "finding": known, "state": finding.state.value}
            for finding, known in zip(record.findings, item.findings, strict=True)
        ],
        "questions": [
            {
                "question": question.question,
                "answer": question.answer,
                "answer_type": question.answer_type,
                "question_type": question.question_type,
                "official_split": question.split,
            }
            for question in record.questions
        ],
    }
    return row, original, stored


def _region_rows(
    item: Item, original: tuple[int, int], stored: tuple[int, int], ledger: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    rows, hashes = [], []
    for region, known in zip(item.record.regions, item.region_findings, strict=True):
        try:
            row, digest = stored_region(region, known, root=item.root, original=original, stored=stored)
        except RegionProblem as problem:
            where = item.record.where if region.mask_path is None else region.mask_path.as_posix()
            name = f"{item.record.image_id} [{region.finding}]"
            ledger.append(ledger_row(item.dataset, name, "region", problem.reason, problem.what, where))
            continue
        rows.append(row)
        hashes.append(digest)
    return rows, hashes


def _pair_rows(
    item: Item, image: dict[str, Any], image_row: int, regions: list[dict[str, Any]], region_hashes: list[str]
) -> list[dict[str, Any]]:
    """Return one pair per text, one for the labels if any is stated, one for the regions if there are any."""
    record = item.record
    shared = {name: image[name] for name in ("image", "dataset", "findings", "patient", "study", "view")}
    shared |= {"image_row": image_row, "source": record.where}
    rows: list[dict[str, Any]] = []

    def add(kind: str, number: int, supervision: Any, **columns: Any) -> None:
        pair = f"{item.image}#{kind}" + (str(number) if number > 1 else "")
        digest = hashlib.sha256(json.dumps([image["sha256"], kind, supervision], ensure_ascii=False).encode())
        blank: dict[str, Any] = {"text": None, "text_source": None, "regions": []}
        rows.append({**shared, **blank, **columns, "pair": pair, "kind": kind, "hash": digest.hexdigest()})

    numbers = {"report": 0, "caption": 0}
    for text in record.texts:
        if text.text.strip():
            numbers[text.kind] += 1
            add(text.kind, numbers[text.kind], [text.text, text.source], text=text.text, text_source=text.source)
    if any(finding["state"] != "not_mentioned" for finding in image["findings"]):
        add("class", 1, image["findings"])
    if regions:
        add("segment", 1, region_hashes, regions=regions)
    return rows


def relative_record(record: Record, root: Path) -> Record | None:
    """Return the record with all paths relative to `root`, or `None` if one of them leads out of it.

    The check is on the names alone: a link inside the folder may point anywhere its owner put it.
    """
    base = os.path.abspath(root)  # noqa: PTH100 - Path.resolve would follow links

    def relative(path: Path) -> Path | None:
        absolute = os.path.abspath(path)  # noqa: PTH100
        return Path(absolute[len(base) :].lstrip(os.sep)) if absolute.startswith(base.rstrip(os.sep) + os.sep) else None

    image = relative(record.image)
    if image is None:
        return None
    regions = []
    for region in record.regions:
        if region.mask_path is not None:
            mask = relative(region.mask_path)
            if mask is None:
                return None
            region = replace(region, mask_path=mask)
        regions.append(region)
    return replace(record, image=image, regions=tuple(regions), where=relative_where(record.where, root))


def relative_where(where: str | None, root: Path) -> str | None:
    """Return `file:line` without the root folder's own path, which tells of a machine and not of the data."""
    if where is None:
        return None
    for prefix in (str(root), os.path.abspath(root)):  # noqa: PTH100 - Path.resolve would follow links
        where = where.removeprefix(prefix.rstrip(os.sep) + os.sep)
    return where
