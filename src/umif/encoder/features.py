"""What is read out of the network, and features of a corpus that are kept on disk once extracted.

Shape legend: N images, D features, P patches of a picture (rows × columns).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch.nn.functional as F

from umif.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

_FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readout:
    """Which features of a picture are taken.

    Attributes:
        kind: `cls`, or `patches`: the patch grid averaged to `pool` × `pool` cells, which keeps where things are.
        block: Take them after this block (1-based), before the final norm; `None` = the last, with it.
        pool: Cells a side; a smaller grid is taken as it is.
    """

    kind: Literal["cls", "patches"] = "cls"
    block: int | None = None
    pool: int = 4

    @property
    def label(self) -> str:
        """Short name for tables."""
        return "cls" if self.kind == "cls" else f"patches {self.pool}×{self.pool}"

    def of(self, cls_ND: Tensor, patches_NPD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Take the features. Shapes: (N, D) and (N, P, D) → (N, D) or (N, cells · D)."""
        if self.kind == "cls":
            return cls_ND
        maps_NDRC = patches_NPD.transpose(1, 2).unflatten(2, grid)
        cells = (min(self.pool, grid[0]), min(self.pool, grid[1]))
        return F.adaptive_avg_pool2d(maps_NDRC, cells).flatten(2).transpose(1, 2).flatten(1)


class FeatureCache:
    """Features of corpus images in one folder, one file per weights, readout, preprocessing and corpus.

    A file holds the rows extracted so far and grows when others are asked for. It is replaced in one move; a damaged
    one is made again; where the folder cannot be written, features are extracted anew each time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Return rows, ascending, and their features; `None` if there are none."""
        path = self._path(key)
        try:
            # Opened here: of a damaged archive np.load would leave the file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if str(stored["key"]) != _canonical(key):
                    return None
                rows_N, features_ND = stored["rows"], stored["features"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s: cannot be read (%s), features are extracted again", path, error)
            return None
        return (rows_N, features_ND) if len(rows_N) == len(features_ND) else None

    def write(self, key: dict[str, Any], rows_N: NDArray[np.int64], features_ND: NDArray[np.float32]) -> None:
        """Keep the features of `rows_N`, ascending."""
        path = self._path(key)
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, rows=rows_N, features=features_ND, key=np.array(_canonical(key)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            logger.warning("%s: features are not kept (%s)", self.folder, error.strerror or error)
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(_canonical(key).encode()).hexdigest()[:32]}.npz"


def feature_key(
    weights_sha256: str, readout: Readout, preprocessing: dict[str, Any], fingerprint: str
) -> dict[str, Any]:
    """Return everything that features of a corpus depend on."""
    return {
        "format": _FORMAT,
        "weights": weights_sha256,
        "readout": asdict(readout),
        "preprocessing": preprocessing,
        "corpus": fingerprint,
    }


def check_block(block: int | None, depth: int) -> None:
    """Refuse a block that the network lacks.

    Raises:
        ConfigError: `block` lies outside 1 … depth.
    """
    if block is not None and not 1 <= block <= depth:
        raise ConfigError(f"there is no block {block}", where="block", fix=f"the network has blocks 1 to {depth}")


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
