"""Kinds of input that once gave a wrong result without a word, or an exception of torch's where a UserError is due."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from decimal import Decimal, getcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def unit(seed: int, rows: int = 6, width: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=g, dtype=torch.float64), dim=1)


# ---- a row of zeros ------------------------------------------------------------------------------------------------
NORMALISING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "simclr": objectives.simclr,
    "clip": objectives.clip,
    "supcon": objectives.supcon,
    "scatsimclr": objectives.scatsimclr,
    "frame_projections": lambda a, b: objectives.frame_projections(a, b, None),
    "projection_head": objectives.projection_head,
    "byol": lambda a, b: objectives.byol(a, b, b, b),
    "simsiam": lambda a, b: objectives.simsiam(a, b, b, b),
    "moco_v3": lambda a, b: objectives.moco_v3(a, b, b, b),
    "nnclr": lambda a, b: objectives.nnclr(a, b, b, b),
    "ressl": lambda a, b: objectives.ressl(a, b, b),
    "groco": lambda a, b: objectives.groco(a, b, topk_neg=2),
    "nt_xent_pairs": objectives.nt_xent_pairs,
    "amcl": objectives.amcl,
    "amcl_simsiam": lambda a, b: objectives.amcl_simsiam(a, b, b, b),
    "isogclr_libauc": objectives.isogclr_libauc,
    "focal_contrast": lambda a, b: objectives.focal_contrast(torch.cat([a, b]), torch.arange(6).repeat(2)),
    "lvm_med": lambda a, b: objectives.lvm_med(a, b, edges=(torch.tensor([[1, 2]]), torch.tensor([[1, 2]]))),
    "local_similarity": lambda a, b: objectives.local_similarity(a.view(6, 4, 1, 1), b.view(6, 4, 1, 1)).sum(),
    "mixed_barlow_twins": lambda a, b: objectives.mixed_barlow_twins(a, b, l2_before_standardise=True),
}


@pytest.mark.parametrize("name", NORMALISING)
def test_a_row_of_zeros_has_a_bounded_gradient(name: str) -> None:
    a, b = unit(0).clone(), unit(1)
    a[0] = 0.0
    a.requires_grad_()
    torch.manual_seed(0)
    loss = NORMALISING[name](a, b)
    (slope,) = torch.autograd.grad(loss, a)
    assert loss.isfinite()
    assert slope.abs().max() < 1e9  # 1e8 / temperature / N; it was 1e12 times that


# ---- what computes in half precision under autocast ----------------------------------------------------------------
def test_neighbours_and_hard_pairs_are_found_in_full_precision_under_autocast() -> None:
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)) * 0.01 + 1  # nearly parallel rows
    labels = torch.arange(64) % 4
    edges, pairs = objectives.knn_edges(z, 3), objectives.hard_pairs(z, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objectives.knn_edges(z, 3), edges)
        found = objectives.hard_pairs(z, labels)
    assert torch.equal(found.positive, pairs.positive)
    assert torch.equal(found.negative, pairs.negative)


# ---- extremes of the hyper-parameters ------------------------------------------------------------------------------
@pytest.mark.parametrize(("tau_plus", "beta"), [(0.1, 1.0), (0.0, 1.0), (0.1, 0.0)])
@pytest.mark.parametrize("temperature", [0.001, 0.005, 0.5])
def test_hcl_neither_overflows_nor_changes_at_low_temperatures(
    temperature: float, tau_plus: float, beta: float
) -> None:
    z1, z2 = unit(0), F.normalize(unit(0) + 0.3 * unit(1), dim=1)
    ours = objectives.hcl(z1.float(), z2.float(), temperature=temperature, tau_plus=tau_plus, beta=beta)
    total, rows = 0.0, 6
    getcontext().prec = 60
    z = [[Decimal(x) for x in row] for row in torch.cat([z1.float(), z2.float()]).tolist()]
    t = Decimal(str(temperature))

    def dot(a: list[Decimal], b: list[Decimal]) -> Decimal:
        return sum((x * y for x, y in zip(a, b, strict=True)), Decimal(0))

    for i in range(2 * rows):
        p, m = (dot(z[i], z[(i + rows) % 12]) / t).exp(), Decimal(2 * rows - 2)
        s = [dot(z[i], z[j]) / t for j in range(12) if j % rows != i % rows]
        hard = sum((x * (1 + Decimal(beta))).exp() for x in s) / sum((x * Decimal(beta)).exp() for x in s) * m
        plus = Decimal(str(tau_plus))
        g = max((hard - plus * m * p) / (1 - plus), m * (-1 / t).exp())
        total += float((1 + g / p).ln())
    assert ours.item() == pytest.approx(total / 12, rel=2e-5)


@pytest.mark.parametrize("t", [2.0, 60.0, 500.0])
def test_cacr_with_the_rbf_cost_does_not_underflow(t: float) -> None:
    z1, z2 = unit(0), unit(1)
    ours = objectives.cacr_terms(z1.float(), z2.float(), cost="rbf", t=t)["repulsion"]
    d = (z1.unsqueeze(1) - z2).square().sum(2)
    off = ~torch.eye(6, dtype=torch.bool)
    log_share = (-2.0 * d).masked_fill(~off, -math.inf).log_softmax(1)
    true = (log_share - t * d).logsumexp(1).logsumexp(0) - math.log(6)
    assert ours.item() == pytest.approx(true.item(), rel=1e-4)


def test_constant_features_are_uncorrelated_whatever_their_size() -> None:
    for value in (0.1, 3.7, 123.456, 1e4):
        z1, z2 = torch.randn(64, 3), torch.randn(64, 3)
        z1[:, 0] = z2[:, 0] = value
        for loss in (objectives.mixed_barlow_twins_terms, objectives.barlow_twins_terms):
            rest = loss(z1[:, 1:], z2[:, 1:])["invariance"]
            assert loss(z1, z2)["invariance"].item() == pytest.approx(rest.item() + 1, rel=1e-3)


def test_isogclr_refuses_temperatures_that_overflow() -> None:
    z1, z2 = unit(0), unit(1)
    for tau in (0.01, -1.0, 0.0, math.nan, torch.full((6,), 0.01), torch.tensor([0.1] * 5 + [-1.0])):
        with pytest.raises(UserError, match=r"a temperature must be at least 0\.0125"):
            objectives.isogclr(z1, z2, tau=tau)
    assert objectives.isogclr(z1.float(), z2.float(), tau=0.0125, tau_min=0.0125).isfinite()
    with pytest.raises(UserError, match=r"at least 0\.025"):
        objectives.isogclr_queue(z1, z2, unit(2), tau=0.02)
    with pytest.raises(UserError, match="tau must be above 0"):
        objectives.isogclr_bimodal(z1, z2, tau=0.0)
    state = objectives.PairState.fresh(z1, 0.1)._replace(tau=torch.tensor([0.1] * 5 + [-1.0]).double())
    with pytest.raises(UserError, match="image_state must be above 0, got -1"):
        objectives.isogclr_bimodal(z1, z2, image_state=state)


def test_isogclr_can_start_as_the_official_code_does_after_epoch_0() -> None:
    z1, z2, tau = unit(0), unit(1), torch.full((6,), 0.2, dtype=torch.float64)
    s = torch.tensor([0.0, 0.5, 0.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    mean = objectives.isogclr_terms(z1, z2, tau=tau, gamma=1.0)["s"]  # gamma 1: s is g itself
    official = objectives.isogclr_terms(z1, z2, tau=tau, s=s, gamma=0.8, start="zero")["s"]
    torch.testing.assert_close(official, 0.2 * s + 0.8 * mean)
    ours = objectives.isogclr_terms(z1, z2, tau=tau, s=s, gamma=0.8)["s"]
    torch.testing.assert_close(ours, torch.where(s == 0, mean, 0.2 * s + 0.8 * mean))
    queue = unit(2, 9)
    g = objectives.isogclr_queue_terms(z1, z2, queue, gamma=1.0)["s"]
    found = objectives.isogclr_queue_terms(z1, z2, queue, s=s, gamma=0.8, start="zero")["s"]
    torch.testing.assert_close(found, 0.2 * s + 0.8 * g)
    for form in ("masked", "official"):
        whole = objectives.isogclr_bimodal_terms(z1, z2, gamma=1.0, form=form)["image_state"]
        part = objectives.isogclr_bimodal_terms(z1, z2, gamma=0.8, form=form, start="zero")["image_state"]
        assert isinstance(whole, objectives.PairState)
        assert isinstance(part, objectives.PairState)
        torch.testing.assert_close(part.s.log() + part.b, whole.s.log() + whole.b + math.log(0.8))
    with pytest.raises(UserError, match="start must be one of mean, zero"):
        objectives.isogclr(z1, z2, start="late")


def test_a_fresh_state_has_fields_of_its_own() -> None:
    state = objectives.PairState.fresh(unit(0), 0.1)
    state.s.fill_(3.0)
    assert state.u.tolist() == state.b.tolist() == [0.0] * 6


# ---- integers, columns, broadcasting -------------------------------------------------------------------------------
def test_integer_counts_are_not_cut_to_zero() -> None:
    counts = torch.tensor([1000, 100, 10, 0])
    torch.testing.assert_close(objectives.effective_weights(counts), objectives.effective_weights(counts.float()))
    torch.testing.assert_close(objectives.ldam_margins(counts), objectives.ldam_margins(counts.float()))
    assert objectives.effective_weights(counts).min() > 0
    for wrong in (torch.tensor([[1, 2]]), torch.tensor([3, -1]), torch.tensor([])):
        with pytest.raises(UserError, match="counts must be"):
            objectives.effective_weights(wrong)


JOINT, IMAGES = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
H = unit(3)
PATCH, DRAW = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 2, dtype=torch.int64)
MAPS = torch.rand(2, 3, 2, 2)
EDGE, ENDS = torch.rand(1, 1), torch.tensor([[0, 1]])


def draws(s: int = 3, s_prime: int = 2, n: int = 5) -> objectives.MochiDraws:
    return objectives.draw_mochi(torch.full((6,), n), s=s, s_prime=s_prime)


REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "class_weights (N, 1)": ("class_weights must have the shape", lambda: objectives.sla(
        JOINT, IMAGES, class_weights=torch.ones(3, 1))),
    "class_weights of another number": ("class_weights must have the shape", lambda: objectives.sla_da(
        JOINT, IMAGES, class_weights=torch.ones(2))),
    "margins (N, 1)": ("margins must have the shape", lambda: objectives.sla_mt(
        JOINT, torch.zeros(12, 2), IMAGES, margins=torch.ones(6, 1))),
    "int32 labels in sla": ("labels must be int64", lambda: objectives.sla(JOINT, IMAGES.int())),
    "an episode's label out of range": ("labels must lie in 0 .. 1", lambda: objectives.sla_episode(
        H[:3], torch.tensor([0, 1, 2]), H, classes=2, copies=1)),
    "an episode without copies": ("don't fit 0 copies", lambda: objectives.sla_episode(
        H[:0], IMAGES[:0], H, classes=2, copies=0)),
    "partner (1,)": ("partner must be", lambda: objectives.core_tuning_pool(H, LABELS, partner=torch.tensor([0]))),
    "partner out of range": ("partner must lie in 0 .. 5", lambda: objectives.core_tuning_pool(
        H, LABELS, partner=torch.arange(6) + 1)),
    "lambda_n (B, 1)": ("lambda_n must have the shape", lambda: objectives.core_tuning_pool(
        H, LABELS, lambda_n=torch.rand(6, 1))),
    "lambda_p (1,)": ("lambda_p must have the shape", lambda: objectives.core_tuning_pool(
        H, LABELS, lambda_p=torch.rand(1))),
    "lambda_p out of range": ("lambda_p must lie in", lambda: objectives.core_tuning_pool(H, LABELS, lambda_p=1.5)),
    "a column of labels": ("are a column", lambda: objectives.core_tuning_pool(H, LABELS.unsqueeze(1))),
    "a column of labels to mine": ("are a column", lambda: objectives.hard_pairs(H, LABELS.unsqueeze(1))),
    "a column of labels for partners": ("are a column", lambda: objectives.semi_hard_partners(LABELS.unsqueeze(1))),
    "float labels in core-tuning": ("labels must be int64", lambda: objectives.core_tuning_pool(H, LABELS.float())),
    "labels above classes": ("labels must lie in 0 .. 1", lambda: objectives.core_tuning_pool(H, LABELS, classes=2)),
    "negative labels": ("labels must lie in 0", lambda: objectives.core_tuning_pool(H, LABELS - 1)),
    "two columns of class numbers": ("no one-hot rows", lambda: objectives.core_tuning_pool(
        H, torch.stack([LABELS, LABELS + 1], 1))),
    "two columns of class numbers to mine": ("no one-hot rows", lambda: objectives.hard_pairs(
        H, torch.stack([LABELS, LABELS + 1], 1))),
    "one-hot of other classes": ("one-hot labels of 3", lambda: objectives.core_tuning_pool(
        H, F.one_hot(LABELS), classes=4)),
    "targets out of range": ("labels must lie in 0 .. 1", lambda: objectives.core_tuning(H[:, :2], H, LABELS)),
    "boolean pi": ("pi must hold 6 integers", lambda: objectives.mixed_barlow_twins(
        H, H, H, 0.5, torch.ones(6, dtype=torch.bool))),
    "pi out of range": ("pi must lie in 0 .. 5", lambda: objectives.mixed_barlow_twins(
        H, H, H, 0.5, torch.arange(6) - 1)),
    "tensor alpha out of range": ("alpha must lie in", lambda: objectives.mixed_barlow_twins(
        H, H, H, torch.tensor(1.5), torch.arange(6))),
    "tensor alpha (N, 1)": ("alpha must be one number", lambda: objectives.mixed_barlow_twins(
        H, H, H, torch.rand(6, 1), torch.arange(6))),
    "alpha without zm": ("alpha and pi belong to", lambda: objectives.mixed_barlow_twins(H, H, alpha=0.5)),
    "pi without zm": ("alpha and pi belong to", lambda: objectives.mixed_barlow_twins(H, H, pi=torch.arange(6))),
    "draws against s": ("draws.first needs the shape", lambda: objectives.mochi(H, H, H, N=5, s=4, draws=draws())),
    "draws against s_prime": ("draws.partner needs the shape", lambda: objectives.mochi_negatives(
        H, H, N=5, s_prime=0, draws=draws())),
    "draws against N": ("must lie in 0 .. 1", lambda: objectives.mochi(H, H, H, N=2, draws=draws(64))),
    "m out of range": ("m must lie in 0 .. 3", lambda: objectives.random_subsample(PATCH, DRAW + 4, 2)),
    "m negative": ("m must lie in 0 .. 3", lambda: objectives.random_subsample(PATCH, DRAW - 1, 2)),
    "m of floats": ("m must be int64", lambda: objectives.random_subsample(PATCH, DRAW.float(), 2)),
    "m without cells": ("m must be", lambda: objectives.c_bsn(PATCH, PATCH, PATCH, PATCH, DRAW[:, :0, :0])),
    "integer patch": ("floating-point values", lambda: objectives.normalise_patch(PATCH.long())),
    "edges without ends": ("need the ends of both graphs", lambda: objectives.match_graphs(torch.rand(3, 3), EDGE)),
    "edges with one end": ("need the ends of both graphs", lambda: objectives.graph_matching(
        torch.rand(3, 3), EDGE, ENDS)),
    "ends without edges": ("need the ends of both graphs", lambda: objectives.match_graphs(
        torch.rand(3, 3), source=ENDS, target=ENDS)),
    "edges out of range": ("two different vertices among 0 .. 5", lambda: objectives.edge_affinity(
        H, H, ENDS + 5, ENDS)),
    "edges out of range in lvm_med": ("two different vertices", lambda: objectives.lvm_med(
        H, H, edges=(ENDS + 5, ENDS))),
    "edges of floats": ("must be", lambda: objectives.edge_affinity(H, H, ENDS.float(), ENDS)),
    "centres of one view": ("centres1 and centres2, or neither", lambda: objectives.local_similarity(
        MAPS, MAPS, torch.rand(2, 4, 2))),
    "boxes (N, 4)": ("boxes must be", lambda: objectives.grid_centres(torch.rand(3, 4), 2, 2)),
    "a queue of scores of another width": ("a queue of scores", lambda: objectives.swav(
        H, H, queue=[torch.rand(3, 5), torch.rand(3, 5)])),
    "cacr's queue of another width": ("the queue needs", lambda: objectives.cacr_queue([H, H], [H, H], unit(0, 5, 3))),
    "isogclr's queue of another width": ("the queue needs", lambda: objectives.isogclr_queue(H, H, unit(0, 5, 3))),
    "moco's queue of another width": ("the queue needs", lambda: objectives.moco_v2(H, H, unit(0, 5, 3))),
    "unequal queries": ("one shape", lambda: objectives.cacr_queue([H, H[:5]], [H, H], H)),
    "unequal keys": ("one shape", lambda: objectives.cacr_queue([H, H], [H, H[:, :3]], H)),
    "unequal views": ("one shape", lambda: objectives.simclr(H, H[:5])),
    "labels out of range": ("labels must lie in 0 .. 3", lambda: objectives.supervised(H, LABELS + 2)),
    "int32 labels": ("labels must be int64", lambda: objectives.supervised(H, LABELS.int())),
    "all labels -100": ("labels must lie in 0 .. 3", lambda: objectives.supervised(H, torch.full((6,), -100))),
    "pretext labels out of range": ("labels must lie in", lambda: objectives.scatsimclr(H, H, H, LABELS + 2)),
    "int32 pretext labels": ("labels must be int64", lambda: objectives.scatsimclr(H, H, H, LABELS.int())),
    "pretext labels without logits": ("without its logits", lambda: objectives.scatsimclr(H, H, labels=LABELS)),
    "ce labels out of range": ("labels must lie in", lambda: objectives.projection_head(
        H, loss="ce", labels=LABELS + 2)),
    "ce with a second view": ("a second view was given", lambda: objectives.projection_head(
        H, H, loss="ce", labels=LABELS)),
    "labels of floats in supcon": ("labels must be integers", lambda: objectives.supcon(H, H, labels=LABELS.float())),
    "labels of floats in cacr": ("labels must be integers", lambda: objectives.cacr_supervised(
        H, H, labels=LABELS.float())),
    "several temperatures": ("temperature must be one number", lambda: objectives.simclr(H, H, temperature=H[:, 0])),
    "a negative tensor temperature": ("temperature must be above 0, got -1", lambda: objectives.clip(
        H, H, temperature=torch.tensor(-1.0))),
    "a negative clip": ("clip must be above 0", lambda: objectives.isogclr(H, H, clip=-1.0)),
    "an infinite margin": ("margin and kappa must be finite", lambda: objectives.lvm_med(H, H, margin=math.inf)),
    "an empty queue": ("1 entry or more", lambda: objectives.isogclr_queue(H, H, H[:0])),
    "broadcast deviations": ("mean and std need the shape", lambda: objectives.denormalise_patch(
        torch.rand(2, 1, 4, 4), torch.rand(1, 1, 1, 1), torch.rand(2, 1, 1, 1))),
    "integer logits": ("logits needs floating-point values", lambda: objectives.supervised(
        LABELS.view(2, 3), LABELS[:2])),
    "an integer queue": ("queue needs floating-point values", lambda: objectives.moco_v2(
        H, H, LABELS.view(1, 6)[:, :4])),
    "a mask of floats": ("bool", lambda: objectives.nearest(H, H, mask=torch.zeros(6, 6))),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_in_one_line(name: str) -> None:
    match, call = REFUSED[name]
    with pytest.raises(UserError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_draws_say_how_many_mixtures_there_are() -> None:
    torch.manual_seed(0)
    given = draws()
    by_draws = objectives.mochi(H, H, unit(5, 9), N=5, draws=given)
    torch.testing.assert_close(by_draws, objectives.mochi(H, H, unit(5, 9), N=5, s=3, s_prime=2, draws=given))
    assert [h.shape[1] for h in objectives.mochi_negatives(H, unit(5, 9), N=5, draws=given)] == [3, 2]


# ---- vectors that aren't of length 1 -------------------------------------------------------------------------------
EXPECTING: dict[str, Callable[[Tensor, Tensor], object]] = {
    "dcl": objectives.dcl,
    "dcl ": objectives.infonce,
    "dcl  ": objectives.dcl_coupling,
    "hcl": objectives.hcl,
    "cacr": objectives.cacr,
    "cacr ": lambda a, b: objectives.cacr_queue([a, b], [a, b], b),
    "cacr  ": lambda a, b: objectives.cacr_momentum([a], b),
    "cacr   ": lambda a, b: objectives.cacr_supervised(a, b, labels=LABELS),
    "moco_v2": lambda a, b: objectives.moco_v2(a, b, b),
    "mochi": lambda a, b: objectives.mochi(a, b, b, N=3, s=2, s_prime=1),
    "isogclr": objectives.isogclr,
    "isogclr ": lambda a, b: objectives.isogclr_queue(a, b, b),
    "isogclr_bimodal": objectives.isogclr_bimodal,
}


@pytest.mark.parametrize("name", EXPECTING)
def test_unnormalised_vectors_are_told_of(name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name.strip()} expects unit vectors and got some of length 3"):
        EXPECTING[name](unit(0), 3 * unit(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EXPECTING[name](unit(0), unit(1))
        half = unit(0).bfloat16()
        EXPECTING[name](half, half)


# ---- statements of the docstrings ----------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_dcl_reaches_the_lower_bound_that_it_states(temperature: float) -> None:
    rows = 5
    simplex = F.normalize(torch.eye(rows, dtype=torch.float64) - 1 / rows, dim=1)
    bound = 2 * (math.log(2 * (rows - 1)) - rows / ((rows - 1) * temperature))
    assert objectives.dcl(simplex, simplex, temperature=temperature).item() == pytest.approx(bound)
    assert objectives.dcl(unit(0), unit(0), temperature=temperature).item() > bound
