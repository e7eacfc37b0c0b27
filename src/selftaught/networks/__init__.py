"""Networks: image encoders (timm first), heads, the blind-spot network, encoders of series, tiling."""

from selftaught.networks.blind_spot import BlindSpotNetwork, ConditionalMaskedConv
from selftaught.networks.encoders import Encoder, build, encoder, own_encoders
from selftaught.networks.heads import DINOHead, Prototypes, dino_head, mlp
from selftaught.networks.queue import Queue
from selftaught.networks.series import (
    ConvMapping,
    FourierEncoder,
    ResNet1d,
    SeriesEncoder,
    WaveletEncoder,
    build_series,
    mapper,
    series_encoder,
)
from selftaught.networks.tiling import tiled

__all__ = [
    "BlindSpotNetwork",
    "ConditionalMaskedConv",
    "ConvMapping",
    "DINOHead",
    "Encoder",
    "FourierEncoder",
    "Prototypes",
    "Queue",
    "ResNet1d",
    "SeriesEncoder",
    "WaveletEncoder",
    "build",
    "build_series",
    "dino_head",
    "encoder",
    "mapper",
    "mlp",
    "own_encoders",
    "series_encoder",
    "tiled",
]
