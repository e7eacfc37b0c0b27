"""Facts of the methods without negatives, of those with labels, and of other jobs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from selftaught import objectives
from selftaught.benchmark.facts._common import EXACT, Fact, apart, gradient, unit, views


def _mixed_barlow() -> Fact:
    generator = torch.Generator().manual_seed(0)
    x1, x2 = (3 * x for x in views(256, 16))
    other, alpha = torch.randperm(256, generator=generator), 0.4
    linear = torch.randn(16, 24, generator=generator, dtype=torch.float64)
    found = {}
    for name, network in (("linear", lambda x: x @ linear), ("with ReLU", lambda x: (x @ linear).relu())):
        z = [network(x) for x in (x1, x2, alpha * x1 + (1 - alpha) * x2[other])]
        gap = z[2] - (alpha * z[0] + (1 - alpha) * z[1][other])
        found[name] = gap.abs().max().item()
    return Fact(
        "What the regularisation asks for, that the embedding of a mixture be the mixture of the embeddings, holds of "
        "every linear network and fails with the first ReLU.",
        {"gap, linear": found["linear"], "gap, with ReLU": found["with ReLU"]},
        found["linear"] < EXACT < 1e-2 < found["with ReLU"],
    )


def _ressl() -> Fact:
    q, queue = unit(32, 16), unit(256, 16, seed=9)
    slope = gradient(lambda z: objectives.ressl(z, q, queue, temperature_q=0.1, temperature_k=0.1), q)
    sharp = objectives.ressl(q, q, queue, temperature_k=1e-4)
    nearest = cross_entropy(q @ queue.T / 0.1, (q @ queue.T).argmax(1))
    return Fact(
        "The gradient is gone exactly where a view has its teacher's relations; with a teacher of temperature 0 the "
        "loss is InfoNCE with the nearest entry of the queue as the positive.",
        {"largest slope at equal relations": slope.abs().max().item(), "deviation at 0": apart(sharp, nearest)},
        slope.abs().max().item() < EXACT and apart(sharp, nearest) < 1e-3,
    )


def _seer() -> Fact:
    scores = unit(512, 16) @ unit(8, 16, seed=1).T
    masses, moved = {}, {}
    shift = torch.linspace(0, 1, 8, dtype=torch.float64)
    for name, power in (("equal", 0.0), ("power law", 0.5)):
        codes = [objectives.sinkhorn(s, eps=0.2, iters=500, power_law=power) for s in (scores, scores + shift)]
        wanted = torch.arange(1, 9, dtype=torch.float64) ** -power
        masses[name] = apart(codes[0].mean(0), wanted / wanted.sum())
        moved[name] = apart(codes[0], codes[1])
    return Fact(
        "Sinkhorn gives every prototype the share that the prior says, to the last digit, and what is added to all "
        "scores of a prototype changes nothing: the sizes of clusters are the prior's alone, not the data's.",
        {"share against 1/K": masses["equal"], "share against the power law": masses["power law"]}
        | {"change by a constant per prototype": max(moved.values())},
        max(*masses.values(), *moved.values()) < 1e-6,
    )


def _supcon() -> Fact:
    z1, z2 = views(64)
    alone = objectives.supcon(z1, z2, labels=torch.arange(64), temperature=0.2)
    same = apart(alone, objectives.simclr(z1, z2, temperature=0.2))
    simplex = torch.eye(8, dtype=torch.float64) - 1 / 8
    labels = torch.arange(64) % 8
    slope = gradient(lambda z: objectives.supcon(z, z, labels=labels, temperature=0.2), simplex[labels])
    return Fact(
        "With a class for every image it is SimCLR's loss; with classes it comes to rest where each class is one point "
        "and the points are equally far apart, as cross-entropy does.",
        {"deviation from SimCLR": same, "largest slope there": slope.abs().max().item()},
        same < EXACT and slope.abs().max().item() < EXACT,
    )


def _sla() -> Fact:
    classes, copies = 10, 4
    labels = torch.arange(32) % classes
    u, v = (5 * unit(32 * copies, width, seed=width) for width in (classes, copies))
    joint = (u[:, :, None] + torch.zeros(copies, dtype=u.dtype)).flatten(1)
    added = (u[:, :, None] + v[:, None, :]).flatten(1)
    da = apart(objectives.sla(joint, labels), objectives.sla_da(u, labels) + math.log(copies))
    mt = apart(objectives.sla(added, labels), objectives.sla_mt(u, v, labels))
    return Fact(
        "Augmentation and multi-task learning are joint labels in chains: with joint logits that don't depend on the "
        "transformation the loss is augmentation's plus log M, with a sum of two parts it is that of multi-task "
        "learning.",
        {"deviation from augmentation + log M": da, "deviation from multi-task": mt},
        max(da, mt) < EXACT,
    )


def _core_tuning() -> Fact:
    easy, hard = (_pull(apart_by, True) / _pull(apart_by, False) for apart_by in (0.2, 1.4))
    z, labels = unit(32, 16), torch.arange(32) % 4
    plain = objectives.focal_contrast(z, labels, focal=False, normalisation="per-positive", tau=0.1)
    off = apart(plain, objectives.supcon(z, labels=labels, temperature=0.1))
    return Fact(
        "Without focal weights the contrast is SupCon's; with them a pair that is near already loses nearly all of its "
        "pull, and one that is far apart keeps the more of it.",
        {"deviation from SupCon": off, "pull kept, near pair": easy, "pull kept, far pair": hard},
        off < EXACT and easy < 0.1 and hard > 4 * easy,
    )


def _pull(angle: float, focal: bool) -> float:
    """How strongly two of one class, an angle apart on the circle, are drawn together; other classes lie opposite."""

    def loss(turn: Tensor) -> Tensor:
        angles = torch.cat([turn, -turn, torch.tensor([3.0, -3.0], dtype=turn.dtype)])
        rows = torch.stack([angles.cos(), angles.sin()], 1)
        return objectives.focal_contrast(rows, torch.tensor([0, 0, 1, 2]), focal=focal, tau=0.5)

    return gradient(loss, torch.tensor([angle / 2], dtype=torch.float64)).abs().item()


def _frame_projections() -> Fact:
    z = unit(32, 16)
    three, one = objectives.frame_projections(z, z, z), objectives.simclr(z, z, temperature=0.15)
    signal = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bins = torch.fft.rfft(signal, norm="ortho").abs().square()
    energy = bins[0] + 2 * bins[1:-1].sum() + bins[-1]
    parseval = apart(energy, signal.square().sum())
    return Fact(
        "The frames lose nothing of a signal (Parseval), and where the three views' embeddings agree the loss is three "
        "times SimCLR's: the frames teach by what they see differently.",
        {"deviation of the energy": parseval, "deviation from three times SimCLR": apart(three, 3 * one)},
        parseval < EXACT and apart(three, 3 * one) < EXACT,
    )


def _projection_head() -> Fact:
    head = nn.Linear(16, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2, 16, dtype=torch.float64))
    h = unit(64, 16)
    kept = gradient(lambda x: objectives.simclr(head(x), head(x.flip(0)), temperature=0.5), h)
    return Fact(
        "What a head drops gets no gradient: behind a head onto 2 of 16 features the other 14 are not touched by the "
        "loss, and stay in the features before it.",
        {"gradient on the kept": kept[:, :2].abs().max().item(), "on the dropped": kept[:, 2:].abs().max().item()},
        kept[:, :2].abs().max().item() > 1e-6 and kept[:, 2:].abs().max().item() == 0,
    )


FACTS: dict[str, Callable[[], Fact]] = {
    "mixed-barlow-twins": _mixed_barlow,
    "ressl": _ressl,
    "seer": _seer,
    "supcon": _supcon,
    "sla": _sla,
    "core-tuning": _core_tuning,
    "frame-projections": _frame_projections,
    "projection-head": _projection_head,
}
