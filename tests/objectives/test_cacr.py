"""CACR against its formulas by loops, its limits (uniform weights, hardest pair, MoCo v3), its gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import _blocks


def unit(rows, width=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)


def some_views(count, rows=7, width=6):
    base = unit(rows, width)
    return [F.normalize(base + 0.6 * unit(rows, width, 10 + k), dim=1) for k in range(count)]


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def softmax(values):
    top = max(values)
    raised = [math.exp(v - top) for v in values]
    return [r / sum(raised) for r in raised]


def weighted(costs, logits, uniform):
    weights = [1 / len(costs)] * len(costs) if uniform else softmax(logits)
    return sum(w * c for w, c in zip(weights, costs, strict=True))


def literal_attraction(queries, keys, tau_pos, alpha, choice):
    views, rows = len(queries), len(queries[0])
    total = 0.0
    for v in range(views):
        for i in range(rows):
            found = [distance(queries[v][i], keys[u][i]) for u in range(views) if u != v]
            total += weighted(
                [alpha * d for d in found], [tau_pos * d for d in found], choice in ("without_w1", "none")
            )
    return total / views / rows


def literal_repulsion(z, tau_neg, beta, choice, cost="euclidean", t=2.0, tau_plus=0.0, symmetric=False):
    views, rows = len(z), len(z[0])
    pairs = [(v, u) for v in range(views) for u in range(views) if v < u or (symmetric and v != u)]
    total = 0.0
    for v, u in pairs:
        values = []
        for i in range(rows):
            found = [distance(z[v][i], z[u][j]) for j in range(rows) if j != i]
            costs = [math.exp(-t * d) if cost == "rbf" else -beta * d for d in found]
            r = weighted(costs, [-tau_neg * d for d in found], choice in ("without_w2", "none"))
            values.append((-tau_plus * distance(z[v][i], z[u][i]) + r) / (1 - tau_plus))
        mean = sum(values) / rows
        total += beta * math.log(mean) if cost == "rbf" else mean
    return total / len(pairs)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("choice", ["full", "without_w1", "without_w2", "none"])
@pytest.mark.parametrize("options", [
    {}, {"cost": "rbf"}, {"cost": "rbf", "t": 3.0}, {"tau_plus": 0.1}, {"symmetric": True},
])  # fmt: skip
def test_cacr_equals_its_formula(count, choice, options):
    views = some_views(count)
    z = [v.tolist() for v in views]
    for tau_pos, tau_neg, alpha, beta in ((1.0, 0.9, 1.0, 1.0), (1.7, 2.0, 0.5, 3.0)):
        terms = objectives.cacr_terms(
            *views, tau_pos=tau_pos, tau_neg=tau_neg, alpha=alpha, beta=beta, choice=choice, **options
        )
        attraction = literal_attraction(z, z, tau_pos, alpha, choice)
        repulsion = literal_repulsion(z, tau_neg, beta, choice, **options)
        assert terms["attraction"].item() == pytest.approx(attraction, abs=1e-10)
        assert terms["repulsion"].item() == pytest.approx(repulsion, abs=1e-10)
        assert terms["loss"].item() == pytest.approx(attraction + repulsion, abs=1e-10)


def test_defaults_are_those_of_the_large_experiments_and_the_scalar_form_is_the_total():
    views = some_views(3)
    named = {"tau_pos": 1.0, "tau_neg": 2.0, "alpha": 1.0, "beta": 1.0, "choice": "full", "cost": "euclidean"}
    assert torch.equal(objectives.cacr(*views), objectives.cacr_terms(*views, **named)["loss"])


def test_no_temperature_is_no_weighting_and_a_large_one_takes_the_hardest():
    views = some_views(3)
    plain = objectives.cacr(*views, choice="none", alpha=2.0, beta=0.5)
    assert objectives.cacr(*views, tau_pos=0.0, tau_neg=0.0, alpha=2.0, beta=0.5).item() == pytest.approx(plain.item())
    hardest = objectives.cacr_terms(*views, tau_pos=1e5, tau_neg=1e5)
    z = torch.stack(views)
    gaps = (z.unsqueeze(1) - z).square().sum(-1)
    assert hardest["attraction"].item() == pytest.approx(gaps.amax(1).mean().item(), abs=1e-6)
    nearest = []
    for v, u in ((0, 1), (0, 2), (1, 2)):
        between = torch.cdist(z[v], z[u]).square().fill_diagonal_(math.inf)
        nearest.append(between.amin(1).mean())
    assert hardest["repulsion"].item() == pytest.approx(-torch.stack(nearest).mean().item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_weights_only_ever_raise_both_costs(seed):
    views = [unit(8, 5, 100 * seed + k) for k in range(4)]
    full, flat = (objectives.cacr_terms(*views, choice=c) for c in ("full", "none"))
    assert full["attraction"] > flat["attraction"]
    assert full["repulsion"] > flat["repulsion"]


def test_uniform_rbf_is_alignment_and_uniformity():
    z1, z2 = some_views(2)
    align = (z1 - z2).square().sum(1).mean()
    off = ~torch.eye(7, dtype=torch.bool)
    uniformity = (-2 * torch.cdist(z1, z2).square()[off]).exp().mean().log()
    ours = objectives.cacr(z1, z2, choice="none", cost="rbf", alpha=1.0, beta=0.7)
    assert ours.item() == pytest.approx((align + 0.7 * uniformity).item(), abs=1e-10)


def test_gradient_with_detached_weights_is_the_sheets_and_attached_differs():
    views = [v.requires_grad_() for v in some_views(4)]
    objectives.cacr(*views, detach_weights=True, beta=0.0, alpha=1.5).backward()
    z = torch.stack(views).detach()
    for v in range(4):
        expected = torch.zeros_like(z[v])
        for i in range(7):
            others = [u for u in range(4) if u != v]
            for u in others:
                here = softmax([distance(z[v, i], z[w, i]).item() for w in others])[others.index(u)]
                back = [w for w in range(4) if w != u]
                there = softmax([distance(z[u, i], z[w, i]).item() for w in back])[back.index(v)]
                expected[i] += 2 * 1.5 * (here + there) * (z[v, i] - z[u, i]) / (4 * 7)
        torch.testing.assert_close(views[v].grad, expected, rtol=0, atol=1e-12)
    attached = [v.detach().clone().requires_grad_() for v in views]
    objectives.cacr(*attached, beta=0.0, alpha=1.5).backward()
    assert (attached[0].grad - views[0].grad).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"cost": "rbf"}, {"tau_plus": 0.1, "symmetric": True}])
def test_gradient_by_finite_differences(options):
    views = [v.requires_grad_() for v in some_views(3, rows=4, width=3)]
    assert torch.autograd.gradcheck(lambda *z: objectives.cacr(*z, **options), views)


def test_invariances():
    views = some_views(3)
    reference = objectives.cacr(*views).item()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))).Q
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    assert objectives.cacr(*[v @ rotation for v in views]).item() == pytest.approx(reference, abs=1e-10)
    assert objectives.cacr(*[v[order] for v in views]).item() == pytest.approx(reference, abs=1e-12)
    assert abs(objectives.cacr(*views[::-1]).item() - reference) > 1e-6  # v < u: the order of the views matters
    both = objectives.cacr(*views, symmetric=True).item()
    assert objectives.cacr(*views[::-1], symmetric=True).item() == pytest.approx(both, abs=1e-12)


def test_degenerate_batches():
    same = unit(1).repeat(5, 1).requires_grad_()
    loss = objectives.cacr(same, same.detach())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert same.grad.isfinite().all()  # a norm would have no derivative at distance zero
    z1, z2 = some_views(2, rows=2)
    alone = -(torch.cdist(z1, z2).square()[0, 1] + torch.cdist(z1, z2).square()[1, 0]) / 2
    assert objectives.cacr_terms(z1, z2)["repulsion"].item() == pytest.approx(alone.item(), abs=1e-12)
    with pytest.raises(UserError, match="negatives"):
        objectives.cacr(*some_views(2, rows=1))


def test_wrong_input_is_refused_in_one_line():
    z1, z2 = some_views(2)
    for options, said in (
        ({"choice": "both"}, "without_w1"), ({"cost": "l1"}, "euclidean, rbf"), ({"tau_neg": -1.0}, "tau_neg"),
        ({"tau_plus": 1.0}, "tau_plus"), ({"tau_plus": 0.1, "cost": "rbf"}, "euclidean only"), ({"t": 0.0}, "t must"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            objectives.cacr(z1, z2, **options)
    with pytest.raises(UserError, match="shape"):
        objectives.cacr(z1, z2[:3])


@pytest.mark.parametrize("name", ["cacr", "supervised", "queue", "momentum"])
def test_half_precision_and_autocast_compute_in_float32(name):
    function = {
        "cacr": objectives.cacr,
        "supervised": lambda a, b: objectives.cacr_supervised(a, b, labels=torch.arange(7) % 2),
        "queue": lambda a, b: objectives.cacr_queue([a, b], [b, a], unit(9, seed=5).float()),
        "momentum": lambda a, b: objectives.cacr_momentum([a], b),
    }[name]
    z1, z2 = (v.float() for v in some_views(2))
    expected = function(z1, z2)
    h1 = z1.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = function(z1, z2), function(h1, z2)
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    torch.testing.assert_close(half, function(h1.float(), z2))
    half.backward()
    assert h1.grad.dtype == torch.bfloat16


def test_blocks_of_rows_change_neither_value_nor_gradient(monkeypatch):
    def run():
        views = [v.clone().requires_grad_() for v in some_views(3, rows=11)]
        loss = objectives.cacr(*views) + objectives.cacr_queue(views, views, unit(13, seed=5))
        loss = loss + objectives.cacr_momentum(views, views[0], cost="euclidean")
        loss.backward()
        return [loss.detach(), *[v.grad for v in views]]

    whole = run()
    monkeypatch.setattr(_blocks, "ENTRIES", 40)
    for a, b in zip(whole, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def literal_supervised(views, labels, tau_pos, tau_neg, alpha, beta, choice):
    z = [row for v in views for row in v.tolist()]
    y = labels.tolist() * len(views)
    total = 0.0
    for a in range(len(z)):
        pos = [distance(z[a], z[b]) for b in range(len(z)) if b != a and y[b] == y[a]]
        neg = [distance(z[a], z[b]) for b in range(len(z)) if y[b] != y[a]]
        total += weighted([alpha * d for d in pos], [tau_pos * d for d in pos], choice in ("without_w1", "none"))
        if neg:
            total -= weighted([beta * d for d in neg], [-tau_neg * d for d in neg], choice in ("without_w2", "none"))
    return total / len(z)


@pytest.mark.parametrize("choice", ["full", "without_w1", "without_w2", "none"])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 0, 0], [3] * 7, list(range(7))])
def test_supervised_form_equals_its_formula(choice, labels):
    views, y = some_views(3), torch.tensor(labels)
    ours = objectives.cacr_supervised(*views, labels=y, tau_pos=1.3, tau_neg=0.7, alpha=0.5, beta=2.0, choice=choice)
    assert ours.item() == pytest.approx(literal_supervised(views, y, 1.3, 0.7, 0.5, 2.0, choice), abs=1e-10)


def test_supervised_with_a_class_per_sample_attracts_as_cacr_does():
    views = some_views(4)
    ours = objectives.cacr_supervised(*views, labels=torch.arange(7), beta=0.0, tau_pos=1.4)
    assert ours.item() == pytest.approx(objectives.cacr_terms(*views, tau_pos=1.4)["attraction"].item(), abs=1e-12)
    with pytest.raises(UserError, match="labels"):
        objectives.cacr_supervised(*views, labels=torch.arange(6))


@pytest.mark.parametrize("intra_batch", [True, False])
@pytest.mark.parametrize("choice", ["full", "without_w1", "without_w2", "none"])
def test_queue_form_equals_its_formula(intra_batch, choice):
    q, k, queue = some_views(3), [unit(7, seed=50 + v) for v in range(3)], unit(11, seed=9)
    ours = objectives.cacr_queue(
        q, k, queue, tau_pos=1.2, tau_neg=1.5, alpha=2.0, beta=3.0, choice=choice, intra_batch=intra_batch
    )
    total = 0.0
    for view in q:
        for i in range(7):
            found = [distance(view[i], n).item() for n in queue]
            found += [distance(view[i], view[j]).item() for j in range(7) if j != i] if intra_batch else []
            total -= weighted([3.0 * d for d in found], [-1.5 * d for d in found], choice in ("without_w2", "none"))
    expected = literal_attraction([v.tolist() for v in q], [v.tolist() for v in k], 1.2, 2.0, choice) + total / 21
    assert ours.item() == pytest.approx(expected, abs=1e-10)


def test_queue_form_detaches_what_the_paper_detaches():
    q, queue = some_views(2), unit(11, seed=9).requires_grad_()
    k = [unit(7, seed=50 + v).requires_grad_() for v in range(2)]
    mine = [v.clone().requires_grad_() for v in q]
    objectives.cacr_queue(mine, k, queue, tau_neg=1.5).backward()
    assert queue.grad is None
    assert k[0].grad is None
    theirs = [v.clone().requires_grad_() for v in q]
    loss, off = 0, ~torch.eye(7, dtype=torch.bool)
    for v, view in enumerate(theirs):
        loss = loss + (view - k[1 - v].detach()).square().sum(1).mean() / 2
        far = 2 - 2 * view @ queue.detach().T
        near = (view.unsqueeze(1) - view).square().sum(2)[off].view(7, 6)
        weights = torch.cat([-1.5 * far.detach(), -1.5 * near], 1).softmax(1)
        loss = loss - (weights * torch.cat([far, near], 1)).sum(1).mean() / 2
    loss.backward()
    for a, b in zip(mine, theirs, strict=True):
        # along a unit vector itself ||a-b||^2 and 2-2ab differ
        ours, expected = ((x.grad - (x.grad * x).sum(1, keepdim=True) * x).detach() for x in (a, b))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    with pytest.raises(UserError, match="two or more views"):
        objectives.cacr_queue(q[:1], k[:1], queue)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_momentum_form_with_one_query_is_moco_v3(temperature):
    z1, z2 = some_views(2)
    expected = 2 * temperature * F.cross_entropy(z1 @ z2.T / temperature, torch.arange(7))
    ours = objectives.cacr_momentum([z1], z2, temperature=temperature)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-10)


@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
def test_momentum_form_equals_its_formula(cost):
    *queries, key = some_views(4)
    temperature, rows = 0.4, 7
    dots = [(q @ key.T).tolist() for q in queries]
    total = 0.0
    for i in range(rows):
        p = softmax([(2 - 2 * d[i][i]) / temperature for d in dots])
        for weight, d in zip(p, dots, strict=True):
            if cost == "rbf":
                below = math.log(sum(math.exp(s / temperature) for s in d[i]))
                total += weight * 2 * temperature * (below - d[i][i] / temperature)
            else:
                gaps = [1 - d[i][j] for j in range(rows) if j != i]
                w = softmax([-g / temperature for g in gaps])
                total += weight * (1 - d[i][i] - sum(a * b for a, b in zip(w, gaps, strict=True)))
    summed = objectives.cacr_momentum(queries, key, temperature=temperature, cost=cost, reduction="sum")
    assert summed.item() == pytest.approx(total, abs=1e-9)
    averaged = objectives.cacr_momentum(queries, key, temperature=temperature, cost=cost, reduction="mean")
    assert averaged.item() == pytest.approx(total / rows, abs=1e-10)
    shipped = objectives.cacr_momentum(queries, key, temperature=temperature, cost=cost)
    assert torch.equal(shipped, averaged if cost == "rbf" else summed)


@pytest.mark.parametrize("cost", ["rbf", "euclidean"])
def test_momentum_form_takes_all_weights_and_the_key_as_constants(cost):
    *queries, key = some_views(3)
    mine = [q.clone().requires_grad_() for q in queries]
    key.requires_grad_()
    objectives.cacr_momentum(mine, key, temperature=0.5, cost=cost, reduction="sum").backward()
    assert key.grad is None
    k = key.detach()
    p = torch.stack([(q - k).square().sum(1) / 0.5 for q in queries]).softmax(0)
    for m, q in enumerate(queries):
        logits = q @ k.T / 0.5
        if cost == "rbf":
            expected = 2 * p[m].unsqueeze(1) * (logits.softmax(1) @ k - k)
        else:
            w = logits.masked_fill(torch.eye(7, dtype=torch.bool), -math.inf).softmax(1)
            expected = p[m].unsqueeze(1) * (w @ k - k)
        torch.testing.assert_close(mine[m].grad, expected, rtol=0, atol=1e-10)
    for wrong, said in (({"cost": "l2"}, "cost"), ({"reduction": "max"}, "reduction"), ({"temperature": 0}, "above")):
        with pytest.raises(UserError, match=said):
            objectives.cacr_momentum(queries, k, **wrong)
    with pytest.raises(UserError, match="no query"):
        objectives.cacr_momentum([], k)


def toy(count, g, prototypes, rotation):
    """Ten prototypes in 8 dimensions beside 24 of nuisance (deviation 3), rotated: labels and a renderer of views."""
    labels = torch.randint(10, (count,), generator=g)
    signal = prototypes[labels] + 0.35 * torch.randn(count, 8, generator=g)

    def view(rows, noise):
        kept = signal[rows] + noise * torch.randn(len(rows), 8, generator=g)
        return torch.cat([kept, 3 * torch.randn(len(rows), 24, generator=g)], 1) @ rotation

    return labels, view


def knn_accuracy(h, labels, split, k=20):
    z = F.normalize(h, dim=1)
    nearest = (z[split:] @ z[:split].T).topk(k).indices
    votes = F.one_hot(labels[:split][nearest], 10).sum(1).argmax(1)
    return (votes == labels[split:]).float().mean().item()


@pytest.mark.slow
def test_both_weightings_learn_what_uniform_weights_do_not():
    gains, accuracies = [], []
    for seed in (0, 1):
        found = {}
        for choice in ("full", "none"):
            torch.manual_seed(seed)
            g = torch.Generator().manual_seed(seed)
            rotation = torch.linalg.qr(torch.randn(32, 32)).Q
            labels, view = toy(3000, g, torch.randn(10, 8), rotation)
            encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
            last = [nn.Linear(64, 32), nn.BatchNorm1d(32, affine=False)]
            head = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), *last)
            optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 2e-3)
            for _ in range(300):
                rows = torch.randint(2000, (128,), generator=g)
                z1, z2 = (F.normalize(head(encoder(view(rows, 0.1))), dim=1) for _ in range(2))
                optimiser.zero_grad()
                objectives.cacr(z1, z2, tau_pos=1.0, tau_neg=2.0, choice=choice).backward()
                optimiser.step()
            with torch.no_grad():
                found[choice] = knn_accuracy(encoder(view(torch.arange(3000), 0.0)), labels, 2000)
        gains.append(found["full"] - found["none"])
        accuracies.append(found["full"])
    assert sum(accuracies) / 2 >= 0.90
    assert sum(gains) / 2 >= 0.05
