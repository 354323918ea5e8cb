"""A corpus with its pictures decoded gives the batches of the same corpus without, bit for bit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from umif.cli import main
from umif.corpus import Corpus, add_pixels
from umif.corpus.pixels import PIXELS_FOLDER, PixelCopy
from umif.errors import CorpusError
from umif.imaging import decode_jpeg_grey
from umif.tokens.loader import DataConfig, StepDataset

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from umif.tokens.batch import Batch
    from umif.tokens.text import TextTokenizer


@pytest.fixture
def copied(corpus_path: Path, tmp_path: Path) -> Path:
    """A corpus of its own, with its pixel copy."""
    shutil.copytree(corpus_path, tmp_path / "corpus")
    add_pixels(tmp_path / "corpus", progress=False)
    return tmp_path / "corpus"


def made(corpus: Path, tokenizer: TextTokenizer, steps: int = 4) -> list[Batch]:
    config = DataConfig(image_size=32, patch_size=8, pairs_per_kind=6, image_pairs=True)
    dataset = StepDataset(corpus, tokenizer, config, seed=0)
    return [dataset[step][0] for step in range(steps)]


def pixels(corpus: Corpus, rows: list[int]) -> list[NDArray[np.uint8]]:
    found = corpus.take_pictures(rows)
    assert all(isinstance(picture, np.ndarray) for picture in found)
    return [picture for picture in found if isinstance(picture, np.ndarray)]


def test_batches_are_the_same_bit_for_bit(corpus_path: Path, copied: Path, tokenizer: TextTokenizer) -> None:
    assert Corpus.open(copied).has_pixels
    assert not Corpus.open(corpus_path).has_pixels
    assert Corpus.open(copied).fingerprint == Corpus.open(corpus_path).fingerprint
    for one, other in zip(made(corpus_path, tokenizer), made(copied, tokenizer), strict=True):
        for name in ("images_NHW", "masks_MHW3", "text_ids_T", "pairs_B", "slots_B", "ratios_B"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.equal(one.group1.rows_T, other.group1.rows_T)


def test_pictures_come_in_the_order_asked_for_and_as_often(copied: Path) -> None:
    corpus = Corpus.open(copied)
    rows = [7, 0, 39, 7]
    for picture, jpeg in zip(pixels(corpus, rows), corpus.take_jpegs(rows), strict=True):
        assert np.array_equal(picture, decode_jpeg_grey(jpeg))
    with pytest.raises(IndexError, match="rows 0 to 39"):
        corpus.take_pictures([40])


def test_a_copy_is_made_once_and_by_the_command_line(corpus_path: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus_path, tmp_path / "corpus")
    command = ["prepare", str(tmp_path / "corpus"), "--pixels", "--json"]
    assert main(command) == 0
    written = (tmp_path / "corpus" / PIXELS_FOLDER / "pixels.json").stat()
    assert main(command) == 0
    assert (tmp_path / "corpus" / PIXELS_FOLDER / "pixels.json").stat().st_mtime_ns == written.st_mtime_ns


def test_options_of_a_build_are_refused_where_only_a_copy_is_made(
    corpus_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus_path, tmp_path / "corpus")
    command = ["prepare", str(tmp_path / "corpus"), "--pixels", "--overwrite", "--splits", "patients"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "--splits, --overwrite would change nothing without --from" in said
    assert not (tmp_path / "corpus" / PIXELS_FOLDER).exists()


def test_a_picture_whose_copy_is_damaged_is_read_from_its_jpeg(copied: Path) -> None:
    file = copied / PIXELS_FOLDER / "pictures.bin"
    first = np.load(copied / PIXELS_FOLDER / "places.npy")[3]
    data = bytearray(file.read_bytes())
    data[first[0] + 100] ^= 4
    file.write_bytes(data)
    corpus = Corpus.open(copied)
    with pytest.warns(UserWarning, match="is damaged"):
        sound, damaged = corpus.take_pictures([2, 3])
    assert isinstance(sound, np.ndarray)
    assert damaged == corpus.take_jpegs([3])[0]


def test_a_picture_that_cannot_be_decoded_stays_the_jpeg_that_says_so(
    corpus_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corpus_path, tmp_path / "corpus")
    original = Corpus.take_jpegs

    def cut(self: Corpus, rows: list[int]) -> list[bytes]:
        return [j[:500] if int(row) == 5 else j for row, j in zip(rows, original(self, rows), strict=True)]

    monkeypatch.setattr(Corpus, "take_jpegs", cut)
    add_pixels(tmp_path / "corpus", progress=False)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.take_pictures([5]) == [corpus.take_jpegs([5])[0]]
    assert isinstance(corpus.take_pictures([6])[0], np.ndarray)


@pytest.mark.parametrize("how", ["cut", "lost", "other fingerprint", "no json"])
def test_a_copy_that_is_not_whole_or_another_corpus_s_is_none(copied: Path, how: str) -> None:
    folder = copied / PIXELS_FOLDER
    if how == "cut":
        (folder / "pictures.bin").write_bytes((folder / "pictures.bin").read_bytes()[:-1])
    elif how == "lost":
        (folder / "places.npy").unlink()
    elif how == "no json":
        (folder / "pixels.json").write_text("{")
    else:
        about = json.loads((folder / "pixels.json").read_text())
        (folder / "pixels.json").write_text(json.dumps({**about, "fingerprint": "0" * 64}))
    corpus = Corpus.open(copied)
    assert PixelCopy.find(copied, corpus.fingerprint) is None
    assert corpus.take_pictures([1, 2]) == corpus.take_jpegs([1, 2])
    add_pixels(copied, progress=False)
    assert Corpus.open(copied).has_pixels


def test_where_there_is_no_corpus_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        add_pixels(tmp_path / "none", progress=False)
    assert not (tmp_path / "none").exists()
