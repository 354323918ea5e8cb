"""The frozen encoder: weights, preprocessing and tokeniser of a run, ready for pictures and words it has never seen."""

from umif.encoder.dense import PatchFeatures
from umif.encoder.encoder import DEFAULT_WEIGHTS, ZERO_SHOT_TEMPERATURE, Encoder, Weights
from umif.encoder.features import Readout
from umif.encoder.foreign import ForeignEncoder, is_foreign, load_foreign
from umif.encoder.frozen import FrozenEncoder
from umif.encoder.load import load_encoder
from umif.encoder.pixels import ImageInput, Preprocessing

__all__ = [
    "DEFAULT_WEIGHTS",
    "ZERO_SHOT_TEMPERATURE",
    "Encoder",
    "ForeignEncoder",
    "FrozenEncoder",
    "ImageInput",
    "PatchFeatures",
    "Preprocessing",
    "Readout",
    "Weights",
    "is_foreign",
    "load_encoder",
    "load_foreign",
]
