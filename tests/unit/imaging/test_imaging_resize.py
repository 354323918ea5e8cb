"""The corpus's pictures keep their proportions and their grey values, and whole JPEGs are told from others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from umif.errors import ImageError
from umif.imaging import decode, decode_jpeg_grey, encode_jpeg, resize_shorter_side

ROWS, COLUMNS = np.mgrid[:300, :400]
PICTURE = (127 + 60 * np.sin(COLUMNS / 31) + 60 * np.cos(ROWS / 17)).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [
        ((300, 400), 256, (256, 341)),
        ((400, 300), 256, (341, 256)),
        ((256, 256), 256, (256, 256)),
        ((9, 9000), 3, (3, 3000)),
    ],
)
def test_the_shorter_side_is_met_and_proportions_stay(
    shape: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    assert resize_shorter_side(np.zeros(shape, np.uint8), side).shape == expected


def test_nothing_is_enlarged() -> None:
    small = PICTURE[:100, :90]
    assert np.array_equal(resize_shorter_side(small, 256), small)
    assert np.array_equal(resize_shorter_side(small, 90), small)


def test_every_source_pixel_counts() -> None:
    halved = resize_shorter_side(PICTURE, 150)
    blocks = PICTURE.reshape(150, 2, 200, 2).astype(float).mean(axis=(1, 3))
    assert np.abs(halved - blocks).max() <= 0.51  # rounding


def test_a_side_of_no_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="side"):
        resize_shorter_side(PICTURE, 0)


def test_what_is_written_is_read_back() -> None:
    for picture in (PICTURE, PICTURE[:1, :1], PICTURE[::2, ::-3]):
        data = encode_jpeg(picture, 95)
        assert np.abs(decode_jpeg_grey(data).astype(int) - picture).mean() < 3
        assert encode_jpeg(picture, 95) == data
    assert len(encode_jpeg(PICTURE, 60)) < len(encode_jpeg(PICTURE, 95))


def test_the_fast_path_agrees_with_the_careful_one_and_with_pillow() -> None:
    data = encode_jpeg(PICTURE, 90)
    fast = decode_jpeg_grey(data)
    assert np.array_equal(fast, decode(data).pixels)
    assert np.array_equal(fast, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_cut_jpeg_is_refused(share: float) -> None:
    data = encode_jpeg(PICTURE, 90)
    with pytest.raises(ImageError):
        decode_jpeg_grey(data[: int(len(data) * share)])


def test_a_jpeg_with_a_huge_header_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encode_jpeg(PICTURE, 90))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError) as caught:
        decode_jpeg_grey(bytes(data))
    assert caught.value.reason == "too_large"


def test_other_bytes_and_shapes_are_refused() -> None:
    with pytest.raises(ImageError):
        decode_jpeg_grey(b"\x89PNG")
    with pytest.raises(ImageError):
        decode_jpeg_grey(b"\xff\xd8\xff\xd9")
    with pytest.raises(ImageError) as caught:
        encode_jpeg(np.zeros((1, 65_536), np.uint8), 90)
    assert caught.value.reason == "too_large"
    with pytest.raises(ValueError, match="uint8"):
        encode_jpeg(np.zeros((4, 4, 3), np.uint8), 90)
