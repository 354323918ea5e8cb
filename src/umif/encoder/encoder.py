"""The frozen encoder: what users and downstream tasks see of a trained model.

Shape legend: N inputs, F findings, D width, S×S pixels, P patches.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from umif.encoder.frozen import BATCH_SIZE, FrozenEncoder, weights_digest
from umif.encoder.pixels import Preprocessing, as_list
from umif.errors import EmptyError, InputError, nearest
from umif.models import TokenEncoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.encoder.features import Readout
    from umif.encoder.pixels import ImageInput
    from umif.models import ModelConfig, UmiF
    from umif.tokens import TextTokenizer

Weights = Literal["teacher", "student"]
# The teacher: an average of the student over the last steps, which BYOL and its followers found the steadier features.
DEFAULT_WEIGHTS: Weights = "teacher"
# C: the temperature that the alignment loss is trained with by default.
ZERO_SHOT_TEMPERATURE = 0.1
DEFAULT_SHORTER_SIDE = 256


class Encoder(FrozenEncoder):
    """The encoder that a run trained: pictures and, where it has a tokeniser, words. Nothing in it is ever trained."""

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
        super().__init__(
            name=name,
            preprocessing=Preprocessing(network.config.image_size, shorter_side),
            tokenizer=tokenizer,
            cache=cache,
            provenance=provenance,
            device=device,
        )
        self._network = network.to(self.device).eval().requires_grad_(False)
        self._sha256: str | None = None

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
    def weights_sha256(self) -> str:
        """SHA-256 over names, shapes and values of all weights, hexadecimal."""
        if self._sha256 is None:
            self._sha256 = weights_digest(self._network.state_dict())
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
    def attention(self, inputs: ImageInput | Iterable[ImageInput], batch_size: int = BATCH_SIZE) -> Tensor:
        """Where the last block's CLS token looks, averaged over heads. It says what CLS gathers, not why.

        Shapes: N inputs → (N, rows, columns) fp32; sums to at most 1, the rest is CLS's attention to itself.
        Raises: as `encode_images`.
        """
        sources, maps = as_list(inputs), []
        if not sources:
            raise EmptyError("there is no picture to encode")
        for start in range(0, len(sources), batch_size):
            views = [
                self.preprocessing.file_or_array(source, f"images[{start + index}]")
                for index, source in enumerate(sources[start : start + batch_size])
            ]
            with torch.inference_mode():
                shares_NHP = self._network.cls_attention(torch.from_numpy(np.stack(views)).to(self.device))
            maps.append(shares_NHP.mean(1).cpu().clone().unflatten(1, self.grid))
        return torch.cat(maps)

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
        return self.unit_vectors(features_ND) @ directions_FD.T

    def unit_vectors(self, features_ND: Tensor) -> Tensor:
        """Unit vectors of CLS features of pictures or words, in the space that the losses act on. Shape (N, D)."""
        return F.normalize(self._joint(features_ND), dim=1)

    # ------------------------------------------------------------------------------------------- parts
    def _joint(self, features_ND: Tensor) -> Tensor:
        """CLS features as the losses see them: behind the projector, where the model has one."""
        if self._network.projector is None:
            return features_ND
        with torch.inference_mode():
            projected: Tensor = self._network.projector(features_ND.to(self.device)).float().cpu()
        return projected.clone()

    def _forward(self, views_NSS: NDArray[np.uint8], readout: Readout) -> Tensor:
        with torch.inference_mode():
            cls_ND, patches_NPD = self._network.encode_images(
                torch.from_numpy(views_NSS).to(self.device), block=readout.block
            )
            features = readout.of(cls_ND.float(), patches_NPD.float(), self.grid).cpu()
        # A plain tensor, which whoever trains a head on it needs.
        return features.clone()

    def _forward_blocks(self, views_NSS: NDArray[np.uint8], blocks: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode():
            views = torch.from_numpy(views_NSS).to(self.device)
            patches_NKPD: NDArray[np.float32] = self._network.encode_image_blocks(views, blocks).float().cpu().numpy()
        return patches_NKPD


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
