import numpy as np
import pytest
import pywt
import torch

from selftaught.errors import UserError
from selftaught.views import frames

SCALES = frames.geometric_scales()


def random_windows(n, c, t, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, c, t)).astype(dtype)


def by_pywt(x, scales, wavelet, precision=10):
    rows = [[np.abs(pywt.cwt(row, scales, wavelet, precision=precision)[0]) for row in window] for window in x]
    return np.asarray(rows).transpose(0, 2, 3, 1)


# ---- spectrum -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [1, 2, 99, 100, 200])
def test_parseval(length):
    x = torch.from_numpy(random_windows(4, 3, length))
    magnitude, angle = frames.spectrum(x)
    assert magnitude.shape == angle.shape == (4, 3, length // 2 + 1)
    assert magnitude.dtype == angle.dtype == torch.float32
    weights = torch.full((length // 2 + 1,), 2.0)
    weights[0] = 1
    if length % 2 == 0:
        weights[-1] = 1
    energy = (weights * magnitude.double() ** 2).sum(-1)
    torch.testing.assert_close(energy, (x**2).sum(-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("length", [31, 32])
def test_magnitude_and_angle_give_the_signal_back(length):
    x = torch.from_numpy(random_windows(2, 2, length, np.float32))
    magnitude, angle = frames.spectrum(x)
    torch.testing.assert_close(
        torch.fft.irfft(torch.polar(magnitude, angle), n=length, norm="ortho"), x, atol=1e-5, rtol=0
    )


def test_spectrum_of_a_cosine_by_hand():
    t = torch.arange(40, dtype=torch.float64)
    x = 3 * torch.cos(2 * torch.pi * 5 * t / 40 + 0.7)
    magnitude, angle = frames.spectrum(x[None, None])
    assert magnitude[0, 0].argmax() == 5
    assert magnitude[0, 0, 5].item() == pytest.approx(3 * 40**0.5 / 2, rel=1e-6)
    assert angle[0, 0, 5].item() == pytest.approx(0.7, abs=1e-6)


def test_constant_and_silent_series():
    magnitude, angle = frames.spectrum(torch.tensor([[[-2.0] * 8], [[0.0] * 8]]))
    assert magnitude[0, 0, 0].item() == pytest.approx(2 * 8**0.5)
    assert magnitude[0, 0, 1:].abs().max() < 1e-6
    assert angle[0, 0, 0].item() == pytest.approx(np.pi)
    assert (magnitude[1] == 0).all()
    assert (angle[1] == 0).all()
    for frame in ("cwt", "stft", "dwt"):
        assert (frames.time_frequency(torch.zeros(1, 2, 40), frame) == 0).all()
    flat = frames.scalogram(torch.full((1, 1, 100), 5.0), [1, 2, 4])[0, :, :, 0]
    assert flat[:, 50].max() < 1e-5 * flat[:, 0].min()


# ---- scalogram ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("length", [1, 2, 7, 100, 101, 200])
def test_scalogram_equals_pywavelets(length, dtype):
    x = random_windows(2, 2, length, dtype, seed=length)
    got = frames.scalogram(torch.from_numpy(x))
    assert got.shape == (2, 48, length, 2)
    assert got.dtype == torch.float32
    want = by_pywt(x, SCALES, "cmor1-1")
    error = np.abs(got.numpy() - want).max((0, 2, 3))
    assert (error <= 1e-4 * want.max((0, 2, 3)) + 1e-6).all()


@pytest.mark.parametrize("wavelet", ["mexh", "morl", "gaus2", "cgau3", "cmor1.5-0.8"])
@pytest.mark.parametrize("precision", [8, 12])
def test_other_wavelets_and_precisions(wavelet, precision):
    x, scales = random_windows(2, 1, 77), [1.0, 2.5, 30.0]
    got = frames.scalogram(torch.from_numpy(x), scales, wavelet=wavelet, precision=precision).numpy()
    want = by_pywt(x, scales, wavelet, precision)
    np.testing.assert_allclose(got, want, atol=1e-5 * want.max())


def test_long_series_and_many_windows_in_pieces(monkeypatch):
    x = torch.from_numpy(random_windows(5, 3, 60, np.float32))
    whole = frames.scalogram(x)
    monkeypatch.setattr(frames, "_CHUNK", 1)
    torch.testing.assert_close(frames.scalogram(x), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("period", [2.5, 6.0, 13.0, 24.0])
def test_a_sine_peaks_at_the_nearest_scale(period):
    """cmor1-1 has centre frequency 1: a scale is a period in samples. Dividing by sqrt(scale) undoes its growth."""
    t = torch.arange(600, dtype=torch.float64)
    x = torch.sin(2 * torch.pi * t / period)[None, None]
    middle = frames.scalogram(x)[0, :, 300, 0].numpy() / np.sqrt(SCALES)
    assert middle.argmax() == np.abs(np.log(SCALES / period)).argmin()


def test_scalogram_is_homogeneous_and_keeps_channels_apart():
    x = torch.from_numpy(random_windows(1, 3, 50))
    both = frames.scalogram(x)
    torch.testing.assert_close(frames.scalogram(-3 * x), 3 * both)
    torch.testing.assert_close(frames.scalogram(x[:, 1:2])[..., 0], both[..., 1])


# ---- the other frames ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [64, 63])
@pytest.mark.parametrize(("window", "hop"), [(16, 1), (15, 4)])
def test_stft_is_the_windowed_fourier_transform(length, window, hop):
    x = random_windows(1, 2, length)
    got = frames.stft(torch.from_numpy(x), window, hop)
    assert got.shape == (1, window // 2 + 1, -(-length // hop), 2)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    taper /= np.sqrt((taper**2).sum())
    i = 5
    begin = i * hop - window // 2
    piece = np.array([x[0, 1, t] if 0 <= t < length else 0.0 for t in range(begin, begin + window)])
    np.testing.assert_allclose(got[0, :, i, 1].numpy(), np.abs(np.fft.rfft(piece * taper)), atol=1e-6)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "sym5", "coif1"])
def test_dwt_equals_pywavelets_and_keeps_energy(wavelet):
    x = random_windows(1, 1, 64)
    got = frames.dwt(torch.from_numpy(x), wavelet, levels=2)[0, :, :, 0].numpy()
    approximation, coarse, fine = pywt.wavedec(x[0, 0], wavelet, mode="periodization", level=2)
    want = [np.repeat(fine, 2) / 2**0.5, np.repeat(coarse, 4) / 2, np.repeat(approximation, 4) / 2]
    np.testing.assert_allclose(got, np.abs(want), atol=1e-6)
    assert (got.astype(np.float64) ** 2).sum() == pytest.approx((x**2).sum(), rel=1e-5)


@pytest.mark.parametrize("length", [2, 3, 50, 101])
def test_dwt_of_any_length(length):
    planes = frames.dwt(torch.ones(2, 3, length))
    assert planes.shape[0] == 2
    assert planes.shape[2:] == (length, 3)
    assert planes[:, :-1].abs().max() < 1e-6  # a constant has no details
    torch.testing.assert_close(planes[:, -1], torch.ones(2, length, 3))


# ---- bad input ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("frame", ["cwt", "stft", "dwt"])
def test_bad_series(frame):
    for bad in (torch.tensor([[[1.0, torch.nan, 2.0]]]), torch.full((1, 1, 4), torch.inf)):
        with pytest.raises(UserError, match="NaN or infinity"):
            frames.time_frequency(bad, frame)
    for bad in (torch.zeros(3, 4), torch.zeros(1, 1, 0), torch.zeros(1, 1, 4, dtype=torch.complex64)):
        with pytest.raises(UserError, match="series of shape"):
            frames.time_frequency(bad, frame)


def test_bad_options():
    x = torch.zeros(1, 1, 16)
    with pytest.raises(UserError, match="NaN"):
        frames.spectrum(torch.tensor([torch.nan]))
    calls = [
        lambda: frames.scalogram(x, [0.0, 1.0]),
        lambda: frames.scalogram(x, []),
        lambda: frames.scalogram(x, [1e-3]),
        lambda: frames.scalogram(x, wavelet="db4"),
        lambda: frames.scalogram(x, wavelet="cmorx"),
        lambda: frames.geometric_scales(0),
        lambda: frames.geometric_scales(4, 8.0, 2.0),
        lambda: frames.stft(x, window=1),
        lambda: frames.dwt(x, "bior1.3"),
        lambda: frames.dwt(x, levels=9),
        lambda: frames.time_frequency(x, "radon"),
        lambda: frames.time_frequency(x, "stft", taper=3),
    ]
    for call in calls:
        with pytest.raises(UserError):
            call()
