"""Bytes → pixels: DICOM, PNG, JPEG, TIFF under bounds; the corpus's own JPEGs; augmentation. Knows no dataset."""

from umif.imaging.augment import (
    Augmentation,
    AugmentConfig,
    centre_view,
    draw_augmentation,
    warp_image,
    warp_mask,
)
from umif.imaging.decode import decode, read_image
from umif.imaging.intensity import luminance, to_uint8
from umif.imaging.picture import DecodeLimits, GreyImage
from umif.imaging.resize import decode_jpeg_grey, encode_jpeg, resize_shorter_side

__all__ = [
    "AugmentConfig",
    "Augmentation",
    "DecodeLimits",
    "GreyImage",
    "centre_view",
    "decode",
    "decode_jpeg_grey",
    "draw_augmentation",
    "encode_jpeg",
    "luminance",
    "read_image",
    "resize_shorter_side",
    "to_uint8",
    "warp_image",
    "warp_mask",
]
