"""Networks of timm as frozen encoders.

A plain ViT gives its patches after every block; any other network gives its last map.

Shape legend: N pictures, C channels, S×S pixels, P patches, T tokens, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data import resolve_model_data_config

from umif.encoder.foreign import Backbone, PictureSpec, picture_beside
from umif.encoder.frozen import weights_digest
from umif.errors import CheckpointError, InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_HUB = ("hf-hub:", "hf_hub:", "local-dir:")
_INTERPOLATIONS = {"bilinear", "bicubic", "nearest", "lanczos", "box"}


class TimmBackbone(Backbone):
    """One network of timm, without its classifier."""

    def __init__(self, name: str, model: Any, provenance: dict[str, Any], picture: PictureSpec | None = None) -> None:
        self._name = name
        self._model = model.eval().requires_grad_(False)
        self.provenance = provenance
        self.picture = picture or _picture(model)
        self.weights_sha256 = weights_digest(model.state_dict())
        self._is_vit = all(hasattr(model, key) for key in ("blocks", "patch_embed", "num_prefix_tokens", "pos_embed"))
        size = self.picture.image_size
        with torch.inference_mode():
            cls_ND, patches_NPD = self.features(
                torch.zeros(1, self.picture.channels or 3, size or 224, size or 224), None
            )
        self.width, self.patch_width = int(cls_ND.shape[1]), int(patches_NPD.shape[2])
        self.depth = len(model.blocks) if self._is_vit else 1

    @classmethod
    def load(cls, text: str) -> TimmBackbone:
        """Load `NAME`, or `NAME@weights.safetensors`.

        Raises:
            InputError: no such network, weights that cannot be reached, or a file that is no safetensors file.
            CheckpointError: the file's weights do not fit the network.
        """
        name, at, path = text.partition("@")
        if not name.startswith(_HUB) and not timm.is_model(name):
            raise InputError(f"timm has no network {name!r}", fix=nearest(name, timm.list_models()))
        if at:
            file = Path(path)
            model = _from_file(name, file)
            return cls(
                name, model, {"weights": str(file), "timm": timm.__version__}, picture_beside(file, _picture(model))
            )
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0)
        except Exception as error:  # hub clients raise what their HTTP library does
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"the pretrained weights cannot be had: {reason}",
                where=f"timm:{name}",
                fix=f"fetch them where there is a network, then: timm:{name}@/path/weights.safetensors",
            ) from None
        return cls(name, model, {"weights": "pretrained", "timm": timm.__version__})

    def features(self, squares_NCSS: Tensor, block: int | None) -> tuple[Tensor, Tensor]:
        """CLS (or what the network pools) and patches. Shapes: (N, D) and (N, P, D)."""
        if self._is_vit and block is not None:
            [(patches_NPD, prefix_NTD)] = self._blocks(squares_NCSS, [block])
            return prefix_NTD[:, 0] if prefix_NTD.shape[1] else patches_NPD.mean(1), patches_NPD
        last = self._model.forward_features(squares_NCSS)
        cls_ND: Tensor = self._model.forward_head(last, pre_logits=True).flatten(1)
        if last.ndim == 4:
            # Convolutional networks put channels second, Swin's family last.
            channels_last = last.shape[1] != self._model.num_features and last.shape[3] == self._model.num_features
            map_NDRC = last.permute(0, 3, 1, 2) if channels_last else last
            self.grid = (int(map_NDRC.shape[2]), int(map_NDRC.shape[3]))
            return cls_ND, map_NDRC.flatten(2).transpose(1, 2)
        patches_NPD = last[:, int(getattr(self._model, "num_prefix_tokens", 0)) :]
        self.grid = _grid(self._model, patches_NPD.shape[1])
        return cls_ND, patches_NPD

    def block_patches(self, squares_NCSS: Tensor, blocks: Sequence[int]) -> Tensor:
        """Patches after several blocks, in one pass. Shape (N, K, P, D)."""
        if not self._is_vit:
            return super().block_patches(squares_NCSS, blocks)
        wanted = sorted(set(blocks))
        found = dict(zip(wanted, self._blocks(squares_NCSS, wanted), strict=True))
        return torch.stack([found[block][0] for block in blocks], dim=1)

    def _blocks(self, squares_NCSS: Tensor, blocks: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = self._model.forward_intermediates(
            squares_NCSS,
            indices=[block - 1 for block in blocks],
            return_prefix_tokens=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        # A network without prefix tokens gives the patches alone.
        return [one if isinstance(one, tuple) else (one, one[:, :0]) for one in found]

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self._model.to(device)

    def random(self, seed: int) -> TimmBackbone:
        """Return the same network with random weights; the caller's random state is left alone."""
        model = _seeded(self._name, seed, None)
        return TimmBackbone(self._name, model, {"weights": "random", "seed": seed}, self.picture)


def _from_file(name: str, file: Path) -> Any:
    if file.suffix != ".safetensors":
        raise InputError("is no .safetensors file, and nothing else is read", where=file, fix="convert the weights")
    if not file.is_file():
        raise InputError("there is no such file", where=file, fix="check the path")
    try:
        # timm's own loader knows how published weights differ from the network's names. It takes what it finds and
        # leaves the rest random, so it is asked twice: whatever differs was not in the file.
        models = [_seeded(name, seed, {"file": str(file), "hf_hub_id": None}) for seed in (0, 1)]
    except Exception as error:  # timm and safetensors raise several kinds, all meaning the same to the user
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        raise CheckpointError(f"the weights do not fit {name}: {reason}", where=file) from None
    one, other = (model.state_dict() for model in models)
    random = [key for key in one if not torch.allclose(one[key], other[key], rtol=0, atol=0, equal_nan=True)]
    if random:
        raise CheckpointError(
            f"the weights do not fit {name}: {len(random)} of {len(one)} tensors are not in the file ({random[0]}, …)",
            where=file,
            fix="name the network that the file was made for",
        )
    return models[0]


def _seeded(name: str, seed: int, weights: dict[str, Any] | None) -> Any:
    """Return a network without a classifier; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, pretrained=weights is not None, num_classes=0, pretrained_cfg_overlay=weights)


def _picture(model: Any) -> PictureSpec:
    config = resolve_model_data_config(model)
    channels, _, side = config["input_size"]
    interpolation = config["interpolation"]
    return PictureSpec(
        image_size=side,
        channels=channels,
        mean=tuple(config["mean"])[:channels],
        std=tuple(config["std"])[:channels],
        interpolation=interpolation if interpolation in _INTERPOLATIONS else "bicubic",
    )


def _grid(model: Any, patches: int) -> tuple[int, int]:
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is not None and grid[0] * grid[1] == patches:
        return int(grid[0]), int(grid[1])
    side = round(patches**0.5)
    return (side, side) if side * side == patches else (1, patches)
