"""A compressed DICOM frame must hold what its header promises; the process that decodes it may die without harm."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless

from umif.errors import ImageError
from umif.imaging import decode, gdcm_process, isolated
from umif.imaging.picture import Attempt, DecodeLimits

ROWS, COLUMNS = np.mgrid[:32, :48]
GREY = (COLUMNS * 4 + ROWS + np.random.default_rng(2).integers(0, 9, (32, 48))).astype(np.uint8)
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"


def pillow(pixels: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def file_of(frames: list[bytes], syntax: UID, **fields: Any) -> bytes:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Rows, header.Columns, header.SamplesPerPixel = 32, 48, 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7
    for name, value in fields.items():
        setattr(header, name, value)
    packed = syntax != ExplicitVRLittleEndian
    header.PixelData = encapsulate(frames) if packed else b"".join(frames)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = packed
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def reason_of(data: bytes, limits: DecodeLimits | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, limits=limits or DecodeLimits())
    return caught.value.reason


def stretched(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = values.astype(np.float64)
    return np.asarray(np.rint((wide - wide.min()) / (wide.max() - wide.min()) * 255))


def jpeg_2000() -> bytes:
    return pillow(GREY, "JPEG2000", no_jp2=True, irreversible=False)


def rle(segments: list[bytes], count: int | None = None) -> bytes:
    offsets = [64 + sum(len(s) for s in segments[:i]) for i in range(len(segments))]
    numbers = [len(segments) if count is None else count, *offsets]
    return struct.pack("<16I", *numbers, *[0] * (16 - len(numbers))) + b"".join(segments)


def literal(pixels: np.ndarray[Any, Any]) -> bytes:
    return b"".join(bytes([len(row) - 1]) + row.tobytes() for row in pixels)


def test_a_frame_in_several_fragments_is_one_picture() -> None:
    frame = jpeg_2000()
    pieces = [frame[at : at + 200] for at in range(0, len(frame), 200)]
    assert np.array_equal(decode(file_of(pieces, JPEG2000Lossless)).pixels, stretched(GREY))


def test_run_lengths_of_every_kind_are_read() -> None:
    row = np.r_[np.full(20, 7), np.arange(28)].astype(np.uint8)
    # A run of 20, a command that does nothing, a literal of 28.
    coded = bytes([257 - 20, 7, 128, 27]) + row[20:].tobytes()
    data = file_of([rle([coded * 32])], RLELossless)
    assert np.array_equal(decode(data).pixels, stretched(np.tile(row, (32, 1))))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (file_of([pillow(GREY[:16], "JPEG")], JPEGBaseline8Bit), "malformed"),
        (file_of([pillow(GREY, "PNG")], JPEGBaseline8Bit), "malformed"),
        (file_of([pillow(np.stack([GREY] * 3, axis=-1), "JPEG")], JPEGBaseline8Bit), "malformed"),
        (file_of([pillow(GREY, "JPEG")[:-30]], JPEGBaseline8Bit), "truncated"),
        (file_of([pillow(GREY, "JPEG")], JPEG2000Lossless), "malformed"),
        (file_of([jpeg_2000()[:-40]], JPEG2000Lossless), "truncated"),
        (file_of([jpeg_2000()[:-2]], JPEG2000Lossless), "truncated"),
        (file_of([rle([literal(GREY[:20])])], RLELossless), "truncated"),
        (file_of([rle([literal(GREY)], count=16)], RLELossless), "malformed"),
        (file_of([struct.pack("<16I", 1, 9999, *[0] * 14) + bytes(900)], RLELossless), "malformed"),
        (file_of([rle([literal(GREY) + b"\0\1" * 9])], RLELossless), "malformed"),
        (file_of([b"\0" * 50], UID("1.2.840.10008.1.2.4.100")), "unsupported"),
        (file_of([GREY.tobytes()], UID("1.2.3.4.5")), "unsupported"),
    ],
    ids=[
        "size", "no jpeg", "colours", "cut jpeg", "no jpeg 2000", "cut jpeg 2000", "no end", "cut runs",
        "many segments", "offsets", "too many runs", "video", "private syntax",
    ],
)  # fmt: skip
def test_frames_that_do_not_fit_are_refused(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_uncompressed_pixels_under_a_compressed_syntax_are_refused() -> None:
    data = file_of([GREY.tobytes()], ExplicitVRLittleEndian)
    # Of the same length, so that nothing else changes.
    name = b"1.2.840.10008.1.2.1\0"
    assert reason_of(data.replace(name, b"1.2.840.10008.1.2.5\0")) == "malformed"
    packed = file_of([rle([literal(GREY)])], RLELossless)
    assert reason_of(packed.replace(b"1.2.840.10008.1.2.5\0", name)) == "malformed"


def test_palettes_become_the_grey_of_their_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    fields: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, name in enumerate(("Red", "Green", "Blue")):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        fields[f"{name}PaletteColorLookupTableData"] = colours[:, channel].tobytes()
    data = file_of([GREY.tobytes()], ExplicitVRLittleEndian, **fields)
    expected = colours[GREY] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(data).pixels - expected).max() <= 0.51  # rounding


def test_deep_colours_are_stretched() -> None:
    deep = np.stack([GREY, GREY, GREY], axis=-1).astype(np.uint16) * 11
    fields = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    depth = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    data = file_of([deep.tobytes()], ExplicitVRLittleEndian, **fields, **depth)
    assert np.array_equal(decode(data).pixels, stretched(GREY))
    signed = file_of([deep.tobytes()], ExplicitVRLittleEndian, **fields, **depth, PixelRepresentation=1)
    assert reason_of(signed) == "unsupported"


@pytest.mark.parametrize("name", ["GDCMJ2K_TextGBR.dcm", "SC_rgb_jls_lossy_line.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_frames_that_only_gdcm_reads_are_read(name: str) -> None:
    path = SAMPLES / name
    if not path.exists():
        pytest.skip("this pydicom comes without its sample files")
    header = pydicom.dcmread(path)
    samples = pydicom.pixels.pixel_array(header, decoding_plugin="gdcm")
    pixels = decode(path.read_bytes()).pixels
    if samples.ndim == 3:
        assert np.abs(pixels - samples @ np.array([0.299, 0.587, 0.114])).max() <= 0.51  # rounding
    else:
        # These have neither rescaling nor window that would change more than the range.
        assert np.corrcoef(pixels.ravel(), samples.ravel())[0, 1] > 0.95


def lossless_jpeg(tmp_path: Path) -> bytes:
    gdcm = pytest.importorskip("gdcm")
    (tmp_path / "plain.dcm").write_bytes(file_of([GREY.tobytes()], ExplicitVRLittleEndian))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    assert writer.Write()
    return (tmp_path / "packed.dcm").read_bytes()


@pytest.fixture
def fresh_decoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    decoder = isolated._Decoder()
    monkeypatch.setattr(isolated, "_DECODER", decoder)
    yield decoder
    decoder.close()


READY = "import sys; sys.stdout.buffer.write(bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b'{}'); sys.stdout.flush()"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("", "malformed"),
        (f"{READY}\nimport os; sys.stdin.buffer.read(9); os.abort()", "malformed"),
        ("import time; time.sleep(600)", "too_slow"),
        (f"{READY}\nimport time; time.sleep(600)", "too_slow"),
    ],
    ids=["ends at once", "aborts", "does not start", "hangs"],
)
def test_a_decoder_that_dies_or_hangs_costs_one_error_and_is_replaced(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_decoder: isolated._Decoder
) -> None:
    data = lossless_jpeg(tmp_path)
    broken = tmp_path / "broken.py"
    broken.write_text(script)
    with monkeypatch.context() as patch:
        patch.setattr(gdcm_process, "__file__", str(broken))
        # Long enough for an interpreter to start and say so, where it does; what hangs is ended by it.
        patch.setattr(isolated, "_START_SECONDS", 0.5 if script.startswith("import time") else 60)
        assert reason_of(data, DecodeLimits(max_seconds=0.5 if "sleep" in script else 60)) == reason
    assert np.array_equal(decode(data).pixels, stretched(GREY))


def test_one_process_serves_many_frames_and_is_left_alone_after_a_fork(
    tmp_path: Path, fresh_decoder: isolated._Decoder
) -> None:
    data = lossless_jpeg(tmp_path)
    decode(data)
    process = fresh_decoder._process
    assert process is not None
    decode(data)
    assert fresh_decoder._process is process
    # What a fork's child does: the parent's process lives on, another one serves the child.
    fresh_decoder.forget()
    decode(data)
    assert fresh_decoder._process is not process
    assert process.poll() is None
    process.communicate()


def test_the_served_answers_are_samples_or_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from umif.imaging.dicom import _WANTED_TAGS
    from umif.imaging.dicom_elements import walk

    layout = walk(lossless_jpeg(tmp_path), _WANTED_TAGS, Attempt("", DecodeLimits()))
    requests, answers = io.BytesIO(), io.BytesIO()
    gdcm_process.write_message(requests, {"syntax": str(JPEGLosslessSV1)}, layout.reduced())
    gdcm_process.write_message(requests, {"syntax": str(JPEGLosslessSV1)}, layout.reduced()[:-90])
    requests.seek(0)
    gdcm_process.serve(requests, answers)
    monkeypatch.setitem(sys.modules, "gdcm", None)
    requests.seek(0)
    gdcm_process.serve(requests, answers)
    answers.seek(0)
    heads = []
    while (message := gdcm_process.read_message(answers)) is not None:
        heads.append(message)
    assert [head for head, _ in heads[:1]] == [{"ready": True}]
    assert heads[1][0] == {"dtype": "|u1", "shape": [32, 48]}
    assert heads[1][1] == GREY.tobytes()
    assert heads[2][0]["reason"] == "malformed"
    assert heads[4][0] == {**heads[4][0], "reason": "unsupported", "fix": "install python-gdcm"}


def test_half_a_message_is_none() -> None:
    stream = io.BytesIO()
    gdcm_process.write_message(stream, {"a": 1}, b"body")
    for size in range(len(stream.getvalue())):
        assert gdcm_process.read_message(io.BytesIO(stream.getvalue()[:size])) is None
