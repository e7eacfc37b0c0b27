import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from selftaught import objectives
from selftaught.engine.distributed import gather, is_distributed, rank, world_size
from tests.two_processes import by_two

LOSSES = {
    "simclr": lambda a, b: objectives.simclr(a, b, temperature=0.2),
    "dcl": lambda a, b: objectives.dcl(F.normalize(a, dim=1), F.normalize(b, dim=1)),
    "dclw": lambda a, b: objectives.dcl(F.normalize(a, dim=1), F.normalize(b, dim=1), sigma=0.5),
    "barlow_twins": lambda a, b: objectives.barlow_twins(a, b, lambda_=0.01),
    "wide barlow_twins": lambda a, b: objectives.barlow_twins(a[:8], b[:8], lambda_=0.01, normalize="none"),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 20)).double()


def views():
    """Two views of 32 samples, the batch of one process; rank r of two takes rows 16r to 16r + 15."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(32, 6, generator=g, dtype=torch.float64)
    return x, x + 0.3 * torch.randn(32, 6, generator=g, dtype=torch.float64)


def value_and_gradients(model, loss, own):
    model.zero_grad()
    z1, z2 = (gather(model(x[own])) for x in views())
    value = loss(z1, z2)
    value.backward()
    return value.detach(), [p.grad.clone() for p in model.parameters()]


def one_of_two():
    own = slice(16 * rank(), 16 * rank() + 16)
    found = {name: value_and_gradients(DistributedDataParallel(network()), loss, own) for name, loss in LOSSES.items()}
    found["rank"] = (rank(), world_size(), is_distributed())
    found["labels"] = gather(torch.tensor([rank(), 10 + rank()]))
    strided = torch.arange(6.0).view(2, 3).T + 100 * rank()
    found["strided"] = gather(strided)
    return found


def test_without_a_process_group_nothing_happens():
    x = torch.randn(3, 2)
    assert gather(x) is x
    assert (rank(), world_size(), is_distributed()) == (0, 1, False)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch():
    found = by_two(one_of_two, joined=True)
    for name, loss in LOSSES.items():
        value, gradients = value_and_gradients(network(), loss, slice(0, 32))
        assert gradients[0].abs().max() > 1e-3
        for n in range(2):
            theirs, averaged = found[n][name]
            torch.testing.assert_close(theirs, value, rtol=0, atol=1e-10, msg=name)
            for a, b in zip(averaged, gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)
    for n in range(2):
        assert found[n]["rank"] == (n, 2, True)
        assert found[n]["labels"].tolist() == [0, 10, 1, 11]
        assert found[n]["strided"].tolist() == [[0, 3], [1, 4], [2, 5], [100, 103], [101, 104], [102, 105]]
