"""IBCLN's network (Li et al., CVPR 2020, arXiv 1911.06634): two recurrent autoencoders that improve each other's layer.

T_0 = I, R_0 = 0.1;    T_k = G_T(I, T_k-1, R_k-1),    R_k = G_R(I, T_k, R_k-1)        k = 1 .. 3, each with a memory
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["IBCLN", "IBCLNOutput", "PatchDiscriminator", "RecurrentAutoencoder"]

Memory = tuple[Tensor, Tensor]


class RecurrentAutoencoder(nn.Module):
    """An autoencoder with a convolutional LSTM in its middle, at a quarter of the size.

    Args:
        channels: of the input.
        out: channels of the output.
        width: of the first layer; the middle has four times as many.
        dilations: of the middle's convolutions.
    """

    def __init__(
        self, channels: int, out: int = 3, *, width: int = 64, dilations: tuple[int, ...] = (2, 4, 8, 16)
    ) -> None:
        super().__init__()
        w, middle = width, 4 * width
        self.first = nn.Sequential(nn.Conv2d(channels, w, 5, padding=2), nn.ReLU())
        self.second = nn.Sequential(*_conv(w, 2 * w, stride=2), *_conv(2 * w, 2 * w))
        spread = [layer for d in dilations for layer in _conv(middle, middle, dilation=d)]
        self.third = nn.Sequential(*_conv(2 * w, middle, stride=2), *_conv(middle, middle), *_conv(middle, middle))
        self.spread = nn.Sequential(*spread, *_conv(middle, middle))
        self.gates = nn.Conv2d(2 * middle, 4 * middle, 3, padding=1)
        self.after = nn.Sequential(*_conv(middle, middle))
        self.up1 = nn.Sequential(nn.ConvTranspose2d(middle, 2 * w, 4, stride=2, padding=1), nn.ReLU())
        self.join1 = nn.Sequential(*_conv(2 * w, 2 * w), nn.Dropout(0.3))
        self.up2 = nn.Sequential(nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1), nn.ReLU())
        self.join2 = nn.Sequential(*_conv(w, max(1, w // 2)))
        self.quartered, self.halved = nn.Conv2d(middle, out, 3, padding=1), nn.Conv2d(2 * w, out, 3, padding=1)
        self.whole = nn.Conv2d(max(1, w // 2), out, 3, padding=1)

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[list[Tensor], Memory]:
        """Images (N, C, H, W), sides multiples of 4.

        Returns:
            The output at a quarter, half and all of the size, not below 0, and the memory for the next round.
        """
        first = self.first(x)
        second = self.second(first)
        inner = self.spread(self.third(second))
        hidden, cell = memory if memory is not None else (torch.zeros_like(inner), torch.zeros_like(inner))
        into, forget, new, shown = self.gates(torch.cat([inner, hidden], 1)).chunk(4, 1)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        hidden = shown.sigmoid() * cell.tanh()
        deep = self.after(hidden)
        middle = self.join1(self.up1(deep) + second)
        fine = self.join2(self.up2(middle) + first)
        made = [self.quartered(deep), self.halved(middle), self.whole(fine)]
        return [one.relu() for one in made], (hidden, cell)


class IBCLNOutput(NamedTuple):
    """What IBCLN makes of a picture.

    Attributes:
        transmissions: of every round, the last one best.
        reflections: of every round.
        half: the last transmission at half the size.
        quarter: at a quarter of it.
    """

    transmissions: list[Tensor]
    reflections: list[Tensor]
    half: Tensor
    quarter: Tensor


class IBCLN(nn.Module):
    """The iterative boost of a transmission and a reflection layer.

    Args:
        channels: of the images.
        width: of either autoencoder.
        rounds: 3.
    """

    def __init__(self, channels: int = 3, *, width: int = 64, rounds: int = 3) -> None:
        super().__init__()
        self.rounds = rounds
        self.transmission = RecurrentAutoencoder(3 * channels, channels, width=width)
        self.reflection = RecurrentAutoencoder(3 * channels, channels, width=width)

    def layers(self, image: Tensor) -> IBCLNOutput:
        """The layers of every round, of images (N, C, H, W) in [0, 1] whose sides are multiples of 4."""
        t, r = image, torch.full_like(image, 0.1)
        memories: list[Memory | None] = [None, None]
        transmissions, reflections, smaller = [], [], [image, image]
        for _ in range(self.rounds):
            (*smaller, t), memories[0] = self.transmission(torch.cat([image, t, r], 1), memories[0])
            (_, _, r), memories[1] = self.reflection(torch.cat([image, t, r], 1), memories[1])
            transmissions.append(t)
            reflections.append(r)
        return IBCLNOutput(transmissions, reflections, half=smaller[1], quarter=smaller[0])

    def forward(self, image: Tensor) -> Tensor:
        """The last transmission, (N, C, H, W)."""
        return self.layers(image).transmissions[-1]


class PatchDiscriminator(nn.Module):
    """D: a number for each patch of 70 x 70 pixels, whether it is of a photograph; normal initialisation (0.02).

        conv 4x4 stride 2 W; conv 4x4 stride 2 2W, 4W with InstanceNorm; conv 4x4 8W with InstanceNorm; conv 4x4 1

    LeakyReLU(0.2) between all.

    Args:
        channels: of the images.
        width: W, 64 there.
    """

    smallest = 24
    """Least side of an image."""

    def __init__(self, channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for times, stride in ((2, 2), (4, 2), (8, 1)):
            before = max(1, times // 2) * width
            norm = nn.InstanceNorm2d(times * width)
            layers += [nn.Conv2d(before, times * width, 4, stride=stride, padding=1), norm, nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) to (N, 1, H / 8 - 2, W / 8 - 2)."""
        return self.body(image)


def _conv(before: int, after: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=dilation, dilation=dilation), nn.ReLU()]
