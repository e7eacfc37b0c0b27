"""DINO and ReSSL against loops in float64, and against what only the right formula has."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(x - top) for x in row]
    return [p / sum(powers) for p in powers]


def literal_dino(student, teacher, center, tau_s: float, tau_t: float) -> float:
    total, pairs = 0.0, 0
    for u, t in enumerate(teacher.tolist()):
        for v, s in enumerate(student.tolist()):
            if u == v:
                continue
            pairs += 1
            for trow, srow in zip(t, s, strict=True):
                p = softmax([(x - c) / tau_t for x, c in zip(trow, center.tolist(), strict=True)])
                log_q = [math.log(x) for x in softmax([x / tau_s for x in srow])]
                total -= sum(a * b for a, b in zip(p, log_q, strict=True)) / len(t)
    return total / pairs


@pytest.mark.parametrize(("crops", "large"), [(2, 2), (5, 2), (3, 1), (3, 3)])
def test_dino_equals_its_formula(crops: int, large: int) -> None:
    student, teacher, center = draw(crops, 4, 6), draw(large, 4, 6, seed=1), 0.3 * draw(6, seed=2)
    ours = objectives.dino(student, teacher, center=center, student_temperature=0.5, teacher_temperature=0.2)
    assert ours.item() == pytest.approx(literal_dino(student, teacher, center, 0.5, 0.2), rel=1e-10)
    defaults = objectives.dino(0.1 * student, 0.1 * teacher)
    expected = literal_dino(0.1 * student, 0.1 * teacher, torch.zeros(6), 0.1, 0.04)
    assert defaults.item() == pytest.approx(expected, rel=1e-10)
    lists = objectives.dino(list(0.1 * student), list(0.1 * teacher))
    assert torch.equal(lists, defaults)


def test_dino_identities() -> None:
    zero = torch.zeros(3, 4, 16, dtype=torch.float64)
    assert objectives.dino(zero, zero[:2], center=zero[0, 0]).item() == pytest.approx(math.log(16), abs=1e-12)
    student, teacher, center = draw(4, 5, 6), draw(2, 5, 6, seed=1), draw(6, seed=2)
    reference = objectives.dino(student, teacher, center=center).item()
    shift, per_row = draw(6, seed=3), draw(4, 5, 1, seed=4)
    same = objectives.dino(student + per_row, teacher, center=center).item()
    assert same == pytest.approx(reference, abs=1e-9)
    assert objectives.dino(student, teacher + shift, center=center + shift).item() == pytest.approx(reference, abs=1e-9)
    assert abs(objectives.dino(student, teacher + shift, center=center).item() - reference) > 1e-3
    order = torch.tensor([0, 1, 3, 2])  # small crops have no order
    assert objectives.dino(student[order], teacher, center=center).item() == pytest.approx(reference, abs=1e-12)
    swapped = objectives.dino(student[[1, 0, 2, 3]], teacher[[1, 0]], center=center).item()
    assert swapped == pytest.approx(reference, abs=1e-12)
    assert abs(objectives.dino(student, teacher[[1, 0]], center=center).item() - reference) > 1e-3


def test_dino_never_compares_a_crop_with_itself() -> None:
    """With two crops only the crossed pairs count: what crop 0's teacher says moves crop 1's student alone."""
    student, teacher = draw(2, 3, 5).requires_grad_(), draw(1, 3, 5, seed=1)
    objectives.dino(student, teacher).backward()
    assert student.grad[0].abs().max() == 0
    assert student.grad[1].abs().max() > 0


def test_dino_gradient_is_student_minus_teacher_and_reaches_no_teacher() -> None:
    student = draw(3, 4, 6).requires_grad_()
    teacher, center = draw(2, 4, 6, seed=1).requires_grad_(), draw(6, seed=2).requires_grad_()
    objectives.dino(student, teacher, center=center, student_temperature=0.4, teacher_temperature=0.3).backward()
    assert teacher.grad is None
    assert center.grad is None
    targets = ((teacher - center) / 0.3).softmax(2).detach()
    predicted = (student.detach() / 0.4).softmax(2)
    for v in range(3):
        wanted = sum((predicted[v] - targets[u]) / 0.4 / 4 / 4 for u in range(2) if u != v)
        torch.testing.assert_close(student.grad[v], wanted, rtol=0, atol=1e-12)
    fixed = teacher.detach()
    assert torch.autograd.gradcheck(lambda s: objectives.dino(s, fixed, student_temperature=0.5), (student,))


def test_dino_terms_tell_the_two_collapses_apart() -> None:
    uniform = objectives.dino_terms(torch.zeros(2, 4, 8), torch.zeros(2, 4, 8))
    assert uniform["teacher_entropy"].item() == pytest.approx(math.log(8), abs=1e-6)
    assert uniform["kl"].item() == pytest.approx(0, abs=1e-6)
    one = torch.zeros(2, 4, 8)
    one[..., 3] = 50.0
    single = objectives.dino_terms(one, one)
    assert single["teacher_entropy"].item() == pytest.approx(0, abs=1e-6)
    centred = objectives.dino_terms(one, one, center=one[0, 0])
    assert centred["teacher_entropy"].item() == pytest.approx(math.log(8), abs=1e-6)
    student, teacher = draw(3, 4, 6), draw(2, 4, 6, seed=1)
    terms = objectives.dino_terms(student, teacher)
    p = (teacher / 0.04).softmax(2)
    entropy = -(p * (p + 1e-300).log()).sum(2).mean()
    assert terms["teacher_entropy"].item() == pytest.approx(entropy.item(), abs=1e-10)
    assert terms["kl"].item() == pytest.approx((terms["loss"] - entropy).item(), abs=1e-10)


def test_dino_center_moves_a_tenth_of_the_way_to_the_mean_logits() -> None:
    teacher = draw(2, 5, 6)
    mean = torch.tensor([sum(teacher[u, b, k].item() for u in range(2) for b in range(5)) / 10 for k in range(6)])
    first = objectives.dino_center(torch.zeros(6, dtype=torch.float64), teacher)
    torch.testing.assert_close(first, 0.1 * mean.double(), rtol=0, atol=1e-7)
    second = objectives.dino_center(first, list(teacher), momentum=0.9)
    torch.testing.assert_close(second, 0.9 * first + 0.1 * mean.double(), rtol=0, atol=1e-7)
    assert not objectives.dino_center(first, teacher.requires_grad_()).requires_grad


@pytest.mark.parametrize("name", ["dino", "ressl"])
def test_half_precision_and_autocast_compute_in_float32(name: str) -> None:
    if name == "dino":
        inputs = [0.3 * draw(3, 8, 6).float(), 0.3 * draw(2, 8, 6, seed=1).float()]
    else:
        inputs = [draw(8, 6).float(), draw(8, 6, seed=1).float(), draw(16, 6, seed=2).float()]
    function = getattr(objectives, name)
    expected = function(*inputs)
    halves = [x.bfloat16() for x in inputs]
    halves[0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under, half = function(*inputs), function(*halves)
    assert under.dtype == half.dtype == torch.float32
    assert torch.equal(under, expected)
    half.backward()
    assert halves[0].grad.dtype == torch.bfloat16
    double = function(*[x.double() for x in inputs])
    assert expected.item() == pytest.approx(double.item(), abs=1e-5)
    if name == "dino":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(function(list(inputs[0]), list(inputs[1])), expected)


def test_nan_is_passed_on() -> None:
    student, teacher = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    student[1, 2, 0] = math.nan
    assert objectives.dino(student, teacher).isnan()
    q = draw(3, 4)
    q[0, 0] = math.nan
    assert objectives.ressl(q, draw(3, 4), draw(5, 4)).isnan()


def test_wrong_input_is_refused_in_one_line() -> None:
    s, t = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    with pytest.raises(UserError, match="student needs 2"):
        objectives.dino(s[:1], t[:1])
    with pytest.raises(UserError, match="3 teacher and 2 student"):
        objectives.dino(s, draw(3, 3, 4))
    with pytest.raises(UserError, match=r"got \[\(3, 4\), \(3, 5\)\]"):
        objectives.dino(s, draw(2, 3, 5))
    with pytest.raises(UserError, match="centre"):
        objectives.dino(s, t, center=torch.zeros(5))
    with pytest.raises(UserError, match=r"\(crops, batch, prototypes\)"):
        objectives.dino(s[0], t)
    with pytest.raises(UserError, match="teacher_temperature must be above 0"):
        objectives.dino(s, t, teacher_temperature=0)
    with pytest.raises(UserError, match="momentum"):
        objectives.dino_center(torch.zeros(4), t, momentum=1.5)
    with pytest.raises(UserError, match="width 4"):
        objectives.dino_center(torch.zeros(5), t)
    with pytest.raises(UserError, match=r"\(entries, 4\), got \(6, 3\)"):
        objectives.ressl(s[0], t[0], draw(6, 3))
    with pytest.raises(UserError, match=r"\(entries, 4\)"):
        objectives.ressl(s[0], t[0], draw(0, 4))
    with pytest.raises(UserError, match="temperature_k must be above 0"):
        objectives.ressl(s[0], t[0], draw(6, 4), temperature_k=-1)
    with pytest.raises(UserError, match="one shape"):
        objectives.ressl(s[0], t[0][:2], draw(6, 4))
