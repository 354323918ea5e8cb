"""What is done to decode quickly changes no pixel, or by no more than is said."""

from __future__ import annotations

import io
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from umif.corpus import Corpus, PrepareConfig, prepare
from umif.imaging import decode, decode_jpeg_grey, png, resize_shorter_side
from umif.imaging.picture import Attempt, DecodeLimits

SIDE = 64


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Soft shapes and the noise of a radiograph."""
    rng = np.random.default_rng(seed)
    soft = cv2.resize(rng.uniform(30, 220, (6, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    noisy: np.ndarray[Any, Any] = soft + rng.normal(0, 4, (height, width))
    return noisy.clip(0, 255).astype(np.uint8)


def saved(pixels: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


class TestScaledJpegs:
    @pytest.mark.parametrize(
        ("height", "width", "scale"),
        [(1030, 1300, 8), (1023, 1300, 4), (515, 900, 4), (511, 900, 2), (256, 300, 2), (255, 300, 1), (40, 900, 1)],
    )
    def test_keep_a_shorter_side_of_twice_what_is_wanted(self, height: int, width: int, scale: int) -> None:
        image = decode(saved(picture(height, width), "JPEG", quality=95), shorter_side=SIDE)
        assert image.pixels.shape == (-(-height // scale), -(-width // scale))
        assert image.full_size == (None if scale == 1 else (height, width))

    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 5}])
    @pytest.mark.parametrize(("height", "width", "mean"), [(1088, 1296, 0.3), (1100, 1300, 1.2)])
    def test_give_nearly_the_same_picture(self, options: dict[str, Any], height: int, width: int, mean: float) -> None:
        data = saved(picture(height, width), "JPEG", quality=95, **options)
        quick, slow = (
            resize_shorter_side(decode(data, shorter_side=side).pixels, SIDE).astype(int) for side in (SIDE, None)
        )
        # An eighth has a filter of its own before the averaging. Where the sides are no multiples of 8 the last
        # pixels stand for less than the others, so the picture is stretched by a part of a pixel.
        assert quick.shape == slow.shape
        assert np.abs(quick - slow).mean() < mean
        assert np.abs(quick - slow).max() <= 6

    def test_are_turned_upright_with_their_full_size(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = decode(saved(picture(600, 900), "JPEG", exif=exif), shorter_side=SIDE)
        assert image.pixels.shape == (225, 150)
        assert image.full_size == (900, 600)

    def test_come_whole_unless_they_are_to_be_made_smaller(self) -> None:
        data = saved(picture(1100, 1300), "JPEG")
        expected = np.asarray(Image.open(io.BytesIO(data)))
        assert np.array_equal(decode(data).pixels, expected)

    def test_are_a_setting_of_the_corpus(self, tmp_path: Any) -> None:
        for kind, suffix in (("JPEG", "jpg"), ("PNG", "png")):
            folder = tmp_path / kind / "mass"
            folder.mkdir(parents=True)
            for seed in range(2):
                (folder / f"{seed}.{suffix}").write_bytes(saved(picture(300, 420, seed), kind))
        made = {}
        for kind in ("JPEG", "PNG"):
            for scaling in (False, True):
                config = PrepareConfig(shorter_side=SIDE, jpeg_scaling=scaling)
                out = tmp_path / f"{kind}{scaling}"
                made[kind, scaling] = prepare(out, [("folder", tmp_path / kind)], config, workers=1, progress=False)
                corpus = Corpus.open(out)
                for row in corpus.images_table().to_pylist():
                    assert (row["original_height"], row["original_width"]) == (300, 420)
                    assert (row["height"], row["width"]) == (64, 90)
                assert decode_jpeg_grey(corpus.take_jpegs([0])[0]).shape == (64, 90)
        assert made["PNG", False].fingerprint == made["PNG", True].fingerprint
        assert made["JPEG", False].fingerprint != made["JPEG", True].fingerprint


class TestPngRows:
    @pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "LA", "1"])
    @pytest.mark.parametrize("limit", [0, png._KEEP_BYTES])
    def test_are_the_same_stored_or_inflated_again(
        self, monkeypatch: pytest.MonkeyPatch, mode: str, limit: int
    ) -> None:
        image = Image.fromarray(picture(70, 90))
        deep = Image.fromarray(picture(70, 90).astype(np.uint16) * 200)
        data = io.BytesIO()
        (deep if mode == "I;16" else image.convert(mode)).save(data, "PNG")
        expected = decode(data.getvalue()).pixels
        monkeypatch.setattr(png, "_KEEP_BYTES", limit)
        assert np.array_equal(decode(data.getvalue()).pixels, expected)
        _, reduced = png.check_png(data.getvalue(), Attempt("", DecodeLimits()))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(reduced))), np.asarray(Image.open(data)))
        stored = len(reduced) > png.check_png(data.getvalue(), Attempt("", DecodeLimits()))[0].row_bytes
        if mode in ("L", "RGB", "I;16"):  # noise, which takes less room when it is deflated all the same
            assert stored == (limit > 0)

    def test_do_not_depend_on_who_inflates_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = saved(picture(300, 420), "PNG")
        first = decode(data).pixels
        monkeypatch.setattr(png, "inflating", zlib)
        assert np.array_equal(decode(data).pixels, first)
        assert np.array_equal(first, picture(300, 420))
