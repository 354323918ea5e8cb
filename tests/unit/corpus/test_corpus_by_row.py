"""A corpus in S3 gives what its folder gives, and only the pictures that are read come, once."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pyarrow as pa
import pytest

from byte_search import found_in
from s3_server import ObjectStore, object_store, settings
from train_runs import tiny_recipe
from umif.corpus import Corpus, add_pixels, prepare
from umif.corpus.by_row import MARKER, Marker, RemotePictures, reads_rows
from umif.corpus.mirror import LIGHT, corpus_folder, default_cache
from umif.corpus.phantom import write_phantom
from umif.corpus.remote import s3_options
from umif.errors import ConfigError, CorpusError, RemoteError, StorageError
from umif.train.checkpoint import latest_checkpoint
from umif.train.loop import pretrain
from umif.train.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

s3fs = pytest.importorskip("s3fs")
URL = "s3://bucket/data/corpus"
PLACE = "bucket/data/corpus"
IMAGES = 60


def make(root: Path, seed: int) -> Path:
    """Pictures of noise, some 25 kB each, so that they and not the tables are the corpus."""
    for index in range(IMAGES):
        file = root / "raw" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.random.default_rng([seed, index]).integers(0, 256, (160, 170)).astype(np.uint8))
    prepare(root / "corpus", [("folder", root / "raw")], workers=1, progress=False)
    return root / "corpus"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("local"), 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture
def store(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store() as server:
        server.upload(local, PLACE)
        for name, value in settings(server, tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("UMIF_FETCH", raising=False)
        monkeypatch.setattr("umif.corpus.picture_cache.SPARE_BYTES", 0)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umif.corpus.by_row.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("umif.corpus.by_row._CLIENT", {"client_max_retries": "0"})


def data_file(store: ObjectStore) -> str:
    (found,) = (place for place in store.objects if "/images.lance/data/" in place)
    return found


def pictures(corpus: Path, rows: list[int]) -> list[bytes]:
    return Corpus.open(corpus).take_jpegs(rows)


def replace(store: ObjectStore, corpus: Path, *, remove: bool) -> None:
    if remove:
        store.objects.clear()
    store.upload(corpus, PLACE)


class TestWhatComes:
    def test_only_the_pictures_that_are_read(self, store: ObjectStore, local: Path) -> None:
        data = data_file(store)
        size = len(store.objects[data])
        corpus = Corpus.open(URL)
        table = store.sent[data]
        assert 0 < table < 0.1 * size
        rows = [7, 50, 7, 2]
        found = corpus.take_jpegs(rows)
        assert found == pictures(local, rows)
        # Each range, the file's own tables once, and what lies between neighbours.
        assert sum(map(len, set(found))) < store.sent[data] - table < 0.2 * size

    def test_once_for_all_processes(self, store: ObjectStore, local: Path) -> None:
        data = data_file(store)
        corpus = Corpus.open(URL)
        expected = corpus.take_jpegs([1, 9])
        sent = store.sent[data]
        assert corpus.take_jpegs([9, 1, 9]) == [expected[1], expected[0], expected[1]]
        assert Corpus.open(URL).take_jpegs([1, 9]) == expected
        assert pickle.loads(pickle.dumps(corpus)).take_pictures([1, 9]) == expected
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(pictures, (corpus.path, [1, 9])) == expected
        assert store.sent[data] == sent
        assert expected == pictures(local, [1, 9])

    def test_nothing_at_all_where_all_is_kept(self, store: ObjectStore, local: Path) -> None:
        folder = corpus_folder(URL)
        pictures(folder, [3, 4])
        store.objects.clear()
        store.closed = True
        # By its path, as run.json names it, nobody is asked.
        assert pictures(folder, [4, 3]) == pictures(local, [4, 3])
        assert Corpus.open(folder).pairs_table().equals(Corpus.open(local).pairs_table())

    def test_the_tables_are_not_fetched_again(self, store: ObjectStore) -> None:
        Corpus.open(URL)
        before = store.fetched.copy()
        Corpus.open(URL)
        assert store.fetched == before

    def test_no_pixel_copy(self, store: ObjectStore, local: Path, tmp_path: Path) -> None:
        shutil.copytree(local, tmp_path / "copy")
        add_pixels(tmp_path / "copy", progress=False)
        replace(store, tmp_path / "copy", remove=True)
        corpus = Corpus.open(URL)
        assert not corpus.has_pixels
        assert [place for place in store.fetched if "/pixels/" in place] == []
        assert corpus.take_pictures([5]) == list(pictures(local, [5]))

    def test_as_much_as_may_be_kept(
        self, store: ObjectStore, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UMIF_CACHE_BYTES", "100000")
        rows = list(range(IMAGES))
        for _ in range(2):
            assert Corpus.open(URL).take_jpegs(rows) == pictures(local, rows)
        kept = sum(file.stat().st_size for file in tmp_path.glob("cache/*/pictures/*/*.rows"))
        assert 50_000 < kept <= 100_000

    def test_all_of_it_where_that_is_asked_for(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UMIF_FETCH", "whole")
        corpus = Corpus.open(URL)
        assert not (corpus.path / MARKER).exists()
        assert store.sent[data_file(store)] == len(store.objects[data_file(store)])


def test_every_way_to_read_gives_what_the_folder_gives(store: ObjectStore, local: Path) -> None:
    near, far = Corpus.open(local), Corpus.open(URL)
    assert far.images_table().equals(near.images_table())
    columns = ["height", "jpeg", "image"]
    assert far.images_table(columns).equals(near.images_table(columns))
    rows = [5, 5, 0, 41]
    assert far.take_images(rows, columns) == near.take_images(rows, columns)
    assert far.take_images(rows, ["jpeg"]) == near.take_images(rows, ["jpeg"])
    assert far.take_questions(rows) == near.take_questions(rows)
    for names in (columns, ["jpeg"], ["image"]):
        found, expected = (pa.Table.from_batches(corpus.image_batches(names, 13)) for corpus in (far, near))
        assert found.equals(expected)
    assert far.take_jpegs([]) == []
    with pytest.raises(IndexError, match=f"rows 0 to {IMAGES - 1}"):
        far.take_jpegs([IMAGES])


class TestWhatGoesWrong:
    def test_a_store_that_is_busy_is_asked_again(
        self, store: ObjectStore, local: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("umif.corpus.by_row._CLIENT", {"client_max_retries": "0", "download_retry_count": "0"})
        corpus = Corpus.open(URL)
        store.failing[data_file(store)] = 4
        store.cut[data_file(store)] = 2
        assert corpus.take_jpegs([8, 30]) == pictures(local, [8, 30])
        assert store.failing[data_file(store)] == store.cut[data_file(store)] == 0

    def test_a_store_that_stays_busy(self, store: ObjectStore, impatient: None) -> None:
        corpus = Corpus.open(URL)
        store.failing[data_file(store)] = 10**6
        with pytest.raises(RemoteError, match=r"(?s)s3://bucket/data/corpus/images.lance: .*503.*run it again"):
            corpus.take_jpegs([8])
        store.failing.clear()
        assert len(corpus.take_jpegs([8])) == 1

    def test_no_right(self, store: ObjectStore, impatient: None) -> None:
        corpus = Corpus.open(URL)
        corpus.take_jpegs([8])
        store.closed = True
        for reader in (corpus, pickle.loads(pickle.dumps(corpus))):
            with pytest.raises(RemoteError, match="there is no right to read this"):
                reader.take_jpegs([8, 9])

    def test_a_bucket_that_vanished(self, store: ObjectStore, local: Path) -> None:
        corpus = Corpus.open(URL)
        corpus.take_jpegs([8])
        store.objects.clear()
        for reader in (corpus, pickle.loads(pickle.dumps(corpus))):
            with pytest.raises(RemoteError, match=r"(?s)not there any more.*put the corpus back"):
                reader.take_jpegs([8, 9])
        store.upload(local, PLACE)
        assert corpus.take_jpegs([8, 9]) == pictures(local, [8, 9])

    def test_a_listing_that_breaks_off_while_tables_are_read(
        self, store: ObjectStore, local: Path, impatient: None
    ) -> None:
        store.failing[data_file(store)] = 10**6
        with pytest.raises(RemoteError, match="503"):
            Corpus.open(URL)
        (folder,) = default_cache().glob(f"*/{LIGHT}")
        with pytest.raises(CorpusError, match="unfinished"):
            Corpus.open(folder)
        store.failing.clear()
        assert Corpus.open(URL).path == folder
        assert pictures(folder, [0]) == pictures(local, [0])

    def test_a_disk_that_is_full_while_the_table_is_written(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import lance

        def full(*_: object, **__: object) -> None:
            raise OSError("LanceError(IO): No space left on device (os error 28), /src/a.rs:1:2")

        monkeypatch.setattr(lance, "write_dataset", full)
        with pytest.raises(StorageError, match=r"No space left on device \(os error 28\)\n"):
            Corpus.open(URL)

    def test_no_corpus_there(self, store: ObjectStore) -> None:
        del store.objects[f"{PLACE}/corpus.json"]
        with pytest.raises(CorpusError, match=r"holds no corpus\.json"):
            Corpus.open(URL)
        with pytest.raises(CorpusError, match="it is a file"):
            Corpus.open(f"{URL}/ledger.jsonl")
        assert not any("pairs.lance" in place for place in store.fetched)

    def test_a_damaged_copy_is_made_again(self, store: ObjectStore, local: Path) -> None:
        folder = corpus_folder(URL)
        for spoil in ((folder / "images.lance").glob("data/*"), iter([folder / MARKER])):
            next(iter(spoil)).write_bytes(b"damaged")
            assert corpus_folder(URL) == folder
            assert pictures(folder, [2]) == pictures(local, [2])
        (folder / MARKER).write_text("[]")
        with pytest.raises(CorpusError, match=r"(?s)remote\.json: cannot be read.*by its URL again"):
            Corpus.open(folder)


class TestAnotherCorpusThere:
    @pytest.mark.parametrize("remove", [True, False])
    def test_is_an_error_for_open_readers_and_never_another_picture(
        self, store: ObjectStore, local: Path, other: Path, tmp_path: Path, remove: bool
    ) -> None:
        corpus = Corpus.open(URL)
        corpus.take_jpegs([1])
        replace(store, other, remove=remove)
        with pytest.raises(CorpusError, match="was replaced since it was opened"):
            pickle.loads(pickle.dumps(corpus)).take_jpegs([2])
        with pytest.raises(CorpusError, match="was replaced since it was opened"):
            pictures(corpus.path, [2])
        if remove:
            with pytest.raises(CorpusError, match="was replaced since it was opened"):
                corpus.take_jpegs([2])
        else:  # the files that it has open are still there
            assert corpus.take_jpegs([2]) == pictures(local, [2])

        assert Corpus.open(URL).take_jpegs([1, 2]) == pictures(other, [1, 2])
        assert len(list(tmp_path.glob("cache/*/pictures/*"))) == 1
        with pytest.raises(CorpusError, match="was replaced since it was opened"):
            pickle.loads(pickle.dumps(corpus)).take_jpegs([1])

    def test_files_of_the_same_fingerprint_are_read_after_opening_again(
        self, store: ObjectStore, local: Path, tmp_path: Path
    ) -> None:
        corpus = Corpus.open(URL)
        corpus.take_jpegs([1])
        prepare(tmp_path / "again", [("folder", local.parent / "raw")], workers=1, progress=False)
        replace(store, tmp_path / "again", remove=True)
        with pytest.raises(CorpusError, match="was replaced"):
            pickle.loads(pickle.dumps(corpus)).take_jpegs([2])
        again = Corpus.open(URL)
        assert again.fingerprint == corpus.fingerprint
        assert again.take_jpegs([1, 2]) == pictures(local, [1, 2])


class TestSettings:
    def test_no_secret_is_written_down(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "Grimalkin")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "Pyewacket")
        Corpus.open(URL).take_jpegs([0])
        words = ["Grimalkin", "Pyewacket", "bucket/data"]
        assert found_in([default_cache()], words).keys() == {"bucket/data"}

    @pytest.mark.parametrize(
        ("url", "rows"),
        [
            ("s3://bucket/corpus", True), ("s3://me:secret@bucket/corpus", False), ("s3://bucket/c?versionId=1", False),
            ("zip://::s3://bucket/c.zip", False), ("https://host/corpus", False), ("gs://bucket/corpus", False),
        ],
    )  # fmt: skip
    def test_what_is_read_by_row(self, monkeypatch: pytest.MonkeyPatch, url: str, rows: bool) -> None:
        monkeypatch.delenv("UMIF_FETCH", raising=False)
        assert reads_rows(url) is rows
        monkeypatch.setenv("UMIF_FETCH", "whole")
        assert reads_rows(url) is False

    def test_another_way_to_fetch_is_refused(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UMIF_FETCH", "hole")
        with pytest.raises(ConfigError, match=r"(?s)UMIF_FETCH.*Did you mean 'whole'"):
            Corpus.open(URL)

    def test_a_region_is_set_once(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        monkeypatch.setenv("AWS_REGION", "eu-central-2")
        assert s3_options(URL) == {
            "aws_endpoint": store.url, "allow_http": "true", "aws_region": "eu-central-2"
        }  # fmt: skip
        assert len(Corpus.open(URL).take_jpegs([0])) == 1

    def test_what_fsspec_was_told_reaches_lance(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        import fsspec

        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True, "endpoint_url": store.url})
        options = s3_options(URL)
        assert options["skip_signature"] == "true"
        assert options["aws_endpoint"] == store.url
        assert len(Corpus.open(URL).take_jpegs([0])) == 1


def test_the_marker_says_what_it_belongs_to(store: ObjectStore) -> None:
    corpus = Corpus.open(URL)
    marker = Marker.read(corpus.path)
    assert marker is not None
    assert (marker.url, marker.fingerprint) == (URL, corpus.fingerprint)
    assert [f"{PLACE}/images.lance/data/{name}" for name in marker.files] == [data_file(store)]
    assert json.loads((corpus.path / MARKER).read_text())["format"] == 1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    write_phantom(root / "raw", 150, size=256)
    prepare(root / "corpus", [("phantom", root / "raw")], workers=1, progress=False)
    return root / "corpus"


class TestARun:
    def weights(self, corpus: str | Path, out: Path, workers: int = 0) -> bytes:
        recipe = {**tiny_recipe(Path("unused"), out, steps=2, workers=workers), "corpus": str(corpus)}
        assert pretrain(Recipe.model_validate(recipe), progress=False).finished
        checkpoint = latest_checkpoint(out)
        assert checkpoint is not None
        return (checkpoint / "model.safetensors").read_bytes()

    def test_is_the_run_on_the_folder_and_fetches_what_it_uses(
        self, store: ObjectStore, corpus: Path, tmp_path: Path
    ) -> None:
        replace(store, corpus, remove=True)
        data, whole = data_file(store), sum(map(len, store.objects.values()))
        expected = self.weights(corpus, tmp_path / "near")
        assert self.weights(URL, tmp_path / "far") == expected
        # Two steps draw at most 16 of 150 pictures; ranges that nearly touch come as one.
        assert 0 < store.sent[data] < 0.25 * len(store.objects[data])
        assert sum(store.sent.values()) < 0.4 * whole
        sent = store.sent[data]
        assert self.weights(URL, tmp_path / "second") == expected
        assert store.sent[data] == sent
        # Whoever takes the run up later is led to the same pictures.
        place = json.loads((tmp_path / "far" / "run.json").read_text())["corpus"]["path"]
        assert Corpus.open(place).take_jpegs([3]) == Corpus.open(corpus).take_jpegs([3])

    def test_with_workers_of_its_own(self, store: ObjectStore, corpus: Path, tmp_path: Path) -> None:
        replace(store, corpus, remove=True)
        data = data_file(store)
        assert self.weights(URL, tmp_path / "far", workers=2) == self.weights(corpus, tmp_path / "near")
        assert 0 < store.sent[data] < 0.9 * len(store.objects[data])

    def test_that_loses_its_store_says_so_and_goes_on_once_it_is_back(
        self, store: ObjectStore, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace(store, corpus, remove=True)
        fetch, calls = RemotePictures._fetch, 0

        def losing(pictures: RemotePictures, rows: list[int]) -> list[bytes]:
            nonlocal calls
            calls += 1
            if calls == 2:
                store.objects.clear()
            return fetch(pictures, rows)

        with monkeypatch.context() as patched:
            patched.setattr(RemotePictures, "_fetch", losing)
            with pytest.raises(RemoteError, match=r"(?s)not there any more.*put the corpus back"):
                self.weights(URL, tmp_path / "far")
        assert (latest := latest_checkpoint(tmp_path / "far")) is not None
        assert latest.name.endswith("1")
        store.upload(corpus, PLACE)
        assert self.weights(URL, tmp_path / "far") == self.weights(corpus, tmp_path / "near")
