"""SupCon in both forms and cross-entropy against their formulas, by loops in float64."""

import math
import sys

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError
from tests.objectives.test_moco_v2 import dot, unit

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def literal_supcon(views, labels, temperature, form):
    rows = [[x / math.sqrt(dot(r, r)) for x in r] for v in views for r in v.tolist()]
    classes = labels.tolist() * len(views)
    losses = []
    for i, z in enumerate(rows):
        below = sum(math.exp(dot(z, other) / temperature) for a, other in enumerate(rows) if a != i)
        shares = [
            math.exp(dot(z, other) / temperature) / below
            for p, other in enumerate(rows)
            if p != i and classes[p] == classes[i]
        ]
        if not shares:
            continue
        if form == "out":
            losses.append(-sum(math.log(s) for s in shares) / len(shares))
        else:
            losses.append(-math.log(sum(shares) / len(shares)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("form", ["out", "in"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_supcon_equals_its_formula_and_leaves_lonely_rows_out(form, count, temperature):
    views = [(s + 1) * unit(6, seed=s) for s in range(count)]
    ours = objectives.supcon(*views, labels=LABELS, temperature=temperature, form=form)
    assert ours.item() == pytest.approx(literal_supcon(views, LABELS, temperature, form), rel=1e-10)


def test_supcon_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    # Rows 0 and 2 share a class: positives 0.6; row 0 sees 0 and 0.6, row 2 sees 0.6 and 0.8; row 1 has no positive.
    first = -math.log(math.exp(0.6) / (math.exp(0.6) + 1))
    third = -math.log(math.exp(0.6) / (math.exp(0.6) + math.exp(0.8)))
    for form in ("out", "in"):
        value = objectives.supcon(z, labels=torch.tensor([7, 1, 7]), temperature=1.0, form=form)
        assert value.item() == pytest.approx((first + third) / 2, rel=1e-12)


def test_without_labels_it_is_simclr_and_the_inner_form_of_three_views_but_for_the_count():
    views = [unit(6, seed=s) for s in range(3)]
    two = objectives.simclr(*views[:2], temperature=0.3).item()
    for form in ("out", "in"):
        assert objectives.supcon(*views[:2], temperature=0.3, form=form).item() == pytest.approx(two, rel=1e-12)
        distinct = torch.tensor([4, 9, 1, 7, 2, 0])
        value = objectives.supcon(*views[:2], labels=distinct, temperature=0.3, form=form)
        assert value.item() == pytest.approx(two, rel=1e-12)
    three = objectives.supcon(*views, temperature=0.3, form="in").item()
    assert three - math.log(2) == pytest.approx(objectives.simclr(*views, temperature=0.3).item(), rel=1e-12)


def test_the_inner_form_is_below_the_outer_by_jensen():
    views = [unit(6, seed=s) for s in range(2)]
    values = {form: objectives.supcon(*views, labels=LABELS, form=form).item() for form in ("out", "in")}
    assert values["in"] < values["out"] - 1e-3


def test_one_class_for_all_is_finite_and_base_temperature_scales():
    z = unit(6)
    same = torch.zeros(6, dtype=torch.int64)
    value = objectives.supcon(z, labels=same, temperature=0.1)
    assert value.item() == pytest.approx(literal_supcon([z], same, 0.1, "out"), rel=1e-12)
    scaled = objectives.supcon(z, labels=same, temperature=0.1, base_temperature=0.07)
    assert scaled.item() == pytest.approx(value.item() * 0.1 / 0.07, rel=1e-12)


@pytest.mark.parametrize("form", ["out", "in"])
def test_no_positive_at_all_is_zero_with_a_zero_gradient(form):
    z = unit(5).requires_grad_()
    loss = objectives.supcon(z, labels=torch.arange(5), form=form)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.abs().max() == 0


@pytest.mark.parametrize("form", ["out", "in"])
def test_supcon_gradient(form):
    views = [unit(6, 4, seed=s).requires_grad_() for s in range(2)]
    loss = lambda a, b: objectives.supcon(a, b, labels=LABELS, temperature=0.5, form=form)  # noqa: E731
    assert torch.autograd.gradcheck(loss, views)
    assert torch.autograd.gradcheck(lambda a: objectives.supcon(a, labels=LABELS, form=form), views[:1])


def test_supcon_ignores_order_length_and_names_of_classes():
    z = unit(6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    for form in ("out", "in"):
        reference = objectives.supcon(z, labels=LABELS, form=form).item()
        assert objectives.supcon(z[order], labels=LABELS[order], form=form).item() == pytest.approx(
            reference, rel=1e-12
        )
        assert objectives.supcon(9 * z, labels=5 - LABELS, form=form).item() == pytest.approx(reference, rel=1e-12)


def test_half_precision_computes_in_float32():
    z = unit(6).bfloat16().requires_grad_()
    for form in ("out", "in"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = objectives.supcon(z, labels=LABELS, form=form)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, objectives.supcon(z.float(), labels=LABELS, form=form))
    single = objectives.supcon(unit(6).float(), labels=LABELS)
    assert single.item() == pytest.approx(objectives.supcon(unit(6), labels=LABELS).item(), abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objectives.supervised(z[:, :3], LABELS).dtype == torch.float32


def test_wrong_input_is_refused_in_one_line():
    z = unit(6)
    with pytest.raises(UserError, match="too small"):
        objectives.supcon(z[:1], labels=LABELS[:1])
    with pytest.raises(UserError, match="at least one view"):
        objectives.supcon(labels=LABELS)
    with pytest.raises(UserError, match=r"labels must have the shape \(6,\)"):
        objectives.supcon(z, labels=LABELS[:5])
    with pytest.raises(UserError, match="form must be one of out, in"):
        objectives.supcon(z, labels=LABELS, form="inside")
    with pytest.raises(UserError, match="temperature must be above 0"):
        objectives.supcon(z, labels=LABELS, temperature=0)
    with pytest.raises(UserError, match="base_temperature must be above 0"):
        objectives.supcon(z, labels=LABELS, base_temperature=0.0)
    with pytest.raises(UserError, match="need logits"):
        objectives.supervised(z, LABELS[:3])
    with pytest.raises(UserError, match="smoothing"):
        objectives.supervised(z, LABELS, smoothing=1.0)


def test_nan_is_passed_on():
    z = unit(6)
    z[0, 0] = math.nan
    assert objectives.supcon(z, labels=LABELS).isnan()
    assert objectives.supcon(z, labels=LABELS, form="in").isnan()
    assert objectives.supervised(z, LABELS).isnan()


@pytest.mark.parametrize("form", ["out", "in"])
def test_groups_too_large_for_a_matrix_go_tile_by_tile(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = unit(40), torch.arange(40) % 3 % 2
    found = []
    for largest in (64, 8):
        monkeypatch.setattr(sys.modules["selftaught.objectives.supcon"], "LARGEST", largest)
        x = z.clone().requires_grad_()
        loss = objectives.supcon(x, x.roll(3, 1), labels=labels, form=form)
        found.append((loss, *torch.autograd.grad(loss, x)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
