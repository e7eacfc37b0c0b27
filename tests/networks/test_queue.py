"""The queue is first in, first out, and travels in a state dict."""

import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks import Queue


def rows(start: int, n: int) -> torch.Tensor:
    """Rows that tell when they came: (start, 1), (start + 1, 1), ..."""
    return torch.stack([torch.arange(start, start + n, dtype=torch.float32), torch.ones(n)], 1)


@pytest.mark.parametrize("sizes", [[3, 3, 3], [1, 7, 2, 4], [5, 5], [2, 11]])
def test_it_holds_the_latest_rows_whatever_the_batches(sizes: list[int]) -> None:
    queue, start = Queue(5, 2, unit=False, labels=True), 1
    for n in sizes:
        queue.push(rows(start, n), torch.arange(start, start + n))
        start += n
        assert int(queue.filled) == min(5, start - 1)
    expected = set(range(max(1, start - 5), start))
    assert set(queue.items[:, 0].int().tolist()) >= expected
    assert set(queue.labels.tolist()) - {-1} == expected
    assert torch.equal(queue.items[:, 0].long()[queue.labels > 0], queue.labels[queue.labels > 0])


def test_rows_are_unit_vectors_without_gradient_and_random_at_first() -> None:
    torch.manual_seed(0)
    queue = Queue(6, 4)
    torch.testing.assert_close(queue.items.norm(dim=1), torch.ones(6))
    assert queue.items.std() > 0.1
    z = torch.randn(3, 4, requires_grad=True)
    queue.push(3 * z)
    torch.testing.assert_close(queue.items[:3], torch.nn.functional.normalize(z.detach()))
    assert not queue.items.requires_grad


def test_it_goes_on_from_its_state() -> None:
    first, second = Queue(5, 2, unit=False), Queue(5, 2, unit=False)
    first.push(rows(1, 3))
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.push(rows(4, 4))
    assert torch.equal(first.items, second.items)
    assert int(second.pointer) == 2


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(UserError, match="width 2"):
        Queue(5, 2).push(torch.zeros(3, 4))
    with pytest.raises(UserError, match="labels"):
        Queue(5, 2, labels=True).push(torch.zeros(3, 2))
    with pytest.raises(UserError, match="1 or more"):
        Queue(0, 2)
