"""Frame projections as wired: its loss, its stages, its features, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught import methods
from selftaught.run import trained

SMALL = {"scales": 8, "max_scale": 32.0}


def batch(n: int = 6, channels: int = 2, length: int = 64) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {"series": torch.randn(n, channels, length, generator=generator), "index": torch.arange(n)}


def literal_nt_xent(a: np.ndarray, b: np.ndarray, tau: float) -> float:
    z = np.concatenate([a, b])
    n, total = len(a), 0.0
    for i in range(2 * n):
        terms = [math.exp(z[i] @ z[j] / tau) for j in range(2 * n) if j != i]
        total += -(z[i] @ z[(i + n) % (2 * n)]) / tau + math.log(sum(terms))
    return total / (2 * n)


def test_loss_is_the_sheets_by_hand() -> None:
    method = methods.FrameProjections(channels=2, length=64, **SMALL).eval()
    terms = method.loss(batch())
    with torch.no_grad():
        r = method.representations(batch())
        e = {n: normalize(method.projectors[n](v)).double().numpy() for n, v in r.items()}
        pairs = [("time", "wavelet"), ("time", "fourier"), ("wavelet", "fourier")]
        identity = sum(literal_nt_xent(e[a], e[b], 0.15) for a, b in pairs)
        mapped = {
            n: method.embedding_mappers[n](torch.from_numpy(e["time"]).float()).double().numpy()
            for n in ("wavelet", "fourier")
        }
        mapping = sum(np.abs(mapped[n] - e[n]).mean() for n in mapped) / 6
    assert terms["loss"].item() == pytest.approx(identity + mapping, rel=1e-4)


def test_features_are_fourier_time_wavelet_and_no_transform_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    method = methods.FrameProjections(channels=2, length=64, **SMALL).eval()
    plain = methods.FrameProjections(channels=2, length=64, map_at_inference=False, **SMALL).eval()
    monkeypatch.setattr(type(method), "wavelet", lambda *a: pytest.fail("a transform was computed at inference"))
    with torch.no_grad():
        f = method.predict(batch())
        r = method.encoder(batch()["series"])
        assert f.shape == (6, 384)
        torch.testing.assert_close(f[:, 128:256], r)
        torch.testing.assert_close(f[:, :128], method.mappers["fourier"](r))
        torch.testing.assert_close(f[:, 256:], method.mappers["wavelet"](r))
    assert plain.predict(batch()).shape == (6, 128)


@pytest.mark.parametrize("views", ["fourier", "wavelet"])
def test_a_view_can_be_left_out(views: str) -> None:
    method = methods.FrameProjections(channels=1, length=50, views=views, **SMALL)
    terms = method.loss(batch(channels=1, length=50))
    assert f"time_{views}" in terms
    assert terms["identity"].item() == pytest.approx(terms[f"time_{views}"].item())
    assert method.predict(batch(channels=1, length=50)).shape == (6, 256)


@pytest.mark.parametrize("frame", ["stft", "dwt"])
def test_other_frames_give_a_wavelet_view(frame: str) -> None:
    method = methods.FrameProjections(channels=1, length=64, frame=frame, **SMALL)
    assert torch.isfinite(method.loss(batch(channels=1))["loss"])


def test_second_stage_moves_only_the_mappers(tmp_path) -> None:
    options = {"batch_size": 16, "workers": 0, "quiet": True, "knn_every": 0, "scales": 8, "epochs": 3, "lr": 1e-2}
    run = selftaught.train("frame-projections", "basic-motions", out=str(tmp_path / "run"), **options)
    state = [torch.load(run.layout.checkpoint(s), weights_only=True)["state_dict"] for s in ("pretrain", "map")]
    state[0] = torch.load(run.layout.stage("pretrain").final, weights_only=True)  # the best epoch's
    for name, value in state[0].items():
        same = torch.equal(value, state[1][name])
        assert same != name.startswith("mappers."), name
    rows = (run.path / "stages/map/metrics.csv").read_text().splitlines()
    assert sum("map," in row for row in rows) >= 1


@pytest.mark.slow
def test_it_learns_chirps(tmp_path) -> None:
    """Sheet, toy check 5 with a third of its scales and two thirds of its epochs: the loss falls below chance
    (14.54), which the sheet has below 12.5, and the median rank of the true Fourier partner below 24 of 64.
    """
    rng = np.random.default_rng(0)
    t = np.arange(100) / 100
    windows = []
    for k in range(320):
        f0, f1 = ((2, 6), (6, 14), (14, 30))[k % 3]
        phase, amplitude = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5)
        wave = amplitude * np.sin(2 * np.pi * (f0 * t + (f1 - f0) * t**2 / 2) + phase) + 0.5 * rng.standard_normal(100)
        windows.append(wave)
    x = np.array(windows, np.float32)[:, None]
    np.savez(tmp_path / "train.npz", x=x[:256])
    run = selftaught.train(
        "frame-projections", tmp_path / "train.npz", out=str(tmp_path / "run"), epochs=20, batch_size=64, lr=2e-3,
        scales=16, workers=0, quiet=True, knn_every=0, split="all", log_every=4,
    )  # fmt: skip
    import csv

    with (run.path / "stages/pretrain/metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[0] > 14.5
    assert np.mean(losses[-3:]) < 14.2
    method = trained.built(run.config, run.path)
    method.load_state_dict(torch.load(run.path / "stages/pretrain/checkpoints/final.pt", weights_only=True))
    held = {"series": torch.from_numpy(x[256:]), "index": torch.arange(1000, 1064)}
    with torch.no_grad():
        r = method.eval().representations(held)
        a, b = (normalize(method.projectors[n](r[n])) for n in ("time", "fourier"))
    rank = ((a @ b.T) > (a * b).sum(1, keepdim=True)).sum(1).float().median()
    assert rank < 24
