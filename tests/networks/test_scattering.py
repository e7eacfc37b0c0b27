"""The scattering transform against kymatio's numbers, and the identities that no other transform fulfils."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from selftaught.errors import UserError
from selftaught.networks import Scattering2d, scattering
from selftaught.networks.scattering import coefficients, morlet_spectrum


def image(height: int, width: int) -> np.ndarray:
    i, j = np.mgrid[0:height, 0:width].astype(float)
    waves = 0.3 * np.sin(0.9 * i + 0.05 * j * j / 2) + 0.2 * np.cos(0.4 * i * j / 7 + 1.0)
    return 0.5 + waves + 0.3 * ((i - 9) ** 2 + (j - 13) ** 2 < 40)


# (J, L, height, width, order): sum, sum weighted by cos(0, 1, 2, ...), and {k: (S[k, 1, 2], S[k, -1, 0])}; kymatio 0.3
REFERENCE = {
    (2, 8, 32, 32, 2): (
        87.61066424, 1.48862570, {
            0: (0.36009015, 0.47057699), 1: (0.04621906, 0.03726647), 4: (0.06278067, 0.05639400),
            8: (0.02111896, 0.08617143), 16: (0.02432060, 0.03910451), 17: (0.00692386, 0.00210799),
            27: (0.00839066, 0.00267353), 80: (0.00323984, 0.00722670),
        },
    ),
    (3, 6, 32, 48, 2): (
        38.47688222, -0.86519737, {
            0: (0.71561925, 0.47598118), 1: (0.05665793, 0.03886344), 3: (0.03507598, 0.05532879),
            6: (0.02427392, 0.06819100), 18: (0.03869906, 0.02407095), 19: (0.00454145, 0.00242549),
            27: (0.00555857, 0.00131335), 126: (0.00652205, 0.00817733),
        },
    ),
    (2, 5, 20, 24, 1): (
        32.38646632, -1.34500086, {
            0: (0.36009009, 0.54395534), 1: (0.08909955, 0.04022359), 2: (0.07125659, 0.05532011),
            5: (0.05178176, 0.04299496), 10: (0.07579481, 0.05077897),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFERENCE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_reproduces_the_reference_library(case, dtype) -> None:
    scales, angles, height, width, order = case
    total, weighted, entries = REFERENCE[case]
    x = torch.from_numpy(image(height, width)).to(dtype)
    found = Scattering2d(scales, angles, order)(x[None, None])[0, 0].double().numpy()
    assert found.shape == (coefficients(scales, angles, order), height // 2**scales, width // 2**scales)
    for k, (one, other) in entries.items():
        assert found[k, 1, 2] == pytest.approx(one, abs=1e-6)
        assert found[k, -1, 0] == pytest.approx(other, abs=1e-6)
    assert found.sum() == pytest.approx(total, abs=1e-4)
    weights = np.cos(np.arange(found.size)).reshape(found.shape)
    assert (found * weights).sum() == pytest.approx(weighted, abs=1e-4)


def literal_transform(x: np.ndarray, scales: int, angles: int) -> dict[tuple[int, ...], np.ndarray]:
    """The definition without any coarser grid: circular convolutions of the padded image, then every 2^J-th pixel."""
    step = 2**scales
    padded = np.pad(x, step, mode="reflect")
    psi = {(j, t): morlet_spectrum(*padded.shape, j, t, angles) for j in range(scales) for t in range(angles)}
    sigma = 0.8 * 2 ** (scales - 1)
    rows, columns = ((np.arange(n)[:, None] + n * np.arange(-2, 3)).T for n in padded.shape)
    phi = np.zeros(padded.shape)
    for r in rows:
        for c in columns:
            phi += np.exp(-(r[:, None] ** 2 + c[None] ** 2) / (2 * sigma**2)) / (2 * 3.1415 * sigma**2)
    low = np.fft.fft2(phi)

    def convolve(a: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(a) * spectrum)

    def smooth(a: np.ndarray) -> np.ndarray:
        return convolve(a, low).real[step:-step:step, step:-step:step]

    found = {(): smooth(padded)}
    for (j1, t1), filter1 in psi.items():
        u1 = np.abs(convolve(padded, filter1))
        found[j1, t1] = smooth(u1)
        found |= {
            (j1, t1, j2, t2): smooth(np.abs(convolve(u1, filter2))) for (j2, t2), filter2 in psi.items() if j2 > j1
        }
    return found


def test_it_is_the_definition_but_for_what_the_coarser_grids_lose() -> None:
    x = image(32, 32)
    found = Scattering2d(2, 4)(torch.from_numpy(x)[None, None])[0, 0].numpy()
    literal = literal_transform(x, 2, 4)
    order = [()] + [(j, t) for j in range(2) for t in range(4)]
    order += [(0, t1, 1, t2) for t1 in range(4) for t2 in range(4)]
    assert len(found) == len(order) == len(literal)
    np.testing.assert_allclose(found[0], literal[()], atol=1e-12)  # nothing was sub-sampled before
    np.testing.assert_allclose(found[1:5], [literal[0, t] for t in range(4)], atol=1e-12)
    for k, key in enumerate(order):
        np.testing.assert_allclose(found[k], literal[key], atol=0.06 * np.abs(literal[key]).max())


def test_wavelets_have_mean_zero_and_turn_with_their_angle() -> None:
    for t in range(8):
        assert abs(morlet_spectrum(40, 40, 0, t, 8)[0, 0]) < 1e-12
    # t = 3 of 8 runs along the rows, t = 7 across them: theta = (3 - t) pi / 8
    along, across = morlet_spectrum(40, 40, 0, 3, 8), morlet_spectrum(40, 40, 0, 7, 8)
    assert np.unravel_index(along.argmax(), along.shape) == (15, 0)  # 3 pi / 4 of 2 pi is 15 of 40
    assert np.unravel_index(across.argmax(), across.shape) in ((0, 15), (0, 25))


def test_a_constant_image_has_its_value_in_s0_and_nothing_else() -> None:
    found = Scattering2d(2, 8)(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(found[:, :, 0], torch.full((1, 3, 8, 8), 1.00003), rtol=0, atol=2e-6)
    assert found[:, :, 1:].abs().max() < 1e-6


def test_scale_and_offset() -> None:
    x = torch.from_numpy(np.stack([image(32, 32), image(32, 32).T]))[None]
    transform = Scattering2d(2, 4)
    torch.testing.assert_close(transform(2.5 * x), 2.5 * transform(x), rtol=1e-10, atol=1e-12)
    moved = transform(x + 3) - transform(x)
    assert moved[:, :, 1:].abs().max() < 1e-10
    torch.testing.assert_close(moved[:, :, 0], torch.full((1, 2, 8, 8), 3 * math.pi / 3.1415, dtype=x.dtype))


def test_noise_has_positive_first_order_and_a_shift_moves_it_less_than_the_pixels() -> None:
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert Scattering2d(2, 8)(noise)[:, :, 1:17].min() > 0
    digits = torch.from_numpy(load_digits().images[:64, None] / 16).float()
    digits = torch.nn.functional.interpolate(digits, (32, 32), mode="bilinear")
    shifted = digits.roll(1, 3)

    def change(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / a.norm())

    pixels = change(digits, shifted)
    gaps = [pixels - change(Scattering2d(j, 4)(digits), Scattering2d(j, 4)(shifted)) for j in (2, 3)]
    assert 0 < gaps[0] < gaps[1]


def test_parts_of_a_batch_any_layout_and_types(monkeypatch) -> None:
    x = torch.rand(5, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    transform = Scattering2d(1, 3)
    whole = transform(x)
    assert whole.shape == (5, 2, 4, 8, 12)
    torch.testing.assert_close(transform(x.contiguous(memory_format=torch.channels_last)), whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform(x), whole)
    assert transform(x.bfloat16()).dtype == torch.float32
    monkeypatch.setattr(scattering, "AT_ONCE", 1)
    torch.testing.assert_close(transform(x), whole)
    assert not list(transform.parameters())
    assert not transform.state_dict()


def test_gradients_reach_the_image_and_are_finite_where_a_modulus_is_zero() -> None:
    transform = Scattering2d(1, 2)
    with torch.inference_mode():
        transform(torch.rand(1, 1, 4, 4, dtype=torch.float64))  # filters made here must serve for gradients, too
    x = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(transform, (x,), atol=1e-6)
    flat = torch.zeros(1, 1, 16, 16, requires_grad=True)
    Scattering2d(2, 4)(flat).sum().backward()
    assert flat.grad.isfinite().all()
    assert flat.grad.abs().sum() > 0


def test_wrong_input_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="multiples of 4, got 30 x 32"):
        Scattering2d(2, 4)(torch.rand(1, 3, 30, 32))
    with pytest.raises(UserError, match="multiples of 8"):
        Scattering2d(3, 4)(torch.rand(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        Scattering2d(2, 4)(torch.rand(3, 32, 32))
    with pytest.raises(UserError, match="order 1 or 2"):
        Scattering2d(2, 4, 3)


@pytest.mark.slow
def test_fixed_features_help_where_labels_are_few() -> None:
    """Logistic regression on scattering beats raw pixels by three points with 5 and 10 labels per class."""
    data = load_digits()
    images = torch.from_numpy(data.images[:, None] / 16).float()
    images = torch.nn.functional.interpolate(images, (32, 32), mode="bilinear")
    features = {"pixels": images.flatten(1).numpy(), "scattering": Scattering2d(2, 8)(images).flatten(1).numpy()}
    for per_class in (5, 10):
        gains = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            picked = np.concatenate([rng.permutation(np.flatnonzero(data.target == c))[:per_class] for c in range(10)])
            rest = np.setdiff1d(np.arange(len(images)), picked)
            scores = {}
            for name, x in features.items():
                scaler = StandardScaler().fit(x[picked])
                probe = LogisticRegression(max_iter=300).fit(scaler.transform(x[picked]), data.target[picked])
                scores[name] = probe.score(scaler.transform(x[rest]), data.target[rest])
            gains.append(scores["scattering"] - scores["pixels"])
        assert np.mean(gains) > 0.03
