"""Local affinities location by location, their cells' places in the source image, and slices that change nothing."""

import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import _local_affinity


def maps(n=3, d=4, rows=2, columns=3, seed=0):
    return torch.randn(n, d, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine(a, b):
    dot = lambda x, y: sum(p * q for p, q in zip(x, y, strict=True))  # noqa: E731
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def kept_mean(features, others, places, other_places, gamma):
    """Mean cosine of the gamma closest partners, in both directions."""
    total = 0.0
    sides = ((features, others, places, other_places), (others, features, other_places, places))
    for mine, yours, here, there in sides:
        pairs = []
        for p, place in enumerate(here):
            q = min(range(len(there)), key=lambda q: distance(place, there[q]))
            pairs.append((distance(place, there[q]), cosine(mine[p], yours[q])))
        pairs.sort(key=lambda pair: pair[0])
        total += sum(c for _, c in pairs[:gamma]) / len(pairs[:gamma]) / 2
    return total


@pytest.mark.parametrize("gamma", [1, 3, 20])
def test_local_affinities_equal_the_definition(gamma):
    y1, y2 = maps(), maps(seed=1)
    c1, c2 = (torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (2, 3))
    flat1, flat2 = (y.flatten(2).transpose(1, 2).tolist() for y in (y1, y2))
    plain = objectives.local_similarity(y1, y2, gamma=gamma)
    placed = objectives.local_similarity(y1, y2, c1, c2, gamma=gamma)
    only = objectives.local_similarity(y1, y2, c1, c2, gamma=gamma, location_only=True)
    for i in range(3):
        for a in range(3):
            by_feature = kept_mean(flat1[i], flat2[a], flat1[i], flat2[a], gamma)
            assert plain[i, a].item() == pytest.approx(by_feature, abs=1e-9)
            if i == a:
                by_place = kept_mean(flat1[i], flat2[i], c1[i].tolist(), c2[i].tolist(), gamma)
                assert placed[i, i].item() == pytest.approx((by_feature + by_place) / 2, abs=1e-9)
                assert only[i, i].item() == pytest.approx(by_place, abs=1e-9)
            else:
                assert placed[i, a].item() == only[i, a].item() == plain[i, a].item()


def test_equal_maps_agree_wholly_and_turning_them_over_changes_nothing():
    y = maps(4)
    found = objectives.local_similarity(y, y, gamma=20)
    torch.testing.assert_close(found.diagonal(), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-9)
    off = found[~torch.eye(4, dtype=torch.bool)]
    assert off.max() < 1
    other = maps(4, seed=1)
    there, back = objectives.local_similarity(y, other), objectives.local_similarity(other, y)
    torch.testing.assert_close(there, back.T)


def test_slices_change_neither_values_nor_gradients(monkeypatch):
    y1, y2 = maps(5).requires_grad_(), maps(5, seed=1).requires_grad_()
    weights = maps(1, 5, 1, 5, seed=9).view(5, 5)
    whole = objectives.local_similarity(y1, y2, gamma=3)
    (whole * weights).sum().backward()
    expected = y1.grad.clone(), y2.grad.clone()
    y1.grad = y2.grad = None
    monkeypatch.setattr(_local_affinity, "_PAIRS_AT_ONCE", 2 * 5 * 36)  # two images at a time
    sliced = objectives.local_similarity(y1, y2, gamma=3)
    (sliced * weights).sum().backward()
    torch.testing.assert_close(sliced, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close((y1.grad, y2.grad), expected, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    y1, y2 = maps(2, 3, 2, 2).requires_grad_(), maps(2, 3, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: objectives.local_similarity(a, b, gamma=2), (y1, y2))


def test_cells_lie_where_their_pixels_came_from():
    boxes = torch.tensor([[10.0, 20.0, 40.0, 60.0, 0.0], [10.0, 20.0, 40.0, 60.0, 1.0]])
    found = objectives.grid_centres(boxes, 2, 3)
    assert found[0].tolist() == [[20, 30], [20, 50], [20, 70], [40, 30], [40, 50], [40, 70]]
    torch.testing.assert_close(found[1], found[0][[2, 1, 0, 5, 4, 3]])


def test_misuse_is_refused():
    y = maps()
    for call in (
        lambda: objectives.local_similarity(y, y[:2]),
        lambda: objectives.local_similarity(y[0], y[0]),
        lambda: objectives.local_similarity(y, y, gamma=0),
        lambda: objectives.local_similarity(y, y, torch.zeros(3, 5, 2), torch.zeros(3, 6, 2)),
    ):
        with pytest.raises(UserError):
            call()
