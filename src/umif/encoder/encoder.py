"""The frozen encoder: what users and downstream tasks see of a trained model.

Shape legend: N inputs, F findings, D width, S×S pixels, P patches.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from umif.encoder.dense import PatchFeatures, PatchStore
from umif.encoder.features import FeatureCache, Readout, check_block, feature_key
from umif.encoder.pixels import Preprocessing, as_list
from umif.errors import EmptyError, InputError, nearest
from umif.models import TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.corpus import Corpus
    from umif.encoder.pixels import ImageInput
    from umif.models import ModelConfig, UmiF
    from umif.tokens import TextTokenizer

Weights = Literal["teacher", "student"]
# The teacher: an average of the student over the last steps, which BYOL and its followers found the steadier features.
DEFAULT_WEIGHTS: Weights = "teacher"
# C: the temperature that the alignment loss is trained with by default.
ZERO_SHOT_TEMPERATURE = 0.1
DEFAULT_SHORTER_SIDE = 256
BATCH_SIZE = 64


class Encoder:
    """Weights + preprocessing + tokeniser + where they came from. Nothing in it is ever trained.

    Attributes:
        name: What it is called in tables.
        preprocessing: How pictures become the network's input.
        tokenizer: The run's; `None` where the encoder reads pictures only.
        provenance: Run, step and corpus that the weights come from; plain JSON values.
    """

    def __init__(
        self,
        network: TokenEncoder,
        *,
        name: str = "umif",
        tokenizer: TextTokenizer | None = None,
        shorter_side: int = DEFAULT_SHORTER_SIDE,
        cache: Path | None = None,
        provenance: dict[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        self.device = torch.device(_device(device))
        self._network = network.to(self.device).eval().requires_grad_(False)
        self.name = name
        self.tokenizer = tokenizer
        self.preprocessing = Preprocessing(self.config.image_size, shorter_side)
        self.provenance = dict(provenance or {})
        self._cache_folder = cache
        self._sha256: str | None = None
        self._patch_stores: dict[str, PatchStore] = {}

    @classmethod
    def of_model(cls, model: UmiF, *, weights: Weights = DEFAULT_WEIGHTS, **options: Any) -> Encoder:
        """Return the encoder of a model in memory, with a copy of its weights."""
        source = model.teacher if weights == "teacher" else model.student
        network = _new_network(model.config, seed=0)
        network.load_state_dict(source.state_dict())
        return cls(network, **options)

    # ------------------------------------------------------------------------------------------- what it is
    @property
    def config(self) -> ModelConfig:
        """The network's shape."""
        return self._network.config

    @property
    def width(self) -> int:
        """Number of features D."""
        return self._network.width

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self._network.vit.blocks)  # type: ignore[arg-type]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._network.grid

    @property
    def image_size(self) -> int:
        """Side of the square that the network reads, pixels."""
        return self.config.image_size

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over names, shapes and values of all weights, hexadecimal."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            for key, tensor in sorted(self._network.state_dict().items()):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        return self._network.state_dict()

    def random_like(self, seed: int = 0) -> Encoder:
        """Return the same network with random weights: the baseline that says what training added."""
        return Encoder(
            _new_network(self.config, seed=seed),
            name="random",
            tokenizer=self.tokenizer,
            shorter_side=self.preprocessing.shorter_side,
            cache=self._cache_folder,
            provenance={"weights": "random", "seed": seed},
            device=str(self.device),
        )

    def trainable_copy(self) -> TokenEncoder:
        """Return a copy of the network whose weights can be trained, on the same device; the encoder stays as it is."""
        return copy.deepcopy(self._network).train().requires_grad_(True)

    # ------------------------------------------------------------------------------------------- pictures
    def encode_images(self, inputs: ImageInput | Iterable[ImageInput], batch_size: int = BATCH_SIZE) -> Tensor:
        """CLS features of files (PNG, JPEG, TIFF, DICOM) or (H, W) arrays.

        Shapes: N inputs → (N, D) fp32, on the CPU.
        Raises:
            ImageError: an input is no readable radiograph; it is named.
            InputError: a file is missing.
            EmptyError: there is no input.
        """
        return self._read_out(as_list(inputs), Readout("cls"), batch_size)

    def encode_patches(
        self, inputs: ImageInput | Iterable[ImageInput], block: int | None = None, batch_size: int = BATCH_SIZE
    ) -> Tensor:
        """Features of every patch; with `block` (1-based), after that block and without the final norm.

        Shapes: N inputs → (N, rows, columns, D) fp32, on the CPU.
        Raises: as `encode_images`; ConfigError: the network has no such block.
        """
        check_block(block, self.depth)
        rows, columns = self.grid
        whole = Readout("patches", block, pool=max(rows, columns))
        return self._read_out(as_list(inputs), whole, batch_size).view(-1, rows, columns, self.width)

    def encode_corpus(
        self,
        corpus: Corpus,
        image_rows: NDArray[np.int64] | Sequence[int],
        readout: Readout | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> NDArray[np.float32]:
        """Features of images of a corpus, extracted once and kept beside the model.

        Args:
            corpus: Where the images are.
            image_rows: Rows of its images, in any order.
            readout: Which features; CLS unless told.
            batch_size: Images at a time.
            progress: Called with images done and in all, after each batch that had to be extracted.

        Shapes: returns (N, features), fp32.
        """
        readout = readout or Readout("cls")
        check_block(readout.block, self.depth)
        wanted = np.asarray(image_rows, dtype=np.int64)
        key = feature_key(self.weights_sha256, readout, self.preprocessing.to_json(), corpus.fingerprint)
        cache = None if self._cache_folder is None else FeatureCache(self._cache_folder)
        rows, features = (cache.read(key) if cache else None) or (np.zeros(0, dtype=np.int64), None)
        missing = np.setdiff1d(wanted, rows)
        if features is None or len(missing):
            made = self._extract(corpus, missing, readout, batch_size, progress)
            order = np.argsort(np.concatenate([rows, missing]), kind="stable")
            features = (made if features is None else np.concatenate([features, made]))[order]
            rows = np.concatenate([rows, missing])[order]
            if cache:
                cache.write(key, rows, features)
        return features[np.searchsorted(rows, wanted)]

    def corpus_patches(
        self,
        corpus: Corpus,
        image_rows: NDArray[np.int64] | Sequence[int],
        blocks: Sequence[int],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> PatchFeatures:
        """Features of every patch of images of a corpus, after several blocks; extracted once, kept beside the model.

        One pass over the images that are not there yet, in half precision: 2 · K · P · D bytes an image. Where nothing
        can be kept beside the model, they lie in a temporary folder as long as this encoder lives.

        Args:
            corpus: Where the images are.
            image_rows: Rows of its images.
            blocks: After which blocks (1-based, without the final norm); heads bring norms of their own.
            batch_size: Images at a time.
            progress: Called with images done and in all, after each batch that had to be extracted.

        Raises:
            ConfigError: the network has no such block.
            NonFiniteError: the features hold NaN or infinity.
            StorageError: the disk is full.
        """
        for block in blocks:
            check_block(block, self.depth)
        key = {
            "weights": self.weights_sha256,
            "blocks": list(blocks),
            "preprocessing": self.preprocessing.to_json(),
            "corpus": corpus.fingerprint,
        }
        name = json.dumps(key, sort_keys=True)
        if name not in self._patch_stores:
            patches = self.grid[0] * self.grid[1]
            folder = None if self._cache_folder is None else self._cache_folder / "patches"
            self._patch_stores[name] = PatchStore(folder, key, (len(blocks), patches, self.width))
        store = self._patch_stores[name]
        parts = store.parts()
        there = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
        missing = np.setdiff1d(np.asarray(image_rows, dtype=np.int64), there)
        if len(missing):
            store.add(missing, self._patch_batches(corpus, missing, blocks, batch_size, progress))
            parts = store.parts()
        return PatchFeatures(parts, blocks, self.grid)

    # ------------------------------------------------------------------------------------------- words
    def encode_texts(self, texts: str | Sequence[str], batch_size: int = BATCH_SIZE) -> Tensor:
        """CLS features of texts, by the run's own tokeniser.

        Shapes: N texts → (N, D) fp32, on the CPU.
        Raises:
            InputError: the encoder came without a tokeniser, or something is no text.
            EmptyError: there is no text.
        """
        words = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise InputError("this encoder has no tokeniser, so it cannot read words", where=self.name)
        if not words:
            raise EmptyError("there is no text to encode")
        for index, text in enumerate(words):
            if not isinstance(text, str):
                raise InputError(f"a {type(text).__name__} is no text", where=f"texts[{index}]")
        ids = [self.tokenizer.encode(text, self.config.max_text_tokens) for text in words]
        with torch.inference_mode():
            parts = [
                self._network.encode_texts(ids[start : start + batch_size]).float().cpu()
                for start in range(0, len(ids), batch_size)
            ]
        return torch.cat(parts).clone()

    def zero_shot(
        self, images: ImageInput | Iterable[ImageInput], findings: Sequence[str], batch_size: int = BATCH_SIZE
    ) -> Tensor:
        """Probability of each finding in each picture, from words alone.

        Each finding has prompts that state it and prompts that negate it. Both sets become a mean direction; the
        probability is the softmax of a picture's cosine to either over a temperature of 0.1. It is calibrated on
        nothing: read it as a ranking.

        Shapes: N pictures, F findings → (N, F) fp32.
        Raises:
            InputError: the vocabulary knows no such finding; the nearest is offered.
        """
        sides = [self.prompt_direction(*finding_prompts(name)) for name in findings]
        features = self.encode_images(images, batch_size)
        if not sides:
            return torch.zeros(len(features), 0)
        return torch.sigmoid(self.cosines(features, torch.stack(sides)) / ZERO_SHOT_TEMPERATURE)

    def prompt_direction(self, positive: Sequence[str], negative: Sequence[str]) -> Tensor:
        """Mean direction of the positive prompts minus that of the negative ones. Shape (D,), fp32.

        The mean is taken over unit vectors and made a unit vector again, so that every prompt counts the same.
        """
        means = [
            F.normalize(F.normalize(self._joint(self.encode_texts(side)), dim=1).mean(0), dim=0)
            for side in (positive, negative)
        ]
        return means[0] - means[1]

    def cosines(self, features_ND: Tensor, directions_FD: Tensor) -> Tensor:
        """Product of the pictures' unit vectors with directions, in the space that the losses act on. Shape (N, F)."""
        return F.normalize(self._joint(features_ND), dim=1) @ directions_FD.T

    # ------------------------------------------------------------------------------------------- parts
    def _joint(self, features_ND: Tensor) -> Tensor:
        """CLS features as the losses see them: behind the projector, where the model has one."""
        if self._network.projector is None:
            return features_ND
        with torch.inference_mode():
            projected: Tensor = self._network.projector(features_ND.to(self.device)).float().cpu()
        return projected.clone()

    def _read_out(self, inputs: list[ImageInput], readout: Readout, batch_size: int) -> Tensor:
        if not inputs:
            raise EmptyError("there is no picture to encode")
        parts = []
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            views = [
                self.preprocessing.file_or_array(source, f"images[{start + index}]")
                for index, source in enumerate(batch)
            ]
            parts.append(self._forward(np.stack(views), readout))
        return torch.cat(parts)

    def _extract(
        self,
        corpus: Corpus,
        rows: NDArray[np.int64],
        readout: Readout,
        batch_size: int,
        progress: Callable[[int, int], None],
    ) -> NDArray[np.float32]:
        parts = [np.zeros((0, 0), dtype=np.float32)] if not len(rows) else []
        for start in range(0, len(rows), batch_size):
            jpegs = corpus.take_jpegs(rows[start : start + batch_size])
            views = np.stack([self.preprocessing.jpeg(data) for data in jpegs])
            parts.append(self._forward(views, readout).numpy())
            progress(min(start + batch_size, len(rows)), len(rows))
        return np.concatenate(parts)

    def _patch_batches(
        self,
        corpus: Corpus,
        rows: NDArray[np.int64],
        blocks: Sequence[int],
        batch_size: int,
        progress: Callable[[int, int], None],
    ) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(rows), batch_size):
            jpegs = corpus.take_jpegs(rows[start : start + batch_size])
            views = torch.from_numpy(np.stack([self.preprocessing.jpeg(data) for data in jpegs]))
            with torch.inference_mode():
                yield self._network.encode_image_blocks(views.to(self.device), blocks).float().cpu().numpy()
            progress(min(start + batch_size, len(rows)), len(rows))

    def _forward(self, views_NSS: NDArray[np.uint8], readout: Readout) -> Tensor:
        with torch.inference_mode():
            cls_ND, patches_NPD = self._network.encode_images(
                torch.from_numpy(views_NSS).to(self.device), block=readout.block
            )
            features = readout.of(cls_ND.float(), patches_NPD.float(), self.grid).cpu()
        # A plain tensor, which whoever trains a head on it needs.
        return features.clone()

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}: width {self.width}, {self.image_size} pixels, {self.weights_sha256[:12]})"


def finding_prompts(name: str) -> tuple[list[str], list[str]]:
    """Return the prompts that state a finding and those that negate it.

    Raises:
        InputError: the vocabulary knows no finding of that id, name or synonym.
    """
    from umif.language import prompts, vocabulary

    entry = vocabulary().find(name)
    if entry is None:
        raise InputError(
            f"no finding is called {name!r}", fix=nearest(name, [entry.id for entry in vocabulary().entries])
        )
    positive, negative = prompts(entry.id)
    return list(positive), list(negative)


def _new_network(config: ModelConfig, *, seed: int) -> TokenEncoder:
    """Random weights, whatever the config would start from; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TokenEncoder(config)


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
