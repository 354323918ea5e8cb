"""PNG, JPEG and TIFF of every kind become the grey picture that a few lines of NumPy say they should."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from umif.errors import ImageError
from umif.imaging import DecodeLimits, decode, luminance, read_image, to_uint8

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(7)
ROWS, COLUMNS = np.mgrid[:40, :56]
GREY = (COLUMNS * 3 + ROWS + RNG.integers(0, 9, (40, 56))).clip(0, 255).astype(np.uint8)
# 12 bits in 16, as radiographs come.
DEEP = (GREY.astype(np.uint16) * 15 + 100).astype(np.uint16)
COLOURS = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)


def pillow(pixels: np.ndarray[Any, Any] | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def stretched(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rule for everything deeper than 8 bits, written down once more."""
    wide = values.astype(np.float64)
    return np.asarray(np.rint((wide - wide.min()) / (wide.max() - wide.min()) * 255))


def luma(colours: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(colours.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def test_8_bit_grey_comes_back_unchanged() -> None:
    for data in (pillow(GREY, "PNG"), pillow(GREY, "TIFF"), tiff(GREY, tile=(16, 16)), tiff(GREY, bigtiff=True)):
        image = decode(data)
        assert np.array_equal(image.pixels, GREY)
        assert image.bits == 8
        assert image.pixels.dtype == np.uint8
        assert image.pixels.flags.c_contiguous


def test_interlaced_png_is_read() -> None:
    # Written by hand, since Pillow writes none: Adam7 of a 1 × 1 picture is its only pixel.
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x9c")) + chunk(b"IEND", b"")
    )
    assert decode(data).pixels.tolist() == [[0x9C]]


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (pillow(DEEP, "PNG"), DEEP),
        (pillow(DEEP, "TIFF", compression="tiff_adobe_deflate"), DEEP),
        (tiff(DEEP), DEEP),
        (tiff(DEEP, byteorder=">"), DEEP),
        (tiff(DEEP.astype(np.uint32) * 1_000_000), DEEP),
        (tiff(DEEP.astype(np.float32) / 17), DEEP.astype(np.float32) / 17),
        (tiff(DEEP / 17 - 5), DEEP / 17 - 5),
    ],
    ids=["png16", "deflate", "tiff16", "big endian", "uint32", "float32", "float64"],
)
def test_deep_grey_is_stretched_from_its_own_range(data: bytes, values: np.ndarray[Any, Any]) -> None:
    pixels = decode(data).pixels
    assert np.array_equal(pixels, stretched(values))
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_the_largest_16_bit_value_does_not_wrap_to_black() -> None:
    values = np.array([[0, 65_535], [32_768, 65_534]], dtype=np.uint16)
    assert decode(pillow(values, "PNG")).pixels.tolist() == [[0, 255], [128, 255]]


def test_zero_is_white_is_turned_round_at_every_depth() -> None:
    assert np.array_equal(decode(tiff(GREY, photometric="miniswhite")).pixels, 255 - GREY)
    deep = decode(tiff(DEEP, photometric="miniswhite")).pixels
    assert np.abs(deep - (255 - stretched(DEEP))).max() <= 1  # a half may round the other way when turned round


def test_colours_become_luminance() -> None:
    for data in (pillow(COLOURS, "PNG"), tiff(COLOURS, photometric="rgb")):
        assert np.abs(decode(data).pixels - luma(COLOURS)).max() <= 0.51  # rounding
    palette = Image.fromarray(COLOURS).quantize(32)
    assert np.abs(decode(pillow(palette, "PNG")).pixels - luma(np.asarray(palette.convert("RGB")))).max() <= 0.51


def test_grey_stored_as_colours_comes_back_unchanged() -> None:
    assert np.array_equal(decode(pillow(np.stack([GREY] * 3, axis=-1), "PNG")).pixels, GREY)


def test_16_bit_colours_keep_their_low_bits() -> None:
    deep = np.stack([DEEP, DEEP // 3, DEEP // 2], axis=-1)
    expected = stretched(np.rint(luma(deep)))
    as_png = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    for data in (as_png, tiff(deep, photometric="rgb")):
        # One step of the 16-bit luminance is less than one of 256 steps.
        assert np.abs(decode(data).pixels - expected).max() <= 1


def test_constant_alpha_is_left_out_and_varying_alpha_lies_over_black() -> None:
    for constant in (0, 128, 255):
        alpha = np.full_like(GREY, constant)
        assert np.array_equal(decode(pillow(np.dstack([GREY, GREY, GREY, alpha]), "PNG")).pixels, GREY)
    alpha = np.where(COLUMNS < 20, 0, 200).astype(np.uint8)
    grey_alpha = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    for data in (pillow(np.dstack([GREY, GREY, GREY, alpha]), "PNG"), pillow(grey_alpha, "PNG")):
        assert np.abs(decode(data).pixels - GREY * (alpha / 255.0)).max() <= 0.51


def test_transparent_palette_entries_are_black() -> None:
    palette = Image.fromarray(np.where(COLUMNS < 20, 0, 1).astype(np.uint8), mode=None).convert("P")
    palette.putpalette([200, 200, 200, 90, 90, 90])
    pixels = decode(pillow(palette, "PNG", transparency=0)).pixels
    assert pixels[:, :20].max() == 0
    assert pixels[:, 20:].min() == 90


def test_black_and_white_pictures_are_read() -> None:
    image = Image.fromarray(GREY).point(lambda value: 255 if value > 100 else 0).convert("1")
    expected = np.where(GREY > 100, 255, 0)
    for data in (pillow(image, "PNG"), pillow(image, "TIFF", compression="group4")):
        assert np.array_equal(decode(data).pixels, expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"subsampling": 2}])
@pytest.mark.parametrize("kind", ["L", "RGB", "CMYK"])
def test_jpeg_of_every_kind_is_read(kind: str, options: dict[str, Any]) -> None:
    source = Image.fromarray(COLOURS).convert(kind)
    data = pillow(source, "JPEG", quality=98, **options)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode(data).pixels - luma(reference)).max() <= 0.51  # rounding


def test_constant_pictures_stay_constant() -> None:
    assert decode(pillow(np.full((9, 7), 77, np.uint8), "PNG")).pixels.tolist() == [[77] * 7] * 9
    for values in (np.full((9, 7), 4000, np.uint16), np.full((9, 7), -2.5, np.float32)):
        pixels = decode(tiff(values)).pixels
        assert pixels.shape == (9, 7)
        assert pixels.min() == pixels.max()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    picture = np.zeros((16, 24), np.uint8)
    picture[:8, :8] = 255
    turned: dict[int, Any] = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: p.T,
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p, 2).T,
        8: np.rot90,
    }
    expected = turned[orientation](picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep_colours = pillow_deep_colours(picture, exif)
    tag = [(274, "H", 1, orientation, True)]
    deep = picture.astype(np.uint16)
    files = [
        pillow(picture, "PNG", exif=exif),
        pillow(picture, "JPEG", exif=exif, quality=100),
        tiff(picture, extratags=tag),
        tiff(deep, extratags=tag),
        tiff(np.stack([deep] * 3, axis=-1), photometric="rgb", extratags=tag),
        deep_colours,
    ]
    for number, data in enumerate(files):
        assert np.array_equal(decode(data).pixels > 127, expected > 127), number


def pillow_deep_colours(picture: np.ndarray[Any, Any], exif: Image.Exif) -> bytes:
    """A 16-bit RGB PNG with an eXIf chunk, which neither Pillow nor cv2 writes."""
    data: bytes = cv2.imencode(".png", np.stack([picture.astype(np.uint16) * 257] * 3, axis=-1))[1].tobytes()
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    return data[:33] + chunk + data[33:]


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "chest.png"
    path.write_bytes(pillow(GREY, "JPEG"))
    assert read_image(path).source_format == "jpeg"


def test_what_follows_a_whole_jpeg_does_not_matter() -> None:
    data = pillow(GREY, "JPEG")
    alone = decode(data).pixels
    for rest in (b"\0" * 100, b"\xff", data, data[: len(data) // 2]):
        assert np.array_equal(decode(data + rest).pixels, alone)


def test_several_pictures_in_one_file_are_refused() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    animated = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    pages = pillow(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    for data in (animated, pages):
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.reason == "multi_frame"


def test_a_tiff_may_carry_a_reduced_copy() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY)
        writer.write(GREY[::4, ::4], subfiletype=1)
    assert np.array_equal(decode(stream.getvalue()).pixels, GREY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(bad: float, kind: type) -> None:
    values = DEEP.astype(kind)
    values[3, 4] = bad
    with pytest.raises(ImageError) as caught:
        decode(tiff(values), name="scan.tif")
    assert caught.value.reason == "non_finite"
    assert caught.value.where == "scan.tif"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"GIF89a", "unsupported"), (b"<html>", "unsupported"), (b"\x89PNG\r\n\x1a\n", "truncated")],
)
def test_other_bytes_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, name="x")
    assert caught.value.reason == reason
    assert caught.value.fix


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert caught.value.reason == "unreadable"
        assert caught.value.where == str(path)


def test_limits_hold_for_the_file_the_picture_and_the_clock(tmp_path: Path) -> None:
    data = pillow(GREY, "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for limits in (DecodeLimits(max_bytes=100), DecodeLimits(max_pixels=1000), DecodeLimits(max_decoded_bytes=1000)):
        with pytest.raises(ImageError) as caught:
            read_image(path, limits)
        assert caught.value.reason == "too_large"
    with pytest.raises(ImageError) as caught:
        decode(data, limits=DecodeLimits(max_seconds=1e-9))
    assert caught.value.reason == "too_slow"


def test_no_global_switch_and_no_warning_filter_is_left_changed() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    # Over Pillow's own limit, at which it would warn.
    large = bytearray(pillow(GREY, "PNG"))
    large[16:24] = (12_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    large[29:33] = zlib.crc32(large[12:29]).to_bytes(4, "big")
    for limits in (DecodeLimits(), DecodeLimits(max_pixels=2**27)):
        with pytest.raises(ImageError):
            decode(bytes(large), limits=limits)
    threads = [threading.Thread(target=decode, args=(pillow(GREY, "PNG"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_private_text_never_reaches_a_decoder_or_an_error() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("PatientName", "Planted^Name", zip=True)
    data = pillow(GREY, "PNG", pnginfo=info)
    image = decode(data)
    assert "Planted" not in repr(image)
    broken = bytearray(data)
    broken[-20] ^= 0xFF
    with pytest.raises(ImageError) as caught:
        decode(bytes(broken))
    assert "Planted" not in str(caught.value)


def test_float01_spans_zero_to_one() -> None:
    image = decode(pillow(DEEP, "PNG"))
    values = image.float01()
    assert values.dtype == np.float32
    assert (values.min(), values.max()) == (0.0, 1.0)
    assert np.array_equal(values * np.float32(255), image.pixels.astype(np.float32))


def test_stretching_survives_the_extremes_of_float64() -> None:
    huge = np.array([[-1e308, 0.0, 1.7e308]])
    assert to_uint8(huge).tolist() == [[0, 94, 255]]
    tiny = np.array([[0.0, 5e-300, 1e-299]])
    assert to_uint8(tiny).tolist() == [[0, 128, 255]]


def test_stretching_from_a_given_range_clips() -> None:
    values = np.array([[-5, 0, 5, 10, 99]], dtype=np.int16)
    assert to_uint8(values, low=0, high=10).tolist() == [[0, 0, 128, 255, 255]]
    assert to_uint8(values, low=0, high=10, invert=True).tolist() == [[255, 255, 128, 0, 0]]


def test_luminance_of_one_channel_is_itself() -> None:
    assert np.array_equal(luminance(GREY[..., np.newaxis]), GREY)
    assert np.array_equal(luminance(GREY), GREY)


@pytest.mark.slow
def test_real_pictures_are_read_as_pillow_reads_them(real_data: Path) -> None:
    paths = sorted(p for p in real_data.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))[::250]
    compared = 0
    for path in paths:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB") or "transparency" in image.info:
                continue
            expected = luma(np.asarray(image.convert("RGB")))
        assert np.abs(read_image(path).pixels - expected).max() <= 0.51, path
        compared += 1
    assert compared > 10
