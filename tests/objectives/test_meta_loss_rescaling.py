"""STORM's features against loops in float64 and the standard library's overlap; weights, AGRA, the unrolled steps."""

from __future__ import annotations

import contextlib
import math
from statistics import NormalDist, mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from selftaught import networks, objectives
from selftaught.engine import unrolled
from selftaught.engine.linear_gradients import linear_in_the_loss
from selftaught.engine.unrolled import adam_step, known_gradients, lookahead, sgd_step
from selftaught.errors import UserError
from selftaught.objectives.meta_loss_rescaling import FEATURES


def passes(seed: int, count: int = 3, rows: int = 7, classes: int = 3):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, rows, classes, generator=g, dtype=torch.float64)
    labels = torch.randint(0, classes, (rows,), generator=g)
    losses = cross_entropy(logits.flatten(0, 1), labels.repeat(count), reduction="none").view(count, rows)
    return losses, logits.softmax(2), labels


def literal(losses, probabilities, labels, categories=True, separate=True) -> np.ndarray:
    """The sheet's features, sample by sample."""
    count, rows = losses.shape
    of = {"m": [], "s": [], "a": [], "b": []}
    agree = []
    for i in range(rows):
        loss, top = losses[:, i].tolist(), [max(p.tolist()) for p in probabilities[:, i]]
        of["m"].append(mean(loss))
        of["s"].append(stdev(loss) if count > 1 else 0.0)
        of["a"].append(mean(top))
        of["b"].append(stdev(top) if count > 1 else 0.0)
        right = [int(p.argmax()) == int(labels[i]) for p in probabilities[:, i]]
        half = sum(right) * 2 == count
        agree.append(right[0] if half else sum(right) * 2 > count)
    table = []
    for i in range(rows):
        members = [
            k for k in range(rows)
            if (not categories or agree[k] == agree[i]) and (not separate or labels[k] == labels[i])
        ]  # fmt: skip

        def both(values, members=members):
            chosen = [values[k] for k in members]
            return mean(chosen), stdev(chosen) if len(chosen) > 1 else 1e-8

        row = []
        for key in "msab":
            row += [of[key][i], *both(of[key])]
        mu, sg = both(of["m"])[0], both(of["s"])[0]
        kl, ovl = {}, {}
        for k in members:
            m, s = of["m"][k], of["s"][k]
            kl[k] = 0.0 if s == 0 or sg == 0 else math.log(sg / s) + (s * s + (m - mu) ** 2) / (2 * sg * sg) - 0.5
            ovl[k] = NormalDist(m, max(s, 1e-8)).overlap(NormalDist(mu, max(sg, 1e-8)))
        for values in (kl, ovl):
            row += [values[i], *both(values)]
        table.append([*row, float(agree[i])])
    return np.array(table)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(("categories", "separate"), [(True, True), (False, True), (True, False), (False, False)])
def test_the_features_are_the_sheets(count: int, categories: bool, separate: bool) -> None:
    given = passes(count, count, 9)
    found = objectives.storm_features(*given, categories=categories, class_separation=separate)
    expected = literal(*given, categories=categories, separate=separate)
    assert found.shape == (9, 19) == (9, len(FEATURES))
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=2e-6)
    assert not found.requires_grad


def test_smaller_sets_of_features_are_parts_of_the_whole() -> None:
    losses, probabilities, labels = passes(5)
    losses.requires_grad_()
    whole = objectives.storm_features(losses, probabilities, labels)
    without = objectives.storm_features(losses, probabilities, labels, agreement=False)
    loss = objectives.storm_features(losses, probabilities, labels, feature_set="loss")
    assert torch.equal(without, whole[:, :18])
    assert torch.equal(loss, whole[:, [0, 18]])
    assert [objectives.feature_count(s, agreement=a) for s in ("default", "loss") for a in (True, False)] == [
        19,
        18,
        2,
        1,
    ]
    assert not whole.requires_grad


def test_a_window_of_batches_is_one_larger_group() -> None:
    losses, probabilities, labels = passes(2, rows=12)
    first = objectives.dropout_statistics(losses[:, 8:], probabilities[:, 8:], labels[8:])
    found = objectives.storm_features(losses[:, :8], probabilities[:, :8], labels[:8], earlier=[first])
    whole = objectives.storm_features(losses, probabilities, labels)
    torch.testing.assert_close(found, whole[:8])
    alone = objectives.storm_features(losses[:, :8], probabilities[:, :8], labels[:8])
    assert not torch.allclose(found, alone)


@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-12, 1 + 1e-6, 1.001, 3.0, 1e4])
def test_the_overlap_is_that_of_two_normal_densities(ratio: float) -> None:
    for distance in (0.0, 1e-3, 0.7, 4.0):
        t = [torch.tensor([x], dtype=torch.float64) for x in (0.3, 0.5, 0.3 + distance, 0.5 * ratio)]
        found = objectives.overlap_coefficient(*t).item()
        near = ratio if abs(ratio - 1) > 1e-9 else 1.0  # the library's own formula loses its digits there
        expected = NormalDist(0.3, 0.5).overlap(NormalDist(0.3 + distance, 0.5 * near))
        assert found == pytest.approx(expected, abs=1e-6)
        assert found == pytest.approx(objectives.overlap_coefficient(t[2], t[3], t[0], t[1]).item(), abs=1e-9)


def test_the_divergence_is_zero_at_home_and_where_a_deviation_is() -> None:
    one, zero = torch.tensor([1.0, 2.0]), torch.zeros(2)
    assert objectives.normal_kl(one, one, one, one).abs().max() < 1e-12
    assert torch.equal(objectives.normal_kl(one, zero, one, one), zero.double())
    assert torch.equal(objectives.normal_kl(one, one, one, zero), zero.double())


def test_a_tie_is_decided_by_the_first_pass() -> None:
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    p = torch.tensor([[right, wrong, right, wrong], [wrong, right, right, wrong]])
    assert objectives.majority_agreement(p, torch.zeros(4, dtype=torch.int64)).tolist() == [True, False, True, False]


def test_binary_weights_let_the_cut_gradient_through() -> None:
    w = torch.tensor([0.2, 0.5, 0.7], requires_grad=True)
    found = objectives.binary_weights(w)
    (found * torch.tensor([3.0, -0.5, -4.0])).sum().backward()
    assert found.tolist() == [0, 0, 1]
    assert w.grad.tolist() == [1.0, -0.5, -1.0]


def test_agra_compares_the_gradients_of_the_last_layer() -> None:
    torch.manual_seed(0)
    layer, x, y = torch.nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 2, 1, 1, 0])
    found = objectives.linear_gradients(x, layer(x), y)
    rows = []
    for i in range(5):
        weight, bias = torch.autograd.grad(cross_entropy(layer(x[i : i + 1]), y[i : i + 1]), layer.parameters())
        rows.append(torch.cat([weight, bias[:, None]], 1).flatten())
    torch.testing.assert_close(found, torch.stack(rows))
    mean_gradient = found[:2].mean(0)
    cosine = [float(g @ mean_gradient / g.norm() / mean_gradient.norm()) for g in found]
    np.testing.assert_allclose(objectives.agra_similarity(found, found[:2]).detach(), cosine, rtol=1e-5, atol=1e-6)
    assert objectives.agra_keep(found, found[:2]).tolist() == [c >= 0 for c in cosine]


# ---- the rescalers ---------------------------------------------------------------------------------------------------
def _of_class(rescalers: networks.ClassRescalers, k: int) -> networks.Rescaler:
    """The network of one class, its running statistics with it."""
    width = rescalers.weight.shape[2]
    alone = networks.Rescaler(width).train(rescalers.training)
    first, norm, _, second, out_norm = alone.layers
    first.weight.data, first.bias.data = rescalers.weight[k].data.clone(), rescalers.bias[k].data.clone()
    second.weight.data, second.bias.data = rescalers.out_weight[k].data.clone(), rescalers.out_bias[k].data.clone()
    for own, every, size in ((norm, rescalers.norm, width), (out_norm, rescalers.out_norm, 2)):
        own.running_mean, own.running_var = (
            x[k * size : (k + 1) * size].clone() for x in (every.running_mean, every.running_var)
        )
    return alone


def test_each_class_has_its_rescaler_and_a_batch_has_mean_logit_zero() -> None:
    torch.manual_seed(0)
    rescalers = networks.ClassRescalers(3)
    assert sum(p.numel() for p in rescalers.parameters()) == 3 * (19 * 19 + 19 + 2 * 19 + 2)
    features, labels = torch.randn(10, 19), torch.arange(10) % 3
    for training in (True, False):
        rescalers.train(training)
        found = rescalers(features, labels)
        for k in range(3):
            alone = _of_class(rescalers, k)
            if training:
                assert alone.logits(features).mean(0).abs().max() < 1e-6
            torch.testing.assert_close(found[labels == k], alone(features)[labels == k])
    shared = networks.ClassRescalers(3, 2, separate=False)
    torch.testing.assert_close(shared(features[:, :2], labels), _of_class(shared, 0)(features[:, :2]))
    rescalers.train()
    with pytest.raises(UserError, match="2 or more"):
        rescalers(features[:1], labels[:1])
    with pytest.raises(UserError, match="0 to 2"):
        rescalers(features, labels + 1)


def test_rescalers_that_were_stored_class_by_class_are_loaded() -> None:
    torch.manual_seed(4)
    alone = [networks.Rescaler(4) for _ in range(2)]
    for rescaler in alone:
        rescaler(torch.randn(6, 4))  # running statistics of its own
    stored = {f"part.rescalers.{k}.{name}": x for k, one in enumerate(alone) for name, x in one.state_dict().items()}
    both = networks.ClassRescalers(2, 4)
    torch.nn.ModuleDict({"part": both}).load_state_dict(stored)
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 1, 0, 1])
    found = both.eval()(features, labels)
    each = torch.stack([one.eval()(features) for one in alone])
    torch.testing.assert_close(found, each[labels, torch.arange(5)])
    del stored["part.rescalers.1.layers.3.bias"]
    with pytest.raises(RuntimeError, match="out_bias"):
        torch.nn.ModuleDict({"part": networks.ClassRescalers(2, 4)}).load_state_dict(stored)


def test_rescalers_of_all_classes_begin_as_one_by_one() -> None:
    torch.manual_seed(3)
    alone = [networks.Rescaler(4) for _ in range(2)]
    torch.manual_seed(3)
    both = networks.ClassRescalers(2, 4)
    for k in range(2):
        for a, b in zip(alone[k].parameters(), _of_class(both, k).parameters(), strict=True):
            assert torch.equal(a, b)


# ---- steps that one can differentiate through ------------------------------------------------------------------------
KINDS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.8, 0.95), weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_looked_ahead_is_the_step_that_is_taken(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.randn(5, generator=g, dtype=torch.float64))
    optimizer = KINDS[kind]([p])
    for _ in range(3):
        gradient = torch.randn(5, generator=g, dtype=torch.float64)
        (ahead,) = lookahead(optimizer, {p: gradient})[0].values()
        p.grad = gradient
        optimizer.step()
        torch.testing.assert_close(ahead, p.detach(), rtol=1e-12, atol=1e-12)


def test_parameters_of_every_shape_go_ahead_together_and_a_late_one_by_its_own_count() -> None:
    g = torch.Generator().manual_seed(0)
    p = [torch.nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64)) for s in ((2, 3), (4,), (), (1, 2))]
    optimizer = torch.optim.Adam([{"params": p[:2], "lr": 0.1}, {"params": p[2:], "lr": 0.01}])
    for late in (False, False, True, True):
        gradients = {q: torch.randn(q.shape, generator=g, dtype=torch.float64) for q in p[: 4 if late else 3]}
        ahead, _ = lookahead(optimizer, gradients)
        for q in p:
            q.grad = gradients.get(q)
        optimizer.step()
        assert len(ahead) == len(gradients)
        for q, after in ahead.items():
            torch.testing.assert_close(after, q.detach(), rtol=1e-12, atol=1e-12)


def test_a_step_ahead_that_its_rule_does_not_hold_is_refused() -> None:
    p = nn.Parameter(torch.zeros(2))
    for option in ("amsgrad", "maximize"):
        optimizer = torch.optim.Adam([p], lr=0.1, **{option: True})
        with pytest.raises(UserError, match="amsgrad or maximize"):
            lookahead(optimizer, {p: torch.ones(2)})


def test_known_gradients_arrive_as_they_are() -> None:
    p = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(()))]
    given = [torch.arange(6.0).view(2, 3), torch.tensor(-7.0)]
    loss = known_gradients(p, given)
    (2 * loss).backward()
    assert float(loss) == 0
    torch.testing.assert_close([q.grad for q in p], [2 * g for g in given])
    with pytest.raises(UserError, match="own shape"):
        known_gradients(p, given[::-1])


@pytest.mark.parametrize(("axes", "padding"), [(1, 1), (2, 1), (2, "same")])
def test_a_second_backward_pass_to_the_losses_weights_costs_two_forward_passes(axes: int, padding: Any) -> None:
    torch.manual_seed(0)
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if axes == 1 else (nn.Conv2d, nn.BatchNorm2d)
    net = nn.Sequential(
        conv(2, 4, 3, stride=2, padding=1), norm(4), nn.Tanh(), conv(4, 4, 3, padding=padding), conv(4, 6, 3, groups=2),
        nn.Tanh(), conv(6, 6, 1, bias=False), nn.Flatten(), nn.LazyLinear(3),
    ).double()  # fmt: skip
    x, y = torch.randn(5, 2, *[9] * axes, dtype=torch.float64), torch.arange(5) % 3
    with FlopCounterMode(display=False) as forward:
        net(x)
    parameters = list(net.parameters())
    along = [torch.randn_like(p) for p in parameters]
    w = torch.rand(5, dtype=torch.float64, requires_grad=True)

    def slopes(context: Any) -> Any:
        with context:
            losses = nn.functional.cross_entropy(net(x), y, reduction="none")
        with FlopCounterMode(display=False) as first:
            gradients = torch.autograd.grad((w * losses).sum(), parameters, create_graph=True)
        with FlopCounterMode(display=False) as second:
            (found,) = torch.autograd.grad(gradients, [w], along)
        return gradients, found, first.get_total_flops(), second.get_total_flops()

    ours, torchs = slopes(linear_in_the_loss()), slopes(contextlib.nullcontext())
    torch.testing.assert_close(ours[0], torchs[0])
    torch.testing.assert_close(ours[1], torchs[1])
    assert ours[2] == torchs[2]
    assert ours[3] < torchs[3]
    if padding == 1:
        assert ours[3] < 2 * forward.get_total_flops() < torchs[3]


@pytest.mark.parametrize("frozen", [None, "0.weight", "2.weight", "2.bias"])
@pytest.mark.parametrize("kind", ["features", "maps", "tokens", "volumes"])
def test_second_backward_passes_through_normalisations(kind: str, frozen: str | None) -> None:
    """Against torch's own, in slope and running statistics; what is frozen has no gradient, and none is missed."""

    def made() -> nn.Sequential:
        torch.manual_seed(0)
        norm = {"features": nn.BatchNorm1d, "maps": nn.BatchNorm2d, "volumes": nn.BatchNorm3d}.get(kind)
        layer = norm(4, eps=0.3) if norm else nn.LayerNorm(4, eps=0.3)
        first = nn.Linear(3, 4) if norm is None or kind == "features" else _Moved(nn.Linear(3, 4))
        last = nn.Linear(4, 2) if norm is None or kind == "features" else _Moved(nn.Linear(4, 2))
        net = nn.Sequential(first, nn.Tanh(), layer, nn.Tanh(), last).double()
        for p in layer.parameters():
            nn.init.normal_(p)
        for name, p in net.named_parameters():
            p.requires_grad_(name != frozen)
        return net

    shape = {"features": (3,), "tokens": (5, 3), "maps": (3, 2, 4), "volumes": (3, 2, 2, 2)}[kind]
    x = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def slopes(context: Any) -> Any:
        net = made()
        with context as rules:
            losses = net(x).flatten(1).square().mean(1)
        assert ("_LayerBackward" in graph_of(losses)) == (rules is not None)
        parameters = [p for p in net.parameters() if p.requires_grad]
        w = torch.linspace(0.5, 1.5, 6, dtype=torch.float64).requires_grad_()
        gradients = torch.autograd.grad((w * losses).sum(), parameters, create_graph=True)
        along = [torch.sin(torch.arange(p.numel()).double() + k).view_as(p) for k, p in enumerate(parameters)]
        return losses, gradients, torch.autograd.grad(gradients, [w], along), dict(net.named_buffers())

    for ours, torchs in zip(slopes(linear_in_the_loss()), slopes(contextlib.nullcontext()), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def graph_of(x: torch.Tensor) -> str:
    """The names of all functions that made it."""
    seen: dict[Any, str] = {}
    todo = [x.grad_fn]
    while todo:
        one = todo.pop()
        if one is not None and one not in seen:
            seen[one] = one.name()
            todo += [before for before, _ in one.next_functions]
    return " ".join(seen.values())


class _Moved(nn.Module):
    """A layer of the last axis on the axis of the channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def test_steps_are_differentiated_through_their_moments() -> None:
    p, m = (torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    v = m.square() + 0.1
    gradient = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    options = {"lr": 0.1, "first": m, "second": v, "step": 3, "weight_decay": 0.1}
    assert torch.autograd.gradcheck(lambda g: adam_step(p, g, **options), gradient)
    assert torch.autograd.gradcheck(lambda g: sgd_step(p, g, lr=0.1, momentum=0.9, buffer=m, nesterov=True), gradient)
    zero = torch.zeros(2, requires_grad=True)
    (slope,) = torch.autograd.grad(adam_step(torch.ones(2), zero, lr=0.1).sum(), zero)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("clip", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_ahead_has_the_derivative_of_its_rule(kind: str, clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against autograd through the literal rules, pieces cut small, with a number whose gradient is always 0."""
    monkeypatch.setattr(unrolled, "_PIECE", 3)
    g = torch.Generator().manual_seed(1)
    p = [nn.Parameter(torch.randn(s, generator=g, dtype=torch.float64)) for s in ((2, 3), (4,), ())]
    optimizer = KINDS[kind](p)
    for _ in range(2):
        for q in p:
            q.grad = torch.randn(q.shape, generator=g, dtype=torch.float64)
            q.grad.view(-1)[0] *= q.dim() > 1
        optimizer.step()
    gradients = [torch.randn(q.shape, generator=g, dtype=torch.float64) for q in p]
    gradients[0][0, 0] = 0
    along = [torch.randn(q.shape, generator=g, dtype=torch.float64) for q in p]
    ahead, back = lookahead(optimizer, dict(zip(p, gradients, strict=True)), clip=clip)
    found = back(dict(zip(p, along, strict=True)))
    leaves = [x.clone().requires_grad_() for x in gradients]
    norm = torch.cat([x.flatten() for x in leaves]).norm()
    factor = torch.clamp(clip / (norm + 1e-6), max=1.0) if clip else 1.0
    options = {
        k: v for k, v in optimizer.defaults.items() if k in ("lr", "weight_decay", "momentum", "nesterov", "betas")
    }
    after = []
    for q, x in zip(p, leaves, strict=True):
        state = optimizer.state[q]
        if "sgd" in kind or kind == "momentum":
            after.append(sgd_step(q.detach(), factor * x, buffer=state.get("momentum_buffer"), **options))
        else:
            own = {"first": state["exp_avg"], "second": state["exp_avg_sq"], "step": int(state["step"])}
            after.append(adam_step(q.detach(), factor * x, **own, decoupled=kind == "adamw", **options))
    torch.testing.assert_close([ahead[q] for q in p], [x.detach() for x in after], rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(after, leaves, along)
    torch.testing.assert_close([found[q] for q in p], list(wanted), rtol=1e-9, atol=1e-12)


def test_dropouts_of_sparse_vectors_are_those_of_dense_ones() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(4, 30, generator=g) * (torch.rand(4, 30, generator=g) < 0.2)
    weight, bias = torch.randn(3, 30, generator=g), torch.randn(3, generator=g)
    plain = networks.dropped_linear(x, weight, bias, 0.0, 2)
    torch.testing.assert_close(plain, nn.functional.linear(x, weight, bias).expand(2, 4, 3))
    torch.manual_seed(0)
    many = networks.dropped_linear(x, weight, bias, 0.3, 4000).double()
    torch.testing.assert_close(many.mean(0).float(), plain[0], atol=0.1, rtol=0)
    spread = ((x[:, None] * weight).square().sum(2) * 0.3 / 0.7).double()  # var of m / (1 - p) is p / (1 - p)
    torch.testing.assert_close(many.var(0), spread, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_quick_dropout_drops_its_share_and_can_be_differentiated(share: float) -> None:
    x = torch.full((50, 2001), 2.0, requires_grad=True)
    layer = nn.Dropout(share)
    torch.manual_seed(3)
    with networks.quick_dropout():
        found, other = layer(x), layer(x)
    assert set(found.unique().tolist()) == {0.0, float(torch.tensor(2.0) * torch.tensor(1 / (1 - share)))}
    zero = found == 0
    assert float(zero.float().mean()) == pytest.approx(share, abs=0.01)
    both = float((zero & (other == 0)).float().mean())
    assert both == pytest.approx(share**2, abs=0.01)  # two draws know nothing of each other
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, (~zero) / (1 - share))
    torch.manual_seed(3)
    with networks.quick_dropout():
        torch.testing.assert_close(layer(x), found)
        assert torch.equal(layer.eval()(x), x)
