import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError


def pair(rows=7, width=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z1 = torch.randn(rows, width, generator=g, dtype=torch.float64)
    return z1, z1 + 0.4 * torch.randn(rows, width, generator=g, dtype=torch.float64)


def literal_spectral(z1, z2):
    a, b = z1.tolist(), z2.tolist()
    dot = lambda x, y: sum(p * q for p, q in zip(x, y, strict=True))  # noqa: E731
    rows = len(a)
    positive = sum(dot(a[i], b[i]) for i in range(rows)) / rows
    negative = [dot(a[i], b[j]) ** 2 for i in range(rows) for j in range(rows) if i != j]
    return -2 * positive + sum(negative) / len(negative)


@pytest.mark.parametrize("shape", [(7, 3), (4, 9), (2, 2), (2, 1)])
def test_spectral_equals_its_formula(shape):
    z1, z2 = pair(*shape)
    assert objectives.spectral(z1, z2).item() == pytest.approx(literal_spectral(z1, z2), rel=1e-12)


def test_spectral_gradient_and_limits():
    z1, z2 = (z.requires_grad_() for z in pair(4, 3))
    assert torch.autograd.gradcheck(objectives.spectral, (z1, z2))
    zero = torch.zeros(4, 3)
    assert objectives.spectral(zero, zero).item() == 0
    # orthogonal samples of length l: -2 l^2, nothing repels
    z = 1.3 * torch.eye(5, dtype=torch.float64)
    assert objectives.spectral(z, z).item() == pytest.approx(-2 * 1.3**2)
    # lengths matter, a common rotation does not
    z1, z2 = pair()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    assert objectives.spectral(z1 @ rotation, z2 @ rotation).item() == pytest.approx(objectives.spectral(z1, z2).item())
    assert objectives.spectral(2 * z1, z2).item() != pytest.approx(objectives.spectral(z1, z2).item())
    assert objectives.spectral(z2, z1).item() == pytest.approx(objectives.spectral(z1, z2).item())


def test_the_population_form_is_what_samples_converge_to():
    g = torch.Generator().manual_seed(0)
    phi, sigma = torch.tensor([1.0, 0.5, 0.3]), torch.tensor([0.2, 0.6, 0.1])
    weight = 0.5 * torch.randn(2, 3, generator=g)
    signal = phi * torch.randn(20000, 3, generator=g)
    x1, x2 = (signal + sigma * torch.randn(20000, 3, generator=g) for _ in range(2))
    sampled = objectives.spectral(x1 @ weight.T, x2 @ weight.T).item()
    assert sampled == pytest.approx(objectives.spectral_population(weight, phi, sigma).item(), abs=0.02)


def test_the_population_form_literally_and_at_its_minimum():
    g = torch.Generator().manual_seed(1)
    phi = torch.tensor([1.0, 0.7, 0.5, 0.3], dtype=torch.float64)
    sigma = torch.tensor([0.5, 0.2, 0.6, 0.1], dtype=torch.float64)
    weight = torch.randn(6, 4, generator=g, dtype=torch.float64)
    s, m = torch.diag(phi**2), torch.diag(phi**2 + sigma**2)
    inner = weight @ m @ weight.T
    literal = torch.trace(inner @ inner) - 2 * torch.trace(weight @ s @ weight.T)
    assert objectives.spectral_population(weight, phi, sigma).item() == pytest.approx(literal.item(), rel=1e-12)
    best = torch.linalg.qr(torch.randn(6, 4, generator=g, dtype=torch.float64)).Q * (phi / (phi**2 + sigma**2))
    best.requires_grad_()
    loss = objectives.spectral_population(best, phi, sigma)
    loss.backward()
    assert loss.item() == pytest.approx(-2.47272, abs=1e-5)  # -sum phi^4 / (phi^2 + sigma^2)^2
    assert best.grad.abs().max() < 1e-12


def test_projection_head_is_the_loss_that_it_names():
    z1, z2 = pair()
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 0])
    head = objectives.projection_head
    assert head(z1, z2).item() == objectives.simclr(z1, z2, temperature=0.5).item()
    assert head(z1, z2, loss="spectral").item() == objectives.spectral(z1, z2).item()
    assert head(z1, labels=labels, loss="ce").item() == pytest.approx(F.cross_entropy(z1, labels).item())
    # two views whose pairs are the only classes: NT-Xent
    distinct = head(z1, z2, labels=torch.arange(7), loss="supcon", temperature=0.3)
    assert distinct.item() == pytest.approx(objectives.simclr(z1, z2, temperature=0.3).item(), rel=1e-10)


def literal_supcon(z, labels, temperature):
    """The sheet's mean over anchors that have a positive; the others are dropped."""
    rows = F.normalize(z).tolist()
    s = [[sum(p * q for p, q in zip(a, b, strict=True)) / temperature for b in rows] for a in rows]
    losses = []
    for i, y in enumerate(labels):
        positives = [j for j, other in enumerate(labels) if other == y and j != i]
        if positives:
            everything = math.log(sum(math.exp(s[i][j]) for j in range(len(rows)) if j != i))
            losses.append(everything - sum(s[i][j] for j in positives) / len(positives))
    return sum(losses) / len(losses)


def test_supcon_of_one_view_and_of_two_equals_the_sheet():
    z1, z2 = pair()
    labels = [0, 1, 0, 1, 2, 0, 3]  # 2 and 3 stand alone
    given = torch.tensor(labels)
    one = objectives.projection_head(z1, labels=given, loss="supcon")
    assert one.item() == pytest.approx(literal_supcon(z1, labels, 0.5), rel=1e-10)
    two = objectives.projection_head(z1, z2, labels=given, loss="supcon", temperature=0.1)
    assert two.item() == pytest.approx(literal_supcon(torch.cat([z1, z2]), labels * 2, 0.1), rel=1e-10)
    same = objectives.projection_head(z1, labels=torch.zeros(7, dtype=torch.int64), loss="supcon")
    assert same.item() == pytest.approx(literal_supcon(z1, [0] * 7, 0.5), rel=1e-10)


@pytest.mark.parametrize("loss", ["simclr", "spectral", "supcon", "ce"])
def test_autocast_computes_in_float32(loss):
    z1, z2 = (z.float() for z in pair())
    labels = torch.tensor([0, 1, 0, 1, 2, 2, 0])
    second = None if loss == "ce" else z2
    plain = objectives.projection_head(z1, second, labels=labels, loss=loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = objectives.projection_head(z1, second, labels=labels, loss=loss)
    assert under.dtype == torch.float32
    assert torch.equal(under, plain)


def test_wrong_input_is_refused_in_one_line():
    z1, z2 = pair()
    with pytest.raises(UserError, match="negatives"):
        objectives.spectral(z1[:1], z2[:1])
    with pytest.raises(UserError, match="supcon needs labels"):
        objectives.projection_head(z1, loss="supcon")
    with pytest.raises(UserError, match="two views"):
        objectives.projection_head(z1)
    with pytest.raises(UserError, match="loss must be one of"):
        objectives.projection_head(z1, z2, loss="triplet")
    with pytest.raises(UserError, match="too small"):
        objectives.projection_head(z1[:1], labels=torch.zeros(1, dtype=torch.int64), loss="supcon")
    with pytest.raises(UserError, match=r"W \(P, F\)"):
        objectives.spectral_population(z1, torch.ones(4), torch.ones(4))
