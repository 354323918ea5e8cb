"""Cut, patched, mutated and malicious files: a whole picture or an `ImageError`, within bounds, never anything else."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from umif.errors import ImageError
from umif.imaging import DecodeLimits, decode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, COLUMNS = np.mgrid[:64, :48]
# Noise, so that every part of a compressed file carries something.
GREY = (COLUMNS * 3 + ROWS + np.random.default_rng(1).integers(0, 40, (64, 48))).clip(0, 255).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 15 + 100
COLOURS = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
PATIENT = "Planted^Name"


def pillow(pixels: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def dicom(
    pixels: np.ndarray[Any, Any], syntax: UID = ExplicitVRLittleEndian, frame: bytes | None = None, **fields: Any
) -> bytes:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    header.PatientName, header.PatientID, header.PatientComments = PATIENT, PATIENT, PATIENT
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    for name, value in fields.items():
        setattr(header, name, value)
    if frame is None:
        big = syntax == ExplicitVRBigEndian
        header.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        header["PixelData"].VR = "OW"
    else:
        header.PixelData = encapsulate([frame])
        header["PixelData"].VR = "OB"
        header["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def rle_frame(pixels: np.ndarray[Any, Any]) -> bytes:
    """Literal runs of one row each."""
    body = b"".join(bytes([len(row) - 1]) + row.tobytes() for row in pixels)
    return struct.pack("<16I", 1, 64, *[0] * 14) + body


def jpeg_2000(pixels: np.ndarray[Any, Any]) -> bytes:
    return pillow(pixels, "JPEG2000", no_jp2=True, irreversible=False)


FILES: dict[str, bytes] = {
    "png8": pillow(GREY, "PNG"),
    "png16": pillow(DEEP, "PNG"),
    "png rgb": pillow(COLOURS, "PNG"),
    "png rgb 16": cv2.imencode(".png", np.stack([DEEP] * 3, axis=-1))[1].tobytes(),
    "jpeg": pillow(GREY, "JPEG", quality=95),
    "jpeg rgb": pillow(COLOURS, "JPEG", quality=95),
    "jpeg progressive": pillow(COLOURS, "JPEG", quality=95, progressive=True),
    "jpeg restarts": pillow(GREY, "JPEG", quality=95, restart_marker_blocks=4),
    "tiff8": tiff(GREY),
    "tiff16": tiff(DEEP, byteorder=">"),
    "tiff float": tiff(DEEP.astype(np.float32)),
    "tiff tiles": tiff(GREY, tile=(16, 16)),
    "tiff rgb 16": tiff(np.stack([DEEP] * 3, axis=-1), photometric="rgb"),
    "tiff lzw": pillow(GREY, "TIFF", compression="tiff_lzw"),
    "tiff deflate": pillow(DEEP, "TIFF", compression="tiff_adobe_deflate"),
    "tiff jpeg": pillow(COLOURS, "TIFF", compression="jpeg"),
    "dicom": dicom(DEEP, WindowCenter=1500, WindowWidth=900),
    "dicom implicit": dicom(DEEP, ImplicitVRLittleEndian),
    "dicom big endian": dicom(DEEP, ExplicitVRBigEndian),
    "dicom deflated": dicom(DEEP, DeflatedExplicitVRLittleEndian),
    "dicom jpeg": dicom(GREY, JPEGBaseline8Bit, pillow(GREY, "JPEG", quality=95)),
    "dicom jpeg 2000": dicom(GREY, JPEG2000Lossless, jpeg_2000(GREY)),
    "dicom rle": dicom(GREY, RLELossless, rle_frame(GREY)),
}


def check_only_image_errors(data: bytes) -> ImageError | None:
    """Decode; return the error, having checked that nothing private is in it."""
    error: ImageError | None = None
    try:
        image = decode(data, name="x")
    except ImageError as caught:
        error = caught
    if error is None:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.ndim == 2
        return None
    assert error.reason
    assert "lanted" not in str(error)
    # A chain of causes would print what a library said about the file.
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


@pytest.mark.parametrize("name", FILES)
def test_no_cut_file_is_accepted(name: str) -> None:
    data = FILES[name]
    assert check_only_image_errors(data) is None
    for size in {len(data) * share // 100 for share in range(1, 100)} | {len(data) - n for n in range(1, 12)}:
        error = check_only_image_errors(data[:size])
        # A deflated data set of odd length ends in a byte of padding, which is no part of it.
        assert error is not None or (name == "dicom deflated" and data[size:] == b"\0"), f"{size} of {len(data)} bytes"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jpeg")])
def test_no_cut_jpeg_is_accepted_because_somebody_ended_it(name: str) -> None:
    data = FILES[name]
    first = data.index(b"\xff\xda")
    for share in range(1, 90):
        cut = data[: first + (len(data) - first) * share // 100]
        error = check_only_image_errors(cut.removesuffix(b"\xff") + b"\xff\xd9")
        assert error is not None, f"{share} %"


@pytest.mark.parametrize("kind", ["grey", "rgb", "progressive", "restarts"])
def test_no_cut_jpeg_is_accepted_when_it_is_decoded_at_a_smaller_scale(kind: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (260, 324, 3)).astype(np.uint8)
    pixels = noise if kind == "rgb" else noise[..., 0]
    kinds: dict[str, dict[str, Any]] = {"progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 9}}
    options = kinds.get(kind, {})
    data = pillow(pixels, "JPEG", quality=90, **options)
    assert decode(data, shorter_side=32).pixels.shape == (65, 81)
    first = data.index(b"\xff\xda")
    for share in range(1, 100):
        cut = data[: first + (len(data) - first) * share // 100].removesuffix(b"\xff")
        for ended in (cut, cut + b"\xff\xd9"):
            with pytest.raises(ImageError) as caught:
                decode(ended, shorter_side=32)
            assert caught.value.reason in ("truncated", "malformed"), f"{share} %"


def test_rows_missing_from_a_png_with_sound_checksums_are_noticed() -> None:
    whole = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    half = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY[:32]))
    cut = whole[: len(whole) // 2]
    assert check_only_image_errors(png(64, 48, whole)) is None
    for rows in (half, cut, b""):
        error = check_only_image_errors(png(64, 48, rows))
        assert error is not None
        assert error.reason == "truncated"


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_files_give_a_picture_or_an_image_error(name: str, data: st.DataObject) -> None:
    original = FILES[name]
    mutated = bytearray(original)
    # Half of the places near the start, where the headers are.
    place = st.one_of(st.integers(0, len(original) - 1), st.integers(0, min(1200, len(original) - 1)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = min(data.draw(place), max(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["set", "flip", "delete", "insert", "swap"]))
        if kind == "set":
            mutated[at : at + 1] = bytes([data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))])
        elif kind == "flip":
            mutated[at : at + 1] = bytes([mutated[at] ^ (1 << data.draw(st.integers(0, 7)))]) if mutated else b""
        elif kind == "delete":
            del mutated[at : at + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=24))
        else:
            mutated[at : at + 4] = mutated[at : at + 4][::-1]
    check_only_image_errors(bytes(mutated))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"\0" * 128 + b"DICM"]), st.binary())
def test_random_bytes_give_an_image_error(start: bytes, rest: bytes) -> None:
    assert check_only_image_errors(start + rest) is not None


# Bombs: small files that ask for much. Each is made when its test runs, since some are large themselves.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(height: int, width: int, rows: bytes, bits: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """`size` zero bytes, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()


def jpeg(height: int, width: int) -> bytes:
    data = bytearray(FILES["jpeg"])
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans() -> bytes:
    data = FILES["jpeg"]
    start, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:start] + data[start:end] * 2000 + data[end:]


def tiff_fields(entries: list[tuple[int, int, int, int]], rest: bytes = b"", following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + rest


def tiff_basics(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def dicom_head(syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value


def nested_sequences(depth: int, *, explicit: bool) -> bytes:
    inner = b""
    for _ in range(depth):
        if explicit:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
            inner = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item + end
    return inner


def with_sequences(sequences: bytes) -> bytes:
    data = FILES["dicom"]
    at = data.index(struct.pack("<HH2s", 0x0028, 0x0002, b"US"))
    return data[:at] + sequences + data[at:]


def deflated(plain_size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, plain_size)
    body = packer.compress(element) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(plain_size >> 20))
    return dicom_head(DeflatedExplicitVRLittleEndian) + body + packer.flush()


def rle_bomb() -> bytes:
    # Runs of 128 bytes, far more than the picture has room for.
    return struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (1 << 20)


def many_items(count: int) -> bytes:
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    return struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, len(items)) + items


def many_fragments(count: int) -> bytes:
    header = FILES["dicom jpeg"]
    start = header.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OB"))
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    return header[: start + 12] + empty + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def jpeg_2000_of(width: int, height: int) -> bytes:
    data = bytearray(jpeg_2000(GREY))
    data[8:16] = struct.pack(">II", width, height)
    return bytes(data)


STRIPS = [(273, 4, 1, 8), (278, 4, 1, 2**31), (279, 4, 1, 100)]
BOMBS: dict[str, Callable[[], bytes]] = {
    "png huge": lambda: png(2**31 - 1, 2**31 - 1, zeros(1 << 20)),
    "png large": lambda: png(60_000, 60_000, zeros(8 << 20)),
    "png wide": lambda: png(1, 2**31 - 1, zeros(1 << 20)),
    "png rgba 16": lambda: png(8192, 8192, zeros(1 << 20), 16, 6),
    "png many rows": lambda: png(64, 48, zeros(64 << 20)),
    "png rows missing": lambda: png(8192, 8192, zeros(1 << 20)),
    "png many chunks": lambda: png(64, 48, b"", extra=chunk(b"IDAT", b"") * 200_000),
    "jpeg huge": lambda: jpeg(65_535, 65_535),
    "jpeg without height": lambda: jpeg(0, 65_535),
    "jpeg many scans": jpeg_of_many_scans,
    "jpeg many segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000,
    "tiff huge": lambda: tiff_fields([*tiff_basics(2**31, 2**31), *STRIPS], bytes(200)),
    "tiff large": lambda: tiff_fields([*tiff_basics(60_000, 60_000), *STRIPS], bytes(200)),
    "tiff tile": lambda: tiff_fields(
        [*tiff_basics(64, 64), (322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 8), (325, 4, 1, 9)], bytes(200)
    ),
    "tiff many strips": lambda: tiff_fields(
        [*tiff_basics(64, 64), (273, 4, 1_100_000, 200), (279, 4, 1_100_000, 200)], bytes(5_000_000)
    ),
    "tiff circle": lambda: tiff_fields([*tiff_basics(8, 8), (254, 4, 1, 1), (273, 4, 1, 8), (279, 4, 1, 64)], b"", 8),
    "tiff deflate": lambda: pillow(np.zeros((8192, 8200), np.uint8), "TIFF", compression="tiff_adobe_deflate"),
    "tiff samples": lambda: tiff_fields([*tiff_basics(4096, 4096)[:-1], (277, 3, 1, 65_535), *STRIPS], bytes(200)),
    "dicom huge": lambda: dicom(DEEP, Rows=65_535, Columns=65_535),
    "dicom 64 bits": lambda: dicom(DEEP, Rows=8000, Columns=8000, BitsAllocated=64),
    "dicom frames": lambda: dicom(DEEP, NumberOfFrames=2_000_000_000),
    "dicom deflated": lambda: deflated(300 << 20),
    "dicom deflated forever": lambda: dicom_head(DeflatedExplicitVRLittleEndian) + zeros(300 << 20)[2:],
    "dicom nested": lambda: with_sequences(nested_sequences(5_000, explicit=False)),
    "dicom nested lengths": lambda: with_sequences(nested_sequences(1_500, explicit=True)),
    "dicom many items": lambda: with_sequences(many_items(200_000)),
    "dicom many fragments": lambda: many_fragments(200_000),
    "dicom rle": lambda: dicom(GREY, RLELossless, rle_bomb()),
    "dicom jpeg inside": lambda: dicom(GREY, JPEGBaseline8Bit, jpeg(60_000, 60_000)),
    "dicom jpeg 2000 inside": lambda: dicom(GREY, JPEG2000Lossless, jpeg_2000_of(2**31, 2**31)),
}

# Runs alone, so that what it reports is what the decoding took.
MEASURE = """
import json, resource, sys
from umif.errors import ImageError
from umif.imaging import read_image
result = {}
for path in sys.argv[1:]:
    try:
        read_image(path)
        result[path] = "accepted"
    except ImageError as error:
        result[path] = error.reason
print(json.dumps([result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def test_bombs_are_refused_within_two_gibibytes(tmp_path: Path) -> None:
    assert len(BOMBS) >= 30
    paths = []
    for number, make in enumerate(BOMBS.values()):
        path = tmp_path / f"{number}"
        path.write_bytes(make())
        paths.append(str(path))
    run = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    reasons, peak_kib = json.loads(run.stdout)
    named = dict(zip(BOMBS, (reasons[path] for path in paths), strict=True))
    assert "accepted" not in named.values(), named
    assert set(named.values()) <= {"too_large", "too_slow", "malformed", "truncated", "multi_frame", "unsupported"}, (
        named
    )
    assert peak_kib < 2 << 20


@pytest.mark.slow
def test_the_largest_picture_allowed_is_read_within_two_gibibytes(tmp_path: Path) -> None:
    side = int(DecodeLimits().max_pixels ** 0.5)
    path = tmp_path / "large.png"
    path.write_bytes(png(side, side, zlib.compress((b"\0" + bytes(2 * side - 2) + b"\1\0") * side, 1), 16))
    code = MEASURE.replace("read_image(path)", "read_image(path, DecodeLimits(max_seconds=600))").replace(
        "import read_image", "import DecodeLimits, read_image"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    reasons, peak_kib = json.loads(run.stdout)
    assert reasons == {str(path): "accepted"}
    assert peak_kib < 2 << 20


def test_the_clock_stops_a_decoder_in_the_middle() -> None:
    rows = zlib.compress(np.random.default_rng(0).integers(0, 255, 1500 * 1501, dtype=np.uint8).tobytes(), 1)
    slow = png(1500, 1500, rows)
    with pytest.raises(ImageError) as caught:
        decode(slow, limits=DecodeLimits(max_seconds=1e-4))
    assert caught.value.reason == "too_slow"
