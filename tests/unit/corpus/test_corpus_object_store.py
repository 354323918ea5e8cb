"""A corpus in an object store is the corpus in a folder, whether it is fetched whole or read by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from s3_server import ObjectStore, object_store, settings
from train_runs import make_corpus, tiny_recipe
from umif.corpus import Corpus, prepare
from umif.corpus.mirror import corpus_folder
from umif.corpus.quarantine import QUARANTINE, read_quarantine
from umif.encoder.load import load_encoder
from umif.errors import CorpusError, RemoteError
from umif.train.checkpoint import latest_checkpoint
from umif.train.loop import pretrain
from umif.train.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

s3fs = pytest.importorskip("s3fs")
URL = "s3://bucket/data/corpus"
PLACE = "bucket/data/corpus"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("local")
    for index in range(6):
        file = root / "raw" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.random.default_rng(index).integers(0, 256, (40, 50)).astype(np.uint8))
    prepare(root / "corpus", [("folder", root / "raw")], workers=1, progress=False)
    return root / "corpus"


@pytest.fixture(params=["rows", "whole"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(local: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with object_store() as server:
        server.upload(local, PLACE)
        for name, value in {**settings(server, tmp_path / "cache"), "UMIF_FETCH": way}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("umif.corpus.picture_cache.SPARE_BYTES", 0)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_corpus_behind_a_url_is_the_one_in_the_folder(store: ObjectStore, local: Path, tmp_path: Path) -> None:
    found, expected = Corpus.open(URL), Corpus.open(local)
    assert found.fingerprint == expected.fingerprint
    assert found.path.is_relative_to(tmp_path / "cache")
    assert found.take_jpegs([5, 0, 3]) == expected.take_jpegs([5, 0, 3])
    assert found.pairs_table().equals(expected.pairs_table())


@pytest.mark.parametrize("way", ["whole"], indirect=True)
def test_nothing_is_fetched_twice(store: ObjectStore) -> None:
    Corpus.open(URL)
    assert max(store.fetched.values()) == 1
    before = store.fetched.copy()
    Corpus.open(URL).take_jpegs([1])
    assert store.fetched == before


def test_a_path_that_lost_a_slash_is_still_the_url(store: ObjectStore) -> None:
    # Recipes hold paths, and a path has no two slashes in a row.
    assert Corpus.open(Path(URL)).path == Corpus.open(URL).path
    assert corpus_folder("corpora/chest") == Path("corpora/chest")


@pytest.mark.parametrize("way", ["whole"], indirect=True)
def test_a_transfer_that_breaks_off_is_tried_again(
    store: ObjectStore, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umif.corpus.remote._PAUSE_SECONDS", 0.0)
    data = next(place for place in store.objects if place.endswith(".lance") and "images" in place)
    store.cut[data] = 2
    assert Corpus.open(URL).take_jpegs([0, 5]) == Corpus.open(local).take_jpegs([0, 5])
    assert store.fetched[data] == 3


def test_another_corpus_there_is_another_corpus_here(store: ObjectStore) -> None:
    first = Corpus.open(URL)
    manifest = json.loads(store.objects[f"{PLACE}/corpus.json"])
    store.objects[f"{PLACE}/corpus.json"] = json.dumps({**manifest, "fingerprint": "1" * 64}).encode()
    assert Corpus.open(URL).fingerprint == "1" * 64
    with pytest.raises(CorpusError, match="was replaced since it was opened"):
        Corpus(first.path, first.manifest).take_jpegs([0])


def test_the_list_of_what_to_leave_out_comes_along(store: ObjectStore, local: Path) -> None:
    image = Corpus.open(local).images_table(["image"]).column("image")[0].as_py()
    store.objects[f"{PLACE}/{QUARANTINE}"] = f"item,decision,reason\n{image},exclude,test\n".encode()
    assert read_quarantine(Path(URL)).excluded.keys() == {image}


def test_what_is_not_there_is_a_typed_error(store: ObjectStore) -> None:
    with pytest.raises(RemoteError, match="no such file or folder"):
        Corpus.open("s3://bucket/nowhere")


def test_a_run_on_a_corpus_behind_a_url_is_the_run_on_its_folder(store: ObjectStore, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, images=12)
    store.upload(corpus, "bucket/trained/corpus")
    for out, where in (("near", str(corpus)), ("far", "s3://bucket/trained/corpus")):
        recipe = {**tiny_recipe(corpus, tmp_path / out, steps=2), "corpus": where}
        assert pretrain(Recipe.model_validate(recipe), progress=False).finished
    near, far = (latest_checkpoint(tmp_path / out) for out in ("near", "far"))
    assert near is not None
    assert far is not None
    assert (near / "model.safetensors").read_bytes() == (far / "model.safetensors").read_bytes()
    # Whoever takes the run up later finds the pictures and their size.
    encoder = load_encoder(str(tmp_path / "far"))
    place = Path(json.loads((tmp_path / "far" / "run.json").read_text())["corpus"]["path"])
    assert Corpus.open(place).fingerprint == Corpus.open(corpus).fingerprint
    assert encoder.encode_images([np.zeros((64, 64), np.uint8)]).shape == (1, 48)
