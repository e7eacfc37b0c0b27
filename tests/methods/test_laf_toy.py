"""The sheet's toy: LAF's losses in a plain loop make an MLP forget the zeros among the 8x8 digits, and little else."""

from __future__ import annotations

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from selftaught.networks.vae import EmbeddingVAE
from selftaught.objectives.laf import laf_ra, laf_ue, laf_vae


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.head = nn.Linear(64, 10)

    def right(self, x: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            return float((self.head(self.g(x)).argmax(1) == y).float().mean())


def fit(model: nn.Module, loss, rows: int, epochs: int, lr: float = 1e-3) -> None:  # type: ignore[no-untyped-def]
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        for i in torch.randperm(rows).split(32):
            optimiser.zero_grad()
            loss(i).backward()
            optimiser.step()


@pytest.mark.slow
def test_zeros_are_forgotten_and_little_else() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.data))
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]
    x, y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
    kept, gone, others = y != 0, y == 0, test_y != 0
    net = Classifier()
    fit(net, lambda i: nn.functional.cross_entropy(net.head(net.g(x[i])), y[i]), len(x), epochs=15)
    before = net.right(test_x[others], test_y[others])
    assert net.right(x[gone], y[gone]) > 0.99

    def learnt(data: Tensor) -> EmbeddingVAE:
        e, vae = net.g(data).detach(), EmbeddingVAE(64, 8)

        def loss(i: Tensor) -> Tensor:
            coded = vae(e[i])
            return laf_vae(e[i], coded.reconstruction, coded.mean, coded.log_variance)

        fit(vae, loss, len(e), epochs=12)
        return vae.requires_grad_(False)

    h, h_forget, teacher = learnt(x), learnt(x[gone]), copy.deepcopy(net.g).requires_grad_(False)
    head = copy.deepcopy(net.head.state_dict())
    first, second = (torch.optim.Adam(net.parameters(), lr) for lr in (1e-4, 3e-4))
    for _ in range(40):
        for i, j in zip(
            torch.randperm(int(kept.sum())).split(32), torch.randperm(int(gone.sum())).split(32), strict=False
        ):
            r, f = x[kept][i], x[gone][j]
            for optimiser in (first, second):
                a, b = net.g(r), net.g(f)
                if optimiser is first:
                    loss = laf_ue(a, h(a).reconstruction, b, h_forget(b).reconstruction)
                else:
                    loss = laf_ra(a, teacher(r), b, teacher(f), temperature=20.0)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    assert all(torch.equal(head[name], value) for name, value in net.head.state_dict().items())
    assert net.right(x[gone], y[gone]) < 0.05
    assert net.right(x[kept], y[kept]) > 0.97
    assert net.right(test_x[others], test_y[others]) > before - 0.05
