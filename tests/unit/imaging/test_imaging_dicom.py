"""DICOM becomes the grey picture that the standard, pydicom's reference functions and NumPy say it should."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from umif.errors import ImageError
from umif.imaging import decode, read_image

ROWS, COLUMNS = np.mgrid[:40, :56]
# 12 bits, never the whole of them.
STORED = (COLUMNS * 40 + ROWS * 20 + np.random.default_rng(3).integers(0, 60, (40, 56)) + 150).astype(np.uint16)
GREY = (STORED // 16).astype(np.uint8)


def dicom(
    stored: np.ndarray[Any, Any],
    syntax: str = ExplicitVRLittleEndian,
    *,
    frame: bytes | None = None,
    preamble: bool = True,
    **fields: Any,
) -> bytes:
    """Write a small but complete secondary capture."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
    header.PatientName, header.PatientID = "Planted^Name", "PLANTED-42"
    header.Rows, header.Columns = stored.shape[:2]
    header.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8 * stored.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in fields.items():
        setattr(header, name, value)
    if frame is not None:
        header.PixelData = encapsulate([frame])
        header["PixelData"].VR = "OB"
        header["PixelData"].is_undefined_length = True
    elif stored.dtype.kind in "iu":
        big = syntax == ExplicitVRBigEndian
        data = stored.astype(stored.dtype.newbyteorder(">" if big else "<")).tobytes()
        header.PixelData = data + b"\0" * (len(data) % 2)
        header["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    return stream.getvalue() if preamble else stream.getvalue()[132:]


def stretched(values: np.ndarray[Any, Any], *, invert: bool = False) -> np.ndarray[Any, Any]:
    wide = values.astype(np.float64)
    share = (wide - wide.min()) / (wide.max() - wide.min())
    return np.asarray(np.rint((1 - share if invert else share) * 255))


def reference(data: bytes) -> np.ndarray[Any, Any]:
    """pydicom's own chain, then the range and the turn."""
    header = pydicom.dcmread(io.BytesIO(data))
    values = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    return stretched(np.asarray(values), invert=header.PhotometricInterpretation == "MONOCHROME1")


def lut(values: list[int], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = np.array(values, dtype="<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


WINDOWS: dict[str, dict[str, Any]] = {
    "none": {},
    "rescale": {"RescaleSlope": "2.5", "RescaleIntercept": "-1024"},
    "window": {"WindowCenter": "1500", "WindowWidth": "800"},
    "rescale and window": {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 900, "WindowWidth": 1500},
    "several windows": {"WindowCenter": ["1200", "40"], "WindowWidth": ["900", "400"]},
    "exact": {"WindowCenter": "1500", "WindowWidth": "800", "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": "1500", "WindowWidth": "800", "VOILUTFunction": "SIGMOID"},
    "monochrome1": {"PhotometricInterpretation": "MONOCHROME1"},
    "monochrome1 and window": {
        "PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "1500", "WindowWidth": "800"
    },
    "8 bits under a 16-bit header": {"BitsStored": 16, "RescaleSlope": 1, "RescaleIntercept": 0},
    "VOI LUT": {"VOILUTSequence": Sequence([lut([int(4095 * (i / 3000) ** 2) for i in range(3000)], 200, 12)])},
    "modality LUT": {"ModalityLUTSequence": Sequence([lut([65_000 - 20 * i for i in range(3000)], 150, 16)])},
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_the_grey_scale_is_that_of_pydicom(name: str) -> None:
    data = dicom(STORED, **WINDOWS[name])
    # A half may round the other way: pydicom's values are not scaled to 0…1 before the stretch.
    assert np.abs(decode(data).pixels - reference(data)).max() <= 1


def test_what_bits_stored_says_changes_nothing() -> None:
    pictures = [decode(dicom(STORED, BitsStored=bits, HighBit=bits - 1)).pixels for bits in (12, 16)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], stretched(STORED))


def test_monochrome1_is_turned_round_after_windowing() -> None:
    window: dict[str, Any] = {"WindowCenter": 1500, "WindowWidth": 800}
    normal = decode(dicom(STORED, **window)).pixels
    turned = decode(dicom(STORED, PhotometricInterpretation="MONOCHROME1", **window)).pixels
    assert np.abs(turned.astype(int) - (255 - normal.astype(int))).max() <= 1  # a half rounds to even
    assert turned.max() == 255
    assert turned.min() == 0


def test_signed_values_are_read_as_signed() -> None:
    values = STORED.astype(np.int16) - 1500
    assert np.array_equal(decode(dicom(values)).pixels, stretched(values))


def test_negative_slope_turns_the_picture_round() -> None:
    data = dicom(STORED, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(decode(data).pixels, stretched(-STORED.astype(int)))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_padding_takes_no_part_in_the_range_and_is_black(photometric: str, dtype: type) -> None:
    values = STORED.astype(dtype)
    values[:, :6] = 0
    values[:4] = 3
    data = dicom(
        values,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=0,
        PixelPaddingRangeLimit=5,
    )
    pixels = decode(data).pixels
    assert pixels[:, :6].max() == 0
    assert pixels[:4].max() == 0
    assert np.array_equal(pixels[4:, 6:], stretched(values[4:, 6:], invert=photometric == "MONOCHROME1"))


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": 60_000, "WindowWidth": 10},
        {"WindowCenter": 1500, "WindowWidth": 0},
        {"RescaleSlope": 0, "RescaleIntercept": 5},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"WindowCenter": [], "WindowWidth": []},
    ],
)
def test_steps_that_would_wipe_the_picture_out_are_left_out(fields: dict[str, Any]) -> None:
    assert np.array_equal(decode(dicom(STORED, **fields)).pixels, stretched(STORED))


def test_constant_pictures_stay_constant() -> None:
    for values in (np.full((6, 5), 9, np.uint16), np.full((6, 5), 9, np.uint8), np.full((6, 5), -9, np.int32)):
        for fields in ({}, {"PixelPaddingValue": 9}, {"PhotometricInterpretation": "MONOCHROME1"}):
            pixels = decode(dicom(values, **fields)).pixels
            assert pixels.shape == (6, 5)
            assert pixels.min() == pixels.max()


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_uncompressed_syntaxes_agree(syntax: str) -> None:
    image = decode(dicom(STORED, syntax, BitsStored=12, HighBit=11))
    assert np.array_equal(image.pixels, stretched(STORED))
    assert (image.bits, image.source_format, image.photometric) == (12, "dicom", "MONOCHROME2")


def test_odd_sizes_are_padded_by_a_byte() -> None:
    assert np.array_equal(decode(dicom(GREY[:5, :7])).pixels, stretched(GREY[:5, :7]))


def test_a_file_without_preamble_is_read_if_it_starts_like_one() -> None:
    assert np.array_equal(decode(dicom(STORED, preamble=False)).pixels, stretched(STORED))


def test_a_preamble_that_looks_like_a_tiff_is_still_dicom() -> None:
    data = b"II*\0" + dicom(STORED)[4:]
    assert np.array_equal(decode(data).pixels, stretched(STORED))


def test_float_pixels_are_read_and_nan_is_refused() -> None:
    values = STORED.astype(np.float32) / 7
    assert np.abs(decode(dicom(values, FloatPixelData=values.tobytes())).pixels - stretched(values)).max() == 0
    values[2, 2] = np.nan
    with pytest.raises(ImageError) as caught:
        decode(dicom(values, FloatPixelData=values.tobytes()))
    assert caught.value.reason == "non_finite"


def test_colours_become_luminance() -> None:
    colours = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(dicom(colours)).pixels - expected).max() <= 0.51  # rounding
    as_jpeg = io.BytesIO()
    Image.fromarray(colours).save(as_jpeg, "JPEG", quality=98)
    data = dicom(colours, JPEGBaseline8Bit, frame=as_jpeg.getvalue(), PhotometricInterpretation="YBR_FULL_422")
    # JPEG at quality 98 with its colours at half resolution.
    assert np.abs(decode(data).pixels - expected).mean() < 3


def test_jpeg_baseline_keeps_the_decoded_values() -> None:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "JPEG", quality=90)
    expected = stretched(np.asarray(Image.open(stream)))
    assert np.array_equal(decode(dicom(GREY, JPEGBaseline8Bit, frame=stream.getvalue())).pixels, expected)


LOSSLESS = ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"]


def recode(data: bytes, syntax: str, folder: Path) -> bytes:
    """Compress by GDCM's own writer."""
    gdcm = pytest.importorskip("gdcm")
    (folder / "plain.dcm").write_bytes(data)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(folder / "packed.dcm"))
    assert writer.Write()
    return (folder / "packed.dcm").read_bytes()


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_very_picture(syntax: str, tmp_path: Path) -> None:
    data = recode(dicom(STORED, BitsStored=12, HighBit=11), syntax, tmp_path)
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(decode(data).pixels, stretched(STORED))


@pytest.mark.parametrize("syntax", ["JPEGLSNearLossless", "JPEG2000"])
def test_lossy_syntaxes_come_close(syntax: str, tmp_path: Path) -> None:
    data = recode(dicom(STORED, BitsStored=12, HighBit=11), syntax, tmp_path)
    # Default quality of GDCM's writer: a few values in 4,096.
    assert np.abs(decode(data).pixels - stretched(STORED)).max() <= 4


def test_lossy_jpeg_of_12_bits_is_read() -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "JPEG-lossy.dcm"
    if not path.exists():
        pytest.skip("this pydicom comes without its sample files")
    image = read_image(path)
    assert image.bits == 12
    # Published for this file: 244 and 95 at these places, of 0…264; it has no window.
    assert abs(int(image.pixels[420, 140]) - 255 * 244 / 264) <= 1
    assert abs(int(image.pixels[230, 120]) - 255 * 95 / 264) <= 1


def test_a_frame_that_crashes_its_decoder_costs_an_error_not_the_process(tmp_path: Path) -> None:
    data = recode(dicom(STORED, BitsStored=12, HighBit=11), "JPEGLSLossless", tmp_path)
    start = data.rindex(b"\xff\xda") + 10
    rng = np.random.default_rng(0)
    for _ in range(15):
        damaged = bytearray(data)
        for place in rng.integers(start - 40, len(data) - 12, 4):
            damaged[place] = rng.integers(256)
        try:
            decode(bytes(damaged))
        except ImageError:
            continue
    assert np.array_equal(decode(data).pixels, stretched(STORED))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"PhotometricInterpretation": "HSV"}, "unsupported"),
        ({"PhotometricInterpretation": ""}, "unsupported"),
        ({"Rows": 41}, "truncated"),
        ({"Rows": 20}, "malformed"),
        ({"Rows": 0}, "malformed"),
        ({"BitsAllocated": 12}, "unsupported"),
        ({"SamplesPerPixel": 3}, "malformed"),
        ({"Rows": 65_535, "Columns": 65_535}, "too_large"),
    ],
)
def test_headers_that_do_not_fit_are_refused_with_a_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(dicom(STORED, **fields), name="chest.dcm")
    assert caught.value.reason == reason
    assert caught.value.where == "chest.dcm"
    assert "planted" not in str(caught.value).lower()


def test_a_syntax_that_nothing_decodes_names_what_to_install() -> None:
    with pytest.raises(ImageError) as caught:
        decode(dicom(GREY, "1.2.840.10008.1.2.4.201", frame=b"\xff\x4f\xff\x51" + b"\0" * 60))
    assert caught.value.reason in ("unsupported", "malformed")
    from umif.imaging.dicom import _plugins
    from umif.imaging.picture import Attempt, DecodeLimits

    with pytest.raises(ImageError) as caught:
        _plugins(pydicom.uid.HTJ2KLossless, Attempt("", DecodeLimits()))
    assert caught.value.reason == "unsupported"
    assert "pylibjpeg" in str(caught.value.fix)


def test_reports_without_pixels_are_refused() -> None:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3"
    stream = io.BytesIO()
    header.save_as(stream, enforce_file_format=True)
    with pytest.raises(ImageError) as caught:
        decode(stream.getvalue())
    assert caught.value.reason == "malformed"


def test_real_dicom_agrees_with_the_reference(real_data: Path) -> None:
    paths = sorted(real_data.rglob("*.dcm"))
    assert len(paths) >= 4
    for path in paths:
        assert np.abs(read_image(path).pixels - reference(path.read_bytes())).max() <= 1, path


def test_the_same_pixels_tagged_monochrome1_are_its_negative(real_data: Path) -> None:
    folder = real_data / "originals"
    normal = read_image(folder / "siim_MONOCHROME2_8bit_jpegbaseline.dcm")
    turned = read_image(folder / "siim_same_pixels_tagged_MONOCHROME1.dcm")
    assert turned.photometric == "MONOCHROME1"
    assert np.abs(turned.pixels.astype(int) - (255 - normal.pixels.astype(int))).max() <= 1  # a half rounds to even
