"""Networks: image encoders (timm first), heads, the blind-spot network, encoders of series, tiling."""

from selftaught.networks.adapter import ADAPTERS, JigsawHead, rotation_head, scattering_encoder
from selftaught.networks.blind_spot import BlindSpotNetwork, ConditionalMaskedConv
from selftaught.networks.cifar_resnet import CIFAR_RESNETS, CIFARResNet
from selftaught.networks.encoders import Encoder, build, encoder, own_encoders
from selftaught.networks.graph import MessagePassing
from selftaught.networks.heads import DINOHead, Prototypes, dino_head, mlp
from selftaught.networks.queue import Queue
from selftaught.networks.regnet import REGNETS, RegNetY, regnety, timm_name
from selftaught.networks.reweighting import HEADS, Reweighting, SymmetrisedReLU, projection_head, reweighting
from selftaught.networks.scattering import Scattering2d
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
from selftaught.networks.statistics import kept_statistics
from selftaught.networks.temperature import MultiHead, PairScore, TemperatureTable
from selftaught.networks.tiling import tiled

__all__ = [
    "ADAPTERS",
    "CIFAR_RESNETS",
    "HEADS",
    "REGNETS",
    "BlindSpotNetwork",
    "CIFARResNet",
    "ConditionalMaskedConv",
    "ConvMapping",
    "DINOHead",
    "Encoder",
    "FourierEncoder",
    "JigsawHead",
    "MessagePassing",
    "MultiHead",
    "PairScore",
    "Prototypes",
    "Queue",
    "RegNetY",
    "ResNet1d",
    "Reweighting",
    "Scattering2d",
    "SeriesEncoder",
    "SymmetrisedReLU",
    "TemperatureTable",
    "WaveletEncoder",
    "build",
    "build_series",
    "dino_head",
    "encoder",
    "kept_statistics",
    "mapper",
    "mlp",
    "own_encoders",
    "projection_head",
    "regnety",
    "reweighting",
    "rotation_head",
    "scattering_encoder",
    "series_encoder",
    "tiled",
    "timm_name",
]
