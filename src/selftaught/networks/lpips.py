"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924): how unlike two pictures look, by the features of VGG16.

d = sum_l mean over places of sum over channels w_l (phi_l(x) / |phi_l(x)| - phi_l(y) / |phi_l(y)|)^2
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.frozen import Frozen
from selftaught.networks.vgg import vgg_features

__all__ = ["LPIPS", "LPIPS_PLACES", "load_lpips", "lpips_at_hand"]

LPIPS_PLACES = ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
"""VGG16's last activation of every block."""

_WIDTHS = (64, 128, 256, 512, 512)
_TINY = 1e-10


class LPIPS(nn.Module):
    """The distance of pictures by given features and weights.

    Args:
        features: images (N, 3 or 1, H, W) in [-1, 1] to a list of maps.
        weights: w_l, (F,) each, one for each map; none of them negative.
    """

    def __init__(self, features: nn.Module, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.features = features
        self.weights = nn.ParameterList(nn.Parameter(weight.flatten(), requires_grad=False) for weight in weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (N,) of images (N, 3 or 1, H, W) in [0, 1]; 0 for equal ones.

        Raises:
            UserError: shapes that differ, or other numbers of maps than of weights.
        """
        if x.shape != y.shape or x.ndim != 4:
            raise UserError(f"images need one shape (N, C, H, W), got {tuple(x.shape)} and {tuple(y.shape)}")
        maps, others = self.features(2 * x - 1), self.features(2 * y - 1)
        if len(maps) != len(self.weights):
            raise UserError(f"{len(maps)} maps for {len(self.weights)} weights")
        total = x.new_zeros(len(x))
        for weight, one, other in zip(self.weights, maps, others, strict=True):
            apart = (_unit(one) - _unit(other)).square()
            total = total + torch.einsum("nchw,c->n", apart, weight.to(apart)) / apart[0, 0].numel()
        return total


def lpips_at_hand() -> bool:
    """Whether the package lpips (its weights w_l) and torchvision's VGG16 are on this machine; nothing is fetched."""
    import torchvision

    url = torchvision.models.get_model_weights("vgg16")["IMAGENET1K_V1"].url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return cached.exists() and _linear_weights() is not None


@functools.cache
def load_lpips() -> LPIPS:
    """LPIPS of version 0.1 on torchvision's VGG16, which is fetched once (528 MB) where it isn't there.

    Raises:
        UserError: the package lpips is missing, or VGG16's weights are out of reach. Other weights of VGG would give
            numbers that can't be compared with published ones.
    """
    file = _linear_weights()
    if file is None:
        raise UserError("LPIPS needs the weights in the package lpips; run: pip install --no-deps lpips")
    features: Frozen = vgg_features(LPIPS_PLACES, depth=16, weights="torchvision")
    stored = torch.load(file, map_location="cpu", weights_only=True)
    weights = [stored[f"lin{level}.model.1.weight"].reshape(width) for level, width in enumerate(_WIDTHS)]
    return LPIPS(features, weights).eval()


def _linear_weights() -> Path | None:
    found = importlib.util.find_spec("lpips")
    folders = found.submodule_search_locations if found is not None else None
    file = Path(folders[0]) / "weights" / "v0.1" / "vgg.pth" if folders else None
    return file if file is not None and file.exists() else None


def _unit(maps: Tensor) -> Tensor:
    return maps / (maps.square().sum(1, keepdim=True).sqrt() + _TINY)
