"""Message passing is the formula by loops, and looks no further than two steps along the edges."""

import math

import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks.graph import normalised_adjacency

EDGES = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 1], [3, 4], [4, 3]])


def test_the_adjacency_is_scaled_by_the_degrees_with_the_loop():
    neighbours = {0: {0, 1}, 1: {0, 1, 2}, 2: {1, 2}, 3: {3, 4}, 4: {3, 4}, 5: {5}}
    found = normalised_adjacency(EDGES, 6)
    for i in range(6):
        for j in range(6):
            expected = 1 / math.sqrt(len(neighbours[i]) * len(neighbours[j])) if j in neighbours[i] else 0.0
            assert found[i, j].item() == pytest.approx(expected, abs=1e-7)
    assert torch.equal(normalised_adjacency(torch.zeros(0, 2, dtype=torch.int64), 3), torch.eye(3))


def test_message_passing_equals_its_formula_by_loops():
    torch.manual_seed(0)
    network = networks.MessagePassing(4, 5).double()
    z = torch.randn(6, 4, dtype=torch.float64)
    a = normalised_adjacency(EDGES, 6).double()
    w1, w2 = network.first.weight.T, network.second.weight.T  # Z W1
    expected = torch.zeros(6, 4, dtype=torch.float64)
    hidden = torch.zeros(6, 5, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            hidden[i] += a[i, j] * (z[j] @ w1)
    hidden = hidden.clamp_min(0)
    for i in range(6):
        expected[i] = z[i]
        for j in range(6):
            expected[i] += a[i, j] * (hidden[j] @ w2)
    torch.testing.assert_close(network(z, EDGES), expected, rtol=1e-12, atol=1e-12)


def test_it_is_equivariant_and_local():
    torch.manual_seed(0)
    network = networks.MessagePassing(4)
    z = torch.randn(6, 4)
    order = torch.tensor([3, 5, 0, 2, 1, 4])
    place = order.argsort()
    torch.testing.assert_close(network(z[order], place[EDGES]), network(z, EDGES)[order])
    changed = z.clone()
    changed[3] += 1
    moved = (network(changed, EDGES) - network(z, EDGES)).abs().amax(1) > 1e-6
    assert moved.tolist() == [False, False, False, True, True, False]
    assert all(p.grad is None for p in network.parameters())
    network(z, EDGES).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_bad_graphs_and_widths_are_refused():
    network = networks.MessagePassing(4)
    with pytest.raises(UserError, match=r"0 \.\. 5"):
        network(torch.zeros(6, 4), torch.tensor([[0, 6]]))
    with pytest.raises(UserError, match=r"\(E, 2\)"):
        network(torch.zeros(6, 4), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(UserError, match="width"):
        networks.MessagePassing(0)
