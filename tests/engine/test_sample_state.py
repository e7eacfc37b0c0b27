"""The table of per-sample numbers: rows in and out, checkpoints, and two processes that hold half of it each."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from selftaught.engine.distributed import gather_labels, rank
from selftaught.engine.sample_state import SampleState
from selftaught.errors import UserError
from tests.two_processes import by_two


def test_rows_come_back_as_they_were_written_and_others_stay():
    table = SampleState(5, tau=0.1, s=0.0)
    table.write(torch.tensor([3, 0]), {"s": torch.tensor([7.0, 8.0])})
    found = table.read(torch.tensor([0, 3, 4]))
    assert found["s"].tolist() == [8, 7, 0]
    assert found["tau"].tolist() == pytest.approx([0.1] * 3)
    assert len(table) == 5


def test_a_sample_twice_in_a_batch_gets_the_mean():
    table = SampleState(4, s=0.0)
    table.write(torch.tensor([2, 1, 2]), {"s": torch.tensor([1.0, 5.0, 4.0])})
    assert table.s.tolist() == [0, 5, 2.5, 0]


def test_the_table_travels_in_checkpoints_and_must_fit_the_data():
    table = SampleState(5, tau=0.1, s=0.0)
    table.write(torch.arange(5), {"s": torch.rand(5), "tau": torch.rand(5)})
    again = SampleState(5, tau=0.1, s=0.0)
    again.load_state_dict(table.state_dict())
    assert torch.equal(again.s, table.s)
    assert torch.equal(again.tau, table.tau)
    with pytest.raises(RuntimeError, match="5 samples, the data have 6"):
        SampleState(6, tau=0.1, s=0.0).load_state_dict(table.state_dict())
    with pytest.raises(RuntimeError, match=r"[Mm]issing"):
        again.load_state_dict({"s": table.s})


def test_no_samples_and_samples_outside_are_refused():
    with pytest.raises(UserError, match="samples="):
        SampleState(0, s=0.0)
    table = SampleState(3, s=0.0)
    with pytest.raises(UserError, match="sample 3 of a table of 3"):
        table.read(torch.tensor([0, 3]))


class Holder(nn.Module):
    """A module with weights, a table of seven rows, and the wish that DDP leaves the table alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.state = SampleState(7, tau=0.5, s=0.0)
        self._ddp_params_and_buffers_to_ignore = self.state.buffer_names("state")

    def forward(self, x):
        return self.layer(x)


def one_of_two():
    holder, number = Holder(), rank()
    wrapped = DistributedDataParallel(holder)
    table = holder.state
    table.spread()
    table.spread()
    found = {"shard": len(table.s)}
    for step, (mine, values) in enumerate(
        (([[0, 5], [4, 1]], [[1.0, 2.0], [3.0, 4.0]]), ([[1, 1], [6, 1]], [[5.0, 6.0], [9.0, 10.0]]))
    ):
        index, new = (gather_labels(torch.tensor(x[number])) for x in (mine, values))
        found[f"before {step}"] = table.read(index)["s"]
        table.write(index, {"s": new})
        wrapped(torch.ones(1, 2)).sum().backward()  # would copy rank 0's buffers over the others'
    found["saved"] = dict(holder.state_dict())
    table.load_state_dict({"tau": torch.arange(7.0), "s": torch.arange(7.0) + 10})
    found["loaded"] = table.s.clone()
    found["read"] = table.read(torch.tensor([6, 3, 0]))["tau"]
    table.join()
    found["joined"] = table.s.clone()
    return found


@pytest.mark.slow
def test_two_processes_hold_half_each_and_save_the_whole():
    for number, found in enumerate(by_two(one_of_two, joined=True)):
        assert found["shard"] == 4
        assert found["before 0"].tolist() == [0, 0, 0, 0]
        assert found["before 1"].tolist() == [4, 4, 0, 4]
        assert found["saved"]["state.s"].tolist() == [1, 7, 0, 0, 3, 2, 9]
        assert found["saved"]["state.tau"].tolist() == [0.5] * 7
        assert found["loaded"].tolist() == [[10, 12, 14, 16], [11, 13, 15, 0]][number]
        assert found["read"].tolist() == [6, 3, 0]
        assert found["joined"].tolist() == list(range(10, 17))
