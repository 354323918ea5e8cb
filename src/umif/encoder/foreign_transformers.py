"""Vision models of transformers as frozen encoders, from the hub or from a folder.

What the model gives for a black square tells its grid, and whether its hidden states are all of one shape: then its
patches can be had after every block, else after the last alone. Of a model of pictures and words, the picture side is
taken. After the last block the final norm may be inside, as transformers has it.

Shape legend: N pictures, C channels, S×S pixels, P patches, T tokens, D features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoImageProcessor, AutoModel

from umif.encoder.foreign import Backbone, PictureSpec
from umif.encoder.frozen import weights_digest
from umif.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}


class TransformersBackbone(Backbone):
    """One vision model of transformers."""

    def __init__(self, model: Any, picture: PictureSpec, provenance: dict[str, Any]) -> None:
        self._model = model.eval().requires_grad_(False)
        self.picture = picture
        self.provenance = provenance
        self.weights_sha256 = weights_digest(model.state_dict())
        # CLIP's family norms its CLS behind the last block, and gives that as the pooled output.
        self._pooled = hasattr(model, "post_layernorm")
        size = picture.image_size or 224
        with torch.inference_mode():
            states = self._states(torch.zeros(1, picture.channels or 3, size, size))
        last = states[-1]
        self._prefix = 0
        if last.ndim == 3:
            side = size // int(getattr(model.config, "patch_size", 0) or size)
            self._prefix = last.shape[1] - side * side if last.shape[1] >= side * side > 1 else 0
            patches = last.shape[1] - self._prefix
            side = round(patches**0.5)
            self.grid = (side, side) if side * side == patches else (1, patches)
        else:
            self.grid = (int(last.shape[2]), int(last.shape[3]))
        self.depth = len(states) - 2 if len({tuple(state.shape) for state in states}) == 1 else 1
        with torch.inference_mode():
            cls_ND, patches_NPD = self.features(torch.zeros(1, picture.channels or 3, size, size), None)
        self.width, self.patch_width = int(cls_ND.shape[1]), int(patches_NPD.shape[2])

    @classmethod
    def load(cls, name: str) -> TransformersBackbone:
        """Load a hub id or a local folder; safetensors only, and no code of the model's own.

        Raises:
            InputError: it cannot be had, is no vision model, or does not say how pictures are normalised.
        """
        fix = "fetch it where there is a network, and give its local folder: hf:/path/folder"
        try:
            model = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        except Exception as error:  # hub clients raise what their HTTP library does
            raise InputError(f"the model cannot be had: {_first_line(error)}", where=f"hf:{name}", fix=fix) from None
        model = getattr(model, "vision_model", model)
        if getattr(model, "main_input_name", None) != "pixel_values":
            raise InputError("is no model of pictures", where=f"hf:{name}", fix="name a vision model")
        try:
            processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
        except Exception as error:
            raise InputError(
                f"does not say how pictures are normalised: {_first_line(error)}",
                where=f"hf:{name}",
                fix="put its preprocessor_config.json into the folder",
            ) from None
        source = str(Path(name)) if Path(name).is_dir() else name
        return cls(model, _picture(model, processor), {"weights": source, "transformers": transformers.__version__})

    def features(self, squares_NCSS: Tensor, block: int | None) -> tuple[Tensor, Tensor]:
        """CLS (or what the model pools) and patches. Shapes: (N, D) and (N, P, D)."""
        if block is not None and self.depth > 1:
            state = self._states(squares_NCSS)[block]
            patches_NPD = state[:, self._prefix :]
            return state[:, 0] if self._prefix else patches_NPD.mean(1), patches_NPD
        output = self._model(pixel_values=squares_NCSS)
        last, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        patches_NPD = last.flatten(2).transpose(1, 2) if last.ndim == 4 else last[:, self._prefix :]
        if self._prefix and not self._pooled:
            return last[:, 0], patches_NPD
        return patches_NPD.mean(1) if pooled is None else pooled.flatten(1), patches_NPD

    def block_patches(self, squares_NCSS: Tensor, blocks: Sequence[int]) -> Tensor:
        """Patches after several blocks, in one pass. Shape (N, K, P, D)."""
        if self.depth == 1:
            return super().block_patches(squares_NCSS, blocks)
        states = self._states(squares_NCSS)
        return torch.stack([states[block][:, self._prefix :] for block in blocks], dim=1)

    def _states(self, squares_NCSS: Tensor) -> list[Tensor]:
        """The embedding, the state after every block, and the last state as the model gives it."""
        output = self._model(pixel_values=squares_NCSS, output_hidden_states=True)
        return [*(output.hidden_states or ()), output.last_hidden_state]

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self._model.to(device)

    def random(self, seed: int) -> TransformersBackbone:
        """Return the same model with random weights; the caller's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = type(self._model)(self._model.config)
        return TransformersBackbone(model, self.picture, {"weights": "random", "seed": seed})


def _picture(model: Any, processor: dict[str, Any]) -> PictureSpec:
    mean: Any = processor.get("image_mean")
    std: Any = processor.get("image_std")
    normalises = processor.get("do_normalize", True) and mean is not None and std is not None
    size: Any = (processor.get("do_center_crop") and processor.get("crop_size")) or processor.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    channels = int(getattr(model.config, "num_channels", 3))
    return PictureSpec(
        image_size=int(side or getattr(model.config, "image_size", 224)),
        channels=1 if channels == 1 else 3,
        mean=tuple(mean)[:channels] if normalises else None,
        std=tuple(std)[:channels] if normalises else None,
        interpolation=_INTERPOLATIONS.get(int(processor.get("resample") or 2), "bilinear"),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
