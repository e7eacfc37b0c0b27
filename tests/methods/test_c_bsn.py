"""C-BSN as wired: the ramp, what is trained by what, seamless tiles, and that it denoises correlated noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.run.outputs.image import restore

SMALL = {"width": 8, "modules": 2, "patch": 30, "stride_blind": 3}


def method_at(step: int, **options) -> methods.CBSN:
    torch.manual_seed(0)
    method = methods.CBSN(**SMALL | options)
    method.plan(1000, 1)
    method.steps = step
    return method


def batch(n: int = 2, side: int = 30) -> dict:
    return {"views": [torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))]}


def test_ramp_is_zero_at_the_start_and_one_after_two_fifths() -> None:
    for step, expected in ((0, 0.0), (200, 0.5), (400, 1.0), (900, 1.0)):
        method = method_at(step)
        torch.manual_seed(5)
        terms = method.loss(batch())
        total = terms["blind"] + expected * (terms["self"] + 2.0 * terms["invariance"])
        assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)
    assert method_at(0).loss(batch())["loss"] == method_at(0).loss(batch())["blind"]


def test_loss_is_the_sheets_by_hand() -> None:
    method = method_at(1000)
    torch.manual_seed(7)
    terms = method.loss(batch())
    torch.manual_seed(7)
    with torch.no_grad():
        x = batch()["views"][0]
        mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), unbiased=False, keepdim=True).clamp_min(1 / 30)
        x = (x - mean) / std
        m = objectives.draw_subsample(x, 2)
        blind = torch.zeros_like(x)
        for i in range(3):
            for j in range(3):
                blind[..., i::3, j::3] = method.network(x[..., i::3, j::3], blind=True)
        whole, sub = method.network(x, blind=False), torch.zeros(2, 3, 15, 15)
        kept = torch.zeros(2, 3, 15, 15)
        for b in range(2):
            for r in range(15):
                for c in range(15):
                    k = int(m[b, r, c])
                    sub[b, :, r, c] = x[b, :, 2 * r + k // 2, 2 * c + k % 2]
                    kept[b, :, r, c] = whole[b, :, 2 * r + k // 2, 2 * c + k % 2]
        invariance = (kept - method.network(sub, blind=True)).abs().mean()
        expected = (blind - x).abs().mean() + (whole - x).abs().mean() + 2 * invariance
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_blind_baseline_never_trains_the_centre_taps() -> None:
    method = method_at(1000, terms="blind")
    method.loss(batch())["loss"].backward()
    for branch, centre in zip(method.network.branches, (1, 2), strict=True):
        masked = next(m for m in branch.modules() if type(m).__name__ == "ConditionalMaskedConv")
        assert masked.weight.grad[:, :, centre, centre].abs().max() == 0
        assert masked.weight.grad.abs().max() > 0


@pytest.mark.parametrize("options", [{}, {"inference": "masked"}, {"inference": "masked", "stride_test": 2}])
def test_tiles_leave_no_seam_and_odd_sizes_keep_their_size(options: dict) -> None:
    method = method_at(0, **options).eval()
    image = np.random.default_rng(0).random((157, 133, 3), dtype=np.float32)
    whole, tiled = restore(method, image, tile=0), restore(method, image, tile=70)
    assert whole.shape == image.shape
    np.testing.assert_allclose(whole, tiled, atol=2e-6)


def test_tiny_and_grey_images_pass() -> None:
    method = methods.CBSN(channels=1, **SMALL).eval()
    assert restore(method, np.random.default_rng(0).random((5, 3, 1), dtype=np.float32)).shape == (5, 3, 1)
    flat = restore(method, np.full((40, 40, 1), 0.4, np.float32))
    assert np.isfinite(flat).all()


@pytest.mark.slow
def test_it_denoises_correlated_noise_and_the_stride_one_baseline_does_not(tmp_path) -> None:
    """Sheet, toy check 4, on smooth crops of photographs: at least 3 dB over the noisy input and over stride 1."""
    from skimage import data as photos

    rng = np.random.default_rng(0)
    sources = [photos.astronaut(), photos.coffee(), photos.chelsea()]
    clean = []
    for k in range(48):
        photo = sources[k % 3]
        top, left = (int(rng.integers(0, s - 12)) for s in photo.shape[:2])
        clean.append(cv2.resize(photo[top : top + 12, left : left + 12], (120, 120), interpolation=cv2.INTER_CUBIC))
    np.save(tmp_path / "clean.npy", np.stack(clean))
    common = {
        "noise": "correlated:25:3", "steps": 120, "batch_size": 4, "width": 12, "modules": 2, "patch": 48, "lr": 2e-3,
        "workers": 0, "quiet": True, "schedule": "constant",
    }  # fmt: skip
    scores = {}
    arms = {"c-bsn": {"stride_blind": 3}, "stride 1": {"stride_blind": 1, "terms": "blind", "inference": "masked"}}
    for name, options in arms.items():
        run = selftaught.train("c-bsn", tmp_path / "clean.npy", out=str(tmp_path / name), **common | options)
        found = run.evaluate(limit=12)["restoration"]
        scores[name], noisy = found["this"]["psnr"].mean, found["raw"]["psnr"].mean
    assert scores["c-bsn"] > noisy + 3
    assert scores["c-bsn"] > scores["stride 1"] + 3
