"""The manifest `corpus.json`: what a corpus holds, what it was made from, and by which settings.

It is written last and in one move, so a folder that has one is whole, and a folder that has none is no corpus.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from umif.config import Config
from umif.corpus.schema import FORMAT
from umif.errors import CorpusError
from umif.imaging import DecodeLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MANIFEST = "corpus.json"
IMAGES_FOLDER = "images.lance"
PAIRS_FOLDER = "pairs.lance"
LEDGER = "ledger.jsonl"


class PrepareConfig(Config):
    """How raw folders become a corpus.

    The paper trains on 224 × 224 crops; a shorter side of 256 leaves room to crop and costs 18 kB an image.
    """

    shorter_side: int = Field(256, ge=16, le=4096, description="Shorter side of the stored picture, pixels")
    jpeg_quality: int = Field(95, ge=50, le=100, description="Quality of the stored JPEG")
    splits: Literal["official", "patients"] = Field(
        "official",
        description="official: datasets' own test and validation images stay such; patients: the hash places everyone",
    )
    split_seed: int = Field(0, ge=0, description="Changes who goes where among patients without an official split")
    val_share: float = Field(0.1, ge=0, lt=1, description="Share of those patients in val")
    test_share: float = Field(0.2, ge=0, lt=1, description="Share of those patients in test")
    bad_share_max: float = Field(0.05, ge=0, le=1, description="Unreadable share of a dataset above which to stop")
    limits: DecodeLimits = Field(default_factory=DecodeLimits, description="Bounds on what is decoded")

    @field_validator("test_share")
    @classmethod
    def _leaves_some_to_train(cls, test_share: float, info: Any) -> float:
        if test_share + info.data.get("val_share", 0) >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return test_share


class ReaderCount(BaseModel):
    """What became of everything that one reader met: seen = excluded + quarantined + images."""

    model_config = ConfigDict(frozen=True)

    name: str
    seen: int
    yielded: int
    excluded: dict[str, int]
    notes: dict[str, int]
    images: int
    quarantined: int
    dropped_regions: int
    pairs: dict[str, int]
    splits: dict[str, int]


class Manifest(BaseModel):
    """What a finished corpus says of itself.

    Attributes:
        format: Version of the layout in `corpus/schema.py`.
        fingerprint: SHA-256 over every image, pair and split in order; equal fingerprints mean equal corpora, whatever
            folder they were made in and by however many processes.
        inputs: SHA-256 over everything the corpus is made from; tells whether it would come out the same again.
        quarantined: Images that could not be read; each is a line of the ledger.
        dropped_regions: Regions left out (a mask of another size, nothing inside); each is a line of the ledger.
        unmapped: Labels that the vocabulary does not know, with how often they occur; they are kept as they are.
        generated: Texts by language models: how many, how many found no image, and their jobs, models and prompts.
        duplicates: Images whose raw file repeats that of an earlier image; they are kept, in one split.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    fingerprint: str
    inputs: str
    umif: str
    config: PrepareConfig
    readers: list[ReaderCount]
    images: int
    pairs: dict[str, int]
    splits: dict[str, int]
    quarantined: int
    dropped_regions: int
    duplicates: int
    unmapped: dict[str, int]
    generated: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        return self.model_dump(mode="json")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of the corpus in `folder`.

    Raises:
        CorpusError: there is no corpus, it is unfinished, or its format is another.
    """
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not folder.is_dir():
            raise CorpusError("there is no such folder", where=folder, fix="make a corpus by: umif prepare") from None
        what = "this corpus is unfinished" if (folder / ".build").exists() else f"this folder holds no {MANIFEST}"
        raise CorpusError(what, where=folder, fix="run umif prepare (again): it goes on where it stopped") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"cannot be read: {error}", where=file, fix="run umif prepare with overwrite") from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise CorpusError(
            f"the corpus has format {found!r}, this UmiF reads format {FORMAT}",
            where=file,
            fix="run umif prepare into a new folder, or install the UmiF that wrote it",
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CorpusError(f"{key}: {first['msg']}", where=file, fix="run umif prepare with overwrite") from None


def write_atomically(file: Path, data: bytes) -> None:
    """Write `file` so that after a crash it is either whole or as it was before.

    The name of the temporary file holds machine and process id: two processes never write into one file.
    """
    temporary = file.with_name(f"{file.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """Return `data` as indented JSON that ends in a newline."""
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one line of JSON for each row; a file name that is no text is escaped, as JSON does."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return lines.encode("utf-8", "backslashreplace")
