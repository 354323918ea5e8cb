"""Raw dataset folders → one corpus.

    readers → records → shards of a few hundred records, by worker processes → splits → two Lance datasets → manifest

Everything is built in `OUT/.build` and moved into place at the end; `corpus.json` is written last. A run that was
killed goes on from the shards that it had finished. What the corpus is made from is hashed first, so preparing a
finished corpus again costs reading the tables, and other inputs never overwrite it silently.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umif.config import REGISTRY
from umif.corpus.assemble import assemble, commit
from umif.corpus.manifest import (
    MANIFEST,
    Manifest,
    PrepareConfig,
    ReaderCount,
    json_lines,
    read_manifest,
    write_atomically,
)
from umif.corpus.mirror import local_root
from umif.corpus.pixels import remove_pixels, write_pixels
from umif.corpus.progress import Bar
from umif.corpus.schema import FORMAT, PAIR_KINDS, SPLITS
from umif.corpus.shards import (
    SHARD_RECORDS,
    Encoding,
    Shard,
    read_sidecar,
    shard_of,
)
from umif.corpus.sources import Source, count_unmapped, read_source
from umif.corpus.store import Corpus
from umif.corpus.texts import GeneratedTexts
from umif.corpus.workers import Engine, RunShards, build_shards, engine_named
from umif.errors import CorpusError, EmptyError, ReaderContractError, UmifError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from umif.readers.base import Reader

BUILD_FOLDER = ".build"
LOCK = ".lock"
_NAMED_EXAMPLES = 3


def prepare(
    out: str | Path,
    sources: Sequence[tuple[str, str | Path]],
    config: PrepareConfig | None = None,
    *,
    workers: int | None = None,
    engine: Engine = "local",
    overwrite: bool = False,
    progress: bool = True,
    texts: Sequence[str | Path] = (),
    cache: str | Path | None = None,
    cache_limit: int | None = None,
    pixels: bool = False,
) -> Manifest:
    """Make the corpus `out` from raw dataset folders, or return at once if it is made already.

    Args:
        out: The corpus's folder; made if missing. Only the corpus's own files in it are touched.
        sources: (reader's name, root folder or its URL) of each dataset; their order does not matter.
        config: How pictures are stored and patients are split.
        workers: Processes; by default one per core. 1 local one works in this process. The corpus is the same.
        engine: `local` processes, or those of a `ray` cluster: that of RAY_ADDRESS, else one started on this machine.
            Every node must see the raw folders and `out` under the same paths.
        overwrite: Replace a finished corpus that was made from other inputs.
        progress: Show a bar on standard error for work over two seconds.
        texts: Tables that `umif texts` wrote; their reports become further pairs of their images.
        cache: Folder that datasets behind URLs are fetched into; see `umif.corpus.mirror`.
        cache_limit: What one of them may hold at most, bytes.
        pixels: Also keep the pictures decoded (`add_pixels`).

    Raises:
        ConfigError: no engine of that name, or Ray is not installed.
        CorpusError: `out` is being built by another process, is a finished corpus of other inputs, or too large a
            share of a dataset's images cannot be read.
        EmptyError: no sources, or a dataset without images.
        RegistryError: no reader of that name.
        LayoutError: a root folder does not look as its reader expects.
        RemoteError: a URL cannot be read.
        UmifError: the disk is full or a worker process died; what was finished is kept.

    Example:
        >>> prepare("corpus", [("nih-chestxray14", "raw/nih")])  # doctest: +SKIP
    """
    config = config or PrepareConfig()
    folder = Path(out)
    run = engine_named(engine)
    _check_names([name for name, _ in sources])
    generated = GeneratedTexts.read([Path(file) for file in texts])
    with Bar(progress) as bar:
        place = None if cache is None else Path(cache)
        readers = _readers([(name, local_root(root, place, bar, cache_limit)) for name, root in sources])
    with _locked(folder), Bar(progress) as bar:
        read = [read_source(name, reader, bar, generated) for name, reader in readers]
        manifest = _build(folder, read, config, run, workers, overwrite, bar, generated)
        if pixels:
            _write_pixels(folder, bar)
        return manifest


def add_pixels(out: str | Path, *, progress: bool = True) -> Manifest:
    """Keep the pictures of a finished corpus decoded beside their JPEGs, so that training reads them faster.

    Batches are the same bit for bit with the copy and without, the fingerprint stays, and the copy's folder (`pixels`)
    may be deleted at any time. It takes a byte a pixel, 4 to 5 times what the JPEGs take.

    Raises:
        CorpusError: there is no finished corpus in `out`, or another process is building it.
        UmifError: the disk is full.
    """
    folder = Path(out)
    read_manifest(folder)  # no folder is made where there is no corpus
    with _locked(folder), Bar(progress) as bar:
        return _write_pixels(folder, bar)


def _write_pixels(folder: Path, bar: Bar) -> Manifest:
    corpus = Corpus.open(folder)
    with _disk_trouble(folder):
        write_pixels(corpus, bar)
    return corpus.manifest


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise EmptyError("there is nothing to prepare", fix="name a dataset and its folder: --from NAME=ROOT")
    for name, count in Counter(names).items():
        REGISTRY.get("reader", name)
        if count > 1:
            raise CorpusError(
                f"the dataset {name!r} is given {count} times", fix="give each dataset once, or build two"
            )


def _readers(sources: Sequence[tuple[str, Path]]) -> list[tuple[str, Reader]]:
    # In one order, so that the order on the command line changes nothing.
    return [(name, REGISTRY.get("reader", name)(root)) for name, root in sorted(sources, key=lambda source: source[0])]


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the corpus's lock; it goes with the process, however that ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CorpusError(f"cannot be used as a corpus folder: {error.strerror}", where=out) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for it, or choose another folder"
            raise CorpusError("another process is building this corpus", where=out, fix=fix) from None
        yield
    finally:
        os.close(handle)


def _build(
    out: Path,
    sources: list[Source],
    config: PrepareConfig,
    run: RunShards,
    workers: int | None,
    overwrite: bool,
    bar: Bar,
    generated: GeneratedTexts,
) -> Manifest:
    encoding = Encoding(config.shorter_side, config.jpeg_quality, config.limits, config.jpeg_scaling)
    shards = [
        shard_of(source.items[start : start + SHARD_RECORDS], encoding)
        for source in sources
        for start in range(0, len(source.items), SHARD_RECORDS)
    ]
    inputs = _inputs_key(sources, shards, config, generated.sha256)
    folder = out / BUILD_FOLDER
    finished = _finished(out, inputs, overwrite)
    if finished is not None:
        shutil.rmtree(folder, ignore_errors=True)  # left by a kill after the manifest was written
        return finished
    with _disk_trouble(out):
        folder.mkdir(exist_ok=True)
        build = partial(build_shards, folder=folder, encoding=encoding, workers=workers, run=run)
        sidecars = _build_shards(folder, sources, shards, config, build, bar)
        if not any(sidecar["images"] for sidecar in sidecars):
            raise EmptyError("no image could be read", where=_write_ledger(folder, _ledger(sources, shards, sidecars)))
        assembled = assemble(folder, shards, config)
        ledger = _ledger(sources, shards, sidecars)
        counts = [_reader_count(source, ledger, assembled) for source in sources]
        manifest = Manifest(
            format=FORMAT,
            fingerprint=assembled.fingerprint,
            inputs=inputs,
            umif=version("umif"),
            config=config,
            readers=counts,
            images=sum(count.images for count in counts),
            pairs={kind: sum(count.pairs[kind] for count in counts) for kind in PAIR_KINDS},
            splits={split: sum(count.splits[split] for count in counts) for split in SPLITS},
            quarantined=sum(count.quarantined for count in counts),
            dropped_regions=sum(count.dropped_regions for count in counts),
            duplicates=assembled.duplicates,
            unmapped=count_unmapped(sources),
            generated=generated.account(),
        )
        remove_pixels(out)  # those of a corpus that is replaced
        commit(out, folder, manifest, ledger)
    return manifest


def _inputs_key(sources: list[Source], shards: list[Shard], config: PrepareConfig, texts: str) -> str:
    """Return a hash over everything that decides how the corpus comes out."""
    placing = [config.splits, config.split_seed, config.val_share, config.test_share]
    parts = [[FORMAT, *placing], [shard.key for shard in shards]]
    ledgers = [source.ledger for source in sources]
    return hashlib.sha256(json.dumps([parts, ledgers, *([texts] if texts else [])]).encode()).hexdigest()


def _finished(out: Path, inputs: str, overwrite: bool) -> Manifest | None:
    """Return the manifest if `out` holds the corpus of these inputs, `None` if it is to be built."""
    if not (out / MANIFEST).exists():
        return None
    try:
        manifest = Corpus.open(out).manifest
    except CorpusError:
        if overwrite:
            return None
        raise
    if manifest.inputs == inputs:
        return manifest
    if overwrite:
        return None
    raise CorpusError(
        "the folder holds a finished corpus of other inputs (datasets, files, vocabulary or settings differ)",
        where=out,
        fix="choose another folder, or replace it with overwrite",
    )


def _build_shards(
    folder: Path,
    sources: list[Source],
    shards: list[Shard],
    config: PrepareConfig,
    build: Callable[[list[Shard]], Generator[tuple[Shard, dict[str, Any]], None, None]],
    bar: Bar,
) -> list[dict[str, Any]]:
    """Return the sidecar of every shard, building those that are not finished."""
    bad: dict[str, list[dict[str, Any]]] = {source.name: list(_bad(source.ledger)) for source in sources}
    totals = {source.name: source.yielded for source in sources}
    done: dict[str, dict[str, Any]] = {}

    def finish(shard: Shard, sidecar: dict[str, Any]) -> None:
        done[shard.key] = sidecar
        bar.advance(len(shard.items))
        bad[shard.dataset].extend(_bad(sidecar["ledger"]))
        if len(bad[shard.dataset]) > config.bad_share_max * totals[shard.dataset]:
            _too_many_bad(folder, shard.dataset, bad[shard.dataset], totals[shard.dataset], config)

    bar.start("encoding images", sum(len(shard.items) for shard in shards))
    missing = []
    for shard in shards:
        sidecar = read_sidecar(folder, shard.key)
        if sidecar is None:
            missing.append(shard)
        else:
            finish(shard, sidecar)
    with closing(build(missing)) as built:  # a stop here stops the workers
        for shard, sidecar in built:
            finish(shard, sidecar)
    return [done[shard.key] for shard in shards]


def _bad(ledger: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in ledger if row["stage"] == "image")


def _too_many_bad(folder: Path, dataset: str, bad: list[dict[str, Any]], total: int, config: PrepareConfig) -> None:
    file = _write_ledger(folder, bad)
    examples = "; ".join(f"{row['item']} ({row['reason']})" for row in bad[:_NAMED_EXAMPLES])
    raise CorpusError(
        f"{len(bad)} of {total} images of {dataset} cannot be read, over the limit of {config.bad_share_max:.1%}: "
        f"{examples}{' …' if len(bad) > _NAMED_EXAMPLES else ''}",
        where=file,
        fix="mend or remove the files listed there, or raise bad_share_max",
    )


def _write_ledger(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "stopped.jsonl"
    write_atomically(file, json_lines(rows))
    return file


def _ledger(sources: list[Source], shards: list[Shard], sidecars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for source in sources:
        rows += source.ledger
        for shard, sidecar in zip(shards, sidecars, strict=True):
            if shard.dataset == source.name:
                rows += sidecar["ledger"]
    return rows


def _reader_count(source: Source, ledger: list[dict[str, Any]], assembled: Any) -> ReaderCount:
    stages = Counter(row["stage"] for row in ledger if row["dataset"] == source.name)
    account = source.account
    count = ReaderCount(
        name=source.name,
        seen=account.seen,
        yielded=account.yielded,
        excluded=account.excluded,
        notes=dict(sorted(account.notes.items())),
        images=assembled.images[source.name],
        quarantined=stages["image"],
        dropped_regions=stages["region"],
        pairs=dict(assembled.pairs.get(source.name, dict.fromkeys(PAIR_KINDS, 0))),
        splits=dict(assembled.splits.get(source.name, dict.fromkeys(SPLITS, 0))),
    )
    if count.images + count.quarantined != count.yielded:
        raise ReaderContractError(
            f"{count.yielded} records of {source.name} became {count.images} images and {count.quarantined} bad ones",
            fix="please report this: an image was lost or invented",
        )
    return count


@contextmanager
def _disk_trouble(out: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what was kept."""
    try:
        yield
    except OSError as error:
        raise UmifError(
            f"the corpus could not be written: {error.strerror or error}",
            where=out,
            fix="make room or mend the permissions and run it again: it goes on where it stopped",
        ) from error
