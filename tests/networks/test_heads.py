import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.networks import Prototypes, dino_head, mlp


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_dcl_head():
    head = mlp([512, 512, 128], hidden_bias=False)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[-1].bias is not None
    assert sum(p.numel() for p in head.parameters()) == 512 * 512 + 2 * 512 + 512 * 128 + 128


def test_barlow_twins_head():
    head = mlp([64, 128, 128, 128], hidden_bias=False, out_bias=False)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert sum(p.numel() for p in head.parameters()) == 64 * 128 + 2 * 128 * 128 + 4 * 128


def test_simclr_and_simsiam_heads_end_in_a_norm():
    simclr = mlp([32, 32, 16], hidden_bias=False, out_bias=False, last_norm=True)
    assert kinds(simclr)[-1] == "BatchNorm1d"
    assert simclr[-1].affine
    simsiam = mlp([32, 32, 32, 32], hidden_bias=False, last_norm=True, last_affine=False)
    assert not simsiam[-1].affine
    out = simsiam(torch.randn(64, 32))
    torch.testing.assert_close(out.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(0, unbiased=False), torch.ones(32), atol=2e-3, rtol=0)


def test_one_layer_is_linear_without_norm_or_activation():
    head = mlp([8, 4])
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    assert kinds(head) == ["Linear"]
    torch.testing.assert_close(head(x + y) + head(torch.zeros(1, 8)), head(x) + head(y))


@pytest.mark.parametrize(("norm", "layer"), [("bn", nn.BatchNorm1d), ("ln", nn.LayerNorm)])
def test_norms(norm, layer):
    assert isinstance(mlp([4, 6, 2], norm=norm)[1], layer)
    plain = mlp([4, 6, 6, 2], norm="none", activation="gelu")
    assert kinds(plain) == ["Linear", "GELU", "Linear", "GELU", "Linear"]


@pytest.mark.parametrize(
    "bad", [{"dims": [4]}, {"dims": [4, 0]}, {"dims": [4, 2], "norm": "gn"}, {"dims": [4, 4, 2], "activation": "sin"}]
)
def test_errors(bad):
    with pytest.raises(UserError):
        mlp(**bad)


def test_prototypes_score_by_cosine_and_are_put_back_on_the_sphere():
    torch.manual_seed(0)
    prototypes = Prototypes(4, 6)
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(6))
    z = nn.functional.normalize(torch.randn(3, 4))
    expected = nn.functional.cosine_similarity(z[:, None], prototypes.weight[None], dim=2)
    torch.testing.assert_close(prototypes(z), expected)
    with torch.no_grad():
        prototypes.weight.mul_(torch.linspace(0.5, 3, 6)[:, None])
    direction = nn.functional.normalize(prototypes.weight.detach())
    prototypes.normalise()
    torch.testing.assert_close(prototypes.weight.detach(), direction)


def test_dino_head_scores_on_the_sphere_with_prototypes_of_fixed_length():
    torch.manual_seed(0)
    head = dino_head(8, 10, hidden=16, bottleneck=6)
    assert kinds(head.body) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    x = torch.randn(5, 8)
    logits = head(x)
    assert logits.shape == (5, 10)
    assert logits.abs().max() <= 1 + 1e-5  # cosines: both sides have length 1
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=1.0)
    head(x)[:, 0].sum().backward()
    optimizer.step()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(10))
    with pytest.raises(UserError, match="layers=0"):
        dino_head(8, 10, layers=0)
