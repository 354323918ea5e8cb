"""Where an encoder can be loaded from, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import umif
from planted_corpus import draw_film
from umif.encoder import Encoder, load_encoder
from umif.encoder.load import model_folder, save_encoder
from umif.errors import CheckpointError, RunError, StorageError
from umif.models import ModelConfig, UmiF, build_model
from umif.tokens import TextTokenizer
from umif.train.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = ModelConfig(backbone="vit_tiny_patch16_224", image_size=32, depth=2, width=48, heads=3)
FILM = draw_film(np.random.default_rng(0), visible=True)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(["no sign of edema", "a large pneumothorax"], vocab_size=90)


def model_of(tokenizer: TextTokenizer, seed: int) -> UmiF:
    model = build_model(CONFIG, vocab_size=tokenizer.vocab_size, seed=seed)
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.mul_(1.01)
    return model


@pytest.fixture
def run(tmp_path: Path, tokenizer: TextTokenizer) -> Path:
    """A run folder with two checkpoints: of seeds 1 and 2."""
    folder = tmp_path / "run"
    folder.mkdir()
    record = {
        "format": 1,
        "name": "tiny",
        # The recipe's vocabulary is not the one trained, as in any run with tokenizer.source: auto.
        "recipe": {"model": CONFIG.model_dump(mode="json")},
        "corpus": {"path": str(tmp_path / "gone"), "fingerprint": "f" * 64},
        "starts": [],
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    tokenizer.save(folder / "tokenizer")
    for step in (1, 2):
        save_checkpoint(folder, step, {"model": model_of(tokenizer, step).state_dict()}, {"step": step})
    return folder


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def test_a_run_gives_its_newest_weights(run: Path, tokenizer: TextTokenizer) -> None:
    model = model_of(tokenizer, 2)
    for weights in ("teacher", "student"):
        expected = Encoder.of_model(model, weights=weights, device="cpu")
        loaded = umif.load_encoder(run, weights, device="cpu")
        assert loaded.weights_sha256 == expected.weights_sha256
        assert torch.equal(loaded.encode_images(FILM), expected.encode_images(FILM))
    assert loaded.name == "tiny"
    assert (loaded.width, loaded.depth, loaded.grid, loaded.image_size) == (48, 2, (2, 2), 32)
    assert loaded.provenance["step"] == 2
    assert loaded.tokenizer == tokenizer
    assert loaded.preprocessing.shorter_side == 256  # the corpus is gone, so the default


def test_a_checkpoint_gives_its_own_weights(run: Path, tokenizer: TextTokenizer) -> None:
    loaded = load_encoder(checkpoint(run, 1), device="cpu")
    assert loaded.weights_sha256 == Encoder.of_model(model_of(tokenizer, 1), device="cpu").weights_sha256
    assert loaded.provenance["step"] == 1
    assert model_folder(checkpoint(run, 1)) == run.resolve()
    assert model_folder(run) == run


def test_a_damaged_checkpoint_is_passed_over_in_a_run_and_refused_by_name(run: Path) -> None:
    file = checkpoint(run, 2) / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data))
    assert load_encoder(run, device="cpu").provenance["step"] == 1
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_encoder(checkpoint(run, 2))


def drop_checkpoints(run: Path) -> Path:
    for file in sorted((run / "checkpoints").rglob("*"), reverse=True):
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()
    return run


def spoil_run(run: Path, text: str) -> Path:
    (run / "run.json").write_text(text, encoding="utf-8")
    return run


def lose_model(run: Path) -> Path:
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["recipe"]["model"]["depth"] = 5
    return spoil_run(run, json.dumps(record))


def move_checkpoint(run: Path) -> Path:
    return checkpoint(run, 2).rename(run.parent / "alone")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_checkpoints, "no checkpoint yet"),
        (lambda run: spoil_run(run, "{"), "cannot be read"),
        (lambda run: spoil_run(run, "{}"), "lacks name, recipe or corpus"),
        (lose_model, "do not fit"),
        (move_checkpoint, "outside its run"),
        (lambda run: run.parent, "holds no run"),
        (lambda run: run / "nowhere", "no such folder"),
        (lambda run: checkpoint(run, 2) / "model.safetensors", "holds no run"),
    ],
)
def test_what_is_no_model_is_refused_with_the_place(run: Path, change: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        load_encoder(change(run))
    assert caught.value.where is not None
    assert caught.value.exit_code == 2


def test_only_teacher_and_student_are_weights(run: Path) -> None:
    with pytest.raises(RunError, match="'best'"):
        load_encoder(run, "best")  # type: ignore[arg-type]


def test_an_exported_encoder_is_the_same_one(run: Path, tmp_path: Path) -> None:
    encoder = load_encoder(run, device="cpu")
    folder = save_encoder(encoder, tmp_path / "exported")
    loaded = load_encoder(folder, device="cpu")
    assert loaded.weights_sha256 == encoder.weights_sha256
    assert loaded.preprocessing == encoder.preprocessing
    assert loaded.provenance == encoder.provenance
    assert torch.equal(loaded.encode_images(FILM), encoder.encode_images(FILM))
    assert torch.equal(loaded.encode_texts("edema"), encoder.encode_texts("edema"))
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "model.safetensors", "tokenizer"]
    with pytest.raises(StorageError, match="already"):
        save_encoder(encoder, folder)


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_changed_export_is_refused(run: Path, tmp_path: Path, place: str) -> None:
    folder = save_encoder(load_encoder(run, device="cpu"), tmp_path / "exported")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[3 if place == "first" else -3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError):
        load_encoder(folder, device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("format", 2, "format 2"), ("model", None, "no group"), ("preprocessing", {}, "shorter_side")],
)
def test_a_spoilt_card_is_refused(run: Path, tmp_path: Path, key: str, value: object, message: str) -> None:
    folder = save_encoder(load_encoder(run, device="cpu"), tmp_path / "exported")
    card = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    (folder / "encoder.json").write_text(json.dumps({**card, key: value}), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        load_encoder(folder, device="cpu")
