"""Patches of the encoder and of its baselines behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from planted_corpus import planted_corpus
from umif.encoder import Encoder, load_foreign
from umif.errors import TaskError
from umif.models import ModelConfig, TokenEncoder
from umif.tasks.base import TaskOptions
from umif.tasks.dense import dense_variants, spaced_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from umif.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return planted_corpus(tmp_path_factory.mktemp("films"), patients=8)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=64, depth=3, width=48, heads=3, vocab_size=120)
    torch.manual_seed(3)
    return Encoder(TokenEncoder(config), shorter_side=40, device="cpu")


@pytest.mark.parametrize(
    ("depth", "count", "blocks"), [(12, 4, (3, 6, 9, 12)), (4, 4, (1, 2, 3, 4)), (3, 4, (1, 2, 3)), (12, 1, (12,))]
)
def test_blocks_are_spaced_and_end_with_the_last(depth: int, count: int, blocks: tuple[int, ...]) -> None:
    assert spaced_blocks(depth, count) == blocks


def test_encoder_random_weights_and_pixels_have_one_interface(encoder: Encoder, corpus: Corpus) -> None:
    variants = list(dense_variants(encoder, corpus, TaskOptions(), blocks=2))
    assert [(one.encoder, one.baseline) for one in variants] == [("umif", False), ("random", True), ("pixels", True)]
    rows = np.array([4, 1])
    taken = [one.extract(rows, lambda _d, _t: None).take(rows) for one in variants]
    assert [tuple(one.shape) for one in taken] == [(2, 2, 16, 48), (2, 2, 16, 48), (2, 1, 16, 256)]
    assert (taken[0] - taken[1]).abs().max() > 0.01
    assert len(list(dense_variants(encoder, corpus, TaskOptions(baselines=False), blocks=2))) == 1


def test_pixels_are_the_picture_as_the_encoder_sees_it(encoder: Encoder, corpus: Corpus) -> None:
    pixels = list(dense_variants(encoder, corpus, TaskOptions(), blocks=2))[-1]
    patches = pixels.extract(np.array([2]), lambda _d, _t: None).take([2])[0, 0]
    view = encoder.preprocessing.jpeg(corpus.take_jpegs([2])[0])
    whole = patches.view(4, 4, 16, 16).transpose(1, 2).reshape(64, 64)
    np.testing.assert_allclose(whole.numpy() * 255, view, atol=0.07)


def test_encoders_of_others_that_have_patches_stand_between(encoder: Encoder, corpus: Corpus, tmp_path: Path) -> None:
    specs = []
    for name in ("test_vit", "test_resnet"):
        file = tmp_path / f"{name}.safetensors"
        save_file(timm.create_model(name, pretrained=False).state_dict(), file)
        specs.append(f"timm:{name}@{file}")
    rivals = tuple(load_foreign(spec, device="cpu") for spec in specs)
    function = load_foreign(specs[0], device="cpu")
    function.readouts = ("cls",)  # one vector a picture, as a script gives
    options = TaskOptions(against=(*rivals, function))
    variants = list(dense_variants(encoder, corpus, options, blocks=2))
    assert [one.encoder for one in variants] == ["umif", "random", *specs, "pixels"]
    assert [one.baseline for one in variants] == [False, True, True, True, True]
    for rival, variant in zip(rivals, variants[2:], strict=False):
        features = variant.extract(np.array([4, 1]), lambda _d, _t: None)
        assert features.grid == rival.grid
        blocks = spaced_blocks(rival.depth, 2)
        assert variant.extra == {"blocks": list(blocks)}
        patches = rival.grid[0] * rival.grid[1]
        assert tuple(features.take([1]).shape) == (1, len(blocks), patches, rival.patch_width)
    # As the encoder that is evaluated, its pixels are cut as it cuts them, a margin left where it does not fit.
    own = list(dense_variants(rivals[1], corpus, TaskOptions(), blocks=1))
    assert own[-1].extract(np.array([0]), lambda _d, _t: None).grid == rivals[1].grid
    with pytest.raises(TaskError, match="no patches"):
        list(dense_variants(function, corpus, TaskOptions(), blocks=1))
