"""Masked Scene Modeling's objective, in float64, term by term."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught.errors import UserError
from selftaught.objectives import (
    average_levels,
    masked_scene_contrast,
    masked_scene_cosine,
    masked_scene_input,
    masked_scene_modeling,
    masked_scene_mse,
    masked_scene_prototypes,
    masked_scene_targets,
    match_voxels,
    teacher_temperature,
)

G = torch.Generator().manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G, dtype=torch.float64)


@pytest.mark.parametrize("targets", ["sinkhorn", "centre"])
def test_the_loss_is_the_sheets_formula(targets: str) -> None:
    sizes = [[5, 3], [4, 0]]
    students, teachers = ([[rand(n, 7) for n in view] for view in sizes] for _ in range(2))
    centers = [rand(7), rand(7)]
    total = 0.0
    for v, view in enumerate(sizes):
        over_levels, levels = 0.0, 0
        for at, n in enumerate(view):
            if n == 0:
                continue
            levels += 1
            t = teachers[v][at]
            if targets == "centre":
                e = [[math.exp(float((t[i, k] - centers[at][k]) / 0.04)) for k in range(7)] for i in range(n)]
                q = [[value / sum(row) for value in row] for row in e]
            else:
                m = (t / 0.04).exp().T
                m = m / m.sum()
                for _ in range(3):
                    m = m / m.sum(1, keepdim=True) / 7
                    m = m / m.sum(0, keepdim=True) / n
                q = (m * n).T.tolist()
            for i in range(n):
                z = sum(math.exp(float(students[v][at][i, k]) / 0.1) for k in range(7))
                over_levels += sum(-q[i][k] * (float(students[v][at][i, k]) / 0.1 - math.log(z)) / n for k in range(7))
                assert sum(q[i]) == pytest.approx(1)
        total += over_levels / levels / 2
    found = masked_scene_modeling(students, teachers, targets=targets, centers=centers)
    assert float(found) == pytest.approx(total, rel=1e-9)


def test_other_distances_and_their_limits() -> None:
    p, t = rand(6, 4), rand(6, 4)
    cos = torch.stack([a @ b / (a.norm() * b.norm()) for a, b in zip(p, t, strict=True)])
    torch.testing.assert_close(masked_scene_cosine(p, t), (2 - 2 * cos).mean())
    assert float(masked_scene_cosine(p, 3 * p)) == pytest.approx(0, abs=1e-12)
    assert float(masked_scene_cosine(p, -p)) == pytest.approx(4)
    torch.testing.assert_close(masked_scene_mse(p, t), ((p - t) ** 2).mean())
    s = torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in t]) for a in p]) / 0.4
    torch.testing.assert_close(masked_scene_contrast(p, t), (s.logsumexp(1) - s.diagonal()).mean())
    x = torch.cat((rand(5, 3), torch.nn.functional.normalize(rand(5, 3), dim=1)), 1)
    assert float(masked_scene_input(x, x)) == pytest.approx(0, abs=1e-12)
    x[0, 3:] = 0
    y = torch.cat((x[:, :3] + 1, -x[:, 3:]), 1)
    assert float(masked_scene_input(y, x)) == pytest.approx(1 + 2)
    with pytest.raises(UserError, match="6 columns"):
        masked_scene_input(p, t)
    with pytest.raises(UserError, match="no negatives"):
        masked_scene_contrast(p[:1], t[:1])


def test_gradients_reach_the_student_alone() -> None:
    s, t = rand(4, 5).requires_grad_(), rand(4, 5).requires_grad_()
    for loss in (
        lambda s, t: masked_scene_modeling([[s]], [[t]]),
        masked_scene_cosine,
        masked_scene_mse,
        masked_scene_contrast,
    ):
        to_s, to_t = torch.autograd.grad(loss(s, t), [s, t], allow_unused=True)
        assert to_s.abs().sum() > 0
        assert to_t is None or (to_t == 0).all()
        assert torch.autograd.gradcheck(lambda s, f=loss: f(s, t.detach()), (s,))
        assert torch.autograd.gradgradcheck(lambda s, f=loss: f(s, t.detach()), (s,))
    q = masked_scene_targets(t)
    entropy = -(q * q.log()).sum(1).mean()
    assert float(masked_scene_prototypes(0.1 * q.log(), q)) == pytest.approx(float(entropy))


def test_levels_without_partners_are_left_out() -> None:
    a, b, c = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 3.0, 7.0))
    assert float(average_levels([[a, b], [None, c]])) == 4.5
    assert float(average_levels([[a, b], [None, None]])) == 2.0
    assert float(average_levels([[None], []])) == 0.0
    empty = torch.zeros(0, 4)
    assert float(masked_scene_modeling([[empty]], [[empty]])) == 0.0
    with pytest.raises(UserError, match="the same levels"):
        masked_scene_modeling([[empty]], [[]])


def test_partners_are_the_nearest_within_reach_and_of_the_same_scene() -> None:
    a, b = torch.rand(40, 3, generator=G), torch.rand(50, 3, generator=G)
    ends_a, ends_b = torch.tensor([15, 15, 40]), torch.tensor([20, 30, 50])
    rows, partners = match_voxels(a, b, 0.2, ends_a, ends_b)
    wanted = []
    for (a0, a1), (b0, b1) in (((0, 15), (0, 20)), ((15, 40), (30, 50))):
        for i in range(a0, a1):
            far = (b[b0:b1].double() - a[i].double()).norm(dim=1)
            if far.min() <= 0.2:
                wanted.append((i, b0 + int(far.argmin())))
    assert list(zip(rows.tolist(), partners.tolist(), strict=True)) == wanted
    assert match_voxels(a, b + 9, 0.2)[0].shape == (0,)
    for bad in ({"offset_a": torch.tensor([3])}, {"offset_a": ends_a, "offset_b": torch.tensor([20, 50])}):
        with pytest.raises(UserError, match=r"offsets|scenes"):
            match_voxels(a, b, 0.2, **bad)


def test_the_teachers_temperature_warms_up() -> None:
    assert [teacher_temperature(p) for p in (0, 0.05, 0.1, 1)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(0, warmup=0) == 0.07
    with pytest.raises(UserError, match="progress"):
        teacher_temperature(2)
