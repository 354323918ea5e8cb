"""Patch features on disk: the same as the network gives, extracted once, never half a part."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from planted_corpus import planted_corpus
from umif.encoder import Encoder
from umif.errors import ConfigError, NonFiniteError, StorageError
from umif.models import ModelConfig, TokenEncoder

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=12)


def new_encoder(cache: Path | None = None, seed: int = 1) -> Encoder:
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=96, depth=3, width=48, heads=3, vocab_size=120)
    torch.manual_seed(seed)
    return Encoder(TokenEncoder(config), shorter_side=40, cache=cache, device="cpu")


def forbid_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("extracted again")

    monkeypatch.setattr(Encoder, "_patch_batches", refuse)


def test_patches_after_each_block_are_the_networks_own(corpus: Corpus) -> None:
    encoder = new_encoder()
    features = encoder.corpus_patches(corpus, [5, 2], blocks=(3, 1), batch_size=1)
    assert features.blocks == (3, 1)
    assert features.grid == (6, 6)
    assert features.width == 48
    assert features.rows.tolist() == [2, 5]
    taken = features.take([5, 2])
    assert taken.shape == (2, 2, 36, 48)
    jpegs = corpus.take_jpegs([5, 2])
    views = torch.from_numpy(np.stack([encoder.preprocessing.jpeg(data) for data in jpegs]))
    for axis, block in enumerate((3, 1)):
        _, patches = encoder._network.encode_images(views, block=block)
        torch.testing.assert_close(taken[:, axis], patches, rtol=2e-3, atol=2e-3)


def test_further_rows_add_a_part_and_old_ones_are_not_extracted_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = new_encoder(tmp_path).corpus_patches(corpus, [1, 3], blocks=(2,))
    both = new_encoder(tmp_path).corpus_patches(corpus, [0, 1, 2, 3], blocks=(2,))
    assert len(list((tmp_path / "patches").glob("*/part-*"))) == 2
    torch.testing.assert_close(both.take([3, 1]), one.take([3, 1]), rtol=0, atol=0)
    forbid_extraction(monkeypatch)
    again = new_encoder(tmp_path).corpus_patches(corpus, [2, 3, 0], blocks=(2,))
    torch.testing.assert_close(again.take([0, 2]), both.take([0, 2]), rtol=0, atol=0)


@pytest.mark.parametrize("what", ["weights", "blocks"])
def test_features_of_something_else_are_not_taken(corpus: Corpus, tmp_path: Path, what: str) -> None:
    first = new_encoder(tmp_path).corpus_patches(corpus, [0], blocks=(2,)).take([0])
    seed, blocks = (2, (2,)) if what == "weights" else (1, (1,))
    other = new_encoder(tmp_path, seed).corpus_patches(corpus, [0], blocks=blocks).take([0])
    assert (other - first).abs().max() > 0.01


@pytest.mark.parametrize("file", ["features.npy", "rows.npy", "key.json"])
def test_a_damaged_part_is_made_again(
    corpus: Corpus, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = new_encoder(tmp_path).corpus_patches(corpus, [0, 1], blocks=(2,)).take([0, 1])
    (part,) = (tmp_path / "patches").glob("*/part-*")
    data = (part / file).read_bytes()
    (part / file).write_bytes(data[: len(data) // 3])
    with caplog.at_level(logging.WARNING):
        after = new_encoder(tmp_path).corpus_patches(corpus, [0, 1], blocks=(2,)).take([0, 1])
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_an_extraction_that_is_broken_off_leaves_no_part(corpus: Corpus, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_encoder(tmp_path).corpus_patches(corpus, [0, 1, 2], blocks=(2,), batch_size=1, progress=stop)
    (store,) = (tmp_path / "patches").iterdir()
    assert list(store.iterdir()) == []


def test_weights_that_give_no_numbers_are_an_error_and_nothing_is_kept(corpus: Corpus, tmp_path: Path) -> None:
    encoder = new_encoder(tmp_path)
    with torch.no_grad():
        encoder._network.vit.get_parameter("blocks.1.norm1.weight").fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="NaN"):
        encoder.corpus_patches(corpus, [0], blocks=(2,))
    assert not list((tmp_path / "patches").glob("*/*"))


def test_without_a_folder_features_live_as_long_as_the_encoder(corpus: Corpus) -> None:
    encoder = new_encoder()
    first = encoder.corpus_patches(corpus, [0], blocks=(1,))
    (store,) = encoder._patch_stores.values()
    folder = store.folder
    assert folder.is_dir()
    assert first.take([0]).shape == (1, 1, 36, 48)
    del encoder, store, first
    gc.collect()
    assert not folder.exists()


def test_what_is_not_there_is_refused(corpus: Corpus) -> None:
    encoder = new_encoder()
    with pytest.raises(ConfigError, match="no block 4"):
        encoder.corpus_patches(corpus, [0], blocks=(1, 4))
    features = encoder.corpus_patches(corpus, [0], blocks=(1,))
    with pytest.raises(KeyError, match="row 7"):
        features.take([7])


def test_a_full_disk_is_a_typed_error(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        new_encoder(tmp_path).corpus_patches(corpus, [0], blocks=(1,))
    assert not list((tmp_path / "patches").glob("*/*"))
