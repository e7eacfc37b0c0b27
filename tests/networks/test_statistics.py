"""Running statistics that some passes leave alone."""

import copy

import torch
from torch import nn

from selftaught import networks


def test_passes_within_normalise_alike_but_leave_no_trace():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5))
    network[4].momentum = None  # a cumulative mean has no momentum to take away
    twin = copy.deepcopy(network)
    x = 3 + 2 * torch.randn(16, 3, 8, 8)
    with networks.kept_statistics(network):
        found = network(x)
    torch.testing.assert_close(found, twin(x))
    assert torch.equal(network[1].running_mean, torch.zeros(4))
    assert torch.equal(network[1].running_var, torch.ones(4))
    assert not torch.equal(twin[1].running_mean, torch.zeros(4))
    assert network[1].momentum == 0.1
    network(x)
    torch.testing.assert_close(network[1].running_mean, twin[1].running_mean)


def test_momenta_come_back_after_an_error():
    norm = nn.BatchNorm1d(2, momentum=0.3)
    try:
        with networks.kept_statistics(norm):
            raise RuntimeError("stop")
    except RuntimeError:
        assert norm.momentum == 0.3
