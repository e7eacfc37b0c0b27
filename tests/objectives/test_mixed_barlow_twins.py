"""Mixed Barlow Twins against its formula, and what the redundancy objectives learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught.errors import UserError
from selftaught.objectives import barlow_twins, mixed_barlow_twins, mixed_barlow_twins_terms, vicreg


def pair(rows=12, width=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    z1 = torch.randn(rows, width, generator=g, dtype=torch.float64) * torch.linspace(0.5, 3, width) + 1
    return z1, z1 + 0.7 * torch.randn(rows, width, generator=g, dtype=torch.float64)


def triple(rows=10, width=5):
    """Two views, an unrelated mixed embedding, and a permutation."""
    z1, z2 = pair(rows, width)
    zm, _ = pair(rows, width, seed=7)
    return z1, z2, zm, torch.randperm(rows, generator=torch.Generator().manual_seed(2))


def literal_standardised(z, unbiased=True, l2=False, groups=1):
    rows = [[v / math.sqrt(sum(w * w for w in row)) for v in row] if l2 else row for row in z.tolist()]
    size = len(rows) // groups
    for start in range(0, len(rows), size):
        for d in range(len(rows[0])):
            column = [rows[n][d] for n in range(start, start + size)]
            mean = sum(column) / size
            deviation = math.sqrt(sum((v - mean) ** 2 for v in column) / (size - unbiased))
            for n in range(start, start + size):
                rows[n] = [*rows[n][:d], (rows[n][d] - mean) / deviation, *rows[n][d + 1 :]]
    return rows


def literal_correlation(a, b):
    rows, width = len(a), len(a[0])
    return [[sum(a[n][i] * b[n][j] for n in range(rows)) / rows for j in range(width)] for i in range(width)]


def literal_mixed(z1, z2, zm, alpha, pi, lambda_bt, lambda_reg, script_target=False, half=False, **standardise):
    """The sheet's four matrices and their targets, entry by entry."""
    a, b, m = (literal_standardised(z, **standardise) for z in (z1, z2, zm))
    rows, width = len(a), len(a[0])
    alphas = alpha.tolist() if isinstance(alpha, torch.Tensor) else [alpha] * rows
    c = literal_correlation(a, b)
    invariance = sum((c[i][i] - 1) ** 2 for i in range(width))
    redundancy = sum(c[i][j] ** 2 for i in range(width) for j in range(width) if i != j)
    error = 0.0
    for view, first in ((a, a), (b, b if script_target else a)):
        found = literal_correlation(m, view)
        for i in range(width):
            for j in range(width):
                target = 0.0
                for n in range(rows):
                    target += alphas[n] * first[n][i] * view[n][j] / rows
                    target += (1 - alphas[n]) * b[pi[n]][i] * view[n][j] / rows
                error += (found[i][j] - target) ** 2
    regularisation = lambda_bt * error * (0.5 if half else 1)
    total = invariance + lambda_bt * redundancy + lambda_reg * regularisation
    return {"loss": total, "invariance": invariance, "redundancy": redundancy, "regularisation": regularisation}


@pytest.mark.parametrize("shape", [(10, 5), (6, 13), (4, 8)], ids=str)
@pytest.mark.parametrize("script_target", [False, True])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(
    "standardise", [{}, {"l2": True}, {"unbiased": False}, {"groups": 2}], ids=["plain", "l2", "biased", "groups"]
)
def test_mixed_equals_the_four_matrices_entry_by_entry(shape, script_target, per_sample, standardise):
    z1, z2, zm, pi = triple(*shape)
    alpha = torch.rand(shape[0], generator=torch.Generator().manual_seed(1)).double() if per_sample else 0.3
    expected = literal_mixed(z1, z2, zm, alpha, pi.tolist(), 0.02, 1.5, script_target, script_target, **standardise)
    named = mixed_barlow_twins_terms(
        z1, z2, zm, alpha, pi, lambda_bt=0.02, lambda_reg=1.5, reg_half=script_target,
        mb_target="imagenet-script" if script_target else "paper",
        l2_before_standardise=standardise.get("l2", False), unbiased=standardise.get("unbiased", True),
        groups=standardise.get("groups", 1),
    )  # fmt: skip
    assert named.keys() == expected.keys()
    for name, value in expected.items():
        assert named[name].item() == pytest.approx(value, rel=1e-10, abs=1e-12), name


def test_mixed_defaults_are_the_small_image_recipe():
    z1, z2, zm, pi = triple()
    expected = literal_mixed(z1, z2, zm, 0.6, pi.tolist(), 1 / 128, 4.0)["loss"]
    assert mixed_barlow_twins(z1, z2, zm, 0.6, pi).item() == pytest.approx(expected, rel=1e-12)
    assert mixed_barlow_twins(z1, z2, zm, torch.tensor(0.6).double(), pi).item() == pytest.approx(expected, rel=1e-7)


def test_mixed_without_the_third_batch_is_barlow_twins():
    z1, z2, zm, pi = triple()
    z1, z2 = 1e4 * z1, 1e4 * z2  # barlow_twins' epsilon in the variance is nothing then
    plain = barlow_twins(z1, z2, lambda_=0.02).item()
    assert mixed_barlow_twins(z1, z2, lambda_bt=0.02, unbiased=False).item() == pytest.approx(plain, rel=1e-12)
    off = mixed_barlow_twins(z1, z2, zm, 0.4, pi, lambda_bt=0.02, lambda_reg=0.0, unbiased=False).item()
    assert off == pytest.approx(plain, rel=1e-12)
    assert "regularisation" not in mixed_barlow_twins_terms(z1, z2)


def test_mixed_regularisation_vanishes_where_the_mixture_is_one_of_its_parts():
    z1, z2, zm, pi = triple()
    part = lambda m, a, p=pi, b=z2: mixed_barlow_twins_terms(z1, b, m, a, p)["regularisation"].item()  # noqa: E731
    assert part(z1, 1.0) < 1e-24
    assert part(z2[pi], 0.0) < 1e-24
    assert part(z1, 0.37, torch.arange(10), z1) < 1e-24  # pi the identity, both views the same
    assert part(zm, 0.5) > 1e-3
    assert part(z2[pi], 0.0, pi.roll(1)) > 1e-3  # another permutation than the images'
    assert part(z1, 0.6) > 1e-3  # another share than the images'


def test_mixed_gradient_with_respect_to_the_mixed_embedding():
    z1, z2, zm, pi = triple()
    zm.requires_grad_()
    mixed_barlow_twins(z1, z2, zm, 0.3, pi, lambda_bt=0.02, lambda_reg=1.5).backward()
    a, b = ((z - z.mean(0)) / z.std(0) for z in (z1, z2))
    again = zm.detach().clone().requires_grad_()
    m = (again - again.mean(0)) / again.std(0)
    mixture = 0.3 * a + 0.7 * b[pi]
    errors = [(m.T @ z - mixture.T @ z) / 10 for z in (a, b)]
    formula = 2 * 0.02 * 1.5 / 10 * sum(z @ q.T for z, q in zip((a, b), errors, strict=True))
    m.backward(formula.detach())
    torch.testing.assert_close(zm.grad, again.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(12, 4), (5, 11)], ids=["tall", "wide"])
@pytest.mark.parametrize("target", ["paper", "imagenet-script"])
def test_mixed_detached_targets_change_the_gradient_not_the_value(shape, target):
    gradients = {}
    for detach in (False, True):
        z1, z2, zm, pi = triple(*shape)
        leaves = [t.requires_grad_() for t in (z1, z2, zm)]
        ours = mixed_barlow_twins(*leaves, 0.3, pi, lambda_bt=0.5, mb_target=target, detach_target=detach)
        ours.backward()
        again = [t.detach().clone().requires_grad_() for t in leaves]
        a, b, m = ((z - z.mean(0)) / z.std(0) for z in again)
        n, hold = len(a), (lambda t: t.detach()) if detach else (lambda t: t)
        c = a.T @ b / n
        off = c - torch.diag(c.diag())
        loss = (c.diag() - 1).square().sum() + 0.5 * off.square().sum()
        for view, first in ((a, a), (b, a if target == "paper" else b)):
            wanted = hold((0.3 * first.T @ view + 0.7 * b[pi].T @ view) / n)
            loss = loss + 4 * 0.5 * (m.T @ view / n - wanted).square().sum()
        loss.backward()
        assert ours.item() == pytest.approx(loss.item(), rel=1e-12)
        for ours_leaf, leaf in zip(leaves, again, strict=True):
            torch.testing.assert_close(ours_leaf.grad, leaf.grad, rtol=1e-9, atol=1e-11)
        gradients[detach] = z1.grad
    assert (gradients[True] - gradients[False]).abs().max() > 1e-3


def test_mixed_diagonal_stays_below_one_by_the_unbiased_deviation():
    design = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.linalg.qr(design - design.mean(0)).Q
    assert mixed_barlow_twins(z, z).item() == pytest.approx(6 / 40**2, rel=1e-9)
    assert mixed_barlow_twins(z, z, unbiased=False).item() == pytest.approx(0, abs=1e-20)


def test_mixed_epsilon_touches_only_dead_columns():
    z1, z2, zm, pi = triple()
    healthy = mixed_barlow_twins(z1, z2, zm, 0.3, pi)
    assert torch.equal(healthy, mixed_barlow_twins(z1, z2, zm, 0.3, pi, eps=1e-12))
    dead = [torch.cat([z, torch.full((10, 1), 3.0, dtype=torch.float64)], 1).requires_grad_() for z in (z1, z2, zm)]
    loss = mixed_barlow_twins(*dead, 0.3, pi)
    loss.backward()
    assert loss.item() == pytest.approx(healthy.item() + 1, rel=1e-12)  # C_ii = 0 there
    assert all(z.grad.isfinite().all() for z in dead)


@pytest.mark.parametrize("shape", [(40, 16), (8, 64)], ids=["tall", "wide"])
def test_mixed_in_float32_under_autocast(shape):
    z1, z2, zm, pi = triple(*shape)
    expected = mixed_barlow_twins(z1, z2, zm, 0.3, pi).item()
    single = [z.float() for z in (z1, z2, zm)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = mixed_barlow_twins(*single, torch.tensor(0.3), pi)
        half = mixed_barlow_twins(*(z.bfloat16() for z in single), torch.tensor(0.3), pi)
    assert under.dtype == half.dtype == torch.float32
    assert under.item() == pytest.approx(expected, rel=1e-5)
    assert half.item() == pytest.approx(expected, rel=0.05)


def test_mixed_and_vicreg_make_no_square_matrix_for_a_wide_projector():
    z1, z2, zm = (torch.randn(16, 2048, requires_grad=True) for _ in range(3))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        (mixed_barlow_twins(z1, z2, zm, 0.3, torch.arange(16)) + vicreg(z1, z2)).backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2048 * 2048 * 4 / 16


def test_mixed_refuses_wrong_input():
    z1, z2, zm, pi = triple()
    for arguments, options, why in (
        ((z1[:1], z2[:1]), {}, "at least 2"),
        ((z1, z2, zm[:, :3], 0.3, pi), {}, "one shape"),
        ((z1, z2, zm), {}, "alpha and pi"),
        ((z1, z2, zm, 0.3, pi[:5]), {}, "pi must hold 10 integers"),
        ((z1, z2, zm, 0.3, pi.double()), {}, "pi must hold 10 integers"),
        ((z1, z2, zm, 1.3, pi), {}, r"alpha must lie in \[0, 1\]"),
        ((z1, z2, zm, torch.rand(9), pi), {}, r"\(10,\)"),
        ((z1, z2), {"mb_target": "a"}, "mb_target"),
        ((z1, z2), {"groups": 3}, "groups"),
        ((z1, z2), {"groups": 10}, "groups"),
        ((z1, z2), {"eps": 0.0}, "eps must be above 0"),
    ):
        with pytest.raises(UserError, match=why):
            mixed_barlow_twins(*arguments, **options)
    zm[0, 0] = math.nan
    assert mixed_barlow_twins(z1, z2, zm, 0.3, pi).isnan()


# ---- learning -------------------------------------------------------------------------------------------------------
def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(data.target)


def distorted(x):
    """Shifted by up to a pixel, brightness changed, noise added."""
    shifts = torch.randint(-1, 2, (len(x), 2))
    rows = (torch.arange(8) + shifts[:, :1]) % 8
    columns = (torch.arange(8) + shifts[:, 1:]) % 8
    moved = x[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
    return moved * torch.empty(len(x), 1, 1, 1).uniform_(0.7, 1.3) + 0.15 * torch.randn_like(x)


def small_network(width=128):
    layers = []
    for before, after, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [torch.nn.Conv2d(before, after, 3, stride, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    encoder = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    head = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU())
    return encoder, torch.nn.Sequential(head, torch.nn.Linear(64, width))


def neighbour_accuracy(encoder, x, labels):
    """Of distorted digits among clean ones."""
    torch.manual_seed(5)
    with torch.no_grad():
        h = F.normalize(encoder.eval()(torch.cat([x[:1200], distorted(x[1200:])])))
    nearest = labels[:1200][(h[1200:] @ h[:1200].T).topk(5).indices]
    return (nearest.mode(1).values == labels[1200:]).float().mean().item()


def mixture_of(x1, x2):
    alpha, pi = torch.rand(()).item(), torch.randperm(len(x1))
    return alpha * x1 + (1 - alpha) * x2[pi], alpha, pi


def train_on_digits(seed, x, loss, steps):
    torch.manual_seed(seed)
    encoder, head = small_network()
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-3)
    network = torch.nn.Sequential(encoder, head)
    for _ in range(steps):
        chosen = x[torch.randint(1200, (128,))]
        optimiser.zero_grad()
        loss(network, distorted(chosen), distorted(chosen)).backward()
        optimiser.step()
    return encoder, network


@pytest.mark.slow
def test_mixed_samples_regularise_and_both_forms_and_vicreg_learn():
    x, labels = digits()

    def mixed(network, x1, x2):
        xm, alpha, pi = mixture_of(x1, x2)
        return mixed_barlow_twins(network(x1), network(x2), network(xm), alpha, pi, lambda_bt=0.01, lambda_reg=4.0)

    losses = {
        "mixed": mixed,
        "plain": lambda network, x1, x2: mixed_barlow_twins(network(x1), network(x2), lambda_bt=0.01),
        "vicreg": lambda network, x1, x2: vicreg(network(x1), network(x2)),
    }
    held_out, accuracy = {}, {}
    for name, loss in losses.items():
        found = []
        for seed in range(2):
            encoder, network = train_on_digits(seed, x, loss, 120)
            torch.manual_seed(9)
            with torch.no_grad():
                network.eval()
                x1, x2 = distorted(x[1200:]), distorted(x[1200:])
                xm, alpha, pi = mixture_of(x1, x2)
                named = mixed_barlow_twins_terms(network(x1), network(x2), network(xm), alpha, pi, lambda_bt=0.01)
            found.append((named["regularisation"].item(), neighbour_accuracy(encoder, x, labels)))
        held_out[name], accuracy[name] = np.mean(found, 0)
    torch.manual_seed(0)
    untrained = neighbour_accuracy(small_network()[0], x, labels)
    assert held_out["mixed"] < held_out["plain"]
    assert min(accuracy.values()) > untrained + 0.1
