"""The packed ViT and UmiF itself: student and averaged teacher."""

from umif.models.attention import Segments, cls_attention, segment_attention
from umif.models.umif import Features, HeadConfig, ModelConfig, TokenEncoder, UmiF, build_model

__all__ = [
    "Features",
    "HeadConfig",
    "ModelConfig",
    "Segments",
    "TokenEncoder",
    "UmiF",
    "build_model",
    "cls_attention",
    "segment_attention",
]
