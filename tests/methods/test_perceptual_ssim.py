"""MS-SSIM autoencoders as wired: four models, five distances, what is delivered, learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import evaluation, methods, objectives
from selftaught.errors import UserError

TINY: dict[str, Any] = {"patch": 24, "widths": "4-8", "code": 8}
RUN: dict[str, Any] = {"batch_size": 8, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}


def batch(side: int = 24, channels: int = 3) -> dict[str, Any]:
    x = torch.rand(4, channels, side, side, generator=torch.Generator().manual_seed(0))
    return {"views": [x], "high": x, "low": torch.nn.functional.avg_pool2d(x, 4)}


@pytest.mark.parametrize("model", ["fc", "conv", "elvae", "srcnn"])
@pytest.mark.parametrize("loss", ["msssim", "ssim", "l1", "l2", "mix"])
def test_every_model_has_every_distance(model: Any, loss: Any) -> None:
    method = methods.PerceptualSSIM(**TINY, model=model, loss=loss)
    made = batch()
    terms = method.loss(made)
    terms["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    if model == "elvae":
        assert terms["loss"].item() == pytest.approx((1000 * terms["distance"] + terms["kl"]).item(), rel=1e-6)
    elif model != "srcnn":
        image = method.net(made["views"][0]).image
        expected = objectives.perceptual_ssim(image, made["views"][0], loss=loss)
        assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    size = (6, 6) if model == "srcnn" else (30, 41)
    out = method.predict({"views": [torch.rand(2, 3, *size)]})
    assert out.shape == (2, 3, *((24, 24) if model == "srcnn" else size))


def test_options_reach_the_distance() -> None:
    x, y = torch.rand(2, 2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    method = methods.PerceptualSSIM(
        **TINY, weights="0.3,0.3,0.4", win_size=5, sigma=1.0, k2=0.1, colour="luma", downsample="gauss", clamp="relu"
    )
    expected = 1 - objectives.ms_ssim(
        x, y, weights=(0.3, 0.3, 0.4), win_size=5, sigma=1.0, k2=0.1, colour="luma", downsample="gauss", clamp="relu"
    )
    assert method.distance(x, y).item() == pytest.approx(expected.item(), rel=1e-6)
    pixels = methods.PerceptualSSIM(**TINY, reduction="pixel").distance(x, y)
    room = objectives.ms_ssim(x, y, reduction="pixel", scales="auto")
    assert pixels.item() == pytest.approx(1 - room.item(), rel=1e-6)


def test_wrong_options_are_said_before_training() -> None:
    for wrong, word in (
        ({"patch": 8}, "smaller than the window"),
        ({"scales": 4}, "smaller than the window"),
        ({"patch": 26}, "multiple of 4"),
        ({"model": "srcnn", "deliver": "code"}, 'deliver="code"'),
        ({"weights": "0.5,0.5", "scales": 3}, "weights"),
    ):
        with pytest.raises(UserError, match=word):
            methods.PerceptualSSIM(**TINY | wrong)


def test_without_a_distance_the_code_says_nothing() -> None:
    torch.manual_seed(0)
    method = methods.PerceptualSSIM(**TINY, model="elvae", lambda_=0.0)
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(60):
        terms = method.loss(batch())
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
    assert terms["kl"] < 0.01


def test_a_run_gives_pictures_or_codes(tmp_path: Path) -> None:
    for deliver in ("image", "code"):
        run = selftaught.train(
            "perceptual-ssim", "photos", out=tmp_path / deliver, steps=2, deliver=deliver, **TINY, **RUN
        )
        assert bool(run.method.net.centred)
        loaded = selftaught.load(tmp_path / deliver)
        assert type(loaded.output).__name__ == ("Image" if deliver == "image" else "Embedding")
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(2):
        np.save(tmp_path / "in" / f"{i}.npy", rng.integers(0, 256, (30, 37, 3), dtype=np.uint8))
    assert selftaught.load(tmp_path / "image").apply(tmp_path / "in", tmp_path / "out") == 2
    assert np.load(tmp_path / "out" / "0.npy").shape == (30, 37, 3)
    assert loaded.apply(tmp_path / "in", tmp_path / "codes.npy") == 2
    assert np.load(tmp_path / "codes.npy").shape == (2, 8)
    found = selftaught.load(tmp_path / "image").evaluate(limit=2)["restoration"]["this"]
    assert {"psnr", "ssim", "ms_ssim", "mae", "sharpness"} <= found.numbers.keys()


def test_ms_ssim_of_whole_pictures() -> None:
    x, y = np.random.default_rng(0).random((2, 180, 190, 3))
    expected = objectives.ms_ssim(*(torch.from_numpy(i.transpose(2, 0, 1))[None] for i in (x, y)))
    assert evaluation.ms_ssim(x, y, 1.0) == pytest.approx(expected.item(), rel=1e-12)
    assert evaluation.ms_ssim(255 * x, 255 * y) == pytest.approx(expected.item(), rel=1e-9)
    assert evaluation.ms_ssim(x[:8, :9], x[:8, :9], 1.0) == pytest.approx(1)


@pytest.mark.slow
def test_each_model_wins_its_own_metric() -> None:
    """Section 11.4 of the sheet: two photographs, rows of training and test apart."""
    from skimage import data
    from skimage.color import rgb2gray

    pictures = [data.camera() / 255.0, rgb2gray(data.astronaut())]
    cut = torch.Generator().manual_seed(0)

    def patches(rows: tuple[int, int], n: int) -> torch.Tensor:
        found = []
        for k in range(n):
            image = pictures[k % 2]
            y, x = (int(torch.randint(a, b - 31, (), generator=cut)) for a, b in (rows, (0, image.shape[1])))
            found.append(torch.from_numpy(image[y : y + 32, x : x + 32].copy()).float())
        return torch.stack(found)[:, None]

    train, test = patches((0, 340), 2000), patches((360, 512), 200)
    scores = {}
    for loss in ("msssim", "l2"):
        torch.manual_seed(0)
        method = methods.PerceptualSSIM(channels=1, patch=32, widths="16-32", kernel=4, code=32, loss=loss)
        method.net.centre(train)
        optimiser = torch.optim.Adam(method.parameters(), lr=1e-3)
        for _ in range(150):
            rows = torch.randint(len(train), (32,))
            optimiser.zero_grad()
            method.loss({"views": [train[rows]]})["loss"].backward()
            optimiser.step()
        with torch.no_grad():
            out = method.net(test).image
        similar = objectives.ms_ssim(out, test, scales=2).item()
        scores[loss] = (similar, (out - test).square().mean().item())
    assert scores["msssim"][0] > scores["l2"][0] + 0.01
    assert scores["l2"][1] < scores["msssim"][1]
