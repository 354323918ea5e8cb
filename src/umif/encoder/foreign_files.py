"""Finished functions as frozen encoders: TorchScript and ONNX files that turn squares into features.

A file says what it reads in `<file>.json` (keys of `PictureSpec`). Without that, an ONNX graph still tells size and
channels, a script is tried with three channels and with one; pixels then lie in [0, 1], which the table says.

A TorchScript file holds a program: run those only that you would run as a program.

Shape legend: N pictures, C channels, S×S pixels, D features.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from umif.encoder.foreign import Backbone, PictureSpec, picture_beside
from umif.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

_SIZE = 224
_CHUNK = 2**20


class FunctionBackbone(Backbone):
    """A function from squares to one vector a picture: it has no patches, and no random twin."""

    def __init__(self, file: Path, function: Callable[[Tensor], Any], picture: PictureSpec, kind: str) -> None:
        self._file = file
        self._function = function
        self.picture = picture
        self.provenance = {"weights": str(file), "kind": kind}
        self.weights_sha256 = _file_digest(file)
        self.depth, self.grid, self.patch_width = 0, (1, 1), 0
        if picture.mean is None:
            self.notes = (f"{file}: no {file.name}.json beside it, so it was given pixels in [0, 1], not normalised",)
        side = picture.image_size or _SIZE
        self.width = int(self.features(torch.zeros(2, picture.channels or 3, side, side), None)[0].shape[1])

    def features(self, squares_NCSS: Tensor, block: int | None) -> tuple[Tensor, None]:
        """What the function gives. Shape (N, D).

        Raises:
            InputError: it fails, or gives something else than one vector a picture.
        """
        try:
            found = self._function(squares_NCSS)
        except Exception as error:  # whatever the file's own program raises
            lines = (str(error).strip() or type(error).__name__).splitlines()
            raise InputError(
                f"fails on squares of shape {tuple(squares_NCSS.shape)}: {lines[-1].strip()}",
                where=self._file,
                fix=f'say what it reads in {self._file.name}.json: {{"image_size": 224, "channels": 3}}',
            ) from None
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(squares_NCSS):
            what = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
            raise InputError(f"gives {what}", where=self._file, fix="it must turn (N, C, S, S) into features (N, D)")
        return found, None


def load_function(file: Path, device: torch.device) -> FunctionBackbone:
    """Load a `.onnx` file, or a TorchScript file.

    Raises:
        InputError: it cannot be read, or gives no features; ONNX without onnxruntime.
    """
    return _load_onnx(file, device) if file.suffix == ".onnx" else _load_script(file, device)


def _load_script(file: Path, device: torch.device) -> FunctionBackbone:
    try:
        with warnings.catch_warnings():
            # TorchScript is on its way out of torch, as each version says by another kind of warning, and yet what many
            # models are handed over as.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(file), map_location=device).eval()
    except Exception as error:  # the loader raises RuntimeError, ValueError and others
        lines = (str(error).strip() or type(error).__name__).splitlines()
        raise InputError(
            f"is no TorchScript file: {lines[0]}", where=file, fix="save it by torch.jit.trace(…).save(…)"
        ) from None

    def function(squares_NCSS: Tensor) -> Any:
        with torch.inference_mode():
            return module(squares_NCSS.to(device))

    picture = picture_beside(file, PictureSpec())
    wanted = (picture.channels,) if picture.channels else (3, 1)
    failure: InputError | None = None
    for channels in wanted:
        tried = picture.model_copy(update={"channels": channels, "image_size": picture.image_size or _SIZE})
        try:
            return FunctionBackbone(file, function, tried, "TorchScript")
        except InputError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _load_onnx(file: Path, device: torch.device) -> FunctionBackbone:
    try:
        import onnxruntime
    except ImportError:
        raise InputError("reading ONNX needs onnxruntime", where=file, fix="pip install 'umif[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    known = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" and "CUDAExecutionProvider" in known else []
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=[*wanted, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        lines = (str(error).strip() or type(error).__name__).splitlines()
        raise InputError(f"is no ONNX file that can be run: {lines[0]}", where=file) from None
    entry = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else None for size in entry.shape]
    if len(shape) != 4 or len(session.get_inputs()) != 1 or shape[1] not in (None, 1, 3):
        raise InputError(
            f"reads {[(one.name, one.shape) for one in session.get_inputs()]}",
            where=file,
            fix="it must read squares (N, 1 or 3, S, S) alone",
        )
    batch = shape[0]

    def function(squares_NCSS: Tensor) -> Tensor:
        squares = squares_NCSS.float().cpu().numpy()
        # A graph of a fixed batch is run over so many at a time, the last filled up with black.
        size = batch or len(squares)
        parts = []
        for start in range(0, len(squares), size):
            part = squares[start : start + size]
            filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
            parts.append(session.run(None, {entry.name: filled})[0][: len(part)])
        return torch.from_numpy(np.concatenate(parts))

    own = PictureSpec(image_size=shape[2] or _SIZE, channels=1 if shape[1] == 1 else 3)
    return FunctionBackbone(file, function, picture_beside(file, own), "ONNX")


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
