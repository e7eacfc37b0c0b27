import math

import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError


def views(rows=6, width=5):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=g, dtype=torch.float64) for _ in range(2)]


def question(rows=24, classes=4):
    g = torch.Generator().manual_seed(1)
    return torch.randn(rows, classes, generator=g, dtype=torch.float64), torch.arange(rows) % classes


def literal(z1, z2, logits, labels, temperature, lambda_):
    """Both sums by loops: the mean over all 2B anchors, and the mean cross-entropy."""
    rows = [[x / math.sqrt(sum(y * y for y in r)) for x in r] for r in torch.cat([z1, z2]).tolist()]
    s = [[sum(p * q for p, q in zip(a, b, strict=True)) / temperature for b in rows] for a in rows]
    half, contrast = len(rows) // 2, 0.0
    for i in range(len(rows)):
        partition = sum(math.exp(s[i][k]) for k in range(len(rows)) if k != i)
        contrast -= math.log(math.exp(s[i][(i + half) % len(rows)]) / partition) / len(rows)
    pretext = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        pretext -= math.log(math.exp(row[label]) / sum(map(math.exp, row))) / len(logits)
    return contrast + lambda_ * pretext, contrast, pretext


@pytest.mark.parametrize("classes", [4, 35])
def test_it_equals_the_sheet(classes):
    z, q = views(), question(24, classes)
    for hyper in ({}, {"temperature": 0.1, "lambda_": 2.0}):
        loss, contrast, pretext = literal(*z, *q, **{"temperature": 0.5, "lambda_": 0.3} | hyper)
        assert objectives.scatsimclr(*z, *q, **hyper).item() == pytest.approx(loss, rel=1e-10)
        terms = objectives.scatsimclr_terms(*z, *q, **hyper)
        assert terms["contrast"].item() == pytest.approx(contrast, rel=1e-10)
        assert terms["pretext"].item() == pytest.approx(pretext, rel=1e-10)


def test_without_the_question_it_is_simclr():
    z, q = views(), question()
    plain = objectives.simclr(*z, temperature=0.5)
    assert torch.equal(objectives.scatsimclr(*z), plain)
    assert objectives.scatsimclr(*z, *q, lambda_=0.0).item() == pytest.approx(plain.item(), rel=1e-12)
    assert set(objectives.scatsimclr_terms(*z)) == {"loss", "contrast"}


def test_equal_answers_cost_log_of_the_choices_and_gradients_stay_apart():
    (z1, z2), (logits, labels) = views(), question()
    terms = objectives.scatsimclr_terms(z1, z2, torch.zeros(8, 35), torch.arange(8))
    assert terms["pretext"].item() == pytest.approx(math.log(35), rel=1e-6)
    z1, logits = z1.requires_grad_(), logits.requires_grad_()
    terms = objectives.scatsimclr_terms(z1, z2, logits, labels)
    found = torch.autograd.grad(terms["pretext"], [z1, logits], retain_graph=True, allow_unused=True)
    assert found[0] is None
    assert found[1].abs().sum() > 0
    total = torch.autograd.grad(terms["loss"], logits)[0]
    torch.testing.assert_close(total, 0.3 * found[1])


def test_autocast_computes_in_float32():
    z1, z2 = (z.float() for z in views())
    logits, labels = question()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objectives.scatsimclr(z1, z2, logits.bfloat16(), labels)
    assert loss.dtype == torch.float32


def test_wrong_input_is_refused_in_one_line():
    (z1, z2), (logits, labels) = views(), question()
    with pytest.raises(UserError, match="negatives"):
        objectives.scatsimclr(z1[:1], z2[:1])
    with pytest.raises(UserError, match="labels"):
        objectives.scatsimclr(z1, z2, logits)
    with pytest.raises(UserError, match=r"\(24, 4\) and \(23,\)"):
        objectives.scatsimclr(z1, z2, logits, labels[1:])
    with pytest.raises(UserError, match="temperature"):
        objectives.scatsimclr(z1, z2, temperature=0)
