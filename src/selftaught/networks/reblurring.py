"""Blurring a sharp picture as told: by ID-Blau's diffusion (Wu et al., CVPR 2024, arXiv 2312.10998), and by a path.

A blur condition (3, H, W) says of each pixel how it moved while the shutter was open: its unit direction (u, v) and how
far, m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, silu

from selftaught.errors import UserError

__all__ = ["BlurDiffusion", "BlurNoise", "ddim_times", "diffusion_schedule", "path_blur", "sinusoidal_time"]

_T, _FIRST, _LAST = 2000, 1e-6, 1e-2


def path_blur(image: Tensor, condition: Tensor, *, samples: int = 0) -> Tensor:
    """The mean of a picture along a straight path through each pixel.

        out(p) = 1/K sum_k image( p + s_k m(p) (u(p), v(p)) ),      s_k evenly from -1/2 to 1/2

    Args:
        image: (N, C, H, W).
        condition: (N, 3, H, W): u to the right, v down, of length 1, and m, the whole path in pixels.
        samples: K; 0 takes one for each pixel of the longest path, and one more.

    Returns:
        (N, C, H, W); outside the picture its border goes on.

    Raises:
        UserError: other shapes.
    """
    n, _, height, width = image.shape
    if condition.shape != (n, 3, height, width):
        shapes = f"{tuple(image.shape)} and condition {tuple(condition.shape)}"
        raise UserError(f"path_blur: image {shapes}; give (N, C, H, W) and (N, 3, H, W)")
    count = samples or max(2, math.ceil(float(condition[:, 2].max())) + 1)
    y, x = (torch.arange(side, device=image.device, dtype=image.dtype) for side in (height, width))
    shift = condition[:, :2] * condition[:, 2:]
    total = torch.zeros_like(image)
    for share in torch.linspace(-0.5, 0.5, count).tolist():
        across = (x + share * shift[:, 0]) * (2 / max(width - 1, 1)) - 1
        down = (y[:, None] + share * shift[:, 1]) * (2 / max(height - 1, 1)) - 1
        grid = torch.stack((across, down), -1)
        total = total + grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return total / count


# ---- the noise predictor -----------------------------------------------------------------------------------------
def sinusoidal_time(t: Tensor, dim: int = 64) -> Tensor:
    """Embedding of times (N,): the sines, then the cosines, of t * 10000^(-i / (dim / 2)); (N, dim)."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000.0) / half))
    angles = t.float()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


class _Block(nn.Module):
    """SiLU-conv3, plus the time, SiLU-dropout-conv3, plus the input; no normalisation."""

    def __init__(self, into: int, out: int, time: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(into, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.time, self.dropout = nn.Linear(time, out), nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(silu(x)) + self.time(silu(time))[:, :, None, None]
        return self.second(self.dropout(silu(h))) + self.shortcut(x)


class BlurNoise(nn.Module):
    """ID-Blau's noise predictor: a U-Net on the noisy blurred picture, the sharp one and the blur condition.

    Args:
        channels: of a picture; the input has 2 * channels + 3.
        base: channels at full size.
        multipliers: of the base at each level; a level has half the size of the one before.
        blocks: residual blocks of a level on the way down; one more on the way up.
        dropout: within blocks.

    Attributes:
        multiple: sides must be multiples of it.
    """

    def __init__(
        self,
        channels: int = 3,
        base: int = 64,
        multipliers: Sequence[int] = (1, 2, 3),
        blocks: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.base, time = base, 4 * base
        self.multiple = 2 ** (len(multipliers) - 1)
        self.time = nn.Sequential(nn.Linear(base, time), nn.SiLU(), nn.Linear(time, time))
        self.head = nn.Conv2d(2 * channels + 3, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, now = [base], base
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(_Block(now, base * multiplier, time, dropout))
                now = base * multiplier
                skips.append(now)
            if level < len(multipliers) - 1:
                self.down.append(nn.Conv2d(now, now, 3, 2, 1))
                skips.append(now)
        self.middle = nn.ModuleList(_Block(now, now, time, dropout) for _ in range(2))
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                self.up.append(_Block(now + skips.pop(), base * multiplier, time, dropout))
                now = base * multiplier
            if level:
                self.up.append(nn.Conv2d(now, now, 3, padding=1))
        self.out = nn.Conv2d(base, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(N, 2 C + 3, H, W) and times (N,) to noise (N, C, H, W)."""
        time = self.time(sinusoidal_time(t, self.base))
        x = self.head(x)
        seen = [x]
        for layer in self.down:
            x = layer(x, time) if isinstance(layer, _Block) else layer(x)
            seen.append(x)
        for layer in self.middle:
            x = layer(x, time)
        for layer in self.up:
            if isinstance(layer, _Block):
                x = layer(torch.cat((x, seen.pop()), 1), time)
            else:
                x = layer(interpolate(x, scale_factor=2.0))
        return self.out(silu(x))


# ---- diffusion ---------------------------------------------------------------------------------------------------
def diffusion_schedule(steps: int = _T, first: float = _FIRST, last: float = _LAST) -> tuple[Tensor, Tensor]:
    """(beta, abar), float64 (T,): beta linear from ``first`` to ``last``, abar the products of 1 - beta."""
    beta = torch.linspace(first, last, steps, dtype=torch.float64)
    return beta, (1 - beta).cumprod(0)


def ddim_times(steps: int = _T, taken: int = 20) -> list[tuple[int, int]]:
    """(t, previous t) of the sampler in the order in which they are taken: t_i = 1 + i T / taken, the last one to 0.

    Raises:
        UserError: more steps than times.
    """
    if not 1 <= taken <= steps // 2:
        raise UserError(f"{taken} sampling steps: from 1 to {steps // 2}, half of the {steps} times")
    times = [1 + i * (steps // taken) for i in range(taken)]
    return list(zip(times, [0, *times[:-1]], strict=True))[::-1]


class BlurDiffusion(nn.Module):
    """A diffusion model of blurred pictures, given the sharp one and the blur condition.

    Args:
        network: (x_t, sharp, condition) joined along the channels, and t, to noise; a `BlurNoise`.
        steps: T.
        first: first beta.
        last: last beta.
    """

    abar: Tensor
    beta: Tensor

    def __init__(
        self, network: Callable[[Tensor, Tensor], Tensor], steps: int = _T, first: float = _FIRST, last: float = _LAST
    ) -> None:
        super().__init__()
        self.network, self.steps = network, steps
        beta, abar = diffusion_schedule(steps, first, last)
        self.register_buffer("beta", beta, persistent=False)
        self.register_buffer("abar", abar, persistent=False)

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; x_0 and noise (N, C, H, W), t (N,)."""
        abar = self.abar[t].view(-1, 1, 1, 1)
        return abar.sqrt().to(x0.dtype) * x0 + (1 - abar).sqrt().to(x0.dtype) * noise

    def predicted(self, x: Tensor, sharp: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t."""
        return self.network(torch.cat((x, sharp, condition), 1), t)

    @torch.no_grad()
    def ddim(
        self,
        sharp: Tensor,
        condition: Tensor,
        *,
        taken: int = 20,
        eta: float = 0.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        bound: float | None = 0.5,
    ) -> Tensor:
        """Sample blurred pictures in a few steps; the last one lands on abar_0, not on 1.

        Args:
            sharp: (N, C, H, W), shifted to [-0.5, 0.5].
            condition: (N, 3, H, W): u, v, m / longest in [0, 1].
            taken: steps.
            eta: share of the noise that is drawn anew in each; 0 draws none.
            noise: x_T; None draws it.
            generator: of all draws.
            bound: the result is clipped to [-bound, bound]; None leaves it.
        """
        x = _drawn(sharp, generator) if noise is None else noise
        for now, before in ddim_times(self.steps, taken):
            t = torch.full((len(x),), now, device=x.device)
            eps = self.predicted(x, sharp, condition, t)
            here, there = float(self.abar[now]), float(self.abar[before])
            x0 = (x - math.sqrt(1 - here) * eps) / math.sqrt(here)
            sigma = eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there))
            x = math.sqrt(there) * x0 + math.sqrt(max(0.0, 1 - there - sigma**2)) * eps
            if sigma:
                x = x + sigma * _drawn(sharp, generator)
        return x if bound is None else x.clamp(-bound, bound)

    @torch.no_grad()
    def ddpm(
        self,
        sharp: Tensor,
        condition: Tensor,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        bound: float | None = 0.5,
    ) -> Tensor:
        """Sample blurred pictures in all T steps; arguments as in `ddim`."""
        x = _drawn(sharp, generator) if noise is None else noise
        for now in range(self.steps - 1, -1, -1):
            t = torch.full((len(x),), now, device=x.device)
            beta, abar = float(self.beta[now]), float(self.abar[now])
            eps = self.predicted(x, sharp, condition, t)
            x = (x - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
            if now:
                x = x + math.sqrt(beta) * _drawn(sharp, generator)
        return x if bound is None else x.clamp(-bound, bound)


def _drawn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
