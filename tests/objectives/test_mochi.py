"""MoCHi against its formula for given draws, by loops in float64; its limits; and that it makes the task harder."""

import copy
import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import MochiDraws
from tests.objectives.test_dcl import knn_accuracy, toy
from tests.objectives.test_moco_v2 import dot, literal_moco, random_mask, triple, unit

SIZES = {"N": 5, "s": 7, "s_prime": 4}


def draws_for(rows=6, n=5, s=7, s_prime=4, seed=0, beta_max=0.5):
    g = torch.Generator().manual_seed(seed)
    ranks = lambda width: torch.randint(n, (rows, width), generator=g)  # noqa: E731
    shares = lambda width: torch.rand(rows, width, generator=g, dtype=torch.float64)  # noqa: E731
    return MochiDraws(ranks(s), ranks(s), shares(s), ranks(s_prime), beta_max * shares(s_prime))


def unit_row(row, normalize=True):
    length = math.sqrt(dot(row, row)) if normalize else 1.0
    return [x / length for x in row]


def literal_synthetic(q, queue, n, draws, normalize=True, mask=None):
    """For every query its mixtures: the hardest by sorting, the sheet's two sums, re-normalised."""
    found = []
    for i, query in enumerate(q.tolist()):
        kept = [r for j, r in enumerate(queue.tolist()) if mask is None or not mask[i, j]]
        hard = sorted(kept, key=lambda r: -dot(query, r))[:n]
        rows = []
        for a, b, alpha in zip(*(t[i].tolist() for t in draws[:3]), strict=True):
            rows.append(
                unit_row([alpha * x + (1 - alpha) * y for x, y in zip(hard[a], hard[b], strict=True)], normalize)
            )
        for b, beta in zip(*(t[i].tolist() for t in draws[3:]), strict=True):
            rows.append(unit_row([beta * x + (1 - beta) * y for x, y in zip(query, hard[b], strict=True)], normalize))
        found.append(rows)
    return found


def literal_mochi(q, k, queue, n, draws, temperature=0.2, normalize=True, only_hard=False, below=True, mask=None):
    total = 0.0
    synthetic = literal_synthetic(q, queue, n, draws, normalize, mask)
    for i, (query, key) in enumerate(zip(q.tolist(), k.tolist(), strict=True)):
        kept = [r for j, r in enumerate(queue.tolist()) if mask is None or not mask[i, j]]
        if only_hard:
            kept = sorted(kept, key=lambda r: -dot(query, r))[:n]
        above = math.exp(dot(query, key) / temperature)
        negatives = sum(math.exp(dot(query, r) / temperature) for r in (*kept, *synthetic[i]))
        total -= math.log(above / (negatives + (above if below else 0.0)))
    return total / len(q)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("only_hard", [True, False])
@pytest.mark.parametrize("below", [True, False])
def test_mochi_equals_its_formula_for_given_draws(temperature, normalize, only_hard, below):
    q, k, queue = triple()
    draws = draws_for()
    ours = objectives.mochi(
        q, k, queue, temperature=temperature, normalize=normalize, only_hard=only_hard, include_positive=below,
        draws=draws, **SIZES,
    )  # fmt: skip
    expected = literal_mochi(q, k, queue, 5, draws, temperature, normalize, only_hard, below)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


def test_a_masked_entry_is_neither_a_negative_nor_mixed():
    q, k, queue = triple()
    mask = random_mask()
    assert (~mask).sum(1).min() >= 3
    draws = draws_for(n=3)
    ours = objectives.mochi(q, k, queue, N=3, s=7, s_prime=4, draws=draws, mask=mask)
    assert ours.item() == pytest.approx(literal_mochi(q, k, queue, 3, draws, mask=mask), rel=1e-10)
    # With fewer unmasked entries than N only those are drawn.
    mask[:, 2:] = True
    mask[:, :2] = False
    h, _ = objectives.mochi_negatives(q, queue, N=5, s=50, s_prime=0, alpha_range=(1.0, 1.0), mask=mask)
    assert torch.cdist(h.flatten(0, 1), queue[:2]).amin(1).max() < 1e-7
    # With none, neither loss nor gradient.
    mask[0] = True
    leaf = q.clone().requires_grad_()
    loss = objectives.mochi(leaf, k, queue, mask=mask, **SIZES)
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad.isfinite().all()
    assert leaf.grad[0].abs().max() < 1e-12
    assert leaf.grad[1].abs().max() > 1e-3


def test_without_synthetic_negatives_it_is_moco_v2_to_the_bit():
    for args in (triple(), [t.float() for t in triple(32, 500, 16)]):
        expected = objectives.moco_v2(*args, temperature=0.13)
        assert expected.item() == pytest.approx(literal_moco(*args, 0.13), rel=1e-5)
        assert torch.equal(objectives.mochi(*args, temperature=0.13, N=3, s=0, s_prime=0), expected)
        everything = objectives.mochi(*args, temperature=0.13, N=len(args[2]), s=0, s_prime=0, only_hard=True)
        torch.testing.assert_close(everything, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sizes", [{"N": 5, "s": 9, "s_prime": 0}, {"N": 5, "s": 0, "s_prime": 9}, {"N": 11, "s": 1, "s_prime": 1}])  # fmt: skip  # noqa: E501
def test_synthetic_negatives_only_ever_raise_the_loss(sizes):
    q, k, queue = triple()
    plain = objectives.moco_v2(q, k, queue)
    for seed in range(5):
        torch.manual_seed(seed)
        assert objectives.mochi(q, k, queue, **sizes) > plain


def test_gradient_formula_and_its_stops():
    q, k, queue = triple()
    draws = draws_for()
    leaves = [t.clone().requires_grad_() for t in (q, k, queue)]
    objectives.mochi(*leaves, draws=draws, **SIZES).backward()
    assert leaves[1].grad is None
    assert leaves[2].grad is None
    synthetic = torch.tensor(literal_synthetic(q, queue, 5, draws), dtype=torch.float64)
    for i in range(6):
        keys = torch.cat([k[i : i + 1], queue, synthetic[i]])
        p = (keys @ q[i] / 0.2).softmax(0)
        torch.testing.assert_close(leaves[0].grad[i], (p @ keys - k[i]) / 0.2 / 6, rtol=0, atol=1e-10)


def test_the_synthetic_negatives_themselves():
    q, _, queue = triple()
    draws = draws_for()
    h, h_prime = objectives.mochi_negatives(q, queue, draws=draws, **SIZES)
    assert h.shape == (6, 7, 7)
    assert h_prime.shape == (6, 4, 7)
    literal = torch.tensor(literal_synthetic(q, queue, 5, draws), dtype=torch.float64)
    torch.testing.assert_close(torch.cat([h, h_prime], 1), literal, rtol=0, atol=1e-12)
    torch.testing.assert_close(h.norm(dim=2), torch.ones(6, 7, dtype=torch.float64))
    index = (q @ queue.T).topk(5).indices
    parents = [queue[index.gather(1, at)] for at in (draws.first, draws.second, draws.partner)]
    scores = [torch.einsum("bd,bmd->bm", q, x) for x in (*parents, h, h_prime)]
    positive = (scores[0] > 0) & (scores[1] > 0)
    assert positive.sum() > 10
    assert (scores[3] >= torch.minimum(scores[0], scores[1]) - 1e-12)[positive].all()
    assert (scores[4] > scores[2]).all()  # beta > 0 brings h' nearer to the query than its parent
    raw, _ = objectives.mochi_negatives(q, queue, draws=draws, normalize=False, **SIZES)
    assert (raw.norm(dim=2) <= 1 + 1e-12).all()
    assert raw.norm(dim=2).min() < 0.95


def test_ends_of_the_shares_give_the_parents_and_one_candidate_gives_copies_of_it():
    q, k, queue = triple()
    hardest = queue[(q @ queue.T).argsort(1, descending=True)]
    d = draws_for()
    rows = torch.arange(6).unsqueeze(1)
    for share, parent in ((1.0, d.first), (0.0, d.second)):
        draws = d._replace(alpha=torch.full_like(d.alpha, share), beta=torch.zeros_like(d.beta))
        h, h_prime = objectives.mochi_negatives(q, queue, draws=draws, **SIZES)
        torch.testing.assert_close(h, hardest[rows, parent], rtol=0, atol=1e-12)
        torch.testing.assert_close(h_prime, hardest[rows, d.partner], rtol=0, atol=1e-12)
    score = (q @ queue.T).amax(1)
    copies = objectives.mochi(q, k, queue, N=1, s=13, s_prime=0)
    below = (q @ queue.T / 0.2).exp().sum(1) + 13 * (score / 0.2).exp()
    above = ((q * k).sum(1) / 0.2).exp()
    assert copies.item() == pytest.approx(-(above / (above + below)).log().mean().item(), rel=1e-12)


def test_draws_are_uniform_in_their_ranges_and_repeatable():
    count = torch.tensor([4, 1, 0, 1000])
    options = {"s": 4000, "s_prime": 3000, "alpha_range": (0.2, 0.6), "beta_max": 0.5}
    d = objectives.draw_mochi(count, **options, generator=torch.Generator().manual_seed(0))
    again = objectives.draw_mochi(count, **options, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(d, again, strict=True))
    assert [tuple(x.shape) for x in d] == [(4, 4000)] * 3 + [(4, 3000)] * 2
    for ranks in (d.first, d.second, d.partner):
        assert ranks[0].bincount().tolist() == pytest.approx([ranks.shape[1] / 4] * 4, rel=0.1)
        assert ranks[1].max() == ranks[2].max() == 0
        assert ranks[3].max() > 980
        assert ranks[3].max() < 1000
    assert not torch.equal(d.first, d.second)
    assert (d.alpha.min(), d.alpha.max(), d.alpha.mean()) == pytest.approx((0.2, 0.6, 0.4), abs=0.01)
    assert (d.beta.min(), d.beta.max(), d.beta.mean()) == pytest.approx((0.0, 0.5, 0.25), abs=0.01)


def test_queries_draw_independently_and_torchs_seed_decides():
    q, k, queue = (t.float() for t in triple(2, 400, 16))
    q[1], k[1] = q[0], k[0]
    torch.manual_seed(1)
    h, _ = objectives.mochi_negatives(q, queue, N=100, s=50, s_prime=5)
    assert not torch.allclose(h[0], h[1])
    values = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        values.append(objectives.mochi(q, k, queue, N=100, s=50, s_prime=5).item())
    assert values[0] == values[1] != values[2]


def test_proxy_accuracy_counts_the_synthetic_ones():
    q, k, queue = triple(40, 30, 12)
    plain = objectives.moco_v2_terms(q, k, queue)
    draws = draws_for(40, 5, 30, 30, beta_max=0.9)
    found = objectives.mochi_terms(q, k, queue, N=5, s=30, s_prime=30, beta_max=0.9, draws=draws)
    synthetic = literal_synthetic(q, queue, 5, draws)
    wins = [
        all(dot(a, b) > dot(a, n) for n in (*queue.tolist(), *rows))
        for a, b, rows in zip(q.tolist(), k.tolist(), synthetic, strict=True)
    ]
    assert found["proxy_accuracy"].item() == pytest.approx(sum(wins) / 40)
    assert found["proxy_accuracy"] < plain["proxy_accuracy"]
    for name in ("alignment", "uniformity"):
        assert found[name].item() == pytest.approx(plain[name].item(), rel=1e-12)


def test_lengths_in_chunks_and_float32_stay_exact(monkeypatch):
    q, k, queue = triple(32, 200, 16)
    draws = draws_for(32, 50, 60, 20)
    whole = objectives.mochi(q, k, queue, N=50, s=60, s_prime=20, draws=draws).item()
    monkeypatch.setattr(importlib.import_module("selftaught.objectives.mochi"), "CHUNK", 2000)
    assert objectives.mochi(q, k, queue, N=50, s=60, s_prime=20, draws=draws).item() == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(literal_mochi(q, k, queue, 50, draws), rel=1e-10)
    single = objectives.mochi(q.float(), k.float(), queue.float(), N=50, s=60, s_prime=20, draws=draws)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(whole, abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = objectives.mochi(q.float(), k.float(), queue.float(), N=50, s=60, s_prime=20, draws=draws)
    assert torch.equal(under, single)


def test_opposite_parents_and_a_single_query_give_no_nan():
    queue = torch.cat([unit(1), -unit(1)])
    q = F.normalize(unit(1, seed=5) + unit(1), dim=1).requires_grad_()
    half = torch.full((1, 3), 0.5, dtype=torch.float64)
    draws = MochiDraws(torch.tensor([[0, 0, 1]]), torch.tensor([[1, 0, 1]]), half, torch.tensor([[0, 1, 1]]), half)
    loss = objectives.mochi(q, q.detach(), queue, N=2, s=3, s_prime=3, draws=draws)
    loss.backward()
    assert loss.isfinite()
    assert q.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"N": 12}, "N must lie in 1 to the queue's 11 entries, got 12"),
        ({"N": 0}, "N must lie in 1"),
        ({"N": 5, "s": -1}, "s and s_prime must be 0 or more"),
        ({"N": 5, "beta_max": 1.5}, "beta_max"),
        ({"N": 5, "beta_max": 0.0}, "beta_max"),
        ({"N": 5, "alpha_range": (0.5, 1.5)}, "alpha_range"),
        ({"N": 5, "temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        objectives.mochi(*triple(), **options)


def train_on_toy(mixing, seed):
    """The sheet's toy: MLP 32-128-64, head 64-64-32 with a BN without scale, Adam, queue 1024, momentum copy 0.99."""
    torch.manual_seed(seed)
    labels, view = toy(4000, 1 + seed, torch.randn(10, 8), torch.linalg.qr(torch.randn(32, 32)).Q)
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
    head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.BatchNorm1d(32, affine=False))
    net = nn.Sequential(encoder, head)
    follower = copy.deepcopy(net).requires_grad_(False)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    queue, proxy = F.normalize(torch.randn(1024, 32), dim=1), []
    for step in range(300):
        rows = torch.randint(3000, (128,))
        q, k = F.normalize(net(view(rows, 0.1)), dim=1), F.normalize(follower(view(rows, 0.1)), dim=1)
        sizes = {"N": 256, "s": 64, "s_prime": 64} if mixing and step >= 30 else {"s": 0, "s_prime": 0}
        terms = objectives.mochi_terms(q, k, queue, **sizes)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        with torch.no_grad():
            for a, b in zip(follower.parameters(), net.parameters(), strict=True):
                a.lerp_(b, 0.01)
        queue = torch.cat([queue[128:], k])
        proxy.append(terms["proxy_accuracy"].item())
    with torch.no_grad():
        h = encoder(view(torch.arange(4000), 0.0))
    return knn_accuracy(h[:3000], labels[:3000], h[3000:], labels[3000:]), sum(proxy[-50:]) / 50


@pytest.mark.slow
def test_mochi_learns_as_much_from_a_harder_task():
    accuracy, proxy = train_on_toy(mixing=True, seed=0)
    plain, plain_proxy = train_on_toy(mixing=False, seed=0)
    assert accuracy >= 0.85
    assert plain >= 0.85
    assert proxy < plain_proxy / 2
