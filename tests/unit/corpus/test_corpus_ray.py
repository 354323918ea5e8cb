"""The engine `ray`: the corpus of the local processes, whatever happens to its workers; on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from toy_dataset import ToyReader, write_toy

from umif.cli import main
from umif.config import REGISTRY
from umif.corpus import Corpus, Manifest, PrepareConfig, build, prepare
from umif.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("ray_builds.py")
IMAGES = 12

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'umif[ray]' to run this test"
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "raw"
    write_toy(folder, IMAGES)
    (folder / "images" / "005.png").unlink()  # so that the ledger is not empty
    return folder


CONFIG = PrepareConfig(shorter_side=32, bad_share_max=0.1)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for Ray's temporary files: short, since its sockets lie there."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="u") as folder:
        yield Path(folder)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    REGISTRY.names("reader")
    monkeypatch.setitem(REGISTRY._entries["reader"], "toy", ToyReader)
    monkeypatch.setattr(build, "SHARD_RECORDS", 2)


def _locally(out: Path, raw: Path) -> Manifest:
    return prepare(out, [("toy", raw)], CONFIG, workers=1, progress=False)


def _environment(**more: str) -> dict[str, str]:
    # Coverage answers SIGTERM itself, in the place of the program that is tested, so it does not follow these programs.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "RAY_ADDRESS" and not name.startswith("COVERAGE_PROCESS_")
    }
    return {**kept, **more}


def _start(what: str, raw: Path, out: Path, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), what, str(raw), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(TMPDIR=str(temporary)),
        start_new_session=True,
    )


def _half_way(process: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """Wait until a shard is finished; return all processes that the build has started."""
    while process.poll() is None and not list((out / ".build").glob("*.json")):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    started: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    return started


def _assert_same(left: Path, right: Path) -> None:
    one, other = Corpus.open(left), Corpus.open(right)
    assert one.fingerprint == other.fingerprint
    assert one.images_table().equals(other.images_table())
    assert one.pairs_table().equals(other.pairs_table())
    rows = list(range(one.manifest.images))
    assert one.take_jpegs(rows) == other.take_jpegs(rows)
    assert (left / "ledger.jsonl").read_bytes() == (right / "ledger.jsonl").read_bytes()
    assert one.manifest == other.manifest


@needs_ray
@pytest.mark.slow
def test_ray_builds_the_corpus_of_the_local_processes(tmp_path: Path, raw: Path, short_folder: Path, toy: None) -> None:
    _locally(tmp_path / "local", raw)
    process = _start("slow", raw, tmp_path / "ray", short_folder)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    _assert_same(tmp_path / "local", tmp_path / "ray")
    assert output.splitlines()[-1] == Corpus.open(tmp_path / "local").fingerprint
    assert errors == ""
    assert list(short_folder.iterdir()) == []


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_ends_its_ray_and_goes_on_to_the_same_corpus(
    tmp_path: Path, raw: Path, short_folder: Path, toy: None, how: signal.Signals
) -> None:
    process = _start("slow", raw, tmp_path / "out", short_folder)
    started = _half_way(process, tmp_path / "out")
    assert len(started) > 2  # Ray's own and its workers
    if how == signal.SIGTERM:
        process.send_signal(how)
    else:  # as Ctrl-C at a terminal reaches them all
        os.killpg(process.pid, how)
    process.communicate()
    left = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143}
    assert process.returncode == left[how]
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    if how != signal.SIGKILL:
        assert list(short_folder.iterdir()) == []
    assert not (tmp_path / "out" / "corpus.json").exists()
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out" / ".build").glob("*.json")}
    assert kept
    again = _start("slow", raw, tmp_path / "out", short_folder)
    while again.poll() is None and not (tmp_path / "out" / "corpus.json").exists():
        for name, written in kept.items():
            file = tmp_path / "out" / ".build" / name
            if again.poll() is None and file.exists():
                assert file.stat().st_mtime_ns == written  # a finished shard is not built again
        time.sleep(0.01)
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    _locally(tmp_path / "local", raw)
    _assert_same(tmp_path / "local", tmp_path / "out")


@pytest.fixture(scope="module")
def faults(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("faults")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="u") as temporary:
        process = _start("faults", raw, folder, Path(temporary))
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    return {**json.loads(output.splitlines()[-1]), "folder": folder}


@needs_ray
@pytest.mark.slow
class TestWhatBecomesOfAFaultInAWorker:
    def test_a_typed_error_arrives_as_it_was_raised(self, faults: dict[str, Any]) -> None:
        assert faults["a typed error"] == {
            "type": "ImageError",
            "what": "is not to be had",
            "where": "002.png",
            "fix": "take another",
            "reason": "planted",
        }

    def test_the_build_goes_on_later(self, faults: dict[str, Any], raw: Path, tmp_path: Path, toy: None) -> None:
        _locally(tmp_path / "local", raw)
        assert faults["after a typed error"] == {"fingerprint": Corpus.open(tmp_path / "local").fingerprint}
        _assert_same(tmp_path / "local", faults["folder"] / "typed")

    def test_a_full_disk_says_what_it_says_locally(self, faults: dict[str, Any]) -> None:
        assert "could not be written: No space left on device" in faults["a full disk"]["what"]
        assert "goes on where it stopped" in faults["a full disk"]["fix"]

    def test_a_lost_worker_costs_its_shard_only(
        self, faults: dict[str, Any], raw: Path, tmp_path: Path, toy: None
    ) -> None:
        _locally(tmp_path / "local", raw)
        assert faults["a worker lost once"] == {"fingerprint": Corpus.open(tmp_path / "local").fingerprint}

    def test_a_shard_that_kills_its_workers_is_named(self, faults: dict[str, Any]) -> None:
        found = faults["a worker lost again and again"]
        assert found["type"] == "UmifError"
        assert "a worker process died while it built the shards that begin with toy/0" in found["what"]

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            ("other libraries", "other libraries than the main process: numpy"),
            ("a shard out of sight", "where the main process does not see it"),
            ("a raw folder out of sight", "does not see the folder of toy (/no/such/folder)"),
        ],
    )
    def test_what_would_change_the_corpus_silently_is_refused(
        self, faults: dict[str, Any], fault: str, said: str
    ) -> None:
        assert faults[fault]["type"] == "UmifError"
        assert said in faults[fault]["what"]
        assert faults[fault]["fix"]

    def test_a_ray_of_the_callers_own_is_left_running(self, faults: dict[str, Any]) -> None:
        assert faults["still connected"] is True


@needs_ray
def test_a_cluster_that_is_not_there_is_an_error_at_once(tmp_path: Path, raw: Path) -> None:
    code = "import sys; from umif.cli import main; sys.exit(main(sys.argv[1:]))"
    listing = tmp_path / "folder"
    (listing / "normal").mkdir(parents=True)
    (listing / "normal" / "000.png").write_bytes((raw / "images" / "000.png").read_bytes())
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "prepare",
            str(tmp_path / "out"),
            "--from",
            f"folder={listing}",
            "--engine",
            "ray",
        ],
        env=_environment(RAY_ADDRESS="127.0.0.1:9"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Ray cannot be reached at 127.0.0.1:9" in done.stderr
    assert "RAY_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_ray_the_fix_is_said_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["prepare", str(tmp_path / "out"), "--from", "phantom=nowhere", "--engine", "ray"]) == 2
    assert "pip install 'umif[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ray'"):
        prepare(tmp_path / "out", [("phantom", tmp_path)], engine="rai")  # type: ignore[arg-type]


def test_the_local_engine_needs_no_ray() -> None:
    code = "import sys, umif.corpus.build, umif.corpus.workers; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
