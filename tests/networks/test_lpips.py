"""LPIPS by a literal transcription, and where its weights are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught import evaluation, networks
from selftaught.errors import UserError
from selftaught.networks import lpips as module

G = torch.Generator().manual_seed(0)


class Maps(nn.Module):
    """Two maps of known values."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x.repeat(1, 2, 1, 1), x[:, :, ::2, ::2] ** 2]


def test_the_distance_by_hand() -> None:
    x, y = (torch.rand(2, 3, 4, 6, dtype=torch.float64, generator=G) for _ in range(2))
    weights = [torch.rand(6, dtype=torch.float64, generator=G), torch.rand(3, dtype=torch.float64, generator=G)]
    expected = []
    for n in range(2):
        total = 0.0
        for level, weight in enumerate(weights):
            a, b = (Maps()(2 * image[n : n + 1] - 1)[level][0].numpy() for image in (x, y))
            places = []
            for i in range(a.shape[1]):
                for j in range(a.shape[2]):
                    u, v = (m[:, i, j] / (np.sqrt((m[:, i, j] ** 2).sum()) + 1e-10) for m in (a, b))
                    places.append(float((weight.numpy() * (u - v) ** 2).sum()))
            total += sum(places) / len(places)
        expected.append(total)
    judge = networks.LPIPS(Maps(), weights).double()
    np.testing.assert_allclose(judge(x, y).numpy(), expected, rtol=1e-10)
    assert judge(x, x).abs().max() == 0
    with pytest.raises(UserError, match="one shape"):
        judge(x, y[:1])


def test_it_is_judged_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = np.random.default_rng(0).random((40, 36, 3))
    noisy = np.clip(clean + 0.1, 0, 1)
    weights = [torch.full((6,), 0.5), torch.full((3,), 0.5)]
    monkeypatch.setattr(networks, "lpips_at_hand", lambda: True)
    monkeypatch.setattr(networks, "load_lpips", lambda: networks.LPIPS(Maps(), weights))
    found = evaluation.restoration([noisy, clean], [clean, clean], noisy=[noisy, noisy], data_range=1, lpips="auto")
    assert found.figures["per_image"]["lpips"][0] > 0 == found.figures["per_image"]["lpips"][1]
    assert found["lpips_input"].mean > found["lpips"].mean
    monkeypatch.undo()
    monkeypatch.setattr(module, "_linear_weights", lambda: None)
    module.load_lpips.cache_clear()
    assert "lpips" not in evaluation.restoration([noisy], [clean], data_range=1, lpips="auto").numbers
    left = evaluation.restoration([noisy], [clean], data_range=1, lpips="on")
    assert "lpips" not in left.numbers
    assert "pip install --no-deps lpips" in left.note
    grey = evaluation.restoration([noisy[:20]], [clean[:20]], data_range=1, lpips="on")
    assert "32 pixels" in grey.note
