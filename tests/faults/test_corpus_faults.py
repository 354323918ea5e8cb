"""What a corpus promises when things go wrong: kills, crashes, two writers, full disks, damaged files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

TOY = Path(__file__).resolve().parents[1] / "unit" / "corpus"
sys.path.insert(0, str(TOY))

from toy_dataset import ToyReader, write_rows, write_toy  # noqa: E402 - the toy lives beside the corpus's own tests

from umif.config import REGISTRY  # noqa: E402
from umif.corpus import Corpus, Manifest, PrepareConfig, build, prepare  # noqa: E402
from umif.corpus.processes import work_in_processes  # noqa: E402
from umif.corpus.sources import read_source  # noqa: E402
from umif.errors import CorpusError, ImageError, LayoutError, UmifError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = PrepareConfig(shorter_side=32)
IMAGES = 12

# A build that is slow enough to be killed in its midst: arguments are the toy's folder, raw folder, OUT and workers.
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy_dataset import ToyReader
from umif.config import REGISTRY
from umif.corpus import PrepareConfig, build, prepare, shards
REGISTRY.names("reader")
REGISTRY.register("reader", "toy")(ToyReader)
build.SHARD_RECORDS = 2
if __name__ == "__main__":
    go = Path(sys.argv[5])
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.005)
    from umif.errors import CorpusError
    try:
        config = PrepareConfig(shorter_side=32)
        manifest = prepare(sys.argv[3], [("toy", sys.argv[2])], config, workers=int(sys.argv[4]), progress=False)
    except CorpusError as error:
        print(error)
        sys.exit(error.exit_code)
    print(manifest.fingerprint)
"""


@pytest.fixture(autouse=True)
def _toy_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    REGISTRY.names("reader")
    monkeypatch.setitem(REGISTRY._entries["reader"], "toy", ToyReader)
    monkeypatch.setattr(build, "SHARD_RECORDS", 2)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    write_toy(tmp_path / "raw", IMAGES)
    return tmp_path / "raw"


def _prepare(out: Path, raw: Path, **options: Any) -> Manifest:
    return prepare(out, [("toy", raw)], CONFIG, **{"workers": 1, "progress": False, **options})


def _start(tmp_path: Path, raw: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(TOY), str(raw), str(out), str(workers), str(tmp_path / "go")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _sidecars(out: Path) -> int:
    return len(list((out / ".build").glob("*.json")))


@pytest.mark.parametrize(("workers", "after"), [(1, 1), (1, 4), (2, 2)])
def test_a_killed_build_goes_on_to_the_same_corpus(tmp_path: Path, raw: Path, workers: int, after: int) -> None:
    whole = _prepare(tmp_path / "whole", raw)
    process = _start(tmp_path, raw, tmp_path / "out", workers)
    (tmp_path / "go").touch()
    while _sidecars(tmp_path / "out") < after and process.poll() is None:
        time.sleep(0.001)
    workers_left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.communicate()
    # Nobody goes on writing behind a dead build's back.
    _, alive = psutil.wait_procs(workers_left, timeout=20)
    assert not alive
    if not (tmp_path / "out" / "corpus.json").exists():
        with pytest.raises(CorpusError, match="unfinished"):
            Corpus.open(tmp_path / "out")
    kept = _sidecars(tmp_path / "out")
    assert _prepare(tmp_path / "out", raw).fingerprint == whole.fingerprint
    assert kept >= after or kept == 0
    assert Corpus.open(tmp_path / "out").images_table().equals(Corpus.open(tmp_path / "whole").images_table())


class Crash(BaseException):
    """The machine stops here."""


class Boundaries:
    """Counts the calls that change the disk, and crashes or fails at the one wanted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, failure: BaseException) -> None:
        self.calls, self.at, self.failure = 0, at, failure
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self._guard(getattr(owner, name)))

    def _guard(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise self.failure
            return real(*arguments, **options)

        return call


def _each_boundary(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], Manifest], failure: BaseException
) -> Iterator[int]:
    """Yield after a run that was stopped at its first, second, … boundary, until one runs through."""
    for at in range(1, 1000):
        with monkeypatch.context() as patch:
            boundaries = Boundaries(patch, at, failure)
            with suppress(Crash):
                run()
            if boundaries.calls < at:
                return
        yield at
    raise AssertionError("the build never ran through")


@pytest.mark.parametrize("start", ["nothing", "a finished corpus"])
def test_a_crash_at_any_boundary_leaves_no_corpus_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    write_toy(tmp_path / "raw", 2)
    write_toy(tmp_path / "old", 1, seed=1)
    whole = _prepare(tmp_path / "whole", tmp_path / "raw")
    old = _prepare(tmp_path / "before", tmp_path / "old")
    out = tmp_path / "out"

    def run() -> Manifest:
        if start == "a finished corpus":
            subprocess.run(["cp", "-a", str(tmp_path / "before"), str(out)], check=True)
        return _prepare(out, tmp_path / "raw", overwrite=True)

    stops = 0
    for at in _each_boundary(monkeypatch, run, Crash()):
        stops = at
        try:
            found = Corpus.open(out)
        except CorpusError:
            pass
        else:
            assert found.fingerprint in (whole.fingerprint, old.fingerprint)
            assert found.images_table().num_rows == found.manifest.images
        assert _prepare(out, tmp_path / "raw", overwrite=True).fingerprint == whole.fingerprint
        assert Corpus.open(out).pairs_table().equals(Corpus.open(tmp_path / "whole").pairs_table())
        assert sorted(path.name for path in out.iterdir()) == [
            ".lock",
            "corpus.json",
            "images.lance",
            "ledger.jsonl",
            "pairs.lance",
        ]
        shutil.rmtree(out)
    assert stops >= 20


def test_a_full_disk_is_a_typed_error_and_what_was_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path / "raw", 4)
    whole = _prepare(tmp_path / "whole", tmp_path / "raw")
    for at in (1, 4, 7, 10, 13):
        with monkeypatch.context() as patch:
            Boundaries(patch, at, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(UmifError, match="No space left on device") as error:
                _prepare(tmp_path / "out", tmp_path / "raw")
        assert error.value.fix is not None
        assert "goes on where it stopped" in error.value.fix
    assert _prepare(tmp_path / "out", tmp_path / "raw").fingerprint == whole.fingerprint


@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
@pytest.mark.parametrize("kind", ["images.arrow", "pairs.arrow", "json"])
def test_a_damaged_shard_is_built_again(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, damage: str, kind: str
) -> None:
    whole = _prepare(tmp_path / "whole", raw)
    with monkeypatch.context() as patch:
        patch.setattr(build, "assemble", lambda *_: (_ for _ in ()).throw(Crash()))
        with pytest.raises(Crash):
            _prepare(tmp_path / "out", raw)
    for file in sorted((tmp_path / "out" / ".build").glob(f"*.{kind}"))[:5]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "remove":
            file.unlink()
        else:
            file.write_bytes(bytes(data) if damage == "flip" else data[: len(data) // 2])
    assert _prepare(tmp_path / "out", raw).fingerprint == whole.fingerprint


def test_of_several_writers_one_wins_and_the_others_are_told(tmp_path: Path, raw: Path) -> None:
    processes = [_start(tmp_path, raw, tmp_path / "out", 1) for _ in range(3)]
    (tmp_path / "go").touch()
    answers = [process.communicate()[0] for process in processes]
    whole = _prepare(tmp_path / "whole", raw).fingerprint
    assert whole in [answer.strip() for answer in answers]
    for process, answer in zip(processes, answers, strict=True):
        # One that came after the winner had finished finds the corpus done: that is no conflict.
        assert answer.strip() == whole or ("another process is building" in answer and process.returncode == 2)
    assert Corpus.open(tmp_path / "out").fingerprint == whole


def test_of_eight_writers_at_the_same_moment_seven_are_refused(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier, inside, results = threading.Barrier(8), threading.Event(), []
    real = read_source

    def held(*arguments: Any) -> Any:
        inside.wait(20)  # the winner waits until all others have tried
        return real(*arguments)

    def write() -> None:
        barrier.wait()
        try:
            results.append(_prepare(tmp_path / "out", raw).fingerprint)
        except CorpusError as error:
            results.append(str(error))
            if len(results) == 7:
                inside.set()

    monkeypatch.setattr(build, "read_source", held)
    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("another process is building this corpus" in result for result in results) == 7
    assert results[-1] == Corpus.open(tmp_path / "out").fingerprint


def test_a_dead_worker_is_a_typed_error_and_the_build_goes_on_later(tmp_path: Path, raw: Path) -> None:
    def kill_one() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.005)
        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(UmifError, match="a worker process died"):
        _prepare(tmp_path / "out", raw, workers=2)
    killer.join()
    assert _prepare(tmp_path / "out", raw).fingerprint == _prepare(tmp_path / "whole", raw).fingerprint


@pytest.mark.parametrize("failure", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("handle is closed")])
def test_a_worker_that_dies_while_it_is_started_is_a_typed_error(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    def broken(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(ProcessPoolExecutor, "submit", broken)
    with pytest.raises(UmifError, match="a worker process died"):
        _prepare(tmp_path / "out", raw, workers=2)


@pytest.mark.parametrize("pause_s", [0.0, 0.5])
def test_a_worker_that_dies_while_another_is_started_leaves_none_waiting(
    monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    start = vars(ProcessPoolExecutor)["_adjust_process_count"]

    def start_after_a_death(pool: Any) -> None:
        if pool._processes:
            os.kill(next(iter(pool._processes)), signal.SIGKILL)
            time.sleep(pause_s)
        start(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_adjust_process_count", start_after_a_death)
    with pytest.raises(UmifError, match="gone"):
        list(work_in_processes(time.sleep, [0.05] * 9, 3, lambda _: UmifError("gone")))
    for child in multiprocessing.active_children():
        child.join(30)
        assert not child.is_alive()


def test_a_stopped_build_leaves_no_worker_behind(tmp_path: Path, raw: Path) -> None:
    (raw / "images" / "000.png").write_text("no picture")
    with pytest.raises(CorpusError, match="cannot be read"):
        prepare(tmp_path / "out", [("toy", raw)], PrepareConfig(bad_share_max=0), workers=2, progress=False)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), "unreadable file"),
        (ImageError("takes too long", reason="too_slow"), "too_slow"),
    ],
)
def test_a_file_that_the_machine_would_not_give_is_tried_again(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    real = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "003.png":
            raise failure
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(CorpusError, match=rf"003\.png \({reason}\)"):
            prepare(tmp_path / "out", [("toy", raw)], PrepareConfig(bad_share_max=0), workers=1, progress=False)
    manifest = prepare(tmp_path / "out", [("toy", raw)], PrepareConfig(bad_share_max=0), workers=1, progress=False)
    assert manifest.quarantined == 0


def test_things_that_are_no_file_do_not_hang_the_build(tmp_path: Path, raw: Path) -> None:
    for name, make in (("001.png", os.mkfifo), ("002.png", os.mkdir)):
        (raw / "images" / name).unlink()
        make(raw / "images" / name)
    config = PrepareConfig(shorter_side=32, bad_share_max=0.5)
    manifest = prepare(tmp_path / "out", [("toy", raw)], config, workers=1, progress=False)
    assert manifest.quarantined == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == ["not a file", "not a file"]


def test_names_that_are_no_text_are_refused_and_can_be_listed(tmp_path: Path) -> None:
    rows = write_toy(tmp_path / "raw", 3)
    (tmp_path / "raw" / "images" / "001.png").rename(tmp_path / "raw" / "images" / "\udcff.png")
    rows[1]["image"] = "\udcff.png"
    rows[2]["texts"] = [["report", "half a pair \ud83d", "report"]]
    write_rows(tmp_path / "raw", rows)
    config = PrepareConfig(shorter_side=32, bad_share_max=0.9)
    assert prepare(tmp_path / "out", [("toy", tmp_path / "raw")], config, workers=1, progress=False).quarantined == 2
    ledger = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert [(row["item"], row["reason"]) for row in ledger] == [("\udcff.png", "no text"), ("002.png", "no text")]


def test_a_table_that_the_disk_would_not_give_is_a_typed_error(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> str:
        raise OSError(errno.EIO, "Input/output error", "records.json")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", failing)
        with pytest.raises(LayoutError, match="Input/output error"):
            _prepare(tmp_path / "out", raw)


def test_a_corpus_that_was_replaced_after_it_was_opened_is_not_read(tmp_path: Path, raw: Path) -> None:
    _prepare(tmp_path / "out", raw)
    sent = pickle.dumps(Corpus.open(tmp_path / "out"))
    write_toy(raw, 3)
    _prepare(tmp_path / "out", raw, overwrite=True)
    with pytest.raises(CorpusError, match="was replaced"):
        pickle.loads(sent).take_jpegs([0])


# ---- opening what is no whole corpus


def test_a_folder_without_a_manifest_is_no_corpus(tmp_path: Path, raw: Path) -> None:
    _prepare(tmp_path / "out", raw)
    (tmp_path / "out" / "corpus.json").unlink()
    with pytest.raises(CorpusError, match=r"holds no corpus\.json"):
        Corpus.open(tmp_path / "out")
    with pytest.raises(CorpusError, match="no such folder"):
        Corpus.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 99}', '{"format": 1}', '{"format": "1"}', "\xff\x00"]
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, raw: Path, text: str) -> None:
    _prepare(tmp_path / "out", raw)
    (tmp_path / "out" / "corpus.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorpusError) as error:
        Corpus.open(tmp_path / "out")
    assert "corpus.json" in str(error.value.where)
    assert error.value.fix is not None
    assert _prepare(tmp_path / "out", raw, overwrite=True).images == IMAGES


@pytest.mark.parametrize("name", ["images.lance", "pairs.lance"])
def test_a_corpus_that_lost_a_part_is_refused(tmp_path: Path, raw: Path, name: str) -> None:
    _prepare(tmp_path / "out", raw)
    shutil.rmtree(tmp_path / "out" / name)
    with pytest.raises(CorpusError) as error:
        Corpus.open(tmp_path / "out")
    assert name in str(error.value.where)


def test_a_part_of_another_corpus_is_noticed(tmp_path: Path, raw: Path) -> None:
    _prepare(tmp_path / "out", raw)
    write_toy(tmp_path / "less", 3)
    _prepare(tmp_path / "other", tmp_path / "less")
    shutil.rmtree(tmp_path / "out" / "pairs.lance")
    shutil.copytree(tmp_path / "other" / "pairs.lance", tmp_path / "out" / "pairs.lance")
    with pytest.raises(CorpusError, match="the manifest says"):
        Corpus.open(tmp_path / "out")


def test_a_corpus_travels_to_spawned_workers_as_its_path(tmp_path: Path, raw: Path) -> None:
    _prepare(tmp_path / "out", raw)
    corpus = Corpus.open(tmp_path / "out")
    jpegs = corpus.take_jpegs([5, 2])
    assert len(pickle.dumps(corpus)) < 5000
    assert pickle.loads(pickle.dumps(corpus)).take_jpegs([5, 2]) == jpegs
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(Corpus.take_jpegs, corpus, [5, 2]).result() == jpegs
