"""What downstream tasks see of any frozen encoder, ours or another's: pictures in, features out, nothing ever trained.

Shape legend: N inputs, D features, P patches, K blocks, S×S pixels.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from umif.encoder.dense import PatchFeatures, PatchStore
from umif.encoder.features import FeatureCache, Readout, check_block, feature_key
from umif.encoder.pixels import as_list
from umif.errors import EmptyError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.corpus import Corpus
    from umif.encoder.pixels import ImageInput, Preprocessing
    from umif.tokens import TextTokenizer

BATCH_SIZE = 64


class FrozenEncoder(ABC):
    """Weights + preprocessing + where they came from. Nothing in it is ever trained.

    A subclass says what the network is and runs it over a batch of squares; files, arrays, corpora and the features
    kept on disk are the same for all.

    Attributes:
        name: What it is called.
        title: Its name in tables of results, before the readout.
        preprocessing: How pictures become the network's input.
        tokenizer: The run's; `None` where the encoder reads pictures only.
        provenance: Where the weights come from; plain JSON values.
        readouts: Kinds of features that it has.
    """

    title: str = "umif"
    readouts: tuple[Literal["cls", "patches"], ...] = ("cls", "patches")
    name: str
    preprocessing: Preprocessing
    tokenizer: TextTokenizer | None
    provenance: dict[str, Any]

    def __init__(
        self,
        *,
        name: str,
        preprocessing: Preprocessing,
        tokenizer: TextTokenizer | None,
        cache: Path | None,
        provenance: dict[str, Any] | None,
        device: str,
    ) -> None:
        self.device = torch.device(_device(device))
        self.name = name
        self.preprocessing = preprocessing
        self.tokenizer = tokenizer
        self.provenance = dict(provenance or {})
        self._cache_folder = cache
        self._patch_stores: dict[str, PatchStore] = {}

    # ------------------------------------------------------------------------------------------- what it is
    @property
    @abstractmethod
    def width(self) -> int:
        """Number of features D."""

    @property
    def patch_width(self) -> int:
        """Number of features of a patch; another than `width` in a few convolutional networks."""
        return self.width

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of blocks whose patches can be had; 1 where only the last map can."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""

    @property
    def image_size(self) -> int:
        """Side of the square that the network reads, pixels."""
        return self.preprocessing.image_size

    @property
    def folder(self) -> Path | None:
        """The model's folder, below whose `results` a task may put pictures; `None` of an encoder in memory."""
        return None if self._cache_folder is None else self._cache_folder.parent

    @property
    @abstractmethod
    def weights_sha256(self) -> str:
        """SHA-256 over the weights, hexadecimal."""

    @abstractmethod
    def random_like(self, seed: int = 0) -> FrozenEncoder:
        """Return the same network with random weights: the baseline that says what training added.

        Raises:
            TaskError: it cannot be drawn anew (its file holds a finished function).
        """

    @abstractmethod
    def _forward(self, views_NSS: NDArray[np.uint8], readout: Readout) -> Tensor:
        """Features of squares. Shapes: (N, S, S) → (N, features), fp32 on the CPU."""

    @abstractmethod
    def _forward_blocks(self, views_NSS: NDArray[np.uint8], blocks: Sequence[int]) -> NDArray[np.float32]:
        """Patches after some blocks. Shapes: (N, S, S) → (N, K, P, D)."""

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
        return self._read_out(as_list(inputs), whole, batch_size).view(-1, rows, columns, self.patch_width)

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

        Raises:
            NonFiniteError: the features hold NaN or infinity; nothing is kept.
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
            self._patch_stores[name] = PatchStore(folder, key, (len(blocks), patches, self.patch_width))
        store = self._patch_stores[name]
        parts = store.parts()
        there = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
        missing = np.setdiff1d(np.asarray(image_rows, dtype=np.int64), there)
        if len(missing):
            store.add(missing, self._patch_batches(corpus, missing, blocks, batch_size, progress))
            parts = store.parts()
        return PatchFeatures(parts, blocks, self.grid)

    # ------------------------------------------------------------------------------------------- parts
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
            features = self._forward(views, readout).numpy()
            if not np.isfinite(features).all():
                raise NonFiniteError(
                    "the encoder's features hold NaN or infinity", where=self.name, fix="the weights are damaged"
                )
            parts.append(features)
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
            yield self._forward_blocks(np.stack([self.preprocessing.jpeg(data) for data in jpegs]), blocks)
            progress(min(start + batch_size, len(rows)), len(rows))

    def __repr__(self) -> str:
        size = f"width {self.width}, {self.image_size} pixels"
        return f"{type(self).__name__}({self.name!r}: {size}, {self.weights_sha256[:12]})"


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of weights, hexadecimal."""
    digest = hashlib.sha256()
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
