import io
import math

import pytest
import torch
from torch import nn

from selftaught.engine.ema import MovingAverage, cosine_decay
from selftaught.errors import UserError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train_one_step(model, seed):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(x).square().sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.05 * p.grad


def test_the_average_follows_its_recurrence_and_buffers_are_copied():
    model = network()
    average = MovingAverage(model, 0.9)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for seed in range(5):
        train_one_step(model, seed)
        average.update(model)
        for name, p in model.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * p.detach()
    for name, p in average.average.named_parameters():
        torch.testing.assert_close(p, expected[name])
        assert not p.requires_grad
    assert (average.average[2].weight - model[2].weight).abs().max() > 1e-3
    for name, buffer in average.average.named_buffers():
        assert torch.equal(buffer, model.get_buffer(name))
    assert average.average[1].num_batches_tracked == 5
    assert average.updates == 5


def test_limits_of_the_decay():
    model = network()
    copying, standing = MovingAverage(model, 0.0), MovingAverage(model, 1.0)
    start = model[0].weight.detach().clone()
    train_one_step(model, 0)
    copying.update(model)
    standing.update(model)
    assert torch.equal(copying.average[0].weight, model[0].weight)
    assert torch.equal(standing.average[0].weight, start)


def test_the_copy_shares_nothing_and_is_what_is_called():
    model = network().eval()
    average = MovingAverage(model).eval()
    x = torch.randn(5, 3)
    before = average(x)
    assert torch.equal(before, model(x))
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(average(x), before)
    assert not average(x).requires_grad


def test_cosine_decay_from_base_to_one():
    assert cosine_decay(0, 100, 0.99) == pytest.approx(0.99)
    assert cosine_decay(50, 100, 0.99) == pytest.approx(0.995)
    assert cosine_decay(25, 100, 0.96) == pytest.approx(1 - 0.04 * (1 + math.sqrt(0.5)) / 2)
    assert cosine_decay(100, 100, 0.99) == cosine_decay(900, 100, 0.99) == 1
    assert cosine_decay(100, 100, 0.9, final=0.99) == pytest.approx(0.99)
    model = network()
    average = MovingAverage(model, 0.5, total=4)
    decays = []
    for _ in range(6):
        decays.append(average.decay)
        average.update(model)
    assert decays == pytest.approx([0.5, 0.5 + 0.5 * (1 - (1 + math.sqrt(0.5)) / 2), 0.75, 0.9267767, 1, 1])


def test_a_saved_average_goes_on_exactly():
    def fresh():
        model = network()
        return model, MovingAverage(model, 0.5, total=6)

    whole, average = fresh()
    for seed in range(6):
        train_one_step(whole, seed)
        average.update(whole)
    part, first = fresh()
    for seed in range(3):
        train_one_step(part, seed)
        first.update(part)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = MovingAverage(network(), 0.5, total=6)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.updates == 3
    for seed in range(3, 6):
        train_one_step(part, seed)
        second.update(part)
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in average.state_dict().items())


def test_wrong_use_is_refused():
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        MovingAverage(network(), 1.5)
    with pytest.raises(UserError, match="other parameters"):
        MovingAverage(network()).update(nn.Linear(3, 4))
