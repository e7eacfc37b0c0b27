"""Networks: image encoders (timm first), heads, the blind-spot network, encoders of series, tiling."""

from selftaught.networks.blind_spot import BlindSpotNetwork, ConditionalMaskedConv
from selftaught.networks.encoders import Encoder, build, encoder, own_encoders
from selftaught.networks.heads import mlp
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
    "Encoder",
    "FourierEncoder",
    "ResNet1d",
    "SeriesEncoder",
    "WaveletEncoder",
    "build",
    "build_series",
    "encoder",
    "mapper",
    "mlp",
    "own_encoders",
    "series_encoder",
    "tiled",
]
