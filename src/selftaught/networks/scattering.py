"""The two-dimensional wavelet scattering transform: moduli of Morlet wavelet coefficients, averaged over 2^J pixels.

Nothing here is learnt. With psi_{j,t} the Morlet wavelet of scale 2^j and angle number t, and phi a Gaussian of scale
2^(J-1), an image x has the coefficients

    S0 = x * phi,    S1[j1,t1] = |x * psi_{j1,t1}| * phi,    S2[j1,t1,j2,t2] = ||x * psi_{j1,t1}| * psi_{j2,t2}| * phi

with j2 > j1, each kept at every 2^J-th pixel (Bruna and Mallat, 2013). The image is reflected at its borders. Moduli
live on the coarsest grid that their band allows: every convolution is a product of spectra, folded before it is
transformed back. The Gaussian is separable, so smoothing, sub-sampling and cutting off the padding are one small matrix
per side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from selftaught.errors import UserError

__all__ = ["Scattering2d"]

COPIES = range(-2, 3)
"""Shifts of the padded grid over which a filter is summed, so that it is periodic."""
PI_OF_THE_NORM = 3.1415
"""The reference filters are normalised with this; a constant image therefore has S0 = 1.00003 of its value."""


AT_ONCE = 1 << 22
"""Moduli of one scale that are held at a time; a large batch is transformed in parts, so that memory stays bounded."""


class Filters(NamedTuple):
    """Filters for one image size, in float64.

    Attributes:
        psi: (j, r) -> (L, P / 2^r, Q / 2^r, 2) spectra of the wavelets of scale j for a grid halved r times. They are
            real; each stands twice, for the real and the imaginary part of what it multiplies.
        rows: r -> (H / 2^J, P / 2^r) matrix that smooths, sub-samples and crops along the height.
        columns: r -> (W / 2^J, Q / 2^r), along the width.
    """

    psi: dict[tuple[int, int], Tensor]
    rows: dict[int, Tensor]
    columns: dict[int, Tensor]

    def to(self, like: Tensor) -> Filters:
        """The same filters in the type and on the device of ``like``."""
        return Filters(
            {key: value.to(like) for key, value in self.psi.items()},
            {key: value.to(like) for key, value in self.rows.items()},
            {key: value.to(like) for key, value in self.columns.items()},
        )


def coefficients(scales: int, angles: int, max_order: int = 2) -> int:
    """Number K of coefficients of one channel: 1 + J L + L^2 J (J - 1) / 2, for order 1 without the last term.

    Args:
        scales: J.
        angles: L.
        max_order: 1 or 2.
    """
    return 1 + scales * angles + (angles**2 * scales * (scales - 1) // 2 if max_order == 2 else 0)


class Scattering2d(nn.Module):
    """Scattering coefficients of every channel of a batch of images, of any size that 2^J divides. No parameters.

    Computes in float32 under autocast and for half precision (there is no half-precision Fourier transform), float64
    stays float64. Gradients flow to the image; where a modulus is 0, its derivative is taken as 0.

    Args:
        scales: J, the coefficients are averages over about 2^J pixels; default 2.
        angles: L, orientations of the wavelets in half a turn; default 8. The wavelets are 4 / L as wide as long.
        max_order: 1 leaves S2 out; default 2.

    Attributes:
        coefficients: K, see `coefficients`.

    Raises:
        UserError: fewer than one scale or angle, an order other than 1 and 2.
    """

    def __init__(self, scales: int = 2, angles: int = 8, max_order: int = 2) -> None:
        super().__init__()
        if scales < 1 or angles < 1 or max_order not in (1, 2):
            raise UserError(
                f"scales={scales}, angles={angles}, max_order={max_order}: give scales and angles from 1, order 1 or 2"
            )
        self.scales, self.angles, self.max_order = scales, angles, max_order
        self.coefficients = coefficients(scales, angles, max_order)
        self._moved: dict[tuple[int, int, torch.device, torch.dtype], Filters] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            x: (N, C, H, W), both sides multiples of 2^J and larger than it.

        Returns:
            (N, C, K, H / 2^J, W / 2^J); K runs over S0, then S1 by (j1, t1), then S2 by (j1, t1, j2, t2).

        Raises:
            UserError: another shape.
        """
        self._check(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype == torch.float64 else x.float()
            f = self._filters(x)
            if torch.compiler.is_compiling():  # an exported network has no bound on its batch
                return self._transform(x, f)
            at_once = max(1, AT_ONCE // (self.angles * x[0].numel()))
            return torch.cat([self._transform(part, f) for part in x.split(at_once)])

    def extra_repr(self) -> str:
        """J, L and the order."""
        return f"scales={self.scales}, angles={self.angles}, max_order={self.max_order}"

    def _check(self, x: Tensor) -> None:
        step = 2**self.scales
        if x.dim() != 4:
            raise UserError(f"scattering takes images (N, C, H, W), got {tuple(x.shape)}")
        if any(side % step or side <= step for side in x.shape[2:]):
            raise UserError(
                f"scattering over scales={self.scales} needs sides that are larger multiples of {step}, got "
                f"{x.shape[2]} x {x.shape[3]}: change image_size or scales"
            )

    def _filters(self, x: Tensor) -> Filters:
        key = (x.shape[2], x.shape[3], x.device, x.dtype)
        if key not in self._moved:
            if torch.compiler.is_compiling():
                raise UserError(f"scattering: transform a batch of {key[0]} x {key[1]} images before compiling")
            with torch.inference_mode(False):  # they outlive the evaluation that may ask for them first
                self._moved[key] = filters(key[0], key[1], self.scales, self.angles).to(x)
        return self._moved[key]

    def _transform(self, x: Tensor, f: Filters) -> Tensor:
        border = 2**self.scales
        padded = pad(x, (border,) * 4, mode="reflect")
        image = _spectrum(padded)
        first, second = [], []
        for j1 in range(self.scales):
            u1 = _modulus(image, f.psi[j1, 0], 2**j1)
            first.append(_smooth(u1, f, j1))
            if self.max_order == 2 and j1 < self.scales - 1:
                second.append(self._second_order(u1, f, j1))
        return torch.cat([_smooth(padded[:, :, None], f, 0), *first, *second], dim=2)

    def _second_order(self, u1: Tensor, f: Filters, j1: int) -> Tensor:
        """S2 of all moduli (N, C, L, p, q) of scale ``j1``; one angle at a time, so that memory is L^1, not L^2."""
        found = []
        coarser = range(j1 + 1, self.scales)
        for spectrum in _spectrum(u1).unbind(2):
            found += [_smooth(_modulus(spectrum, f.psi[j2, j1], 2 ** (j2 - j1)), f, j2) for j2 in coarser]
        return torch.cat(found, dim=2)


def _spectrum(x: Tensor) -> Tensor:
    """Fourier transform of (..., P, Q), real and imaginary part in a last axis of 2 (which ONNX knows how to slice)."""
    return torch.view_as_real(torch.fft.fft2(x))


def _modulus(spectrum: Tensor, psi: Tensor, step: int) -> Tensor:
    """|x * psi| at every ``step``-th pixel, (N, C, L, P / step, Q / step).

    From the spectra of x (N, C, P, Q, 2) and of the wavelets (L, P, Q, 2). Sub-sampling in space is the mean of the
    spectrum's step x step parts.
    """
    parts = spectrum[:, :, None]
    height, width = psi.shape[1] // step, psi.shape[2] // step
    total: Tensor | None = None
    for top in range(0, psi.shape[1], height):
        for left in range(0, psi.shape[2], width):
            at = (slice(top, top + height), slice(left, left + width))
            part, filter_ = parts[:, :, :, *at, :], psi[:, *at, :]
            total = part * filter_ if total is None else torch.addcmul(total, part, filter_)
    assert total is not None
    response = torch.fft.ifft2(torch.view_as_complex(total))
    if response.requires_grad:
        return response.abs() / step**2  # its derivative at 0 is 0, the square root's would be infinite
    return (response.real.square() + response.imag.square()).sqrt_() / step**2


def _smooth(u: Tensor, f: Filters, halvings: int) -> Tensor:
    """u * phi at every 2^J-th pixel of the image without its padding: (..., P / 2^r, Q / 2^r) -> (..., h, w)."""
    return f.rows[halvings] @ (u @ f.columns[halvings].T)


# ---- filters ------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def filters(height: int, width: int, scales: int, angles: int) -> Filters:
    """All filters for images of one size.

    Args:
        height: H, a multiple of 2^J; the grid is padded by 2^J on every side.
        width: W, likewise.
        scales: J.
        angles: L.
    """
    grid = (height + 2 * 2**scales, width + 2 * 2**scales)
    psi = {}
    for j in range(scales):
        spectra = np.stack([morlet_spectrum(*grid, j, t, angles) for t in range(angles)])
        for halvings in range(max(j, 1)):
            band = torch.from_numpy(_low_band(spectra, halvings))
            psi[j, halvings] = torch.stack([band, band], dim=-1)
    sides = [{r: torch.from_numpy(_smoothing_matrix(side, scales, r)) for r in range(scales)} for side in grid]
    return Filters(psi, *sides)


def morlet_spectrum(height: int, width: int, scale: int, angle: int, angles: int) -> np.ndarray:
    """Real part of the Fourier transform of one Morlet wavelet of mean zero, (P, Q) float64.

    psi = g - (sum g / sum g_0) g_0, where g is a Gabor function of deviation 0.8 * 2^j, frequency (3 pi / 4) / 2^j and
    slant 4 / L, and g_0 its envelope.

    Args:
        height: P of the padded grid; the first axis is the row.
        width: Q.
        scale: j.
        angle: t in 0..L-1; the wave runs along (int(L - L/2 - 1) - t) pi / L.
        angles: L.
    """
    theta = (int(angles - angles / 2 - 1) - angle) * math.pi / angles
    shape = {"sigma": 0.8 * 2**scale, "theta": theta, "slant": 4 / angles}
    wave = _gabor(height, width, frequency=0.75 * math.pi / 2**scale, **shape)
    envelope = _gabor(height, width, frequency=0.0, **shape)
    return np.fft.fft2(wave - wave.sum() / envelope.sum() * envelope).real


def _gabor(height: int, width: int, *, sigma: float, theta: float, frequency: float, slant: float) -> np.ndarray:
    """A Gaussian times a wave, summed over shifted copies of the grid, its origin at [0, 0]: (P, Q) complex."""
    cos, sin = math.cos(theta), math.sin(theta)
    total = np.zeros((height, width), complex)
    for down in COPIES:
        for right in COPIES:
            row = (np.arange(height) + down * height)[:, None]
            column = (np.arange(width) + right * width)[None]
            along, across = row * cos + column * sin, column * cos - row * sin
            total += np.exp((along**2 + slant**2 * across**2) / (-2 * sigma**2) + 1j * frequency * along)
    return total * slant / (2 * PI_OF_THE_NORM * sigma**2)


def _low_band(spectra: np.ndarray, halvings: int) -> np.ndarray:
    """The frequencies of spectra (..., P, Q) that a grid halved so often still has."""
    for axis in (-2, -1):
        side = spectra.shape[axis]
        half = side // 2 ** (halvings + 1)
        kept = np.r_[0:half, side - half : side]
        spectra = spectra.take(kept, axis=axis)
    return np.ascontiguousarray(spectra)


def _smoothing_matrix(side: int, scales: int, halvings: int) -> np.ndarray:
    """One side's share of "convolve with phi, keep every 2^J-th pixel, cut off the padding": (h, P / 2^r)."""
    sigma = 0.8 * 2 ** (scales - 1)
    place = np.arange(side)[None] + np.array(COPIES)[:, None] * side
    gaussian = np.exp(place**2 / (-2 * sigma**2)).sum(0) / math.sqrt(2 * PI_OF_THE_NORM * sigma**2)
    spectrum = np.fft.fft(gaussian).real
    half = side // 2 ** (halvings + 1)
    spectrum = spectrum[np.r_[0:half, side - half : side]]
    answers = spectrum[:, None] * np.fft.fft(np.eye(2 * half), axis=0)
    folded = answers.reshape(2 ** (scales - halvings), -1, 2 * half).mean(0)
    return np.ascontiguousarray(np.fft.ifft(folded, axis=0).real[1:-1])
