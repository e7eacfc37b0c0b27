"""Protocols of video papers: R@k, noise of clips, CKA of layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import evaluation
from selftaught.errors import UserError
from selftaught.evaluation import VIDEO_NOISE, blockiness, cka_matrix, linear_cka, noisy_clip

RNG = np.random.default_rng(0)


def test_recall_is_counted_over_the_nearest_training_clips() -> None:
    train, labels = RNG.standard_normal((30, 4)), RNG.integers(0, 3, 30)
    test, asked = RNG.standard_normal((12, 4)), RNG.integers(0, 3, 12)
    found = evaluation.recall(train, labels, test, asked, ks=(1, 5, 100))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test)]
    order = np.argsort(-(unit[1] @ unit[0].T), axis=1)
    for k in (1, 5):
        expected = np.mean([asked[i] in labels[order[i, :k]] for i in range(12)])
        assert found[f"recall@{k}"].mean == pytest.approx(expected)
    assert found["recall@100"].mean == 1
    assert "clipped to 30" in found.note
    assert evaluation.PROTOCOLS["recall"](train, labels, test, asked)["recall@1"] == found["recall@1"]
    with pytest.raises(UserError, match="1 or more"):
        evaluation.recall(train, labels, test, asked, ks=(0,))


@pytest.mark.parametrize("kind", VIDEO_NOISE)
def test_noise_grows_with_its_severity_and_is_new_in_every_frame(kind: str) -> None:
    clip = np.broadcast_to(RNG.integers(40, 200, (1, 12, 12, 3), dtype=np.uint8), (4, 12, 12, 3))
    errors = [np.mean((noisy_clip(clip, kind, s) - clip / 255) ** 2) for s in range(1, 6)]
    assert (np.diff(errors) > 0).all()
    found = noisy_clip(clip, kind, 3)
    assert found.min() >= 0
    assert found.max() <= 1
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found, noisy_clip(clip, kind, 3))


def test_speckle_is_its_formula() -> None:
    clip = np.full((1, 200, 200, 1), 0.5, np.float32)
    assert noisy_clip(clip, "speckle_noise", 2).std() == pytest.approx(0.5 * 0.2, rel=0.03)
    with pytest.raises(UserError, match="severity 6"):
        noisy_clip(clip, "speckle_noise", 6)
    with pytest.raises(UserError, match="one of gaussian_noise"):
        noisy_clip(clip, "fog", 1)


def test_cka_is_its_formula_and_blind_to_turns_and_scale() -> None:
    x, y = RNG.standard_normal((20, 6)), RNG.standard_normal((20, 3))
    xc, yc = x - x.mean(0), y - y.mean(0)
    literal = np.linalg.norm(yc.T @ xc) ** 2 / (np.linalg.norm(xc.T @ xc) * np.linalg.norm(yc.T @ yc))
    assert linear_cka(x, y) == pytest.approx(literal, rel=1e-10)
    turn = np.linalg.qr(RNG.standard_normal((6, 6)))[0]
    assert linear_cka(x, 3 * x @ turn + 1) == pytest.approx(1, abs=1e-10)
    assert linear_cka(x, 3 * x @ turn + 1, unbiased=True) == pytest.approx(1, abs=1e-10)
    wide = RNG.standard_normal((20, 300))
    literal = np.linalg.norm(xc.T @ (wide - wide.mean(0))) ** 2
    literal /= np.linalg.norm(xc.T @ xc) * np.linalg.norm((w := wide - wide.mean(0)).T @ w)
    assert linear_cka(x, wide) == pytest.approx(literal, rel=1e-9)


def test_few_samples_bias_cka_and_the_unbiased_one_is_near_0() -> None:
    pairs = [(RNG.standard_normal((12, 40)), RNG.standard_normal((12, 40))) for _ in range(60)]
    assert np.mean([linear_cka(*pair) for pair in pairs]) > 0.5
    assert abs(np.mean([linear_cka(*pair, unbiased=True) for pair in pairs])) < 0.1
    with pytest.raises(UserError, match="4 or more"):
        linear_cka(np.eye(3), np.eye(3), unbiased=True)
    with pytest.raises(UserError, match="same for all samples"):
        linear_cka(np.ones((4, 2)), np.eye(4))


def test_layers_of_a_grid_and_of_a_block() -> None:
    layers = {str(k): RNG.standard_normal((300, 4)) for k in range(4)}
    matrix = cka_matrix(layers, layers)
    np.testing.assert_allclose(np.diag(matrix), 1)
    np.testing.assert_allclose(matrix, matrix.T)
    assert abs(blockiness(matrix)) < 0.05
    assert blockiness(np.exp(-np.abs(np.subtract.outer(np.arange(5), np.arange(5))))) > 0.2


def test_fine_tuning_averages_the_probabilities_of_several_views() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long().numpy()
    encoder = nn.Sequential(nn.Linear(3, 4))
    one = evaluation.finetune(encoder, x, y, x, y, epochs=3, batch=8)

    def twice(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[rows], x[rows]])

    two = evaluation.finetune(encoder, x, y, twice, y, epochs=3, batch=8, test_views=2)
    assert two["accuracy"].mean == one["accuracy"].mean
    assert evaluation.finetune(encoder, x, y, x, y, epochs=1, recipe="cvrl").name == "finetune"
