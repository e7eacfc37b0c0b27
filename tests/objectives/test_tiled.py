import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from selftaught.objectives import _tiled
from selftaught.objectives._tiled import lse_rows, lse_rows_and_columns, lse_self

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def plain(a, b, scale, exclude):
    """The N x M matrix, row by row, with the left-out entries dropped rather than masked."""
    similarity = scale * a @ b.T
    keep = torch.ones_like(similarity, dtype=torch.bool)
    for i, left_out in enumerate([] if exclude is None else exclude.tolist()):
        for j in left_out:
            if j >= 0:
                keep[i, j] = False
    rows = torch.stack([row[k].logsumexp(0) for row, k in zip(similarity, keep, strict=True)])
    columns = torch.stack([column[k].logsumexp(0) for column, k in zip(similarity.T, keep.T, strict=True)])
    return rows, columns


def leaves(*tensors):
    return [t.clone().requires_grad_() for t in tensors]


def example(dtype, spread=0.4, n=37, m=29, d=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, generator=g, dtype=torch.float64) * spread
    b = torch.randn(m, d, generator=g, dtype=torch.float64) * spread
    exclude = torch.randint(-1, m, (n, 2), generator=g)
    return (
        a.to(dtype),
        b.to(dtype),
        exclude,
        torch.randn(n, generator=g).to(dtype),
        torch.randn(m, generator=g).to(dtype),
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tile", [1, 8, 29, 64])
@pytest.mark.parametrize("spread", [0.4, 4.0], ids=["bounded", "running maximum"])
@pytest.mark.parametrize("excluding", [False, True])
def test_both_directions_equal_the_matrix(dtype, tile, spread, excluding):
    a, b, exclude, u, v = example(dtype, spread)
    exclude = exclude if excluding else None
    a1, b1 = leaves(a, b)
    a2, b2 = leaves(a.double(), b.double())
    rows, columns = lse_rows_and_columns(a1, b1, scale=3.0, exclude=exclude, tile=tile)
    expected_rows, expected_columns = plain(a2, b2, 3.0, exclude)
    (rows @ u + columns @ v).backward()
    (expected_rows @ u.double() + expected_columns @ v.double()).backward()
    size = max(1.0, expected_rows.abs().max().item())
    assert rows.dtype == dtype
    for ours, theirs in ((rows, expected_rows), (columns, expected_columns)):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=TOLERANCE[dtype] * size)
    for ours, theirs in ((a1.grad, a2.grad), (b1.grad, b2.grad)):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=TOLERANCE[dtype] * theirs.abs().max().item())


@pytest.mark.parametrize("spread", [0.4, 4.0], ids=["bounded", "running maximum"])
def test_rows_alone_and_gradients_of_one_side_only(spread):
    a, b, exclude, u, _ = example(torch.float64, spread)
    expected = plain(a, b, 2.0, exclude)[0]
    for needs_a, needs_b in ((True, True), (True, False), (False, True)):
        a1, b1 = a.clone().requires_grad_(needs_a), b.clone().requires_grad_(needs_b)
        a2, b2 = a.clone().requires_grad_(needs_a), b.clone().requires_grad_(needs_b)
        rows = lse_rows(a1, b1, scale=2.0, exclude=exclude, tile=10)
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-12)
        (rows @ u).backward()
        (plain(a2, b2, 2.0, exclude)[0] @ u).backward()
        for ours, theirs in ((a1.grad, a2.grad), (b1.grad, b2.grad)):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [0.4, 4.0], ids=["bounded", "running maximum"])
@pytest.mark.parametrize("tile", [5, 12, 100])
def test_vectors_with_themselves_at_half_the_work(spread, tile):
    x, _, _, _, _ = example(torch.float64, spread, n=24)
    u = torch.linspace(-1, 2, 24, dtype=torch.float64)
    itself = torch.arange(24).unsqueeze(1)
    exclude = torch.cat([itself, (itself + 12) % 24], 1)
    x1, x2 = leaves(x, x)
    ours, theirs = lse_self(x1, scale=1.7, exclude=exclude, tile=tile), plain(x2, x2, 1.7, exclude)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (ours @ u).backward()
    (theirs @ u).backward()
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-12, atol=1e-12)


def test_gradient_against_finite_differences():
    a, b, exclude, _, _ = example(torch.float64, n=7, m=5)
    exclude = exclude.clamp(max=4)
    a, b = leaves(a, b)
    assert torch.autograd.gradcheck(lambda a, b: lse_rows_and_columns(a, b, exclude=exclude, tile=3), (a, b))


def test_extreme_logits_neither_overflow_nor_vanish():
    a = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    b = torch.tensor([[1.0], [0.5], [-1.0]])
    rows = lse_rows(a, b, tile=1)
    assert rows.tolist() == [1000.0, 1000.0]
    rows.sum().backward()
    assert a.grad.tolist() == [[1.0], [-1.0]]


@pytest.mark.parametrize("bound", [1.0, 100.0])
def test_a_query_without_keys_gives_minus_infinity_and_no_gradient(bound):
    a = torch.eye(2).requires_grad_()
    rows = lse_rows(a, torch.eye(2), exclude=torch.tensor([[0, 1], [-1, -1]]), bound=bound, tile=1)
    assert rows[0] == -math.inf
    assert rows[1].item() == pytest.approx(math.log(1 + math.e))
    rows.sum().backward()
    assert a.grad[0].tolist() == [0.0, 0.0]
    assert torch.isfinite(a.grad).all()


def test_scale_as_a_tensor_gets_a_gradient_per_query():
    a, b, _, u, _ = example(torch.float64)
    scale = torch.rand(37, dtype=torch.float64) + 0.5
    s1, s2 = leaves(scale, scale)
    ours = lse_rows(a, b, scale=s1, tile=8)
    theirs = (s2.unsqueeze(1) * (a @ b.T)).logsumexp(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (ours @ u).backward()
    (theirs @ u).backward()
    torch.testing.assert_close(s1.grad, s2.grad, rtol=1e-12, atol=1e-12)


def test_nan_is_passed_on():
    a, b, _, _, _ = example(torch.float32)
    a[3, 2] = math.nan
    rows = lse_rows(a, b, tile=8)
    assert rows[3].isnan()
    assert rows.isnan().sum() == 1


def test_backward_inside_autocast_stays_exact():
    a, b, _, _, _ = example(torch.float32)
    a1, a2 = leaves(a, a)
    lse_rows(a1, b, tile=8).sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lse_rows(a2, b, tile=8).sum().backward()
    assert torch.equal(a1.grad, a2.grad)


MEMORY = """
import resource, torch
import torch.nn.functional as F
from selftaught.objectives import dcl
torch.set_num_threads(1)
def step(n):
    z1, z2 = (F.normalize(torch.randn(n, 32), dim=1).requires_grad_() for _ in range(2))
    dcl(z1, z2).backward()
    assert z1.grad.isfinite().all()
step(600)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(ROWS)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_is_linear_in_the_batch():
    peaks = []
    for rows in (8192, 16384):
        script = MEMORY.replace("ROWS", str(rows))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
        peaks.append(float(done.stdout))
    # 32,768 anchors: the matrix of similarities alone would be 4096 MiB, inputs and gradients are 8 MiB.
    assert peaks[1] < 100
    assert peaks[1] < 3 * max(peaks[0], 10)


def test_no_matrix_is_kept_for_the_backward_pass():
    z = F.normalize(torch.randn(3000, 8), dim=1).requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        lse_self(z, scale=10.0, tile=256).sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 4 * 256 * 256 * 4 < 3000 * 3000 * 4 / 10


@pytest.mark.parametrize("tile", [3, 8, 64])
def test_left_out_keys_are_the_same_where_they_may_not_be_read(tile, monkeypatch):
    """On a GPU the host doesn't wait for indices: every tile is treated as if it held some, every tile is masked."""
    x, _, _, _, _ = example(torch.float64, n=24)
    itself = torch.arange(24).unsqueeze(1)
    exclude = torch.cat([itself, (itself + 12) % 24, torch.full_like(itself, -1)], 1)
    group = torch.arange(24) // 5
    read = lse_self(x, exclude=exclude, tile=tile), lse_self(x, group=group, tile=tile)
    original = _tiled._LeftOut.__init__

    def blind(self, exclude):
        original(self, exclude)
        self.spans = None

    monkeypatch.setattr(_tiled._LeftOut, "__init__", blind)
    monkeypatch.setattr(_tiled._Problem, "_share_a_group", lambda self, rows, columns: True)
    unread = lse_self(x, exclude=exclude, tile=tile), lse_self(x, group=group, tile=tile)
    torch.testing.assert_close(unread, read, rtol=0, atol=1e-14)
    torch.testing.assert_close(read[0], plain(x, x, 1.0, exclude)[0], rtol=0, atol=1e-12)
    of_group = [[j for j in range(24) if group[j] == g] for g in group.tolist()]
    padded = torch.tensor([row + [-1] * (5 - len(row)) for row in of_group])
    torch.testing.assert_close(read[1], plain(x, x, 1.0, padded)[0], rtol=0, atol=1e-12)
