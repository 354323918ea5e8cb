"""What decoding gives, and the bounds that it works under.

Untrusted bytes are read header first: sizes are held against `DecodeLimits` before a single pixel is decoded, and the
clock is looked at wherever a decoder asks for more bytes. The caller gets a whole picture or an `ImageError`.
"""

from __future__ import annotations

import io
import threading
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from umif.config import Config
from umif.errors import ImageError

if TYPE_CHECKING:
    from types import TracebackType

    import numpy.typing as npt

SourceFormat = Literal["png", "jpeg", "tiff", "dicom"]


class DecodeLimits(Config):
    """Bounds on what one file may ask for; what goes beyond is refused with a typed error, before it is allocated.

    The defaults hold the largest radiographs in use (5,000 × 6,000 pixels at 16 bits) twice over and keep one decode
    under 2 GiB and ten seconds.
    """

    max_bytes: int = Field(2**28, gt=0, description="Size of the file, bytes")
    max_pixels: int = Field(2**26, gt=0, description="Height × width, pixels")
    max_decoded_bytes: int = Field(
        2**28, gt=0, description="Size of the decoded samples, or of an inflated file, bytes"
    )
    max_seconds: float = Field(10.0, gt=0, description="Time for one file, looked at between blocks, seconds")
    max_nesting: int = Field(32, gt=0, description="Depth of DICOM sequences inside one another")
    max_scans: int = Field(32, gt=0, description="Passes of a progressive JPEG over the picture")


@dataclass(frozen=True, slots=True)
class GreyImage:
    """One whole grey picture, 0 = black.

    Attributes:
        pixels: uint8, (H, W), contiguous, upright (an EXIF orientation is applied).
        bits: Bits per sample that the source says it holds.
        source_format: What the bytes were.
        photometric: The source's own word for its samples (`MONOCHROME1`, `L`, `RGB`, …); `pixels` are grey anyway.
        full_size: (H, W) of the upright source, where `pixels` were decoded at a smaller scale; else `None`.
    """

    pixels: npt.NDArray[np.uint8]
    bits: int
    source_format: SourceFormat
    photometric: str
    full_size: tuple[int, int] | None = None

    def float01(self) -> npt.NDArray[np.float32]:
        """Return the picture as float32 in [0, 1], (H, W)."""
        return self.pixels.astype(np.float32) / np.float32(255.0)


@dataclass(slots=True)
class Attempt:
    """The decoding of one file: its name for errors, its limits and its clock."""

    name: str
    limits: DecodeLimits
    started: float = field(default_factory=time.monotonic)

    def error(self, reason: str, what: str, fix: str | None = None) -> ImageError:
        """Return the error to raise."""
        return ImageError(what, reason=reason, where=self.name or None, fix=fix)

    def check_time(self) -> None:
        """Raise `ImageError` (`too_slow`) once the time is up."""
        if time.monotonic() - self.started > self.limits.max_seconds:
            raise self.error(
                "too_slow",
                f"takes longer to decode than {self.limits.max_seconds:g} s",
                "raise max_seconds if the file is trusted",
            )

    def check_size(self, height: int, width: int, samples: int = 1, bytes_per_sample: float = 1) -> None:
        """Raise `ImageError` if the header's dimensions are empty or over the limits."""
        if height <= 0 or width <= 0:
            raise self.error("malformed", f"says that it is {width} × {height} pixels large")
        decoded = height * width * samples * bytes_per_sample
        if height * width > self.limits.max_pixels or decoded > self.limits.max_decoded_bytes:
            raise self.error(
                "too_large",
                f"{width} × {height} pixels of {samples} samples ({decoded / 2**20:.0f} MiB) are over the limits of "
                f"{self.limits.max_pixels} pixels and {self.limits.max_decoded_bytes / 2**20:.0f} MiB",
                "raise max_pixels and max_decoded_bytes if the file is trusted",
            )


class TimedBytes(io.BytesIO):
    """Bytes for a decoder to read from, which stop a decoder that has used its time up."""

    def __init__(self, data: bytes, attempt: Attempt) -> None:
        super().__init__(data)
        self._attempt = attempt

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as usual, unless the time is up."""
        self._attempt.check_time()
        return super().read(size)


class _Quiet:
    """Hide the warnings of decoding libraries, whose text may quote a file's private fields.

    `warnings.catch_warnings` puts back the filters that it found, so two threads that overlap could leave the wrong
    ones behind. Here the first thread in saves them and the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(kind, error, trace)


QUIET = _Quiet()
