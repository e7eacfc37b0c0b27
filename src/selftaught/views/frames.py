"""Frames of a series as its views: Fourier spectrum, wavelet scalogram, STFT, orthogonal wavelets (arXiv 2510.22655).

None of them is an augmentation: each says the same signal in other coordinates. All work on whole batches, on any
device, for any number of channels and any length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

__all__: list[str] = []  # reached as views.frames.NAME

_CHUNK = 1 << 24  # complex numbers held at once by the scalogram: 128 MiB in single precision


def spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Fourier view: ``rfft(x, norm="ortho")`` along time, as magnitude and phase angle.

    Args:
        x: (N, C, T), or any (..., T), real. A constant series has its whole magnitude in bin 0.

    Returns:
        magnitude and angle, both (N, C, T // 2 + 1) float32; the angle in radians, in [-pi, pi], 0 where the magnitude
        is 0. Bin k has frequency k / T of the sampling rate. Bin 0, and the last one of an even T, are real: angle 0
        or pi.

    Raises:
        UserError: x is empty, complex, or holds NaN or infinity.
    """
    bins = torch.fft.rfft(_real(x), norm="ortho")
    real, imaginary = bins.real, bins.imag
    imaginary = imaginary + 0.0  # a -0.0 would turn the angle of a negative real bin from pi to -pi
    return bins.abs().float(), torch.atan2(imaginary, real).float()


def geometric_scales(count: int = 48, low: float = 1.0, high: float = 128.0) -> np.ndarray:
    """``count`` scales from ``low`` to ``high``, geometrically spaced, float64 (the paper's are the defaults).

    Raises:
        UserError: no scales, or bounds that are not 0 < low <= high.
    """
    if count < 1 or not 0 < low <= high:
        raise UserError(f"scales: count={count}, low={low}, high={high}; give 1 or more, and 0 < low <= high")
    return np.geomspace(low, high, num=count)


def scalogram(
    x: Tensor,
    scales: np.ndarray | list[float] | None = None,
    *,
    wavelet: str = "cmor1-1",
    precision: int = 10,
) -> Tensor:
    """Wavelet view: magnitude of the continuous wavelet transform, equal to ``abs(pywt.cwt(...)[0])`` of every row.

    As PyWavelets does, the wavelet is integrated on a grid of 2^precision points, the integral is read at the scaled
    positions without interpolation, and the coefficients are sqrt(scale) times the differences of its convolution with
    the signal. That convolution with an integral, differenced, is one with the integral's differences: a fixed kernel
    per scale, of which only 2T - 1 taps meet a signal of length T. All kernels are applied to the whole batch by FFT.

    At precision 10 the grid is coarse for scales near 128 (the same point is read twice), so that values there depend
    on ``precision`` and on whether the grid is float32 or float64; it follows the type of ``x``, as in PyWavelets.

    Args:
        x: (N, C, T), real, T of 1 or more. A constant series is 0 where the wavelet (16 scales long for cmor1-1)
            lies inside the window, and not at its ends, beyond which the transform sees zeros.
        scales: the wavelet's widths in samples; None for `geometric_scales`. A scale s looks at frequency f_c / s
            cycles per sample (f_c = 1 for cmor1-1).
        wavelet: a continuous wavelet of PyWavelets; "cmorB-C" is the complex Morlet of bandwidth B and centre C.
        precision: log2 of the grid's points; the paper's PyWavelets had 10, newer ones default to 12.

    Returns:
        (N, S, T, C) float32.

    Raises:
        UserError: x is empty, complex, has another number of axes, or holds NaN or infinity; unknown wavelet; a scale
            that is not positive or too small for the wavelet.
    """
    signal = _windows(x)
    widths = geometric_scales() if scales is None else np.atleast_1d(np.asarray(scales, dtype=np.float64))
    single = signal.dtype != torch.float64
    n, c, length = signal.shape
    kernels = torch.from_numpy(_kernel_bank(tuple(widths.tolist()), wavelet, precision, length, single))
    kernels = kernels.to(signal.device)
    rows = signal.reshape(n * c, length)
    out = torch.empty(n * c, len(widths), length, dtype=torch.float32, device=x.device)
    step = max(1, _CHUNK // (kernels.shape[-1] * len(widths)))
    for start in range(0, n * c, step):
        bins = torch.fft.fft(rows[start : start + step], kernels.shape[-1])
        out[start : start + step] = torch.fft.ifft(bins[:, None] * kernels)[..., :length].abs()
    return out.reshape(n, c, len(widths), length).permute(0, 2, 3, 1).contiguous()


def stft(x: Tensor, window: int = 32, hop: int = 1) -> Tensor:
    """Short-time Fourier view: magnitudes under a sliding Hann window, zeros beyond the ends.

    Args:
        x: (N, C, T), real.
        window: length of the window in samples, 2 or more.
        hop: samples from one window to the next.

    Returns:
        (N, window // 2 + 1, ceil(T / hop), C) float32; frequency k / window of the sampling rate, low to high, with
        window i centred on sample i * hop. The window has unit energy.

    Raises:
        UserError: window or hop too small; x as in `scalogram`.
    """
    if window < 2 or hop < 1:
        raise UserError(f"stft: window={window}, hop={hop}; the window needs 2 samples or more, the hop 1 or more")
    signal = _windows(x)
    taper = torch.hann_window(window, dtype=signal.dtype, device=signal.device)
    padded = torch.nn.functional.pad(signal, (window // 2, window - window // 2 - 1))
    pieces = padded.unfold(-1, window, hop) * (taper / taper.norm())
    return torch.fft.rfft(pieces).abs().float().permute(0, 3, 2, 1).contiguous()


def dwt(x: Tensor, wavelet: str = "haar", levels: int | None = None) -> Tensor:
    """Orthogonal-wavelet view: magnitudes of the details of every level and of the last approximation, over time.

    The periodised transform of PyWavelets: for a T that 2^levels divides it is orthogonal, so energy is kept. Every
    coefficient is repeated over the 2^level samples that it speaks of, and divided by the root of that number, so the
    energy is kept in the map too.

    Args:
        x: (N, C, T), real; padded by its last value to a multiple of 2^levels, and the map cut back to T.
        wavelet: an orthogonal wavelet of PyWavelets: haar, db2 to db38, sym, coif.
        levels: J; None for the most that leave two coefficients or more, at most 6.

    Returns:
        (N, J + 1, T, C) float32: details from fine to coarse, then the approximation.

    Raises:
        UserError: unknown or not orthogonal wavelet, levels that T does not allow; x as in `scalogram`.
    """
    signal = _windows(x)
    length = signal.shape[-1]
    most = max(1, int(np.log2(length)) - 1)
    depth = min(6, most) if levels is None else levels
    if not 1 <= depth <= most or length < 2:
        raise UserError(f"dwt: levels={depth} for {length} samples; choose 1 to {most}, and 2 samples or more")
    low, high = _filters(wavelet)
    approximation = _padded(signal, 2**depth)
    planes = []
    for level in range(1, depth + 1):
        detail = _analysed(approximation, high)
        approximation = _analysed(approximation, low)
        planes.append(_spread(detail, 2**level))
    planes.append(_spread(approximation, 2**depth))
    return torch.stack(planes, dim=1)[..., :length].abs().float().permute(0, 1, 3, 2).contiguous()


FRAMES = {"cwt": scalogram, "stft": stft, "dwt": dwt}


def time_frequency(x: Tensor, frame: str = "cwt", **options: Any) -> Tensor:
    """One of the time-frequency views by name, all (N, S, T', C) float32.

    Args:
        x: (N, C, T), real.
        frame: "cwt" (`scalogram`, the paper's), "stft" (`stft`), "dwt" (`dwt`).
        **options: of that function.

    Raises:
        UserError: unknown frame or option.
    """
    if frame not in FRAMES:
        raise UserError(f"frame={frame}: choose {', '.join(FRAMES)}")
    try:
        return FRAMES[frame](x, **options)  # type: ignore[operator]
    except TypeError as error:
        raise UserError(f"frame={frame}: {str(error).split('() ')[-1]}; drop that option") from error


# ---- the continuous wavelet's kernels -----------------------------------------------------------------------------
@lru_cache(maxsize=8)
def _kernel_bank(scales: tuple[float, ...], wavelet: str, precision: int, length: int, single: bool) -> np.ndarray:
    """Spectra (S, L) of the kernels of all scales, delays turned so that samples 0 to T - 1 are the result."""
    import pywt

    if not scales or min(scales) <= 0:
        raise UserError("scales: give one or more, all above 0")
    if wavelet not in pywt.wavelist(kind="continuous") and not wavelet.startswith(("cmor", "shan", "fbsp")):
        raise UserError(f"wavelet={wavelet}: not a continuous wavelet; choose cmor1-1, mexh, morl, gaus1...")
    try:
        integral, grid = pywt.integrate_wavelet(pywt.ContinuousWavelet(wavelet), precision=precision)
    except ValueError as error:
        raise UserError(f"wavelet={wavelet}: {error}; write it as in cmor1-1") from error
    grid = grid.astype(np.float32 if single else np.float64)
    size = _fast_length(2 * length - 1)
    taps = np.stack([_taps(scale, np.conj(integral), grid, length) for scale in scales])
    circular = np.zeros((len(scales), size), dtype=np.complex128)
    circular[:, :length] = taps[:, length - 1 :]
    if length > 1:
        circular[:, size - length + 1 :] = taps[:, : length - 1]
    return np.fft.fft(circular).astype(np.complex64 if single else np.complex128)


def _taps(scale: float, integral: np.ndarray, grid: np.ndarray, length: int) -> np.ndarray:
    """Kernel (2T - 1,) of one scale: entry T - 1 + d weighs the sample d steps before the output's."""
    step = grid[1] - grid[0]
    positions = (np.arange(np.float64(scale) * (grid[-1] - grid[0]) + 1) / (np.float64(scale) * step)).astype(int)
    values = integral[positions[positions < integral.size]][::-1]
    if values.size < 2:
        raise UserError(f"scales: {scale:g} is too small for this wavelet; use larger scales")
    differences = np.diff(values)
    # pywt convolves with the m values, takes differences without the two ends, and keeps the T in the middle
    edges = np.concatenate([values[:1], differences, -values[-1:]])
    first = 1 + (values.size - 2) // 2  # the delay of output 0: the tap that meets the output's own sample
    lags = np.arange(-(length - 1), length) + first
    inside = (lags >= 0) & (lags < edges.size)
    taps = np.zeros(2 * length - 1, dtype=np.complex128)
    taps[inside] = edges[lags[inside]]
    return -np.sqrt(scale) * taps


def _fast_length(least: int) -> int:
    from scipy.fft import next_fast_len

    return int(next_fast_len(least))


# ---- the orthogonal wavelets' filters -----------------------------------------------------------------------------
def _filters(wavelet: str) -> tuple[list[float], list[float]]:
    import pywt

    if wavelet not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(wavelet).orthogonal:
        raise UserError(f"wavelet={wavelet}: not an orthogonal wavelet; choose haar, db2 to db38, sym2..., coif1...")
    bank = pywt.Wavelet(wavelet)
    return bank.dec_lo, bank.dec_hi


def _analysed(x: Tensor, taps: list[float]) -> Tensor:
    """Circular convolution with ``taps``, every second sample: (..., T) to (..., T / 2), PyWavelets' phase."""
    start = len(taps) // 2
    return sum(  # type: ignore[return-value]
        tap * torch.roll(x, shifts=k - start, dims=-1)[..., 0::2] for k, tap in enumerate(taps)
    )


def _spread(coefficients: Tensor, samples: int) -> Tensor:
    return coefficients.repeat_interleave(samples, dim=-1) / samples**0.5


def _padded(x: Tensor, multiple: int) -> Tensor:
    missing = -x.shape[-1] % multiple
    return torch.cat([x, x[..., -1:].expand(*x.shape[:-1], missing)], dim=-1) if missing else x


# ---- what all of them ask of a series -----------------------------------------------------------------------------
def _windows(x: Tensor) -> Tensor:
    if x.ndim != 3:
        raise UserError(f"series of shape {tuple(x.shape)}: give (N, C, T)")
    return _real(x)


def _real(x: Tensor) -> Tensor:
    if x.is_complex() or x.ndim < 1 or x.shape[-1] == 0:
        raise UserError(f"series of shape {tuple(x.shape)} and type {x.dtype}: give real numbers, one or more samples")
    if not torch.isfinite(x).all():
        raise UserError("series with NaN or infinity: fill or drop those windows before taking a frame")
    return x.float() if x.is_floating_point() and x.dtype != torch.float64 else x.double()
