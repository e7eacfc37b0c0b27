"""Masks by nearest tokens, and places found again in another view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught import evaluation
from selftaught.errors import UserError
from selftaught.evaluation import patch_shares, segmentation_knn, token_centres
from selftaught.evaluation.correspondence import correspondence


class Patches(nn.Module):
    """A map whose token is the mean colour of its 4 x 4 pixels."""

    def maps(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Squares of one of two colours on a third, whose corners lie on the grid of patches."""
    rng = np.random.default_rng(seed)
    x, y = torch.zeros(count, 3, 16, 16), torch.zeros(count, 16, 16, dtype=torch.int64)
    x[:, 0] = 1
    for i in range(count):
        kind, (top, left) = 1 + i % 2, 4 * rng.integers(0, 3, 2)
        x[i, :, top : top + 8, left : left + 8] = nn.functional.one_hot(torch.tensor(kind), 3).float()[:, None, None]
        y[i, top : top + 8, left : left + 8] = kind
    return x + 0.02 * torch.from_numpy(rng.standard_normal(x.shape)).float(), y


def test_shares_of_cells_by_hand() -> None:
    mask = torch.tensor([[[0, 0, 2, 2], [0, 1, 2, 255], [255, 255, 1, 1], [255, 255, 1, 1]]])
    shares = patch_shares(mask, (2, 2), 3)
    wanted = torch.tensor([[[0.75, 0.25, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(shares[0], wanted)


def test_votes_of_the_nearest_tokens_against_loops() -> None:
    (x, y), (tx, ty) = scenes(6, 0), scenes(3, 1)
    found = segmentation_knn(Patches(), x, y, tx, ty, k=5, tau=0.1, batch=2)
    tokens, shares = [], []
    for image, mask in zip(x.double(), y, strict=True):
        for r in range(4):
            for c in range(4):
                block = mask[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].flatten()
                token = image[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean((1, 2))
                tokens.append(token / token.norm())
                shares.append(torch.stack([(block == k).double().mean() for k in range(3)]))
    matrix = np.zeros((3, 3))
    for image, mask in zip(tx.double(), ty, strict=True):
        voted = torch.zeros(3, 4, 4, dtype=torch.float64)
        for r in range(4):
            for c in range(4):
                token = image[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean((1, 2))
                cosine = torch.stack([torch.dot(token / token.norm(), other) for other in tokens])
                near = cosine.argsort(descending=True)[:5]
                weights = (cosine[near] / 0.1).exp()
                voted[:, r, c] = sum(w * shares[j] for w, j in zip(weights, near, strict=True)) / weights.sum()
        guess = nn.functional.interpolate(voted[None], size=(16, 16), mode="bilinear", align_corners=False).argmax(1)[0]
        for truth, said in zip(mask.flatten(), guess.flatten(), strict=True):
            matrix[truth, said] += 1
    assert np.array_equal(found.figures["confusion"]["matrix"], matrix)
    assert found["miou"].mean > 0.7  # enlarged from 4 x 4: corners of squares are rounded
    scrambled = y[torch.randperm(6, generator=torch.Generator().manual_seed(0))].flip(1)
    assert segmentation_knn(Patches(), x, scrambled, tx, ty, k=5)["miou"].mean < found["miou"].mean - 0.2


def test_tokens_without_a_class_do_not_vote() -> None:
    (x, y), (tx, ty) = scenes(4, 0), scenes(2, 1)
    with pytest.raises(UserError, match="k=20 of 16 labelled tokens"):
        segmentation_knn(Patches(), x, torch.full_like(y, 255).index_copy(0, torch.tensor([0]), y[:1]), tx, ty)
    with pytest.raises(UserError, match="tau=0"):
        segmentation_knn(Patches(), x, y, tx, ty, tau=0)
    assert evaluation.PROTOCOLS["segmentation-knn"].function is segmentation_knn


def test_a_shift_by_whole_tokens_is_found_and_judged_by_hand(rng: np.random.Generator) -> None:
    h = w = 5
    first = torch.tensor(rng.normal(size=(4, 8, h, w)))
    second = first.roll((1, -2), (2, 3))  # a token moves one row down and two columns left
    truth = token_centres((h, w)) + torch.tensor([-2 / w, 1 / h], dtype=torch.float64)
    truth = truth.expand(4, -1, -1, -1)
    found = correspondence(first, second, truth, thresholds=(0.05,))
    assert found["pck@0.05"].mean == 1  # rows and columns that left the view are not asked
    assert found["distance"].mean == pytest.approx(0, abs=1e-12)
    still = correspondence(first, first, truth, thresholds=(0.05, 0.44, 0.45))
    assert still["distance"].mean == pytest.approx(np.hypot(2 / w, 1 / h))  # 0.447: each is found where it was
    assert [still[f"pck@{t}"].mean for t in (0.05, 0.44, 0.45)] == [0, 0, 1]
    asked = (np.arange(h) + 1 < h)[:, None] & (np.arange(w) - 2 >= 0)
    centres = np.stack(np.meshgrid(*[(np.arange(5) + 0.5) / 5] * 2, indexing="xy"), -1)
    near = [
        np.linalg.norm(centres - (centres[r, c] + [-0.4, 0.2]), axis=-1) <= 0.45 for r in range(h) for c in range(w)
        if asked[r, c]
    ]  # fmt: skip
    assert f"0.45: {np.mean(near):.0%} and 100%" in still.note
    far = torch.full_like(truth, 2.0)
    with pytest.raises(UserError, match="views that overlap"):
        correspondence(first, second, far)
    with pytest.raises(UserError, match="places"):
        correspondence(first, second, truth[:, :2])
