"""Facts of the contrastive methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import cross_entropy, normalize

from selftaught import objectives
from selftaught.benchmark.facts._common import EXACT, Fact, apart, gradient, unit, views
from selftaught.engine.ema import MovingAverage


def _dcl() -> Fact:
    coupling, worst = [], 0.0
    for count in (32, 64, 128, 256):
        z1, z2 = views(count)
        q = objectives.dcl_coupling(z1, z2)
        infonce, dcl = (gradient(_first_anchor(z2, include), z1) for include in (True, False))
        worst = max(worst, apart(infonce, q[0] * dcl))
        coupling.append(q.mean().item())
    return Fact(
        "InfoNCE's gradient is DCL's times a coupling q below 1, and the smaller the batch, the smaller is q.",
        {"q, batch 32": coupling[0], "q, batch 256": coupling[-1], "InfoNCE's gradient minus q times DCL's": worst},
        worst < EXACT and coupling == sorted(coupling) and coupling[-1] < 1,
    )


def _first_anchor(other: Tensor, include: bool) -> Callable[[Tensor], Tensor]:
    return lambda z: objectives.dcl_per_anchor(z, other, symmetric=False, include_positive=include)[0, 0]


def _cacr() -> Fact:
    several = views(64, 16, number=5, noise=1.0)
    full, none = (objectives.cacr_terms(*several, choice=choice) for choice in ("full", "none"))
    limit = objectives.cacr_terms(*several, tau_pos=0.0, tau_neg=0.0)
    terms = ("attraction", "repulsion")
    pulled, pushed = ((full[name] - none[name]).item() for name in terms)
    off = max(apart(limit[name], none[name]) for name in terms)
    return Fact(
        "Weighing by distance costs far positives and near negatives more than uniform weights do, on any embedding; "
        "at both temperatures 0 the weights are the uniform ones.",
        {"attraction above uniform": pulled, "repulsion above uniform": pushed, "deviation at temperatures 0": off},
        pulled > 0 and pushed > 0 and off < EXACT,
    )


def _isogclr() -> Fact:
    crowd = normalize(unit(1, 32) + 0.6 * unit(24, 32, seed=1), dim=1)
    z = cat([crowd, unit(40, 32, seed=2)])
    state: dict[str, Tensor] = {"tau": torch.full((64,), 0.3, dtype=z.dtype)}
    for _ in range(2000):
        found = objectives.isogclr_terms(z, z, **state, gamma=0.9, beta_u=0.9, rho=0.4, eta=0.01)  # type: ignore[arg-type]
        state = {name: found[name] for name in ("tau", "s", "u")}
    same = torch.eye(64, dtype=torch.bool).repeat(1, 2)
    weights = (z @ cat([z, z]).T / state["tau"][:, None]).masked_fill(same, -math.inf).softmax(1)
    gap = (torch.special.xlogy(weights, weights * 126).sum(1) - 0.4).abs().max().item()
    crowded, alone = state["tau"][:24].mean().item(), state["tau"][24:].mean().item()
    return Fact(
        "An image's temperature settles where the weights of its negatives are rho (here 0.4) from uniform in KL: "
        "images with many look-alikes end at higher temperatures, all at the same hardness.",
        {"mean tau of 24 look-alikes": crowded, "mean tau of 40 others": alone, "largest gap of a KL to rho": gap},
        gap < 0.01 and crowded > 1.2 * alone,
    )


def _groco() -> Fact:
    scores = torch.tensor([0.1, 0.2, 0.29, 0.3], dtype=torch.float64)
    hard = -objectives.group_probability(scores, 3, steepness=1e6)[3].log().item()
    wrong = -objectives.group_probability(scores.flip(0), 3, steepness=1e3)[3].log().item()
    softmax = -(scores / 0.2).log_softmax(0)[3].item()
    return Fact(
        "Only order counts: with the positive a hundredth ahead of its hardest negative a steep network's loss is "
        "gone, while a softmax at temperature 0.2 goes on pushing; behind them the loss is large.",
        {"GroCo, steepness 1e6": hard, "softmax": softmax, "GroCo, positive last, steepness 1e3": wrong},
        hard < 1e-3 and softmax > 1 and wrong > 1,
    )


def _amcl() -> Fact:
    s = torch.tensor([0.0, 0.3, 0.6, 0.9], dtype=torch.float64)
    beta, dim = 1.0, 32
    best = 2 * (beta - s) / (beta * dim)
    slope = gradient(lambda tau: (-s / tau + beta * objectives.amcl_omega(tau, dim)).sum(), best).abs().max().item()
    return Fact(
        "The temperature at which a pair costs least falls with how well the pair agrees: 2 (beta - s) / (beta d).",
        {"tau at s = 0": best[0].item(), "tau at s = 0.9": best[-1].item(), "slope there": slope},
        slope < EXACT and bool((best.diff() < 0).all()),
    )


def _mochi() -> Fact:
    (q, k), queue = views(16), unit(256, 32, seed=9)
    draws = objectives.draw_mochi(torch.full((16,), 64), s=32, s_prime=32, generator=torch.Generator().manual_seed(0))
    options = {"N": 64, "s": 32, "s_prime": 32, "draws": draws}
    mixed = objectives.mochi_negatives(q, queue, **options)[1]  # type: ignore[arg-type]
    parents = (q @ queue.T).topk(64).values.gather(1, draws.partner)
    gain = torch.einsum("bd,bsd->bs", q, mixed) - parents
    harder = objectives.mochi(q, k, queue, **options) - objectives.moco_v2(q, k, queue)  # type: ignore[arg-type]
    return Fact(
        "A negative mixed with the query is nearer to it than the one it was made from, always; and the loss is above "
        "MoCo v2's on the same queue.",
        {"least gain in similarity": gain.min().item(), "mean gain": gain.mean().item(), "loss above": harder.item()},
        gain.min().item() > 0 and harder.item() > 0,
    )


def _moco_v2() -> Fact:
    generator, momentum = torch.Generator().manual_seed(0), 0.9
    network = nn.Linear(4000, 1, bias=False, dtype=torch.float64)
    keys = MovingAverage(network, momentum)
    (slow,) = keys.average.parameters()
    moved = []
    for _ in range(200):
        before = slow.clone()
        with torch.no_grad():
            network.weight += torch.randn(1, 4000, generator=generator, dtype=torch.float64)
        keys.update(network)
        moved.append((slow - before).square().mean())
    seen = torch.stack(moved[100:]).mean().sqrt().item()
    told = math.sqrt((1 - momentum) / (1 + momentum))
    return Fact(
        "Under random steps of length 1 the momentum network makes steps of length sqrt((1 - m)/(1 + m)): the keys of "
        "a queue were made by networks that differ by that much less from one batch to the next; without momentum (m = "
        "0) it is 1.",
        {"length seen, m = 0.9": seen, "sqrt((1 - m)/(1 + m))": told},
        abs(seen / told - 1) < 0.02,
    )


def _moco_v3() -> Fact:
    z1, z2 = views(64)
    t, rows = 0.2, torch.arange(64)
    value = apart(objectives.moco_v3(z1, z2, z1, z2, temperature=t), 2 * t * _both_ways(z1, z2, t))
    whole = gradient(lambda z: 2 * t * _both_ways(z, z2, t), z1)
    query = gradient(lambda z: objectives.moco_v3(z, z2, z1, z2, temperature=t), z1)
    key = gradient(lambda z: 2 * t * cross_entropy(z2 @ z.T / t, rows), z1)
    inside = (query * z1).sum(1).abs().max().item()
    flat = _across(whole, z1) - _across(key, z1)
    return Fact(
        "With the keys of the views themselves its value is InfoNCE's between the two views, and its gradient "
        "InfoNCE's less what comes through the keys: a view is moved only as a query, never as another's negative.",
        {"deviation of the value": value}
        | {"deviation of the gradient": apart(query, flat), "gradient along the embedding": inside},
        apart(query, flat) < EXACT and inside < EXACT,
    )


def _both_ways(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """InfoNCE between two views, the sum of both directions."""
    logits, rows = z1 @ z2.T / temperature, torch.arange(len(z1))
    return cross_entropy(logits, rows) + cross_entropy(logits.T, rows)


def _across(slope: Tensor, z: Tensor) -> Tensor:
    """The part of a gradient that is orthogonal to the embeddings of length 1."""
    return slope - (slope * z).sum(1, keepdim=True) * z


def _lvm_med() -> Fact:
    draws, hits = 20, {"exhaustive": 0.0, "assignment": 0.0}
    for seed in range(draws):
        z = unit(6, 8, seed=seed)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        copy = z[order.argsort()]
        graphs = [objectives.knn_edges(part, 3) for part in (z, copy)]
        edges = objectives.edge_affinity(z, copy, *graphs)
        for solver in hits:
            found = objectives.match_graphs(torch.zeros(6, 6, dtype=z.dtype), edges, *graphs, solver=solver)
            hits[solver] += (found == order).double().mean().item() / draws
    return Fact(
        "From relations alone, without any likeness of the images, second-order matching recovers a relabelled copy of "
        "a graph in every draw; first-order matching has nothing to go by.",
        {"right, second order": hits["exhaustive"], "right, first order": hits["assignment"], "draws": float(draws)},
        hits["exhaustive"] > 1 - EXACT and hits["assignment"] < 0.5,
    )


def _nnclr() -> Fact:
    z1, z2 = views(64)
    neighbours = [objectives.nearest(z, cat([z1, z2]))[0] for z in (z1, z2)]
    own = apart(objectives.nnclr(z1, z2, *neighbours, temperature=0.1), _both_ways(z1, z2, 0.1) / 2)
    bank = unit(4096, 32, seed=9)
    gap, small = (1 - (z1 * objectives.nearest(z1, part)[0]).sum(1).mean().item() for part in (bank, bank[:64]))
    return Fact(
        "Where the view itself lies in the support set, NNCLR is InfoNCE; a larger support set has nearer neighbours.",
        {"deviation from InfoNCE": own, "distance to the neighbour of 64": small, "of 4,096": gap},
        own < EXACT and gap < small,
    )


FACTS: dict[str, Callable[[], Fact]] = {
    "dcl": _dcl,
    "cacr": _cacr,
    "isogclr": _isogclr,
    "groco": _groco,
    "amcl": _amcl,
    "mochi": _mochi,
    "moco-v2": _moco_v2,
    "moco-v3": _moco_v3,
    "lvm-med": _lvm_med,
    "nnclr": _nnclr,
}
