"""Encoders of others behind the same interface, so that a table compares networks and not pipelines.

    timm:NAME                      a network of timm with its pretrained weights
    timm:NAME@weights.safetensors  the same with weights from a file
    hf:NAME                        a vision model of transformers, from the hub or a local folder
    path/to/script.pt              a TorchScript function, squares (N, 1|3, S, S) → features (N, D)
    path/to/model.onnx             the same as ONNX

Grey pictures are repeated to as many channels as the network reads, with its own mean, deviation, size and
interpolation. What lies beside a file as `<file>.json` replaces any of these (keys of `PictureSpec`).

Differs: the whole picture is stretched to the network's square, as for our own encoder, where timm and transformers
    may cut to the centre: rivals see the same film, and patches lie where masks and boxes do.

Shape legend: N pictures, C channels, S×S pixels, P patches, K blocks, D features.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from umif.config import Config, parse_config
from umif.encoder.frozen import FrozenEncoder
from umif.encoder.pixels import Preprocessing
from umif.errors import ConfigError, InputError, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from umif.encoder.features import Readout

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "lanczos"]
TIMM, TRANSFORMERS = "timm:", "hf:"
_FILES = (".pt", ".ts", ".onnx")


class PictureSpec(Config):
    """What a network expects of its input; may lie as `<file>.json` beside weights, a script or an ONNX file."""

    image_size: int | None = Field(None, gt=0, description="Side of the square, pixels")
    channels: Literal[1, 3] | None = Field(None, description="Channels of the input")
    mean: tuple[float, ...] | None = Field(None, description="Mean of each channel, of pixels in [0, 1]")
    std: tuple[float, ...] | None = Field(None, description="Deviation of each channel, of pixels in [0, 1]")
    interpolation: Interpolation | None = Field(None, description="How pictures are resized")


@dataclass(frozen=True, slots=True)
class ForeignPreprocessing(Preprocessing):
    """The whole picture, stretched to the square by the network's own interpolation, then its own normalisation.

    Attributes:
        channels: The grey picture is repeated so often.
        mean, std: Of each channel, of pixels in [0, 1].
        interpolation: Pillow's filter, which looks at every source pixel when it makes a picture smaller.
    """

    channels: int = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels or min(self.std) <= 0:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} do not fit {self.channels} channels", where="preprocessing"
            )
        if self.interpolation not in get_args(Interpolation):
            raise ConfigError(f"no interpolation is called {self.interpolation!r}", where="preprocessing")

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "image_size": self.image_size,
            "shorter_side": self.shorter_side,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    def view(self, pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the whole picture, stretched to the square. Shape (S, S)."""
        picture = Image.fromarray(np.ascontiguousarray(pixels_HW))
        resample = Image.Resampling[self.interpolation.upper()]
        return np.asarray(picture.resize((self.image_size, self.image_size), resample), dtype=np.uint8)

    def normalised(self, views_NSS: NDArray[np.uint8], device: torch.device) -> Tensor:
        """Return the network's input. Shapes: (N, S, S) → (N, C, S, S), fp32."""
        pixels = torch.from_numpy(np.ascontiguousarray(views_NSS)).to(device).float()[:, None] / 255.0
        mean = torch.tensor(self.mean, device=device)[None, :, None, None]
        std = torch.tensor(self.std, device=device)[None, :, None, None]
        return (pixels.expand(-1, self.channels, -1, -1) - mean) / std


class Backbone(ABC):
    """A network of others: squares in, features out. Everything else is the same for all of them.

    Attributes:
        width, patch_width: Features of CLS, and of a patch.
        depth: Blocks of one width; 1 = the last map only, 0 = no patches at all.
        grid: Rows and columns of patches.
        weights_sha256: Over the weights, or over the file's bytes.
        picture: What the network expects of its input.
        provenance: Where the weights come from.
        notes: What a reader of the table has to know.
    """

    width: int
    patch_width: int
    depth: int
    grid: tuple[int, int]
    weights_sha256: str
    picture: PictureSpec
    provenance: dict[str, Any]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def features(self, squares_NCSS: Tensor, block: int | None) -> tuple[Tensor, Tensor | None]:
        """CLS and patches, after a block or (`None`) at the end. Shapes: (N, D) and (N, P, D), or no patches."""

    def block_patches(self, squares_NCSS: Tensor, blocks: Sequence[int]) -> Tensor:
        """Patches after several blocks. Shape (N, K, P, D)."""
        return torch.stack([_patches(self.features(squares_NCSS, block)[1]) for block in blocks], dim=1)

    def to(self, device: torch.device) -> None:
        """Move the weights; nothing to do where they stay."""
        return

    def random(self, seed: int) -> Backbone | None:
        """Return the same network with random weights, `None` where there is no telling how."""
        return None


class ForeignEncoder(FrozenEncoder):
    """A frozen encoder of others. It reads pictures only: tasks that need words leave it out."""

    def __init__(
        self,
        spec: str,
        backbone: Backbone,
        *,
        shorter_side: int,
        cache: Path | None = None,
        device: str = "auto",
    ) -> None:
        wanted = backbone.picture
        channels = wanted.channels or 3
        super().__init__(
            name=spec,
            preprocessing=ForeignPreprocessing(
                image_size=wanted.image_size or 224,
                shorter_side=shorter_side,
                channels=channels,
                mean=wanted.mean or (0.0,) * channels,
                std=wanted.std or (1.0,) * channels,
                interpolation=wanted.interpolation or "bilinear",
            ),
            tokenizer=None,
            cache=cache,
            provenance=backbone.provenance,
            device=device,
        )
        self.title = spec
        self.readouts = ("cls", "patches") if backbone.depth else ("cls",)
        self.notes = backbone.notes
        backbone.to(self.device)
        self._backbone = backbone

    @property
    def width(self) -> int:
        """Number of features D."""
        return self._backbone.width

    @property
    def patch_width(self) -> int:
        """Number of features of a patch."""
        return self._backbone.patch_width

    @property
    def depth(self) -> int:
        """Number of blocks whose patches can be had."""
        return self._backbone.depth

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self._backbone.grid

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over the weights, or over the file that holds the function."""
        return self._backbone.weights_sha256

    def random_like(self, seed: int = 0) -> ForeignEncoder:
        """Return the same network with random weights.

        Raises:
            TaskError: a file holds a finished function, which cannot be drawn anew.
        """
        backbone = self._backbone.random(seed)
        if backbone is None:
            raise TaskError("a finished function has no random weights", where=self.name, fix="leave the baselines out")
        side, cache, device = self.preprocessing.shorter_side, self._cache_folder, str(self.device)
        return ForeignEncoder(f"random {self.name}", backbone, shorter_side=side, cache=cache, device=device)

    def _forward(self, views_NSS: NDArray[np.uint8], readout: Readout) -> Tensor:
        if readout.kind not in self.readouts:
            raise TaskError("gives one vector a picture, so it has no patches", where=self.name)
        with torch.inference_mode():
            cls_ND, patches_NPD = self._backbone.features(self._squares(views_NSS), readout.block)
            if readout.kind == "cls":
                features = cls_ND.float().cpu()
            else:
                features = readout.of(cls_ND.float(), _patches(patches_NPD).float(), self.grid).cpu()
        return features.clone()

    def _forward_blocks(self, views_NSS: NDArray[np.uint8], blocks: Sequence[int]) -> NDArray[np.float32]:
        if not self.depth:
            raise TaskError("gives one vector a picture, so it has no patches", where=self.name)
        with torch.inference_mode():
            patches = self._backbone.block_patches(self._squares(views_NSS), blocks)
        return np.asarray(patches.float().cpu().numpy())

    def _squares(self, views_NSS: NDArray[np.uint8]) -> Tensor:
        assert isinstance(self.preprocessing, ForeignPreprocessing)
        return self.preprocessing.normalised(views_NSS, self.device)


def is_foreign(model: str | Path) -> bool:
    """Whether a MODEL names an encoder of others rather than a folder of ours."""
    text = str(model)
    return text.startswith((TIMM, TRANSFORMERS)) or (text.endswith(_FILES) and not Path(text).is_dir())


def load_foreign(
    spec: str | Path, *, shorter_side: int = 256, cache: Path | None = None, device: str = "auto"
) -> ForeignEncoder:
    """Load an encoder of others by its spec (see the head of this file).

    Args:
        spec: What to load; it is also the encoder's name in tables.
        shorter_side: Shorter side that the corpus stores, pixels.
        cache: Where features are kept.
        device: Where it computes; `auto` = a GPU where there is one.

    Raises:
        InputError: the spec is none, or the weights cannot be had; the local way out is named.
        CheckpointError: the weights do not fit the network.
    """
    text = str(spec)
    backbone: Backbone
    if text.startswith(TIMM):
        from umif.encoder.foreign_timm import TimmBackbone

        backbone = TimmBackbone.load(text.removeprefix(TIMM))
    elif text.startswith(TRANSFORMERS):
        from umif.encoder.foreign_transformers import TransformersBackbone

        backbone = TransformersBackbone.load(text.removeprefix(TRANSFORMERS))
    elif is_foreign(text):
        from umif.encoder.foreign_files import load_function

        if not Path(text).is_file():
            raise InputError("there is no such file", where=text, fix="check the path")
        backbone = load_function(Path(text), _device_of(device))
    else:
        raise InputError(
            f"{text!r} names no encoder",
            fix="write timm:NAME, timm:NAME@weights.safetensors, hf:NAME, or the path of a .pt or .onnx file",
        )
    return ForeignEncoder(text, backbone, shorter_side=shorter_side, cache=cache, device=device)


def picture_beside(file: Path, default: PictureSpec) -> PictureSpec:
    """Return what the network expects: `<file>.json` where it lies beside the file, the default for the rest.

    Raises:
        ConfigError: the JSON cannot be read, or has an unknown key.
    """
    beside = Path(f"{file}.json")
    if not beside.is_file():
        return default
    try:
        given = json.loads(beside.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {error}", where=beside) from None
    if not isinstance(given, dict):
        raise ConfigError("must hold one object", where=beside)
    own = parse_config(PictureSpec, given, where=beside)
    return default.model_copy(update=own.model_dump(exclude_none=True))


def _patches(patches_NPD: Tensor | None) -> Tensor:
    assert patches_NPD is not None
    return patches_NPD


def _device_of(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
