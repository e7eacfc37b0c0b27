from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.networks import MultiHead, PairScore, TemperatureTable


def test_heads_are_independent_and_stacked_by_sample():
    torch.manual_seed(0)
    heads = MultiHead(3, [8, 6, 4], norm="none")
    x = torch.randn(5, 8)
    out = heads(x)
    assert out.shape == (5, 3, 4)
    for c, head in enumerate(heads.heads):
        assert torch.equal(out[:, c], head(x))
    weights = [head[0].weight for head in heads.heads]
    assert not torch.allclose(weights[0], weights[1])
    assert not torch.allclose(weights[1], weights[2])
    out[:, 1].sum().backward()
    assert heads.heads[1][0].weight.grad.abs().sum() > 0
    assert heads.heads[0][0].weight.grad.abs().sum() == 0


def test_heads_of_heads_take_each_its_own_slice():
    heads = MultiHead(2, [4, 4], norm="none")
    x = torch.randn(5, 2, 4)
    assert torch.equal(heads(x), torch.stack([heads.heads[0](x[:, 0]), heads.heads[1](x[:, 1])], 1))
    assert isinstance(MultiHead(1, [4, 6, 2], last_norm=True, last_affine=False).heads[0][-1], nn.BatchNorm1d)


def test_dot_is_the_product_of_phis_and_symmetric():
    score = PairScore(6)
    a, b = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    found = score(a, b)
    assert found.shape == (2, 5, 7)
    assert score.numbers == 1
    pair = (score.phi(a[1, 3]) * score.phi(b[1, 4])).sum()
    torch.testing.assert_close(found[1, 3, 4], pair)
    torch.testing.assert_close(score(b, a), found.transpose(1, 2))


def test_concat_is_the_mlp_of_the_joined_pair_and_not_symmetric():
    torch.manual_seed(1)
    score = PairScore(6, "concat", hidden=9)
    a, b = torch.randn(2, 5, 6), torch.randn(2, 7, 6)
    found = score(a, b)
    assert found.shape == (2, 5, 7)
    assert score.numbers == 9
    mlp = nn.Sequential(score.first, nn.ReLU(), score.last)
    for i in range(5):
        for j in range(7):
            torch.testing.assert_close(found[1, i, j], mlp(torch.cat([a[1, i], b[1, j]]))[0])
    assert (score(b, a) - found.transpose(1, 2)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["dot", "concat"])
def test_the_default_layers_are_the_sheets(kind):
    shapes = [tuple(p.shape) for p in PairScore(128, kind).parameters()]
    assert shapes == ([(128, 128), (128,)] if kind == "dot" else [(128, 256), (128,), (1, 128), (1,)])


def test_table_is_free_and_starts_in_the_middle():
    table = TemperatureTable(3, 4)
    assert table().shape == (3, 4, 4)
    assert not table().any()
    table()[1, 2, 3].backward()
    assert table.table.grad.nonzero().tolist() == [[1, 2, 3]]


def test_errors():
    with pytest.raises(UserError, match="heads=0"):
        MultiHead(0, [4, 2])
    with pytest.raises(UserError, match="choose dot or concat"):
        PairScore(4, "sum")
    with pytest.raises(UserError, match="1 or more"):
        PairScore(0)
    with pytest.raises(UserError, match="1 or more"):
        TemperatureTable(2, 0)
