import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from selftaught.engine.optim import LARS, build_optimizer, learning_rate_factor, parameter_groups, scaled_lr
from selftaught.errors import UserError


def matrix(values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def literal_lars(p, gradients, lr, wd, momentum, eta, clip=False):
    """The sheet's order with Python numbers."""
    mu = [0.0] * len(p)
    for gradient in gradients:
        g = [a + wd * b for a, b in zip(gradient, p, strict=True)]
        weight, slope = math.hypot(*p), math.hypot(*g)
        factor = eta * weight / slope if weight and slope else 1.0
        if clip:
            factor = min(factor / lr, 1.0)
        mu = [momentum * m + factor * a for m, a in zip(mu, g, strict=True)]
        p = [a - lr * m for a, m in zip(p, mu, strict=True)]
    return p


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.001, 0.5, 20.0])
def test_lars_takes_the_steps_of_the_sheet(clip, eta):
    p = matrix([[3.0, -4.0]])
    optimiser = LARS([p], 0.2, weight_decay=0.1, momentum=0.9, eta=eta, clip=clip)
    gradients = [[1.0, 2.0], [-0.5, 0.25], [0.0, 1.0]]
    for gradient in gradients:
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
    expected = literal_lars([3.0, -4.0], gradients, 0.2, 0.1, 0.9, eta, clip)
    assert p.tolist()[0] == pytest.approx(expected, rel=1e-12)


def test_one_step_of_lars_by_hand():
    p = matrix([[3.0, 4.0]])  # norm 5
    p.grad = torch.tensor([[0.0, 1.6]], dtype=torch.float64)
    LARS([p], 0.5, weight_decay=0.1, eta=0.01).step()
    # g = (0.3, 2.0); factor = 0.01 * 5 / ||g||
    factor = 0.05 / math.sqrt(0.09 + 4)
    assert p.tolist()[0] == pytest.approx([3 - 0.5 * factor * 0.3, 4 - 0.5 * factor * 2.0], rel=1e-12)


def test_lars_leaves_biases_to_plain_momentum():
    bias = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimiser = LARS([bias], 0.5, weight_decay=0.1, momentum=0.9, eta=0.01)
    for _ in range(2):
        bias.grad = torch.tensor([1.0, 0.0], dtype=torch.float64)
        optimiser.step()
    assert bias.tolist() == pytest.approx([3 - 0.5 * (1 + 1.9), 4.0])
    adapted = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    adapted.grad = torch.tensor([1.0, 0.0], dtype=torch.float64)
    LARS([adapted], 0.5, eta=0.01, exclude_1d=False).step()
    assert adapted.tolist() == pytest.approx([3 - 0.5 * 0.05, 4.0])


def test_lars_with_zero_norms_and_without_gradients():
    zero, still, unused = matrix([[0.0, 0.0]]), matrix([[1.0, 1.0]]), matrix([[2.0]])
    zero.grad = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    still.grad = torch.zeros(1, 2, dtype=torch.float64)
    optimiser = LARS([zero, still, unused], 0.1, eta=0.001)
    optimiser.step()
    assert zero.tolist() == [[-0.1, 0.0]]
    assert still.tolist() == [[1.0, 1.0]]
    assert unused.tolist() == [[2.0]]


def test_lars_uses_the_rate_of_each_group_and_calls_the_closure():
    a, b = matrix([[1.0]]), nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimiser = LARS([{"params": [a], "lr": 0.2}, {"params": [b], "lr": 0.0048}], 9.0, eta=1.0)

    def closure():
        optimiser.zero_grad()
        loss = 3 * a.sum() + 3 * b.sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 6.0
    assert a.item() == pytest.approx(1 - 0.2 * 1)  # adapted: |p| / |g| * g = 1
    assert b.item() == pytest.approx(1 - 0.0048 * 3)
    with pytest.raises(UserError, match="momentum"):
        LARS([a], 0.1, momentum=-1)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "lars"])
def test_a_saved_optimiser_goes_on_exactly(name):
    def run(parameters, optimiser, steps):
        for k in steps:
            for p in parameters:
                p.grad = torch.full_like(p, 0.1 * (k + 1)) * p
            optimiser.step()

    def fresh():
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))]
        return parameters, build_optimizer(name, parameters, lr=0.05, weight_decay=0.01)

    whole, optimiser = fresh()
    run(whole, optimiser, range(6))
    part, first = fresh()
    run(part, first, range(3))
    second = build_optimizer(name, part, lr=1.0)
    second.load_state_dict(first.state_dict())
    run(part, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, part, strict=True))


def test_optimisers_by_name_take_their_first_step():
    def moved(name, **options):
        p = matrix([[2.0, -1.0]])
        p.grad = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
        build_optimizer(name, [p], lr=0.1, **options).step()
        return (torch.tensor([[2.0, -1.0]], dtype=torch.float64) - p.detach())[0].tolist()

    assert moved("sgd") == pytest.approx([0.05, 0.025])
    assert moved("sgd", weight_decay=0.1) == pytest.approx([0.1 * (0.5 + 0.2), 0.1 * (0.25 - 0.1)])
    assert moved("adam") == pytest.approx([0.1, 0.1], rel=1e-6)
    # AdamW decays beside the step, Adam in the gradient: that is the whole difference.
    assert moved("adamw", weight_decay=0.1) == pytest.approx([0.1 + 0.01 * 2, 0.1 - 0.01], rel=1e-6)
    assert moved("adam", weight_decay=0.1) == pytest.approx([0.1, 0.1], rel=1e-6)
    assert moved("lars", eta=1.0) == pytest.approx([0.1 * 2.0, 0.1 * 1.0])
    with pytest.raises(UserError, match="adamw, adam, sgd, lars"):
        build_optimizer("adagrad", [matrix([[1.0]])], lr=0.1)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_fused_and_plain_agree(name):
    results = []
    for fused in (None, False):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(5, 4))
        optimiser = build_optimizer(name, [{"params": [p]}], lr=0.05, weight_decay=0.01, fused=fused)
        assert bool(optimiser.defaults["fused"]) is (fused is None)
        for k in range(4):
            p.grad = torch.full_like(p, 0.3) * (k - p.detach())
            optimiser.step()
        results.append(p.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def no_weight_decay(self):
        return {"token"}


def test_parameter_groups_exempt_biases_norms_and_named_tokens():
    model = nn.Sequential(Small(), nn.Linear(4, 2, bias=False))
    groups = parameter_groups(model, 0.1, lr=0.2, lr_excluded=0.0048)
    small = model[0]
    assert [id(p) for p in groups[0]["params"]] == [id(small.linear.weight), id(model[1].weight)]
    expected = [small.token, small.linear.bias, small.norm.weight, small.norm.bias]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in expected]
    assert [(g["weight_decay"], g["lr"]) for g in groups] == [(0.1, 0.2), (0.0, 0.0048)]
    everything = parameter_groups(model, 0.1, exclude_bias_and_norm=False)
    assert len(everything) == 1
    assert len(everything[0]["params"]) == 6
    assert "lr" not in everything[0]
    with pytest.raises(UserError, match="unfreeze"):
        parameter_groups(small.frozen, 0.1)


def test_cosine_with_warm_up():
    factors = [learning_rate_factor(s, total=110, warmup=10, minimum=0.001) for s in range(140)]
    assert factors[0] == 0
    assert factors[5] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(1)
    assert factors[60] == pytest.approx(0.5005)
    assert factors[35] == pytest.approx(0.001 + 0.999 * (1 + math.sqrt(0.5)) / 2)
    assert factors[110:] == pytest.approx([0.001] * 30)
    assert all(a > b for a, b in pairwise(factors[10:111]))


def test_the_other_schedules():
    assert [learning_rate_factor(s, total=10, schedule="constant", warmup=4) for s in (0, 2, 4, 99)] == [0, 0.5, 1, 1]
    staircase = [
        learning_rate_factor(s, total=500_000, schedule="step", milestones=100_000, gamma=0.5)
        for s in (0, 99_999, 100_000, 250_000, 499_999)
    ]
    assert staircase == [1, 1, 0.5, 0.25, 0.0625]
    listed = [
        learning_rate_factor(s, total=100, schedule="step", milestones=(60, 80), minimum=0.05) for s in (59, 60, 80)
    ]
    assert listed == pytest.approx([1, 0.1, 0.05])
    assert learning_rate_factor(0, total=5) == 1
    assert learning_rate_factor(5, total=5, warmup=5) == 1
    with pytest.raises(UserError, match="cosine, constant, step"):
        learning_rate_factor(0, total=5, schedule="square")
    with pytest.raises(UserError, match="negative"):
        learning_rate_factor(-1, total=5)
    with pytest.raises(UserError, match="milestones"):
        learning_rate_factor(1, total=5, schedule="step", milestones=0)


def test_linear_scaling():
    assert scaled_lr(0.3, 2048) == pytest.approx(2.4)
    assert scaled_lr(0.03, 64) == pytest.approx(0.0075)
    assert scaled_lr(1.0, 64, reference=128) == 0.5
