"""LAF against a literal transcription of its sheet, its identities, and what its gradients reach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from selftaught.errors import UserError
from selftaught.objectives import laf


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal_vae(e: Tensor, out: Tensor, mean: Tensor, log_variance: Tensor, weight: float) -> float:
    total = 0.0
    for i in range(len(e)):
        total += sum((float(out[i, d]) - float(e[i, d])) ** 2 for d in range(e.shape[1]))
        for m, s in zip(mean[i].tolist(), log_variance[i].exp().tolist(), strict=True):
            total += weight * -0.5 * (math.log(s + 1e-8) + 1 - m * m - s)
    return total / len(e)


def phi(a: Tensor, b: Tensor) -> float:
    q = sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return math.exp(q / (q + 1))


def literal_ue(er: Tensor, hr: Tensor, ef: Tensor, hf: Tensor) -> float:
    return sum(phi(a, b) for a, b in zip(hr, er, strict=True)) - sum(phi(a, b) for a, b in zip(hf, ef, strict=True))


def distance(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return 1 - dot / (math.hypot(*a.tolist()) * math.hypot(*b.tolist()))


def literal_ra(er: Tensor, tr: Tensor, ef: Tensor, tf: Tensor, t: float) -> float:
    below = sum(math.exp(distance(a, b) / t) for a, b in zip(ef, tf, strict=True))
    return sum(math.log(math.exp(distance(a, b)) / below) for a, b in zip(er, tr, strict=True))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (7, 2), (1, 6)])
def test_equals_the_sheet(n: int, m: int) -> None:
    er, hr, ef, hf = draw(n, 6), draw(n, 6, seed=1), draw(m, 6, seed=2), draw(m, 6, seed=3)
    assert float(laf.laf_ue(er, hr, ef, hf)) == pytest.approx(literal_ue(er, hr, ef, hf), rel=1e-12)
    for t in (0.5, 5.0, 20.0):
        assert float(laf.laf_ra(er, hr, ef, hf, temperature=t)) == pytest.approx(
            literal_ra(er, hr, ef, hf, t), rel=1e-12
        )
    mean, log_variance = draw(n, 3, seed=4), draw(n, 3, seed=5)
    for weight in (0.0, 0.025, 1.0):
        got = laf.laf_vae(er, hr, mean, log_variance, kl_weight=weight)
        assert float(got) == pytest.approx(literal_vae(er, hr, mean, log_variance, weight), rel=1e-12)


def test_the_terms_make_up_the_loss() -> None:
    er, hr, ef, hf = draw(4, 5), draw(4, 5, seed=1), draw(3, 5, seed=2), draw(3, 5, seed=3)
    ue = laf.laf_ue_terms(er, hr, ef, hf)
    assert torch.equal(ue["loss"], ue["remain"] - ue["forget"])
    vae = laf.laf_vae_terms(er, hr, draw(4, 2), draw(4, 2, seed=9), kl_weight=0.3)
    assert torch.allclose(vae["loss"], vae["reconstruction"] + 0.3 * vae["kl"])
    ra = laf.laf_ra_terms(er, hr, ef, hf, temperature=20.0)
    assert float(ra["remain"]) == pytest.approx(sum(map(distance, er, hr)) / 4)
    assert float(ra["forget"]) == pytest.approx(sum(map(distance, ef, hf)) / 3)


def test_identities() -> None:
    er, ef = draw(5, 8), draw(3, 8, seed=1)
    assert float(laf.laf_ue(er, er, ef, ef)) == pytest.approx(5 - 3)  # phi(0) = 1 each
    assert float(laf.laf_ra(er, er, ef, ef)) == pytest.approx(-5 * math.log(3))  # student = teacher
    standard = torch.zeros(5, 2, dtype=torch.float64)
    assert float(laf.laf_vae(er, er, standard, standard, kl_weight=1.0)) == pytest.approx(0, abs=1e-7)
    q = torch.tensor([0.0, 1.0, 1e12], dtype=torch.float64)
    assert laf.laf_phi(q).tolist() == pytest.approx([1.0, math.exp(0.5), math.e])


def test_sums_not_means() -> None:
    """A batch twice over counts twice in L_UE; in L_RA what is to be kept counts twice."""
    er, hr, ef, hf = draw(4, 5), draw(4, 5, seed=1), draw(3, 5, seed=2), draw(3, 5, seed=3)
    twice = [torch.cat([x, x]) for x in (er, hr, ef, hf)]
    assert torch.allclose(laf.laf_ue(*twice), 2 * laf.laf_ue(er, hr, ef, hf))
    assert torch.allclose(laf.laf_ra(*twice[:2], ef, hf), 2 * laf.laf_ra(er, hr, ef, hf))


def test_without_squashing_the_errors_themselves() -> None:
    er, hr, ef, hf = draw(4, 5), draw(4, 5, seed=1), draw(3, 5, seed=2), draw(3, 5, seed=3)
    wanted = (er - hr).square().sum() - (ef - hf).square().sum()
    assert torch.allclose(laf.laf_ue(er, hr, ef, hf, squash=False), wanted)


def test_gradients() -> None:
    er, hr, ef, hf = (draw(n, 4, seed=s).requires_grad_() for s, n in enumerate((3, 3, 2, 2)))
    assert gradcheck(laf.laf_ue, (er, hr, ef, hf))
    assert gradgradcheck(laf.laf_ue, (er, hr, ef, hf))
    tr, tf = hr.detach(), hf.detach()
    assert gradcheck(lambda a, b: laf.laf_ra(a, tr, b, tf, temperature=5.0), (er, ef))
    mean, log_variance = draw(3, 2, seed=7).requires_grad_(), draw(3, 2, seed=8).requires_grad_()
    assert gradcheck(laf.laf_vae, (er, hr, mean, log_variance))
    t = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: laf.laf_ra(er.detach(), tr, ef.detach(), tf, temperature=t), (t,))


def test_the_slope_of_phi_is_what_the_sheet_says() -> None:
    q = torch.tensor([0.0, 0.3, 2.0, 50.0], dtype=torch.float64, requires_grad=True)
    laf.laf_phi(q).sum().backward()
    assert torch.allclose(q.grad, laf.laf_phi(q.detach()) / (q.detach() + 1) ** 2)


def test_the_teacher_gets_no_gradient_and_descent_moves_the_right_way() -> None:
    er, tr, ef, tf = (draw(4, 6, seed=s).requires_grad_() for s in range(4))
    loss = laf.laf_ra(er, tr, ef, tf, temperature=20.0)
    gr, gf = torch.autograd.grad(loss, (er, ef), retain_graph=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(loss, (tr,))
    before = laf.laf_ra_terms(er, tr, ef, tf, temperature=20.0)
    after = laf.laf_ra_terms(er - 0.01 * gr, tr, ef - 0.01 * gf, tf, temperature=20.0)
    assert after["remain"] < before["remain"]
    assert after["forget"] > before["forget"]


def test_degenerate_batches_stay_finite() -> None:
    zero = torch.zeros(3, 4, requires_grad=True)
    far = torch.full((2, 4), 1e4, requires_grad=True)
    for loss in (
        laf.laf_ra(zero, torch.ones(3, 4), far, torch.zeros(2, 4)),
        laf.laf_ue(zero, torch.zeros(3, 4), far, torch.zeros(2, 4)),
    ):
        grads = torch.autograd.grad(loss, (zero, far))
        assert torch.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in grads)


def test_float32_under_autocast() -> None:
    er, hr, ef, hf = (draw(4, 6, seed=s).bfloat16() for s in range(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert laf.laf_ue(er, hr, ef, hf).dtype == torch.float32
        assert laf.laf_ra(er, hr, ef, hf).dtype == torch.float32


def test_bad_shapes_and_values_are_refused() -> None:
    e, other = draw(4, 5), draw(3, 5)
    for call in (
        lambda: laf.laf_ue(e, other, e, e),
        lambda: laf.laf_ra(e, e, e, other),
        lambda: laf.laf_ra(e, e, e, e, temperature=0.0),
        lambda: laf.laf_vae(e, e, draw(3, 2), draw(3, 2)),
        lambda: laf.laf_vae(e, e, draw(4, 2), draw(4, 2), kl_weight=-1.0),
        lambda: laf.bad_teacher(e, e, draw(4, 6), draw(4, 6)),
        lambda: laf.negative_gradient(e, torch.zeros(3).long(), e, torch.zeros(4).long()),
        lambda: laf.random_label(e, torch.zeros(4).long(), e, torch.zeros(4).long(), weight=-1.0),
        lambda: laf.random_other_labels(torch.tensor([0, 3]), 3),
    ):
        with pytest.raises(UserError):
            call()


# ---- the baselines -----------------------------------------------------------------------------------------------
def literal_ce(logits: Tensor, labels: Tensor) -> float:
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return sum(math.log(sum(map(math.exp, row))) - row[k] for row, k in rows) / len(logits)


def test_negative_gradient_and_random_label() -> None:
    a, b = draw(4, 3), draw(2, 3, seed=1)
    y, z = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 0])
    kept, gone = literal_ce(a, y), literal_ce(b, z)
    assert float(laf.negative_gradient(a, y, b, z, weight=0.5)) == pytest.approx(kept - 0.5 * gone)
    assert float(laf.random_label(a, y, b, z, weight=2.0)) == pytest.approx(kept + 2 * gone)
    assert float(laf.negative_gradient(a, y, b, z, weight=0.0)) == pytest.approx(kept)  # fine-tuning


def test_wrong_labels_are_wrong_and_even() -> None:
    labels = torch.arange(4).repeat(3000)
    drawn = laf.random_other_labels(labels, 4, generator=torch.Generator().manual_seed(0))
    assert not (drawn == labels).any()
    counts = torch.stack([torch.bincount(drawn[labels == k], minlength=4) for k in range(4)])
    assert (counts.diagonal() == 0).all()
    assert counts[~torch.eye(4, dtype=torch.bool)].min() > 850  # 1000 each expected


def test_bad_teacher() -> None:
    s, t, u, v = draw(4, 3), draw(4, 3, seed=1), draw(2, 3, seed=2), draw(2, 3, seed=3)
    p, q = torch.cat([t, v]).softmax(1), torch.cat([s, u]).softmax(1)
    assert torch.allclose(laf.bad_teacher(s, t, u, v), (p * (p / q).log()).sum() / 6)
    assert float(laf.bad_teacher(s, s, u, u)) == pytest.approx(0, abs=1e-12)
    student = s.clone().requires_grad_()
    assert gradcheck(lambda x: laf.bad_teacher(x, t, u, v, temperature=2.0), (student,))
