"""ColloSSL's loss, kernel and selection against loops in float64, their limits and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selftaught import networks, objectives
from selftaught.errors import UserError


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(z, p, n, v, w, tau, sign=1.0) -> float:
    def cos(a, b):
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    total = 0.0
    for b in range(len(z)):
        up = sum(float(v[i]) * math.exp(sign * cos(z[b], p[i, b]) / tau) for i in range(len(p)))
        down = sum(float(w[j]) * math.exp(sign * cos(z[b], n[j, b]) / tau) for j in range(len(n)))
        total += -math.log(up / (up + down))
    return total / len(z)


@pytest.mark.parametrize(("similarity", "sign"), [("cosine", 1.0), ("keras_negative", -1.0)])
def test_the_loss_is_the_papers(similarity: str, sign: float) -> None:
    z, p, n = rand(5, 7), rand(2, 5, 7, seed=1), rand(3, 5, 7, seed=2)
    v, w = torch.tensor([1.0, 0.3]).double(), torch.tensor([0.2, 1.0, 0.5]).double()
    options = {"positive_weights": v, "negative_weights": w, "temperature": 0.2}
    found = objectives.collossl(z, p, n, similarity=similarity, **options)
    assert found.item() == pytest.approx(literal(z, p, n, v, w, 0.2, sign), rel=1e-10)
    assert objectives.collossl(
        z.float(), p.float(), n.float(), similarity=similarity, **options
    ).item() == pytest.approx(found.item(), rel=1e-5)
    if sign < 0:
        assert found.item() == pytest.approx(objectives.collossl(-z, p, n, **options).item(), rel=1e-12)
    inputs = tuple(t.requires_grad_() for t in (z, p, n))
    assert torch.autograd.gradcheck(lambda *t: objectives.collossl(*t, similarity=similarity, **options), inputs)


def test_limits_of_the_loss() -> None:
    z, p, n = rand(6, 4), rand(1, 6, 4, seed=1), rand(3, 6, 4, seed=2)
    assert objectives.collossl(z, p, n, temperature=1e9).item() == pytest.approx(math.log(4), rel=1e-6)
    scaled = objectives.collossl(5 * z, 0.1 * p, 3 * n)
    assert scaled.item() == pytest.approx(objectives.collossl(z, p, n).item(), rel=1e-9)
    same = objectives.collossl(z.requires_grad_(), p, p)
    assert same.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(same, z)[0].abs().max() < 1e-12
    far = objectives.collossl(torch.tensor([[1.0, 0]]), torch.tensor([[[-1.0, 0]]]), torch.tensor([[[1.0, 0]]]))
    assert far.item() == pytest.approx(40, rel=1e-5)


def test_a_step_draws_positives_near_and_sends_negatives_away() -> None:
    z, p, n = (t.requires_grad_() for t in (rand(8, 5), rand(1, 8, 5, seed=1), rand(3, 8, 5, seed=2)))
    before = objectives.collossl_terms(z, p, n, temperature=0.5)
    slopes = torch.autograd.grad(before["loss"], (z, p, n))
    moved = [t.detach() - 0.5 * g for t, g in zip((z, p, n), slopes, strict=True)]
    after = objectives.collossl_terms(*moved, temperature=0.5)
    assert after["positive"] > before["positive"]
    assert after["negative"] < before["negative"]


def test_the_kernel_and_the_distance() -> None:
    x, y = rand(4, 9), rand(6, 9, seed=3)
    found = objectives.gaussian_kernel(x, y)
    for i in range(4):
        for j in range(6):
            squared = float((x[i] - y[j]).square().sum())
            assert found[i, j].item() == pytest.approx(sum(math.exp(-squared / (2 * s)) for s in objectives.SIGMAS))
    own = objectives.gaussian_kernel(x, x)
    assert torch.allclose(own.diagonal(), torch.full((4,), 12.0, dtype=torch.float64))
    expected = own.mean() + objectives.gaussian_kernel(y, y).mean() - 2 * found.mean()
    assert objectives.mmd(x, y).item() == pytest.approx(max(expected.item(), 1e-4))
    assert objectives.mmd(x, y).item() == pytest.approx(objectives.mmd(y, x).item())
    assert objectives.mmd(x, x).item() == 1e-4


def test_a_rotated_device_is_the_nearest_by_its_norm() -> None:
    anchor = rand(12, 6, 50).float()
    turn = torch.linalg.qr(rand(3, 3, seed=4).float())[0]
    rotated = torch.cat([torch.einsum("ij,njt->nit", turn, anchor[:, :3]), anchor[:, 3:]], 1)
    other = 2 + rand(12, 6, 50, seed=5).float()
    assert objectives.device_distance(anchor, rotated).item() == pytest.approx(1e-4)
    assert objectives.device_distance(anchor, other).item() > 1e-2
    axes = objectives.device_distance(anchor, other, "axes")
    each = [objectives.mmd(anchor[:, k], other[:, k]) for k in range(3)]
    assert axes.item() == pytest.approx(torch.stack(each).mean().item())
    norm = objectives.signal_norm(anchor)
    np.testing.assert_allclose(norm.numpy(), np.linalg.norm(anchor[:, :3].numpy(), axis=1), rtol=1e-5)


EXPECTED = {
    "closest_pos_all_neg": ([2], [2, 0, 3, 1]), "closest_only": ([2], [2]), "hard_negative": ([2], [0, 3]),
    "harder_negative": ([2], [0]), "closest_two": ([2, 0], [3, 1]), "closest_two_reverse": ([3, 1], [2, 0]),
    "closest_pos_rest_neg": ([2], [0, 3, 1]), "mid_selection": ([3], [2, 0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("strategy", objectives.STRATEGIES)
def test_every_strategy_chooses(strategy: str) -> None:
    distances = torch.tensor([0.2, 0.9, 0.1, 0.4])
    found = objectives.select_devices(distances, strategy, generator=torch.Generator().manual_seed(0))
    if strategy in EXPECTED:
        assert (found.positives, found.negatives) == EXPECTED[strategy]
    elif strategy == "random":
        assert found.positives != found.negatives
    else:
        assert found.positives == [2]
        assert found.negatives[0] in (0, 1, 3)
    raw = [1.0] * len(found.positives) + [1 / distances[j].item() for j in found.negatives]
    weights = torch.cat([found.positive_weights, found.negative_weights])
    np.testing.assert_allclose(weights.numpy(), np.array(raw) / max(raw), rtol=1e-6)
    plain = objectives.select_devices(distances, strategy, weighted=False)
    assert torch.equal(plain.negative_weights, torch.ones(len(plain.negatives)))
    alone = objectives.select_devices(distances[:1], strategy)
    assert (alone.positives, alone.negatives) == ([0], [0])


def test_the_anchor_may_be_a_negative_of_other_instants() -> None:
    found = objectives.select_devices(torch.tensor([0.2, 0.4]), with_anchor=True)
    assert found.negatives == [0, 1, 2]
    np.testing.assert_allclose(found.negative_weights.numpy(), [0.5, 0.25, 1.0])
    assert found.positive_weights.item() == pytest.approx(0.1)
    with pytest.raises(UserError, match="two or more devices"):
        objectives.select_devices(torch.zeros(0))


def test_the_encoder_has_the_sheets_size() -> None:
    encoder = networks.TPN()
    assert sum(p.numel() for p in encoder.parameters()) == (6 * 24 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 8 + 1) * 96
    assert encoder(torch.randn(3, 6, 46)).shape == (3, 96)
    with pytest.raises(UserError, match="longer windows"):
        encoder(torch.randn(3, 6, 45))
    encoder.freeze_front()
    assert [p.requires_grad for p in encoder.parameters()] == [False] * 4 + [True] * 2
    head = networks.DeviceClassifier(encoder, 8).head
    assert sum(p.numel() for p in head.parameters()) == 96 * 1024 + 1024 + 1024 * 8 + 8
