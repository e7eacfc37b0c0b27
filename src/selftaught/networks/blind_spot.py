"""The conditional blind-spot network of C-BSN (arXiv 2304.09507): one network, with and without its centre pixel."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError

__all__ = ["BlindSpotNetwork", "ConditionalMaskedConv"]


class ConditionalMaskedConv(nn.Conv2d):
    """A k x k "same" convolution whose centre tap is there only when the caller wants to see the pixel itself.

    Blind: kernel W * M, with M = 0 at the centre and 1 elsewhere. Otherwise: W. The mask is applied to the kernel at
    every forward, so the centre tap keeps its value through blind steps and learns from the others.

    Args:
        channels: input and output channels.
        kernel_size: odd k.
    """

    mask: Tensor

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2)
        mask = torch.ones(1, 1, kernel_size, kernel_size)
        mask[..., kernel_size // 2, kernel_size // 2] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, blind: bool) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) to (N, C, H, W), with or without the centre tap."""
        weight = self.weight * self.mask if blind else self.weight
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class DilatedModule(nn.Module):
    """DCM: x + ReLU(1x1(ReLU(3x3 dilated(x))))."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return x + self.pointwise(self._dilated(x).relu()).relu()

    def _dilated(self, x: Tensor) -> Tensor:
        """The dilated convolution; in float32 where oneDNN leaves parts of its bf16 weight gradient uninitialised.

        Seen with torch 2.15 on processors with avx512_bf16: dilation above 1, more than 16 channels and no multiple of
        16, channels-last memory. Widths that are multiples of 16 keep the speed.
        """
        width = self.dilated.out_channels
        if x.device.type != "cpu" or width <= 16 or width % 16 == 0:
            return self.dilated(x)
        with torch.autocast("cpu", enabled=False):
            return self.dilated(x.float())


class Branch(nn.Module):
    """Masked k x k convolution, then layers whose every offset is a multiple of the dilation (k + 1) / 2.

    Why it stays blind: the mask leaves offsets from 1 to (k - 1) / 2 in absolute value on some axis, all smaller than
    the dilation, and adding multiples of the dilation never brings such an offset back to 0.

    Args:
        channels: width C.
        modules: number N of dilated modules.
        kernel_size: k of the masked convolution, odd.
    """

    def __init__(self, channels: int, modules: int, kernel_size: int) -> None:
        super().__init__()
        dilation = (kernel_size + 1) // 2
        self.radius = kernel_size // 2 + modules * dilation
        self.masked = ConditionalMaskedConv(channels, kernel_size)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            *(DilatedModule(channels, dilation) for _ in range(modules)),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, blind: bool) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return self.body(self.masked(x, blind).relu())


class BlindSpotNetwork(nn.Module):
    """f(x) and f_M(x) of C-BSN: an image in, an image out, of the same size; 3,656,131 parameters at the defaults.

    A 1x1 head, two branches with masks of 3x3 (dilation 2) and 5x5 (dilation 3), a 1x1 tail. ReLU after every
    convolution but the last, zero padding, no normalisation layer (its statistics would leak the centre pixel).

    Args:
        channels: image channels C_in, 3 for RGB; any number.
        width: feature channels C.
        modules: dilated modules N in each branch.

    Raises:
        UserError: a size below one.
    """

    def __init__(self, channels: int = 3, *, width: int = 128, modules: int = 9) -> None:
        super().__init__()
        for option, value in (("channels", channels), ("width", width)):
            if value < 1:
                raise UserError(f"{option}={value}: the blind-spot network needs 1 or more")
        if modules < 0:
            raise UserError(f"modules={modules}: the blind-spot network needs 0 or more")
        self.channels = channels
        self.head = nn.Conv2d(channels, width, 1)
        self.branches = nn.ModuleList(Branch(width, modules, kernel_size) for kernel_size in (3, 5))
        self.tail = nn.Sequential(
            nn.Conv2d(2 * width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 1),
            nn.ReLU(),
            nn.Conv2d(64, channels, 1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of variance 2 / fan_in (masked kernels normal, all others truncated normal), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                std = (2 / module.weight[0].numel()) ** 0.5
                if isinstance(module, ConditionalMaskedConv):
                    nn.init.normal_(module.weight, std=std)
                else:
                    # cutting a normal at two deviations shrinks it; widened so that the variance is the one wanted
                    wide = std / _TRUNCATED_STD
                    nn.init.trunc_normal_(module.weight, std=wide, a=-2 * wide, b=2 * wide)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, x: Tensor, blind: bool = False) -> Tensor:
        """Denoise.

        Args:
            x: (N, C_in, H, W), normalised per image and channel.
            blind: leave every output pixel's own input pixel out (f_M); otherwise see it too (f).

        Returns:
            (N, C_in, H, W).
        """
        features = self.head(x).relu()
        return self.tail(torch.cat([branch(features, blind) for branch in self.branches], dim=1))

    def receptive_radius(self) -> int:
        """Pixels an output looks away in every direction: 29 at the defaults. What `tiled` needs as overlap."""
        return max(cast(Branch, branch).radius for branch in self.branches)


_TRUNCATED_STD = 0.87962566103423978  # of a standard normal cut at -2 and 2
