"""Wiener deconvolution as a layer, and convolution with wrap-around (INFWIDE, TIP 2023, arXiv 2207.08201)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError

__all__ = [
    "WienerLayer",
    "circular_blur",
    "estimated_nsr",
    "median3",
    "noise_map",
    "normalised_kernel",
    "otf",
    "richardson_lucy",
    "wiener",
]

_FLOOR = 1e-8
DWDN_FACTOR = 8 / 30
"""What DWDN's code multiplies the estimated ratio of noise to signal by."""


def normalised_kernel(kernel: Tensor) -> Tensor:
    """Kernels (N, 1, h, w) with the sum 1 each.

    Raises:
        UserError: another shape, or a sum of 0.
    """
    if kernel.ndim != 4 or kernel.shape[1] != 1 or 0 in kernel.shape:
        raise UserError(f"kernels are (N, 1, height, width), got {tuple(kernel.shape)}")
    total = kernel.sum((2, 3), keepdim=True)
    if kernel.device.type == "cpu" and bool((total.abs() < 1e-12).any()):
        raise UserError("a kernel sums to 0: it is empty, or its file was read wrongly")
    return kernel / total


def otf(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """FFT of a kernel laid on a grid of ``size``, its middle (row h // 2, column w // 2) at the origin.

    Args:
        kernel: (N, 1, h, w).
        size: height and width of the grid.

    Returns:
        (N, 1, height, width // 2 + 1) complex, of the real FFT.

    Raises:
        UserError: a kernel larger than the grid.
    """
    high, wide = kernel.shape[-2:]
    if high > size[0] or wide > size[1]:
        raise UserError(f"a kernel of {high} x {wide} is larger than the image of {size[0]} x {size[1]}")
    laid = F.pad(kernel, (0, size[1] - wide, 0, size[0] - high))
    return torch.fft.rfft2(torch.roll(laid, (-(high // 2), -(wide // 2)), (-2, -1)))


def circular_blur(x: Tensor, kernel: Tensor) -> Tensor:
    """True convolution with wrap-around, y[p] = sum_q k[q] x[p - q], the kernel's middle at 0; all channels alike.

    Args:
        x: (N, C, H, W).
        kernel: (N, 1, h, w), taken as it is.
    """
    _check(x, kernel)
    if x.shape[-2] >= kernel.shape[-2] and x.shape[-1] >= kernel.shape[-1]:
        return torch.fft.irfft2(torch.fft.rfft2(x) * otf(kernel.to(x.dtype), x.shape[-2:]), s=x.shape[-2:])  # type: ignore[arg-type]
    raise UserError(f"a kernel of {tuple(kernel.shape[2:])} is larger than the image of {tuple(x.shape[2:])}")


def median3(x: Tensor) -> Tensor:
    """Median of each 3 x 3 neighbourhood, the border mirrored: (N, C, H, W) to the same."""
    high, wide = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    near = torch.stack([padded[..., i : i + high, j : j + wide] for i in range(3) for j in range(3)])
    return near.median(0).values


def estimated_nsr(u: Tensor, *, factor: float = DWDN_FACTOR, count: int | None = None) -> Tensor:
    """Ratio of noise to signal of each channel, as DWDN's code estimates it: a variance over a deviation.

        v = median3(u) - u,   nsr = factor * var(v) / sqrt( sum (u - mean u)^2 / (N - 1) )

    Args:
        u: (N, C, H, W), the channel as it will be deconvolved, padding included.
        factor: 8/30.
        count: N; None: the height squared, for images that are not square as well, as in the official code.

    Returns:
        (N, C, 1, 1); a constant channel has 0 (the official code has none there).
    """
    n = u.shape[-2] ** 2 if count is None else count
    v = median3(u) - u
    noise = _squares(v, n) / (n - 1)
    deviation = (_squares(u, n) / (n - 1) + _FLOOR**2).sqrt()
    return factor * noise / deviation.clamp_min(_FLOOR)


def noise_map(y: Tensor) -> Tensor:
    """How noisy each channel is, std(v) / sqrt( sum median3(y)^2 / (N - 1) ), as a map of the image's size.

    Args:
        y: (N, C, H, W).

    Returns:
        (N, C, H, W), constant over each channel.
    """
    n = y.shape[-2] * y.shape[-1]
    smooth = median3(y)
    deviation = (_squares(smooth - y, n) / (n - 1) + _FLOOR**2).sqrt()
    level = (smooth.square().sum((2, 3), keepdim=True) / (n - 1) + _FLOOR**2).sqrt()
    return (deviation / level).expand(-1, -1, *y.shape[-2:])


def wiener(
    u: Tensor,
    kernel: Tensor,
    *,
    nsr: float | Tensor | Literal["official"] = "official",
    pad: Literal["replicate", "circular"] = "replicate",
) -> Tensor:
    """Wiener deconvolution of every channel, in float32 at least; gradients pass, also through the estimated ratio.

        U^ = conj(K) / (|K|^2 + nsr) FFT(u),   u extended on all sides by the kernel's side and cropped again

    Args:
        u: (N, C, H, W), images or features.
        kernel: (N, 1, h, w); it is brought to the sum 1.
        nsr: ratio of noise to signal: a number, (N, C, 1, 1), or "official" for :func:`estimated_nsr` of the
            extended channel.
        pad: "replicate", or "circular": nothing is extended, for blur that wraps around.

    Returns:
        (N, C, H, W).

    Raises:
        UserError: shapes that don't fit, a kernel larger than the image, a negative ratio.
    """
    _check(u, kernel)
    if pad not in ("replicate", "circular"):
        raise UserError(f"pad={pad!r}: it may be 'replicate' or 'circular'")
    if isinstance(nsr, int | float) and nsr < 0:
        raise UserError(f"nsr={nsr}: a ratio of 0 or more")
    kind = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        u, kernel = u.to(kind), normalised_kernel(kernel.to(kind))
        down, right = (0, 0) if pad == "circular" else kernel.shape[-2:]
        wide = F.pad(u, (right, right, down, down), mode="replicate") if down else u
        ratio = estimated_nsr(wide) if isinstance(nsr, str) else nsr
        size = (wide.shape[-2], wide.shape[-1])
        k = otf(kernel, size)
        power = (k.real.square() + k.imag.square()) + ratio
        made = torch.fft.irfft2(torch.fft.rfft2(wide) * k.conj() / power, s=size)
        return made[..., down : down + u.shape[-2], right : right + u.shape[-1]]


class WienerLayer(nn.Module):
    """:func:`wiener` with its options fixed.

    Args:
        nsr: "official", or a number.
        pad: "replicate" or "circular".
    """

    def __init__(self, nsr: float | str = "official", pad: str = "replicate") -> None:
        super().__init__()
        self.nsr, self.pad = nsr, pad

    def forward(self, u: Tensor, kernel: Tensor) -> Tensor:
        """(N, C, H, W) and (N, 1, h, w) to (N, C, H, W)."""
        return wiener(u, kernel, nsr=self.nsr, pad=self.pad)  # type: ignore[arg-type]


def richardson_lucy(image: Tensor, kernel: Tensor, *, iterations: int = 30) -> Tensor:
    """Richardson and Lucy's iteration by scikit-image, channel by channel; no gradient.

    Args:
        image: (N, C, H, W) in [0, 1].
        kernel: (N, 1, h, w).
        iterations: steps; noise grows with them.
    """
    from skimage.restoration import richardson_lucy as one

    _check(image, kernel)
    made = torch.empty_like(image)
    kernel = normalised_kernel(kernel)
    for n in range(len(image)):
        k = kernel[n, 0].double().cpu().numpy()
        edge = max(k.shape)
        for c in range(image.shape[1]):
            plane = F.pad(image[n : n + 1, c : c + 1].double(), (edge,) * 4, mode="replicate")[0, 0].cpu().numpy()
            found = torch.from_numpy(one(plane.clip(1e-6, 1), k, num_iter=iterations))
            made[n, c] = found[edge:-edge, edge:-edge].to(made)
    return made


def _squares(x: Tensor, n: int) -> Tensor:
    """sum (x - mean)^2 over places, the mean being the sum over n."""
    mean = x.sum((2, 3), keepdim=True) / n
    return (x - mean).square().sum((2, 3), keepdim=True)


def _check(x: Tensor, kernel: Tensor) -> None:
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[1] != 1 or len(kernel) != len(x) or 0 in x.shape:
        raise UserError(f"images (N, C, H, W) and kernels (N, 1, h, w), got {tuple(x.shape)} and {tuple(kernel.shape)}")
    if not x.is_floating_point() or not kernel.is_floating_point():
        raise UserError("images and kernels need floating-point values; call .float() on them")
