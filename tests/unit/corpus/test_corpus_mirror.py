"""A corpus from a URL is the corpus from the folder, whatever breaks off on the way."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from PIL import Image

from byte_search import found_in
from umif.cli import main
from umif.cli.arguments import dataset_source
from umif.corpus import mirror, prepare, remote
from umif.corpus.mirror import default_cache, local_root
from umif.corpus.progress import Bar
from umif.corpus.remote import ATTEMPTS, is_url, shown
from umif.errors import CorpusError, EmptyError, InputError, LayoutError, RemoteError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from umif.corpus.manifest import Manifest

PICTURES = 12
URL = "memory://bucket/set"


@pytest.fixture(autouse=True)
def _no_pauses_and_an_empty_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0.0)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of pictures with a table, one of them in a name that URLs quote."""
    root = tmp_path / "raw"
    rows = ["image_path,patient_id,report,label"]
    for number in range(PICTURES):
        name = f"images/{'a b é' if number == 3 else number}.png"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 44)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        rows.append(f"{name},P{number // 2},Report {number}.,Cardiomegaly")
    (root / "cases.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


@pytest.fixture
def store(raw: Path) -> MemoryFileSystem:
    """The same files at `URL`."""
    system = fsspec.filesystem("memory")
    for path in raw.rglob("*"):
        if path.is_file():
            system.pipe_file(f"/bucket/set/{path.relative_to(raw).as_posix()}", path.read_bytes())
    return system


class Fetches:
    """Counts and spoils what the memory file system hands out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spoil: Any = None) -> None:
        self.names: Counter[str] = Counter()
        fetch = MemoryFileSystem.get_file
        lock = threading.Lock()

        def get_file(system: MemoryFileSystem, rpath: str, lpath: str, **options: Any) -> None:
            with lock:
                self.names[rpath.rpartition("/set/")[2]] += 1
                count = self.names.total()
            fetch(system, rpath, lpath, **options)
            if spoil is not None:
                spoil(rpath, Path(lpath), count)

        monkeypatch.setattr(MemoryFileSystem, "get_file", get_file)


def make(out: Path, root: str | Path, cache: Path | None = None, **options: Any) -> Manifest:
    return prepare(out, [("table", root)], workers=1, progress=False, cache=cache, **options)


def fetched(root: str, cache: Path, **options: Any) -> Path:
    return local_root(root, cache, Bar(False), **options)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class TestTheSameCorpus:
    @pytest.mark.parametrize("root", [URL, f"{URL}/", f"{URL}/cases.csv"])
    def test_from_an_object_store(self, raw: Path, store: MemoryFileSystem, tmp_path: Path, root: str) -> None:
        here, there = make(tmp_path / "here", raw), make(tmp_path / "there", root, tmp_path / "cache")
        assert there.fingerprint == here.fingerprint
        assert there.images == PICTURES
        assert there.readers == here.readers
        ledgers = [(tmp_path / name / "ledger.jsonl").read_bytes() for name in ("here", "there")]
        assert ledgers[0] == ledgers[1]

    def test_knows_nothing_of_the_cache(self, store: MemoryFileSystem, tmp_path: Path) -> None:
        cache = tmp_path / "cache-Grimalkin"
        make(tmp_path / "corpus", URL, cache)
        assert found_in([tmp_path / "corpus"], ["Grimalkin", "images/3.png", "images/1.png"]).keys() == {"images/1.png"}

    def test_made_from_another_cache_is_no_other_corpus(self, store: MemoryFileSystem, tmp_path: Path) -> None:
        first = make(tmp_path / "corpus", URL, tmp_path / "one")
        assert make(tmp_path / "corpus", URL, tmp_path / "two") == first  # and not "of other inputs"
        store.pipe_file("/bucket/set/images/0.png", store.cat_file("/bucket/set/images/1.png"))
        with pytest.raises(CorpusError, match="other inputs"):
            make(tmp_path / "corpus", URL, tmp_path / "two")

    @pytest.mark.parametrize("inner", ["", "deep/set"])
    def test_from_a_zip(self, raw: Path, tmp_path: Path, inner: str) -> None:
        with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files(raw).items():
                archive.writestr(f"{inner}/{name}".lstrip("/"), data)
        url = f"zip://{inner}::file://{tmp_path / 'set.zip'}"
        assert make(tmp_path / "b", url, tmp_path / "cache").fingerprint == make(tmp_path / "a", raw).fingerprint

    def test_from_a_file_url_without_any_copy(self, raw: Path, tmp_path: Path) -> None:
        made = make(tmp_path / "b", f"file://{raw}", tmp_path / "cache")
        assert made.fingerprint == make(tmp_path / "a", raw).fingerprint
        assert not (tmp_path / "cache").exists()

    def test_by_the_command_line(
        self, raw: Path, store: MemoryFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["prepare", str(tmp_path / "b"), "--from", f"table={URL}", "--workers", "1", "--json"]
        assert main([*command, "--cache", str(tmp_path / "cache")]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["fingerprint"] == make(tmp_path / "a", raw).fingerprint
        assert main([*command, "--cache", str(tmp_path / "other"), "--cache-limit", "0.000001"]) == 2
        assert "--cache-limit" in capsys.readouterr().err


class TestTransfers:
    def test_a_second_time_nothing_is_fetched(
        self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetches = Fetches(monkeypatch)
        folder = fetched(URL, tmp_path)
        assert fetches.names.total() == PICTURES + 1
        assert fetched(URL, tmp_path) == folder
        assert fetches.names.total() == PICTURES + 1

    def test_what_changed_is_fetched_and_what_is_gone_removed(
        self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = fetched(URL, tmp_path)
        store.pipe_file("/bucket/set/images/0.png", b"other bytes")
        store.pipe_file("/bucket/set/new/folder/x.png", b"new")
        store.rm_file("/bucket/set/images/1.png")
        (folder / "images" / "2.png").write_bytes(b"spoilt here")
        fetches = Fetches(monkeypatch)
        fetched(URL, tmp_path)
        assert set(fetches.names) == {"images/0.png", "new/folder/x.png", "images/2.png"}
        expected = {path.removeprefix("/bucket/set/"): store.cat_file(path) for path in store.find("/bucket/set")}
        assert files(folder) == expected

    def test_a_killed_transfer_goes_on_and_leaves_no_half_file(
        self, raw: Path, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror, "TRANSFERS", 1)

        def kill(_: str, local: Path, count: int) -> None:
            if count >= 6:
                local.write_bytes(local.read_bytes()[:10])
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            Fetches(patch, kill)
            with pytest.raises(KeyboardInterrupt):
                fetched(URL, tmp_path / "cache")
        (folder,) = (tmp_path / "cache").glob("*/files")
        whole = files(raw)
        done = files(folder)
        assert len(done) == 5
        assert all(whole[name] == data for name, data in done.items())
        (index,) = (tmp_path / "cache").glob("*/index.jsonl")
        index.write_text(index.read_text() + '\n{"name": "images/9')  # the line that the kill cut off
        fetches = Fetches(monkeypatch)
        assert files(fetched(URL, tmp_path / "cache")) == whole
        assert fetches.names.total() == PICTURES + 1 - 5

    def test_several_at_a_time(
        self, raw: Path, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meet = threading.Barrier(4, timeout=60)

        def wait(_: str, local: Path, count: int) -> None:
            if count <= 4:
                meet.wait()  # passes only if four transfers are under way at once

        Fetches(monkeypatch, wait)
        assert files(fetched(URL, tmp_path / "cache")) == files(raw)

    def test_a_cut_off_transfer_is_tried_again(
        self, raw: Path, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = {"images/5.png": ATTEMPTS - 1, "cases.csv": 1}

        def cut(path: str, local: Path, _: int) -> None:
            name = path.rpartition("/set/")[2]
            if left.get(name, 0):
                left[name] -= 1
                local.write_bytes(local.read_bytes()[:-7])

        Fetches(monkeypatch, cut)
        assert files(fetched(URL, tmp_path / "cache")) == files(raw)
        assert not any(left.values())

    def test_one_that_is_always_cut_off_is_an_error_that_keeps_the_rest(
        self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut(path: str, local: Path, _: int) -> None:
            if path.endswith("/5.png"):
                local.write_bytes(b"short")

        Fetches(monkeypatch, cut)
        with pytest.raises(RemoteError, match=r"images/5\.png.*broke off.*5 of \d+ bytes"):
            fetched(URL, tmp_path)
        assert not list(tmp_path.glob("*/files/images/5.png"))

    @pytest.mark.parametrize(
        ("problem", "message"),
        [(PermissionError(13, "no"), "no right"), (FileNotFoundError(2, "gone"), "no such file")],
    )
    def test_no_right_and_not_there_are_said_at_once(
        self,
        store: MemoryFileSystem,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        problem: OSError,
        message: str,
    ) -> None:
        def refuse(path: str, *_: object) -> None:
            if path.endswith("cases.csv"):
                raise problem

        fetches = Fetches(monkeypatch, refuse)
        with pytest.raises(RemoteError, match=message) as caught:
            fetched(URL, tmp_path)
        assert caught.value.where == f"{URL}/cases.csv"
        assert caught.value.exit_code == 2
        assert fetches.names["cases.csv"] == 1


class TestLimits:
    def test_more_than_is_allowed(self, store: MemoryFileSystem, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="limit"):
            fetched(URL, tmp_path, max_bytes=1000)
        assert not list(tmp_path.glob("*/files/**/*.png"))

    def test_too_many_files(self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mirror, "MAX_FILES", PICTURES)
        with pytest.raises(RemoteError, match="over 12 files"):
            fetched(URL, tmp_path)

    def test_a_disk_without_room(
        self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = shutil.disk_usage(tmp_path)._replace(free=2**28)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: state)
        with pytest.raises(StorageError, match="--cache"):
            fetched(URL, tmp_path)

    def test_a_disk_that_fills_up(
        self, store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        fetches = Fetches(monkeypatch, full)
        with pytest.raises(StorageError, match="No space left"):
            fetched(URL, tmp_path)
        assert max(fetches.names.values()) == 1, "tried again, as if it were the network"

    def test_a_cache_that_is_a_file(self, store: MemoryFileSystem, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError):
            fetched(URL, tmp_path / "file")


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("s3://bucket/a", True), ("memory://a", True), ("zip://::/a.zip", True), ("https://host/a", True),
            ("/data/a", False), ("data/a", False), ("C:/data", False), ("a:b", False), ("./x://y", False),
        ],
    )  # fmt: skip
    def test_are_told_from_paths(self, text: str, expected: bool) -> None:
        assert is_url(text) is expected
        assert dataset_source(f"table={text}") == ("table", text if expected else Path(text))

    def test_are_shown_without_secrets(self) -> None:
        secret = "https://me:hunter2@host:80/a/b?X-Signature=hunter2#hunter2"
        assert shown(secret) == "https://host:80/a/b"
        assert shown(f"zip://in::{secret}") == "zip://in::https://host:80/a/b"

    def test_of_an_unknown_protocol(self, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="nosuch") as caught:
            fetched("nosuch://bucket/a", tmp_path)
        assert "s3" in str(caught.value.fix)

    @pytest.mark.parametrize("url", ["lacking://bucket/a", "zip://::lacking://bucket/a.zip"])
    def test_of_a_protocol_whose_package_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        known = {"class": "package_that_nobody_has.FileSystem", "err": "Install it to read this"}
        monkeypatch.setitem(known_implementations, "lacking", known)
        with pytest.raises(RemoteError, match="pip install package_that_nobody_has"):
            fetched(url, tmp_path)

    def test_with_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="no such file or folder"):
            fetched("memory://nowhere/at/all", tmp_path)
        fsspec.filesystem("memory").mkdir("/bucket/empty")
        with pytest.raises(EmptyError):
            fetched("memory://bucket/empty", tmp_path)
        with pytest.raises(RemoteError, match="no such file"):
            fetched(f"zip://::file://{tmp_path}/none.zip", tmp_path)
        with pytest.raises(LayoutError):
            make(tmp_path / "out", f"file://{tmp_path}/none")

    @pytest.mark.parametrize("name", ["../outside.png", "a/../../outside.png", "/abs.png", "a\\..\\b.png"])
    def test_that_name_files_outside_are_refused(self, tmp_path: Path, name: str) -> None:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
            archive.writestr("good.png", b"x")
            archive.writestr(name, b"x")
        with pytest.raises(RemoteError):
            fetched(f"zip://::file://{tmp_path}/bad.zip", tmp_path / "cache" / "deep")
        assert {path.name for path in tmp_path.rglob("*.png")} <= {"good.png"}

    def test_of_damaged_archives(self, raw: Path, tmp_path: Path) -> None:
        file = tmp_path / "set.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files(raw).items():
                archive.writestr(name, data)
        data = file.read_bytes()
        file.write_bytes(data[:400] + bytes([data[400] ^ 255]) + data[401:])
        with pytest.raises(RemoteError, match="CRC"):
            fetched(f"zip://::file://{file}", tmp_path / "cache")
        file.write_bytes(data[:-30])
        with pytest.raises(RemoteError, match="BadZipFile"):
            fetched(f"zip://::file://{file}", tmp_path / "cache")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv(mirror.CACHE_VARIABLE, raising=False)
    assert default_cache() == Path("/xdg/umif")
    monkeypatch.setenv(mirror.CACHE_VARIABLE, "/own")
    assert default_cache() == Path("/own")


class Server(SimpleHTTPRequestHandler):
    """A web server whose transfers break off, and which keeps a part to itself."""

    breaks: ClassVar[Counter[str]] = Counter()
    gets: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.gets[name] += 1
        if "private" in self.path:
            self.send_error(403)
        elif self.breaks[name] > 0:
            self.breaks[name] -= 1
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if "private" in self.path:
            self.send_error(403)
        else:
            super().do_HEAD()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(tmp_path: Path, raw: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="reading http:// takes the package aiohttp")
    Server.breaks, Server.gets = Counter(), Counter()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


class TestWebServers:
    def test_the_same_corpus_though_transfers_break_off(self, server: str, raw: Path, tmp_path: Path) -> None:
        Server.breaks.update({"4.png": 2, "cases.csv": 1})
        made = make(tmp_path / "b", f"{server}/raw/", tmp_path / "cache")
        assert made.fingerprint == make(tmp_path / "a", raw).fingerprint
        assert Server.gets["4.png"] == 3
        before = Server.gets["4.png"], Server.gets["5.png"]
        make(tmp_path / "b", f"{server}/raw", tmp_path / "cache2")
        make(tmp_path / "b", f"{server}/raw/", tmp_path / "cache")
        assert (Server.gets["4.png"], Server.gets["5.png"]) == (before[0] + 1, before[1] + 1)

    def test_refusals_are_told_apart(self, server: str, tmp_path: Path) -> None:
        with pytest.raises(RemoteError, match="no such file"):
            fetched(f"{server}/nowhere/", tmp_path / "cache")
        with pytest.raises(RemoteError, match="no right"):
            fetched(f"{server}/private/", tmp_path / "cache")
        with pytest.raises(RemoteError, match="broke off"):
            fetched("http://127.0.0.1:9/x/", tmp_path / "cache")


def test_errors_of_urls_are_usage_errors() -> None:
    assert issubclass(RemoteError, InputError)
