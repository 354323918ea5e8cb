"""The frozen encoder: weights, preprocessing and tokeniser of a run, ready for pictures and words it has never seen."""

from umif.encoder.dense import PatchFeatures
from umif.encoder.encoder import DEFAULT_WEIGHTS, ZERO_SHOT_TEMPERATURE, Encoder, Weights
from umif.encoder.features import Readout
from umif.encoder.load import load_encoder
from umif.encoder.pixels import ImageInput, Preprocessing

__all__ = [
    "DEFAULT_WEIGHTS",
    "ZERO_SHOT_TEMPERATURE",
    "Encoder",
    "ImageInput",
    "PatchFeatures",
    "Preprocessing",
    "Readout",
    "Weights",
    "load_encoder",
]
