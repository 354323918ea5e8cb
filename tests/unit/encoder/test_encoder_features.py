"""What the frozen encoder gives for files, arrays, corpora and words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from planted_corpus import draw_film, planted_corpus
from umif.encoder import Encoder, Readout
from umif.errors import ConfigError, EmptyError, ImageError, InputError
from umif.models import HeadConfig, ModelConfig, UmiF, build_model
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus

WORDS = ["no sign of edema", "edema is seen", "pneumothorax is absent", "there is evidence of a pneumothorax"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=30)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(WORDS, vocab_size=120)


def tiny_model(tokenizer: TextTokenizer, **changes: Any) -> UmiF:
    config = ModelConfig(
        backbone="vit_tiny_patch16_224", image_size=96, depth=3, width=48, heads=3, vocab_size=tokenizer.vocab_size
    )
    model = build_model(config.model_copy(update=changes), seed=1)
    with torch.no_grad():  # a teacher of its own, as after training
        for parameter in model.teacher.parameters():
            parameter.add_(
                0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    return model


@pytest.fixture(scope="module")
def model(tokenizer: TextTokenizer) -> UmiF:
    return tiny_model(tokenizer)


@pytest.fixture
def encoder(model: UmiF, tokenizer: TextTokenizer) -> Encoder:
    return Encoder.of_model(model, tokenizer=tokenizer, shorter_side=40, device="cpu")


def film(seed: int = 0) -> np.ndarray:
    return draw_film(np.random.default_rng(seed), visible=bool(seed % 2))


def test_a_file_an_array_and_a_tensor_of_one_film_give_the_same_features(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    cv2.imwrite(str(path), film())
    features = encoder.encode_images([path, str(path), film(), torch.from_numpy(film())])
    assert features.shape == (4, encoder.width)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert not features.is_inference()
    # One batch, one kernel: rows of equal input are equal bit by bit.
    assert all(torch.equal(features[0], other) for other in features[1:])


def test_one_picture_alone_is_a_batch_of_one(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    cv2.imwrite(str(path), film())
    assert encoder.encode_images(path).shape == (1, encoder.width)
    assert encoder.encode_images(film()).shape == (1, encoder.width)
    assert encoder.encode_images(np.stack([film(), film(1)])).shape == (2, encoder.width)


def test_features_are_the_networks_own(encoder: Encoder, model: UmiF) -> None:
    view = encoder.preprocessing.file_or_array(film())
    assert view.shape == (96, 96)
    with torch.no_grad():
        cls, patches = model.teacher.encode_images(torch.from_numpy(view[None]))
        cls_2, patches_2 = model.teacher.encode_images(torch.from_numpy(view[None]), block=2)
    assert torch.equal(encoder.encode_images(film()), cls)
    assert torch.equal(encoder.encode_patches(film()), patches.view(1, 6, 6, 48))
    assert torch.equal(encoder.encode_patches(film(), block=2), patches_2.view(1, 6, 6, 48))
    assert not torch.equal(cls, cls_2)


def test_teacher_and_student_are_told_apart(model: UmiF) -> None:
    teacher, student = (Encoder.of_model(model, weights=which, device="cpu") for which in ("teacher", "student"))
    assert teacher.weights_sha256 != student.weights_sha256
    assert not torch.equal(teacher.encode_images(film()), student.encode_images(film()))
    assert torch.equal(Encoder.of_model(model, device="cpu").encode_images(film()), teacher.encode_images(film()))


def test_the_encoder_keeps_its_weights_when_the_model_trains_on(tokenizer: TextTokenizer) -> None:
    model = tiny_model(tokenizer)
    encoder = Encoder.of_model(model, device="cpu")
    before = encoder.encode_images(film())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(encoder.encode_images(film()), before)


def test_batch_size_changes_nothing_but_rounding(encoder: Encoder) -> None:
    films = [film(seed) for seed in range(7)]
    one, three = encoder.encode_images(films, batch_size=1), encoder.encode_images(films, batch_size=3)
    torch.testing.assert_close(one, three, atol=1e-5, rtol=1e-5)


def test_pooling_averages_patches_by_place(encoder: Encoder) -> None:
    patches = encoder.encode_patches(film(), block=2)[0]
    view = torch.from_numpy(encoder.preprocessing.file_or_array(film()))[None]
    cls, flat = encoder._network.encode_images(view, block=2)
    pooled = Readout("patches", block=2, pool=3).of(cls, flat, encoder.grid)[0].view(3, 3, -1)
    for row in range(3):
        for column in range(3):
            cell = patches[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((0, 1))
            torch.testing.assert_close(pooled[row, column], cell)
    # A grid smaller than the pool is taken as it is.
    assert Readout("patches", pool=16).of(cls, flat, encoder.grid).shape == (1, 36 * 48)


@pytest.mark.parametrize("block", [0, 4, -1])
def test_a_block_that_is_not_there_is_refused(encoder: Encoder, block: int) -> None:
    with pytest.raises(ConfigError, match=f"no block {block}"):
        encoder.encode_patches(film(), block=block)


def test_a_file_and_its_row_in_the_corpus_differ_by_jpeg_noise_alone(encoder: Encoder, corpus: Corpus) -> None:
    table = corpus.images_table(["source"]).column("source").to_pylist()
    rows = np.arange(10)
    files = [corpus.path.parent / "films" / table[row] for row in rows]
    of_files = F.normalize(encoder.encode_images(files), dim=1)
    of_corpus = F.normalize(torch.from_numpy(encoder.encode_corpus(corpus, rows)), dim=1)
    cosines = of_files @ of_corpus.T
    # JPEG at quality 95 moves a feature far less than another patient does.
    same, other = 1 - cosines.diagonal(), 1 - cosines[~torch.eye(10, dtype=torch.bool)]
    assert same.max() < 0.1 * other.median()


def test_corpus_rows_come_in_the_order_asked_for(encoder: Encoder, corpus: Corpus) -> None:
    ascending = encoder.encode_corpus(corpus, [2, 5, 9])
    assert np.array_equal(encoder.encode_corpus(corpus, [9, 2, 5, 2]), ascending[[2, 0, 1, 0]])
    assert encoder.encode_corpus(corpus, [], Readout("cls")).shape[0] == 0


# ------------------------------------------------------------------------------------------------- cache
@pytest.fixture
def caching(model: UmiF, tokenizer: TextTokenizer, tmp_path: Path) -> Encoder:
    return Encoder.of_model(model, tokenizer=tokenizer, shorter_side=40, cache=tmp_path / "features", device="cpu")


def forbid_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("features were extracted again")

    monkeypatch.setattr(Encoder, "_forward", refuse)


def test_features_are_extracted_once(caching: Encoder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    first = caching.encode_corpus(corpus, [1, 2, 3])
    more = caching.encode_corpus(corpus, [0, 2, 7])
    forbid_extraction(monkeypatch)
    again = caching.encode_corpus(corpus, [7, 3, 2, 1, 0])
    assert np.array_equal(again, np.stack([more[2], first[2], first[1], first[0], more[0]]))
    with pytest.raises(AssertionError, match="extracted again"):
        caching.encode_corpus(corpus, [4])


@pytest.mark.parametrize("what", ["weights", "readout", "preprocessing"])
def test_features_of_something_else_are_not_taken(
    caching: Encoder, corpus: Corpus, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caching.encode_corpus(corpus, [1, 2, 3])
    other, readout = caching, Readout("patches") if what == "readout" else Readout("cls")
    if what == "weights":
        other = caching.random_like(5)
    if what == "preprocessing":
        other = Encoder(caching._network, shorter_side=39, cache=caching._cache_folder, device="cpu")
    forbid_extraction(monkeypatch)
    with pytest.raises(AssertionError, match="extracted again"):
        other.encode_corpus(corpus, [1, 2, 3], readout)


def test_a_damaged_cache_is_made_again(
    caching: Encoder, corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = caching.encode_corpus(corpus, [1, 2, 3])
    [file] = (tmp_path / "features").iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        again = caching.encode_corpus(corpus, [1, 2, 3])
    assert np.array_equal(first, again)
    assert "extracted again" in caplog.text
    assert [path.name for path in (tmp_path / "features").iterdir()] == [file.name]


def test_a_folder_that_cannot_be_written_costs_time_only(
    model: UmiF, corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    encoder = Encoder.of_model(model, shorter_side=40, cache=tmp_path / "file" / "features", device="cpu")
    with caplog.at_level(logging.WARNING):
        assert encoder.encode_corpus(corpus, [1, 2]).shape == (2, 48)
    assert "not kept" in caplog.text


def test_progress_counts_images(encoder: Encoder, corpus: Corpus) -> None:
    seen: list[tuple[int, int]] = []
    encoder.encode_corpus(corpus, range(7), batch_size=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


# ------------------------------------------------------------------------------------------------- bad input
def test_errors_name_the_file_or_the_place(encoder: Encoder, tmp_path: Path) -> None:
    good, cut, text = tmp_path / "good.png", tmp_path / "cut.png", tmp_path / "notes.png"
    cv2.imwrite(str(good), film())
    cut.write_bytes(good.read_bytes()[:-200])
    text.write_text("no picture at all", encoding="utf-8")
    for path, kind in (
        (cut, ImageError),
        (text, ImageError),
        (tmp_path / "gone.png", InputError),
        (tmp_path, InputError),
    ):
        with pytest.raises(kind) as caught:
            encoder.encode_images([good, path])
        assert str(path) in str(caught.value)
    for array in (np.zeros((4, 4, 3)), np.zeros((0, 5), dtype=np.uint8), np.array([["a"]]), np.full((4, 4), np.nan)):
        with pytest.raises(ImageError) as caught:
            encoder.encode_images([good, array])
        assert "images[1]" in str(caught.value)
    with pytest.raises(InputError, match=r"images\[0\]"):
        encoder.encode_images([3])  # type: ignore[list-item]
    with pytest.raises(InputError):
        encoder.encode_images(3)  # type: ignore[arg-type]
    with pytest.raises(EmptyError):
        encoder.encode_images([])


def test_arrays_of_any_number_are_stretched_from_their_own_range(encoder: Encoder) -> None:
    grey = film().astype(np.float64)
    grey[0, 0], grey[0, 1] = 0.0, 255.0
    whole = encoder.encode_images(grey.astype(np.uint8))
    assert torch.equal(encoder.encode_images(grey / 255.0), whole)
    assert torch.equal(encoder.encode_images((grey * 16).astype(np.uint16)), whole)


# ------------------------------------------------------------------------------------------------- baseline
def test_random_weights_are_a_function_of_the_seed_alone(encoder: Encoder) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, again, other = encoder.random_like(4), encoder.random_like(4), encoder.random_like(5)
    assert torch.equal(torch.get_rng_state(), state)
    assert one.weights_sha256 == again.weights_sha256
    assert len({one.weights_sha256, other.weights_sha256, encoder.weights_sha256}) == 3
    assert one.config == encoder.config
    assert one.encode_images(film()).shape == (1, encoder.width)


# ------------------------------------------------------------------------------------------------- words
def test_texts_are_encoded_by_the_runs_tokeniser(encoder: Encoder, model: UmiF, tokenizer: TextTokenizer) -> None:
    features = encoder.encode_texts(WORDS, batch_size=3)
    assert features.shape == (4, encoder.width)
    with torch.no_grad():
        alone = model.teacher.encode_texts([tokenizer.encode(WORDS[1])])
    # Alone or in a batch: the same sums in another order.
    torch.testing.assert_close(features[1:2], alone, atol=1e-5, rtol=1e-5)
    assert encoder.encode_texts("edema").shape == (1, encoder.width)


def test_what_is_no_text_is_refused(encoder: Encoder, model: UmiF) -> None:
    with pytest.raises(EmptyError):
        encoder.encode_texts([])
    with pytest.raises(InputError, match=r"texts\[1\]"):
        encoder.encode_texts(["edema", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no tokeniser"):
        Encoder.of_model(model, device="cpu").encode_texts(["edema"])


def test_zero_shot_is_the_softmax_of_cosines_to_prompts(encoder: Encoder) -> None:
    from umif.language import prompts

    films = [film(seed) for seed in range(3)]
    probability = encoder.zero_shot(films, ["edema", "Effusion"])
    assert probability.shape == (3, 2)
    images = F.normalize(encoder.encode_images(films), dim=1)
    for column, finding in enumerate(("edema", "pleural_effusion")):
        sides = [
            F.normalize(F.normalize(encoder.encode_texts(list(side)), dim=1).mean(0), dim=0)
            for side in prompts(finding)
        ]
        logits = torch.stack([images @ side for side in sides], dim=1) / 0.1
        torch.testing.assert_close(probability[:, column], logits.softmax(1)[:, 0], atol=1e-5, rtol=1e-4)


def test_zero_shot_offers_the_nearest_finding(encoder: Encoder) -> None:
    with pytest.raises(InputError, match="pneumothorax"):
        encoder.zero_shot(film(), ["pneumothoraks"])
    assert encoder.zero_shot(film(), []).shape == (1, 0)


def test_zero_shot_compares_behind_the_projector(tokenizer: TextTokenizer) -> None:
    model = tiny_model(tokenizer, projector=HeadConfig(hidden=32, out=16))
    encoder = Encoder.of_model(model, tokenizer=tokenizer, device="cpu")
    assert encoder.encode_images(film()).shape == (1, 48)
    direction = encoder.prompt_direction(["edema"], ["no edema"])
    assert direction.shape == (16,)
    with torch.no_grad():
        projected = F.normalize(model.teacher.projector(encoder.encode_images(film())), dim=1)  # type: ignore[misc]
    torch.testing.assert_close(
        encoder.cosines(encoder.encode_images(film()), direction[None]), projected @ direction[:, None]
    )
