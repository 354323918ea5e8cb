"""`load_encoder`: a run folder, one of its checkpoints or a folder that `save_encoder` wrote → `Encoder`.

Nothing is unpickled: weights are safetensors, the rest JSON, and every byte is checked before it is used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from umif.config import parse_config
from umif.corpus.manifest import read_manifest
from umif.encoder.encoder import DEFAULT_SHORTER_SIDE, DEFAULT_WEIGHTS, Encoder, Weights
from umif.errors import CheckpointError, CorpusError, RunError, StorageError
from umif.models import ModelConfig, TokenEncoder
from umif.tokens import TextTokenizer
from umif.train.checkpoint import latest_checkpoint, load_state, load_tensors, verify_checkpoint
from umif.train.durable import remove_folder
from umif.train.runfolder import read_run_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
CARD = "encoder.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer"
FEATURES = "features"


def load_encoder(path: str | Path, weights: Weights = DEFAULT_WEIGHTS, *, device: str = "auto") -> Encoder:
    """Load a frozen encoder with its preprocessing and tokeniser.

    Args:
        path: A run folder (its newest intact checkpoint is taken), a checkpoint folder inside one, or a folder that
            `save_encoder` wrote.
        weights: Of a run, whether the averaged teacher's or the student's. An exported folder holds one of them.
        device: Where it computes; `auto` = a GPU where there is one.

    Raises:
        RunError: the folder is none of these, or has no intact checkpoint.
        CheckpointError: the files do not match what was saved.

    Example:
        >>> load_encoder("runs/demo").encode_images(["chest.png"]).shape  # doctest: +SKIP
        torch.Size([1, 192])
    """
    if weights not in ("teacher", "student"):
        raise RunError(f"weights are 'teacher' or 'student', not {weights!r}")
    folder = Path(path)
    if (folder / "run.json").exists():
        checkpoint = latest_checkpoint(folder)
        if checkpoint is None:
            raise RunError("the run has no checkpoint yet", where=folder, fix="train it first: umif pretrain RECIPE")
        return _from_run(folder, checkpoint, weights, device)
    if (folder / CARD).exists():
        return _from_export(folder, device)
    if (folder / "manifest.json").exists():
        verify_checkpoint(folder)
        return _from_run(model_folder(folder), folder, weights, device)
    what = "holds no run, checkpoint or exported encoder" if folder.exists() else "there is no such folder"
    raise RunError(what, where=folder, fix="give a run folder (with run.json), as umif pretrain makes it")


def model_folder(path: str | Path) -> Path:
    """Return where results and features of a model are kept: the folder itself; of a checkpoint, its run's.

    Raises:
        RunError: the checkpoint lies outside a run.
    """
    folder = Path(path)
    if (folder / "run.json").exists() or (folder / CARD).exists() or not (folder / "manifest.json").exists():
        return folder
    run = folder.resolve().parent.parent
    if not (run / "run.json").exists():
        raise RunError(
            "this checkpoint lies outside its run, whose run.json says which network it is",
            where=folder,
            fix="keep it at RUN/checkpoints/step-…",
        )
    return run


def save_encoder(encoder: Encoder, out: str | Path) -> Path:
    """Write an encoder to a folder of its own that `load_encoder` reads; return the folder.

    It appears under its name only when it is whole.

    Raises:
        StorageError: the folder exists, or the disk refused.
    """
    folder = Path(out)
    if folder.exists():
        raise StorageError("there is such a folder already", where=folder, fix="choose another one")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    card = {
        "format": FORMAT,
        "name": encoder.name,
        "model": encoder.config.model_dump(mode="json"),
        "preprocessing": encoder.preprocessing.to_json(),
        "weights_sha256": encoder.weights_sha256,
        "provenance": encoder.provenance,
    }
    try:
        temporary.mkdir(parents=True)
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in encoder.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS)
        if encoder.tokenizer is not None:
            encoder.tokenizer.save(temporary / TOKENIZER)
        (temporary / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        if temporary.exists():
            remove_folder(temporary)
        raise StorageError(f"cannot be written: {error.strerror or error}", where=folder, fix="make room") from error
    return folder


def _from_run(run: Path, checkpoint: Path, weights: Weights, device: str) -> Encoder:
    record = read_run_json(run) or {}
    try:
        name, model, corpus = str(record["name"]), record["recipe"]["model"], record["corpus"]
        fingerprint, corpus_path = str(corpus["fingerprint"]), Path(corpus["path"])
    except (KeyError, TypeError):
        raise RunError("lacks name, recipe or corpus", where=run / "run.json", fix="restore it from a copy") from None
    prefix = f"{weights}."
    tensors = {
        key.removeprefix(prefix): tensor for key, tensor in load_tensors(checkpoint).items() if key.startswith(prefix)
    }
    network = _network(model, tensors, where=checkpoint)
    return Encoder(
        network,
        name=name,
        tokenizer=_tokenizer(run),
        shorter_side=int(corpus.get("shorter_side") or _shorter_side(corpus_path, fingerprint)),
        cache=run / FEATURES,
        provenance={
            "weights": weights,
            "step": load_state(checkpoint).get("step"),
            "corpus": fingerprint,
            "umif": (record.get("starts") or [{}])[-1].get("versions", {}).get("umif"),
        },
        device=device,
    )


def _from_export(folder: Path, device: str) -> Encoder:
    card = read_run_json(folder, CARD) or {}
    if card.get("format") != FORMAT:
        raise RunError(f"has format {card.get('format')!r}, this UmiF reads {FORMAT}", where=folder / CARD)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=folder / WEIGHTS) from None
    try:
        expected, shorter_side = str(card["weights_sha256"]), int(card["preprocessing"]["shorter_side"])
        model, name, provenance = card["model"], str(card["name"]), dict(card["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"lacks or spoils {error}", where=folder / CARD, fix="export the model again") from None
    encoder = Encoder(
        _network(model, tensors, where=folder / WEIGHTS),
        name=name,
        tokenizer=_tokenizer(folder),
        shorter_side=shorter_side,
        cache=folder / FEATURES,
        provenance=provenance,
        device=device,
    )
    if encoder.weights_sha256 != expected:
        raise CheckpointError("the weights differ from what was saved (SHA-256)", where=folder / WEIGHTS)
    return encoder


def _network(model: Any, tensors: dict[str, Tensor], *, where: Path) -> TokenEncoder:
    """Build the network and fill it.

    Two sizes follow the tokeniser that a run trained, so they are read off the weights rather than the recipe.
    """
    try:
        words = tensors["word_embed.weight"]
    except KeyError:
        raise CheckpointError("holds no encoder weights", where=where, fix="use another checkpoint") from None
    if not isinstance(model, dict):
        raise RunError("the recipe's model is no group of keys", where=where)
    try:
        config = parse_config(ModelConfig, {**model, "vocab_size": len(words), "text_init": None}, where=where)
        network = TokenEncoder(config)
        network.load_state_dict(tensors)
    except ValidationError as error:
        raise RunError(f"the recipe's model cannot be read: {error}", where=where) from None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(f"the weights do not fit the recipe's model: {reason[-1].strip()}", where=where) from None
    return network


def _tokenizer(folder: Path) -> TextTokenizer | None:
    return TextTokenizer.load(folder / TOKENIZER) if (folder / TOKENIZER).is_dir() else None


def _shorter_side(corpus: Path, fingerprint: str) -> int:
    """The shorter side of the corpus trained on; the default where that corpus is no longer there."""
    try:
        manifest = read_manifest(corpus)
    except CorpusError:
        return DEFAULT_SHORTER_SIDE
    return manifest.config.shorter_side if manifest.fingerprint == fingerprint else DEFAULT_SHORTER_SIDE
