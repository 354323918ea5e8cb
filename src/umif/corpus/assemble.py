"""From finished shards to one corpus: splits, the two Lance datasets, the fingerprint, and the commit.

Splits need the hash of every file, so they are known only here. The shards are streamed once into Lance inside the
build folder; then what is finished moves into place, and the manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from umif.corpus.manifest import (
    IMAGES_FOLDER,
    LEDGER,
    MANIFEST,
    PAIRS_FOLDER,
    json_bytes,
    json_lines,
    sync,
    write_atomically,
)
from umif.corpus.schema import IMAGES, PAIR_KINDS, PAIRS, SPLITS
from umif.corpus.splits import assign_splits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from umif.corpus.manifest import Manifest, PrepareConfig
    from umif.corpus.shards import Shard
    from umif.readers.base import Split


@dataclass(slots=True)
class Assembled:
    """What was assembled: counts per dataset, and the fingerprint."""

    fingerprint: str = ""
    images: Counter[str] = field(default_factory=Counter)
    pairs: dict[str, Counter[str]] = field(default_factory=dict)
    splits: dict[str, Counter[str]] = field(default_factory=dict)
    duplicates: int = 0


def assemble(folder: Path, shards: Sequence[Shard], config: PrepareConfig) -> Assembled:
    """Write `images.lance` and `pairs.lance` into the build folder from its shards, in their order.

    Raises:
        OSError: a shard cannot be read, or the datasets cannot be written.
    """
    result = Assembled(
        pairs={shard.dataset: Counter(dict.fromkeys(PAIR_KINDS, 0)) for shard in shards},
        splits={shard.dataset: Counter(dict.fromkeys(SPLITS, 0)) for shard in shards},
    )
    splits = _splits(folder, shards, config, result)
    digest = hashlib.sha256(json.dumps([config.shorter_side, config.jpeg_quality]).encode())
    _write_lance(folder / IMAGES_FOLDER, IMAGES, _image_batches(folder, shards, splits, digest))
    _write_lance(folder / PAIRS_FOLDER, PAIRS, _pair_batches(folder, shards, splits, digest, result))
    result.fingerprint = digest.hexdigest()
    return result


def commit(out: Path, folder: Path, manifest: Manifest, ledger: Iterable[dict[str, Any]]) -> None:
    """Move what was assembled in `folder` into `out`, write ledger and manifest, and remove `folder`.

    Until the manifest is there, `out` is no corpus: a crash on the way costs the moving, not the building.
    """
    (out / MANIFEST).unlink(missing_ok=True)
    sync(out)
    for name in (IMAGES_FOLDER, PAIRS_FOLDER):
        if (out / name).exists():
            shutil.rmtree(out / name)
        (folder / name).rename(out / name)
    write_atomically(out / LEDGER, json_lines(ledger))
    write_atomically(out / MANIFEST, json_bytes(manifest.to_json()))
    shutil.rmtree(folder)


def _splits(folder: Path, shards: Sequence[Shard], config: PrepareConfig, result: Assembled) -> list[Split]:
    """Return the split of each image over all shards, and count images, splits and repeated files."""
    columns = ["dataset", "patient", "sha256", "official_split"]
    table = pa.concat_tables([_read(folder, shard, "images").select(columns) for shard in shards])
    dataset, patient, sha256, official = (table.column(name).to_pylist() for name in columns)
    splits = assign_splits(
        patient,
        sha256,
        official if config.splits == "official" else [None] * len(official),
        seed=config.split_seed,
        val_share=config.val_share,
        test_share=config.test_share,
    )
    result.images.update(dataset)
    result.duplicates = len(sha256) - len(set(sha256))
    for name, split in zip(dataset, splits, strict=True):
        result.splits[name][split] += 1
    return splits


def _image_batches(
    folder: Path, shards: Sequence[Shard], splits: list[Split], digest: hashlib._Hash
) -> Iterator[pa.RecordBatch]:
    start = 0
    for shard in shards:
        table = _read(folder, shard, "images")
        if "questions" not in table.column_names:  # a shard that was finished before there were any
            table = table.append_column("questions", pa.nulls(len(table), IMAGES.field("questions").type))
        stop = start + len(table)
        table = table.append_column("split", pa.array(splits[start:stop], pa.string()))
        for row in table.drop_columns(["jpeg"]).to_pylist():
            if not row["questions"]:  # so that corpora without questions keep their fingerprint
                del row["questions"]
            _feed(digest, row)
        yield from table.select(IMAGES.names).cast(IMAGES).to_batches()
        start = stop


def _pair_batches(
    folder: Path, shards: Sequence[Shard], splits: list[Split], digest: hashlib._Hash, result: Assembled
) -> Iterator[pa.RecordBatch]:
    start = 0
    for shard in shards:
        table = _read(folder, shard, "pairs")
        rows = pc.add(table.column("image_row"), pa.scalar(start, pa.int64()))
        table = table.set_column(table.schema.get_field_index("image_row"), "image_row", rows)
        table = table.append_column("split", pa.array([splits[row] for row in rows.to_pylist()], pa.string()))
        # The hash stands for text and geometry.
        for row in table.select(["pair", "image_row", "split", "hash"]).to_pylist():
            _feed(digest, row)
        result.pairs[shard.dataset].update(table.column("kind").to_pylist())
        yield from table.select(PAIRS.names).cast(PAIRS).to_batches()
        start += _count(folder, shard)


def _feed(digest: hashlib._Hash, row: dict[str, Any]) -> None:
    digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _read(folder: Path, shard: Shard, name: str) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(folder / f"{shard.key}.{name}.arrow"))).read_all()


def _count(folder: Path, shard: Shard) -> int:
    return int(json.loads((folder / f"{shard.key}.json").read_text(encoding="utf-8"))["images"])


def _write_lance(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    if path.exists():
        shutil.rmtree(path)
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(path), schema=schema)
    for written in (path, *path.rglob("*")):
        sync(written)
