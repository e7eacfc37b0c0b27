import copy

import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.networks.frozen import Frozen, frozen_hashes, weights_hash


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.judge = Frozen(network(), name="a judge")


def test_it_is_in_no_state_dict_and_belongs_to_no_optimiser():
    holder = Holder()
    assert set(holder.state_dict()) == {"own.weight", "own.bias"}
    assert len(list(holder.parameters())) == 2
    assert list(holder.buffers()) == []
    assert holder.load_state_dict(Holder().state_dict()).missing_keys == []


def test_it_is_always_in_eval_mode_and_never_trainable():
    holder = Holder().train().requires_grad_(True)
    assert not holder.judge.module.training
    assert not any(m.training for m in holder.judge.module.modules())
    assert not any(p.requires_grad for p in holder.judge.module.parameters())
    x = torch.rand(2, 3, 8, 8)
    before = weights_hash(holder.judge.module)
    assert torch.equal(holder.judge(x), holder.judge(x))
    assert weights_hash(holder.judge.module) == before == holder.judge.hash


def test_gradients_flow_through_it_to_its_input():
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    frozen = Frozen(network(), name="a judge")
    frozen(x).square().sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in frozen.module.parameters())


def test_it_moves_with_its_holder_and_is_copied_with_it():
    holder = Holder().double()
    assert holder.judge(torch.rand(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64
    twin = copy.deepcopy(holder)
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(twin.judge(x), holder.judge(x))


def test_the_hash_is_of_names_types_shapes_and_values():
    assert weights_hash(network()) == weights_hash(network())
    assert len({weights_hash(network(seed)) for seed in range(3)}) == 3
    assert weights_hash(nn.Linear(4, 1, bias=False)) != weights_hash(nn.Linear(1, 4, bias=False))
    zeros = nn.Linear(2, 2)
    nn.init.zeros_(zeros.weight)
    nn.init.zeros_(zeros.bias)
    assert weights_hash(zeros) != weights_hash(copy.deepcopy(zeros).double())
    assert frozen_hashes(Holder()) == {"a judge": weights_hash(network())}


def test_other_weights_than_expected_are_refused():
    assert Frozen(network(), name="a judge", hash=weights_hash(network())).hash == weights_hash(network())
    with pytest.raises(UserError, match="a judge: its weights"):
        Frozen(network(1), name="a judge", hash=weights_hash(network()))
