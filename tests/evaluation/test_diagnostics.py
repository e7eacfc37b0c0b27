import math

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.evaluation import diagnostics
from selftaught.evaluation.diagnostics import (
    alignment,
    correlation_rank,
    effective_rank,
    feature_std,
    neighbour_stability,
    singular_values,
    uniformity,
)


def with_spectrum(rng, n, values):
    """A matrix (n, len(values)) with these singular values."""
    u = np.linalg.qr(rng.normal(size=(n, len(values))))[0]
    v = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return torch.tensor(u * np.array(values) @ v.T)


@pytest.mark.parametrize("values", [[1.0, 1, 1, 1], [8.0, 4, 2, 1, 0.5], [5.0, 0, 0]])
def test_effective_rank_of_known_spectra(rng, values):
    x = with_spectrum(rng, 30, values)
    p = np.array(values) / sum(values)
    expected = math.exp(-sum(q * math.log(q) for q in p if q > 0))
    assert effective_rank(x) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(100 * x) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(singular_values(x).numpy(), sorted(values, reverse=True), atol=1e-6)
    np.testing.assert_allclose(singular_values(x.T).numpy()[: len(values)], sorted(values, reverse=True), atol=1e-6)


def test_effective_rank_at_its_limits():
    assert effective_rank(torch.ones(9, 5)) == pytest.approx(1)
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.zeros(4, 3)) == 0


def test_correlation_rank_is_the_sheets_formula(rng):
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    k = np.corrcoef(x.T)
    expected = np.trace(k) ** 2 / np.square(k).sum()
    assert correlation_rank(torch.tensor(x)) == pytest.approx(expected)
    assert correlation_rank(torch.tensor(x * rng.uniform(1, 9, 6) + 4)) == pytest.approx(expected)
    wide = rng.normal(size=(5, 40))
    k = np.corrcoef(wide.T)
    assert correlation_rank(torch.tensor(wide)) == pytest.approx(np.trace(k) ** 2 / np.square(k).sum())


def test_correlation_rank_at_its_limits(rng):
    column = torch.tensor(rng.normal(size=(50, 1)))
    assert correlation_rank(column @ torch.tensor([[1.0, -2, 3]], dtype=torch.float64)) == pytest.approx(1)
    assert correlation_rank(torch.tensor(np.linalg.qr(rng.normal(size=(50, 5)))[0])) == pytest.approx(5, rel=0.1)
    assert correlation_rank(torch.ones(10, 4)) == 0
    dead = torch.cat([column, torch.full((50, 3), 2.0, dtype=torch.float64)], 1)
    assert correlation_rank(dead) == pytest.approx(1)


def test_alignment_and_uniformity_are_wang_and_isola(rng):
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 4))
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    assert alignment(torch.tensor(x), torch.tensor(y)) == pytest.approx(np.mean(np.sum((u - v) ** 2, 1)))
    assert alignment(torch.tensor(x), torch.tensor(y), 1) == pytest.approx(np.mean(np.linalg.norm(u - v, axis=1)))
    terms = [math.exp(-2 * np.sum((u[i] - u[j]) ** 2)) for i in range(20) for j in range(i)]
    assert uniformity(torch.tensor(x)) == pytest.approx(math.log(np.mean(terms)))
    terms = [math.exp(-0.5 * np.sum((u[i] - u[j]) ** 2)) for i in range(20) for j in range(i)]
    assert uniformity(torch.tensor(x), t=0.5) == pytest.approx(math.log(np.mean(terms)))


def test_uniformity_in_parts(rng, monkeypatch):
    from selftaught.evaluation import neighbours

    x = torch.tensor(rng.normal(size=(101, 4)))
    whole = uniformity(x)
    monkeypatch.setattr(neighbours, "CELLS", 500)
    assert uniformity(x) == pytest.approx(whole, rel=1e-12)


def test_feature_std_tells_collapse_from_spread(rng):
    small = rng.normal(size=(5, 3))
    unit = small / np.linalg.norm(small, axis=1, keepdims=True)
    literal = np.mean([math.sqrt(np.mean((unit[:, j] - unit[:, j].mean()) ** 2)) for j in range(3)])
    assert feature_std(torch.tensor(small)) == pytest.approx((literal, literal * math.sqrt(3)))
    spread = torch.tensor(rng.normal(size=(5000, 32)))
    deviation, ratio = feature_std(spread)
    assert deviation == pytest.approx(1 / math.sqrt(32), rel=0.01)
    assert ratio == pytest.approx(1, rel=0.01)
    assert feature_std(torch.ones(10, 8))[0] == pytest.approx(0, abs=1e-12)


def test_the_result_of_a_healthy_and_of_a_collapsed_encoder(rng):
    x = rng.normal(size=(300, 16)).astype(np.float32)
    healthy = diagnostics(x, pairs=x + 0.1 * rng.normal(size=x.shape).astype(np.float32))
    assert healthy["effective_rank"].mean > 15
    assert healthy["alignment"].mean < 0.1
    assert healthy["uniformity"].mean < -2.5
    assert healthy["dead_features"].mean == 0
    assert healthy.note == ""
    expected = np.linalg.svd(x - x.mean(0), compute_uv=False) / math.sqrt(300)
    np.testing.assert_allclose(healthy.figures["spectrum"], expected, rtol=1e-4)
    collapsed = diagnostics(np.tile(rng.normal(size=16), (50, 1)))
    assert "collapsed" in collapsed.note
    assert collapsed["correlation_rank"].mean == 0
    assert collapsed["uniformity"].mean == pytest.approx(0, abs=1e-9)
    assert collapsed["dead_features"].mean == 1
    line = diagnostics(np.outer(rng.normal(size=50), rng.normal(size=16)))
    assert line["effective_rank"].mean == pytest.approx(1, rel=1e-3)
    assert line["correlation_rank"].mean == pytest.approx(1, rel=1e-6)


def test_neighbour_stability_by_loops(rng):
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    cosine = {id(a): (a / np.linalg.norm(a, axis=1, keepdims=True)) for a in (x, y)}
    shared = 0
    for i in range(30):
        found = []
        for queries in (x, y):
            near = cosine[id(x)] @ cosine[id(queries)][i]
            near[i] = -np.inf
            found.append(set(np.argsort(-near)[:5].tolist()))
        shared += len(found[0] & found[1])
    assert neighbour_stability(torch.tensor(x), torch.tensor(y), k=5) == pytest.approx(shared / 150)
    assert neighbour_stability(torch.tensor(x), torch.tensor(x)) == 1
    assert diagnostics(x, x)["neighbour_stability"].mean == 1
    assert "neighbour_stability" not in diagnostics(x).numbers
    constant = np.ones((30, 4))
    assert "neighbour_stability" not in diagnostics(constant, constant).numbers


def test_large_sets_are_subsampled_pairwise(rng):
    x = rng.normal(size=(500, 4))
    result = diagnostics(x, pairs=x, limit=100)
    assert "on 100 of 500" in result.note
    assert result["alignment"].mean == pytest.approx(0, abs=1e-12)
    assert result == diagnostics(x, pairs=x, limit=100)


def test_bad_inputs(rng):
    with pytest.raises(UserError, match="single sample"):
        diagnostics(np.ones((1, 4)))
    with pytest.raises(UserError, match="pairs"):
        diagnostics(np.ones((5, 4)), np.ones((4, 4)))
    with pytest.raises(UserError, match="NaN"):
        diagnostics(np.full((5, 4), np.nan))
