"""Core-tuning's objective: literal sums, limits that the sheet names, hand-made pairs, gradients, degenerate pools."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.objectives import _blocks


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_contrast(z: Tensor, targets: Tensor, tau: float, focal: bool, normalisation: str) -> float:
    """The sheet's sum, pair by pair."""
    v = [row / row.norm() for row in z.detach().double()]
    count, total, rows = len(v), 0.0, 0
    for m in range(count):
        below = sum(math.exp(v[m] @ v[k] / tau) for k in range(count) if k != m)
        positives = [
            j
            for j in range(count)
            if j != m and all(abs(a - b) <= 1e-6 for a, b in zip(targets[m], targets[j], strict=True))
        ]
        if not positives:
            continue
        rows += 1
        inner = 0.0
        for j in positives:
            p = math.exp(v[m] @ v[j] / tau) / below
            inner += (1 - p if focal else 1.0) * math.log(p)
        total -= inner / (count if normalisation == "code" else len(positives))
    return total / rows if rows else 0.0


@pytest.mark.parametrize("focal", [True, False])
@pytest.mark.parametrize("normalisation", ["code", "per-positive"])
def test_the_whole_loss_is_the_sheets_sum_with_given_shares(focal: bool, normalisation: str) -> None:
    h, labels = random(7, 5).relu(), torch.tensor([0, 1, 0, 2, 1, 0, 2])
    partner, share_n, share_p = torch.tensor([1, 0, 3, 4, 5, 6, 0]), torch.full((7,), 0.8), torch.linspace(0, 1, 7)
    weight, head = random(3, 5, seed=1), random(4, 5, seed=2)
    hp, hn = objectives.hard_pairs(h, labels)
    pool = objectives.core_tuning_pool(
        h, labels, classes=3, lambda_n=share_n.double(), lambda_p=share_p.double(), partner=partner
    )
    rows, targets = [], []
    for source, found in ((h, rows), (torch.eye(3, dtype=torch.float64)[labels], targets)):
        found += list(source)
        found += [0.2 * source[i] + 0.8 * source[partner[i]] for i in range(7)]
        found += [share_p[i] * source[hp[i]] + (1 - share_p[i]) * source[hn[i]] for i in range(7)]
    torch.testing.assert_close(pool.features, torch.stack(rows), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(pool.targets, torch.stack(targets), rtol=1e-6, atol=1e-7)
    ce = 0.0
    for row, target in zip(pool.features, pool.targets, strict=True):
        logits = (weight @ row).tolist()
        log_sum = math.log(sum(map(math.exp, logits)))
        ce -= sum(float(t) * (x - log_sum) for t, x in zip(target, logits, strict=True)) / 21
    z = pool.features @ head.T
    contrast = literal_contrast(z, pool.targets, 0.3, focal, normalisation)
    options = {"eta": 0.7, "tau": 0.3, "focal": focal, "normalisation": normalisation}
    terms = objectives.core_tuning_terms(pool.features @ weight.T, z, pool.targets, **options)
    assert contrast > 0
    assert terms["cross_entropy"].item() == pytest.approx(ce, rel=1e-9)
    assert terms["contrast"].item() == pytest.approx(contrast, rel=1e-9)
    loss = objectives.core_tuning(pool.features @ weight.T, z, pool.targets, **options)
    assert loss.item() == pytest.approx(ce + 0.7 * contrast, rel=1e-9)


def test_blocks_of_rows_change_neither_value_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = random(11, 4).requires_grad_(), torch.arange(11) % 3
    whole = objectives.focal_contrast(z, labels)
    (expected,) = torch.autograd.grad(whole, z)
    monkeypatch.setattr(_blocks, "ENTRIES", 33)
    parts = objectives.focal_contrast(z, labels)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, z)[0], expected)


def test_toy_1_without_focus_and_mixing_it_is_supcon() -> None:
    h, labels = random(9, 6), torch.arange(9) % 3
    pool = objectives.core_tuning_pool(h, labels, mining="none", alpha=7.0)
    assert torch.equal(pool.features, h)
    supcon = objectives.supcon(h, labels=labels, temperature=0.2)
    plain = objectives.focal_contrast(pool.features, pool.targets, tau=0.2, focal=False, normalisation="per-positive")
    torch.testing.assert_close(plain, supcon)
    # The code's normalisation: two positives per row, divided by nine columns in place of two.
    code = objectives.focal_contrast(pool.features, pool.targets, tau=0.2, focal=False)
    torch.testing.assert_close(code, supcon * 2 / 9)
    # By hand: three rows along one axis, one across it; the last has no positive and is in no divisor.
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [5.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    value = math.log(2 * math.e + 1) - 1
    found = objectives.focal_contrast(z, torch.tensor([0, 0, 0, 1]), tau=1.0, focal=False, normalisation="per-positive")
    assert found.item() == pytest.approx(value)
    p = math.e / (2 * math.e + 1)
    found = objectives.focal_contrast(z, torch.tensor([0, 0, 0, 1]), tau=1.0)
    assert found.item() == pytest.approx((1 - p) * value * 2 / 4)


def test_toy_2_limits_of_the_shares_and_of_eta() -> None:
    h, labels = random(8, 4).relu(), torch.arange(8) % 4
    hp, _ = objectives.hard_pairs(h, labels)
    partner = torch.arange(8).roll(1)
    pool = objectives.core_tuning_pool(h, labels, lambda_p=1.0, lambda_n=1.0, partner=partner)
    torch.testing.assert_close(pool.features, torch.cat([h, h[partner], h[hp]]))
    torch.testing.assert_close(pool.targets, F.one_hot(torch.cat([labels, labels[partner], labels[hp]])).double())
    plain = objectives.core_tuning_pool(h, labels, mining="none")
    loss = objectives.core_tuning(plain.features, plain.features, plain.targets, eta=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(h, labels))
    torch.testing.assert_close(objectives.core_tuning(h, h, labels, eta=0.0), loss)


def test_toy_3_without_positives_the_contrast_and_its_gradient_are_zero() -> None:
    for z, labels in ((random(6, 4), torch.arange(6)), (random(1, 4), torch.zeros(1, dtype=torch.int64))):
        z.requires_grad_()
        for tau in (0.07, 0.001):
            found = objectives.focal_contrast(z, labels, tau=tau)
            (gradient,) = torch.autograd.grad(found, z)
            assert found.item() == 0
            assert torch.equal(gradient, torch.zeros_like(z))


def test_toy_4_hard_pairs_of_points_on_a_circle() -> None:
    degrees = torch.tensor([0.0, 20.0, 70.0, 30.0, 80.0, 45.0]).deg2rad()
    h = torch.stack([degrees.cos(), degrees.sin()], 1) * torch.arange(1, 7).unsqueeze(1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    hp, hn = objectives.hard_pairs(h, labels)
    assert hp.tolist() == [2, 2, 0, 4, 3, 5]  # the last is alone in its class
    assert hn.tolist() == [3, 3, 4, 1, 2, 3]
    assert torch.equal(objectives.hard_pairs(h, F.one_hot(labels)).positive, hp)
    # The released code: hp(i) = i outside of sample 0's class, there the smaller of i and the first of another class.
    official = objectives.hard_pairs(h, labels, mining="official")
    assert official.positive.tolist() == [0, 1, 2, 3, 4, 5]
    mixed = objectives.hard_pairs(h, torch.tensor([0, 0, 1, 1, 0, 0]), mining="official")
    assert mixed.positive.tolist() == [0, 1, 2, 3, 2, 2]
    assert official.negative.tolist() == hn.tolist()
    # One class only: nobody has a negative, so everybody is his own.
    for mining in ("paper", "official"):
        assert objectives.hard_pairs(h, torch.zeros(6).long(), mining=mining).negative.tolist() == list(range(6))


def test_partners_are_of_other_classes_and_all_of_them() -> None:
    labels = torch.tensor([2, 0, 0, 1, 2, 2])
    torch.manual_seed(0)
    seen = torch.stack([objectives.semi_hard_partners(labels) for _ in range(200)])
    for i in range(6):
        assert set(seen[:, i].tolist()) == {j for j in range(6) if labels[j] != labels[i]}
    assert objectives.semi_hard_partners(torch.zeros(4).long()).tolist() == [0, 1, 2, 3]
    assert sorted(objectives.semi_hard_partners(labels, mining="official").tolist()) == list(range(6))


def test_drawn_shares_follow_alpha_and_the_threshold() -> None:
    torch.manual_seed(0)
    h, labels = torch.eye(400), torch.arange(400) % 2
    pool = objectives.core_tuning_pool(h, labels, alpha=1.0, neg_threshold=0.8, partner=torch.arange(400).roll(1))
    others = pool.features[400:800][torch.arange(400), torch.arange(400).roll(1)]
    assert others.min() >= 0.8 - 1e-6
    assert 0.74 < (others < 0.8 + 1e-6).double().mean() < 0.86  # four in five of a uniform share lie below
    torch.testing.assert_close(pool.targets.sum(1), torch.ones(1200))
    narrow = objectives.core_tuning_pool(h, labels, alpha=500.0, neg_threshold=0.0, partner=torch.arange(400).roll(1))
    assert (narrow.features[400:800][torch.arange(400), torch.arange(400).roll(1)] - 0.5).abs().max() < 0.1


def test_gradients_flow_through_the_mixtures_and_where_they_are_not_cut() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    fixed = {"lambda_n": 0.9, "lambda_p": 0.3, "partner": torch.tensor([2, 3, 0, 1])}

    def features(h: Tensor, cut: bool) -> Tensor:
        return objectives.core_tuning_pool(h, labels, detach_originals=cut, **fixed).features

    h = random(4, 3).abs().requires_grad_()
    for cut in (False, True):
        (original,) = torch.autograd.grad(features(h, cut)[:4].sum(), h, allow_unused=True)
        assert (original is None or not original.any()) if cut else bool((original == 1).all())
        (mixed,) = torch.autograd.grad(features(h, cut)[4:].sum(), h)
        # Each mixture's shares sum to one: in all, eight rows' worth of gradient for each of three entries.
        assert mixed.sum().item() == pytest.approx(24)
    z, targets = random(6, 3, seed=5).requires_grad_(), torch.arange(6) % 2
    for normalisation in ("code", "per-positive"):
        assert torch.autograd.gradcheck(
            lambda x, kind=normalisation: objectives.focal_contrast(x, targets, tau=0.5, normalisation=kind), (z,)
        )
    # The focal weight is not detached: with it cut the gradient is another one.
    v = normalize(z, dim=1)
    logits = (v @ v.T / 0.5).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    log_p = logits.log_softmax(1)
    same = (targets.unsqueeze(1) == targets) & ~torch.eye(6, dtype=torch.bool)
    gradients = []
    for weight in (1 - log_p.exp(), (1 - log_p.exp()).detach()):
        total = -(weight[same] * log_p[same]).sum() / 6 / 6
        gradients.append(torch.autograd.grad(total, z, retain_graph=True)[0])
    (own,) = torch.autograd.grad(objectives.focal_contrast(z, targets, tau=0.5), z)
    torch.testing.assert_close(own, gradients[0])
    assert (own - gradients[1]).abs().max() > 1e-4


def test_labels_are_equal_within_a_tolerance_and_rows_may_change_places() -> None:
    z = random(4, 3)
    near = torch.tensor([[0.8, 0.2], [0.8 + 5e-7, 0.2], [0.3, 0.7], [0.31, 0.69]], dtype=torch.float64)
    assert objectives.focal_contrast(z, near).item() == pytest.approx(literal_contrast(z, near, 0.07, True, "code"))
    assert objectives.focal_contrast(z[:2], near[:2] + torch.tensor([[0.0], [2e-6]])).item() == 0
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(objectives.focal_contrast(z[order], near[order]), objectives.focal_contrast(z, near))


def test_autocast_gives_float32_and_more_classes_than_digits_work() -> None:
    labels = torch.arange(12) % 6
    z = random(12, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = objectives.core_tuning(z.bfloat16(), z.bfloat16(), labels)
        pool = objectives.core_tuning_pool(z.bfloat16(), labels)
    assert loss.dtype == pool.features.dtype == torch.float32
    wide = F.one_hot(labels * 180, 1000).float()
    torch.testing.assert_close(objectives.focal_contrast(z, wide), objectives.focal_contrast(z, labels))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda h, y: objectives.core_tuning_pool(h, y[:3]), "labels must be"),
        (lambda h, y: objectives.core_tuning_pool(h, y, neg_threshold=1.5), "neg_threshold"),
        (lambda h, y: objectives.core_tuning_pool(h, y, alpha=0.0), "alpha must be above 0"),
        (lambda h, y: objectives.core_tuning_pool(h, y, mining="hard"), "mining must be one of"),
        (lambda h, y: objectives.core_tuning_pool(h, y, lambda_n=torch.ones(3)), "lambda_n must have the shape"),
        (lambda h, y: objectives.hard_pairs(h, y, mining="none"), "mining must be one of"),
        (lambda h, y: objectives.focal_contrast(h, y, tau=0.0), "tau must be above 0"),
        (lambda h, y: objectives.focal_contrast(h, y, normalisation="rows"), "normalisation must be one of"),
        (lambda h, y: objectives.focal_contrast(h, y[:3]), "targets must be"),
        (lambda h, y: objectives.core_tuning(h, h, y, eta=-1.0), "eta must be at least 0"),
        (lambda h, y: objectives.core_tuning(h, h, F.one_hot(y, 7)), "need logits"),
    ],
)
def test_errors_name_what_is_wrong(call, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call(random(6, 4), torch.arange(6) % 2)


# ---- toy 5: nuisance data ----------------------------------------------------------------------------------------
def nuisance(count: int, means: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 10
    signal = means[labels] + 0.6 * torch.randn(count, 8, generator=generator)
    return torch.cat([signal, 3 * torch.randn(count, 24, generator=generator)], 1), labels


def pretrained(means: Tensor, generator: torch.Generator) -> nn.Sequential:
    """InfoNCE between two views of a sample that share its class's signal and most of its nuisance."""
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    stepper = torch.optim.Adam(encoder.parameters(), 1e-3)
    for _ in range(300):
        x, _ = nuisance(128, means, generator)
        views = []
        for _ in range(2):
            signal = x[:, :8] + 0.5 * torch.randn(128, 8, generator=generator)
            fresh = 3 * torch.randn(128, 24, generator=generator)
            views.append(torch.cat([signal, 0.9 * x[:, 8:] + 0.19**0.5 * fresh], 1))
        loss = objectives.simclr(*map(encoder, views), temperature=0.5)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    return encoder


def fine_tuned(encoder: nn.Sequential, x: Tensor, y: Tensor, tuned: bool, generator: torch.Generator) -> nn.Module:
    classifier = nn.Linear(64, 10, bias=False)
    head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    parameters = [p for part in (encoder, classifier, head) for p in part.parameters()]
    stepper = torch.optim.SGD(parameters, 0.05, momentum=0.9, nesterov=True)
    for _ in range(60):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            h = encoder(x[rows])
            if tuned:
                pool = objectives.core_tuning_pool(h, y[rows], classes=10)
                logits, z = classifier(pool.features), head(pool.features)
                loss = objectives.core_tuning(logits, z, pool.targets, eta=0.1, normalisation="per-positive")
            else:
                loss = F.cross_entropy(classifier(h), y[rows])
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    return classifier


@pytest.mark.slow
def test_toy_5_on_nuisance_data_it_beats_cross_entropy() -> None:
    accuracy: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(2):
        for tuned in (False, True):
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            means = torch.randn(10, 8, generator=generator)
            encoder = pretrained(means, generator)
            classifier = fine_tuned(encoder, *nuisance(200, means, generator), tuned, generator)
            x, y = nuisance(1000, means, generator)
            with torch.no_grad():
                accuracy[tuned].append(float((classifier(encoder(x)).argmax(1) == y).double().mean()))
    assert min(accuracy[False]) > 0.4, "the start has learnt something"
    assert all(a > b for a, b in zip(accuracy[True], accuracy[False], strict=True))
    assert sum(accuracy[True]) / 2 > sum(accuracy[False]) / 2 + 0.02
