"""SLA against its sums written out by loops, its limits, its gradients, and its settings for few and uneven labels."""

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError

B, M, N = 5, 4, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch():
    return 2 * draw(B * M, N * M), torch.tensor([0, 2, 1, 1, 2]), draw(B * M, N, seed=1)


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(x - top) for x in row))
    return [x - total for x in row]


def literal_sla(joint, labels, single=None, T=1.0, beta=1.0, large_loss=False):
    """The sheet's sums, entry by entry."""
    s = joint.tolist()
    total = 0.0
    for b, y in enumerate(labels.tolist()):
        for j in range(M):
            total -= log_softmax(s[b * M + j])[y * M + j] / (B * M)
    total *= M if large_loss else 1
    if single is None:
        return total
    for b, y in enumerate(labels.tolist()):
        u = single.tolist()[b * M]
        a = [sum(s[b * M + j][c * M + j] for j in range(M)) / M for c in range(N)]
        total -= beta * log_softmax(u)[y] / B
        teacher, student = log_softmax([x / T for x in a]), log_softmax([x / T for x in u])
        total += T**2 / B * sum(math.exp(p) * (p - q) for p, q in zip(teacher, student, strict=True))
    return total


@pytest.mark.parametrize("large_loss", [False, True])
@pytest.mark.parametrize(("T", "beta"), [(1.0, 1.0), (3.0, 0.0)])
def test_sla_and_its_distillation_equal_the_sums(large_loss, T, beta):
    joint, labels, single = batch()
    plain = objectives.sla(joint, labels, large_loss=large_loss)
    assert plain.item() == pytest.approx(literal_sla(joint, labels, large_loss=large_loss), rel=1e-12)
    options = {"T": T, "beta": beta, "large_loss": large_loss}
    expected = literal_sla(joint, labels, single, **options)
    assert objectives.sla(joint, labels, single, **options).item() == pytest.approx(expected, rel=1e-12)
    assert objectives.sla(joint, labels, single[::M], **options).item() == pytest.approx(expected, rel=1e-12)
    terms = objectives.sla_terms(joint, labels, single, **options)
    assert set(terms) == {"loss", "joint", "single", "distillation"}
    total = terms["joint"] + beta * terms["single"] + terms["distillation"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-12)


def test_aggregated_and_single_inference_read_the_right_columns():
    joint, _, _ = batch()
    aggregate, single = objectives.sla_aggregate(joint, M), objectives.sla_single(joint[::M], M)
    for b in range(B):
        for c in range(N):
            mean = sum(joint[b * M + j, c * M + j].item() for j in range(M)) / M
            assert aggregate[b, c].item() == pytest.approx(mean, rel=1e-12)
            assert single[b, c].item() == joint[b * M, c * M].item()


def test_one_transformation_is_ordinary_supervised_learning():
    logits, labels = draw(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(objectives.sla(logits, labels), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(objectives.sla_da(logits, labels), expected, rtol=0, atol=1e-14)
    assert torch.equal(objectives.sla_aggregate(logits, 1), logits)
    assert torch.equal(objectives.sla_single(logits, 1), logits)


def test_joint_logits_that_ignore_the_transformation_give_da_plus_log_m_and_sums_give_mt():
    _, labels, u = batch()
    v = draw(B * M, M, seed=2)
    flat = u.repeat_interleave(M, dim=1)
    da, mt = objectives.sla_da(u, labels), objectives.sla_mt(u, v, labels)
    assert objectives.sla(flat, labels).item() == pytest.approx(da.item() + math.log(M), abs=1e-12)
    both = (u[:, :, None] + v[:, None, :]).flatten(1)
    assert objectives.sla(both, labels).item() == pytest.approx(mt.item(), abs=1e-12)
    one = u[::M].repeat_interleave(M, 0)
    same = (one[:, :, None] + v[:, None, :]).flatten(1)
    assert torch.equal(objectives.sla_aggregate(same, M).argmax(1), u[::M].argmax(1))
    assert torch.equal(objectives.sla_single(same[::M], M).argmax(1), u[::M].argmax(1))


def test_da_and_mt_equal_their_sums():
    _, labels, u = batch()
    v = draw(B * M, M, seed=2)
    own = sum(-log_softmax(u[b * M + j].tolist())[int(labels[b])] for b in range(B) for j in range(M)) / (B * M)
    which = sum(-log_softmax(v[b * M + j].tolist())[j] for b in range(B) for j in range(M)) / (B * M)
    assert objectives.sla_da(u, labels).item() == pytest.approx(own, rel=1e-12)
    assert objectives.sla_mt(u, v, labels).item() == pytest.approx(own + which, rel=1e-12)


def test_distillation_teaches_the_single_head_only_and_is_zero_when_it_agrees():
    joint, labels, single = batch()
    joint.requires_grad_()
    single.requires_grad_()
    terms = objectives.sla_terms(joint, labels, single, T=2.0)
    assert torch.autograd.grad(terms["distillation"], joint, allow_unused=True, retain_graph=True)[0] is None
    slope = torch.autograd.grad(terms["distillation"], single)[0]
    assert slope[::M].abs().min() > 0
    rest = torch.ones(B * M, dtype=torch.bool)
    rest[::M] = False
    assert not slope[rest].any()
    agreed = objectives.sla_aggregate(joint, M).detach()
    assert objectives.sla_terms(joint, labels, agreed)["distillation"].item() == pytest.approx(0, abs=1e-14)


def test_gradcheck():
    joint, labels, single = (t.requires_grad_() if t.is_floating_point() else t for t in batch())
    assert torch.autograd.gradcheck(lambda j: objectives.sla(j, labels), (joint,))
    assert torch.autograd.gradcheck(lambda s: objectives.sla(joint.detach(), labels, s, T=2.0), (single,))
    # the teacher's part has no gradient on purpose: without it the numbers agree again
    slope = torch.autograd.grad(objectives.sla(joint, labels, single), joint)[0]
    torch.testing.assert_close(slope, torch.autograd.grad(objectives.sla(joint, labels), joint)[0], rtol=0, atol=1e-14)


def test_shuffled_images_change_nothing_but_copies_in_another_order_do():
    joint, labels, single = batch()
    order = torch.tensor([3, 1, 4, 0, 2])
    rows = (order[:, None] * M + torch.arange(M)).flatten()
    whole = objectives.sla(joint, labels, single)
    torch.testing.assert_close(objectives.sla(joint[rows], labels[order], single[rows]), whole, rtol=1e-12, atol=0)
    stacked = joint.view(B, M, -1).transpose(0, 1).flatten(0, 1)  # cat along the batch, not interleaved
    assert abs(objectives.sla(stacked, labels).item() - objectives.sla(joint, labels).item()) > 1e-3


def test_unlabelled_images_count_with_their_transformation_and_in_the_distillation():
    joint, labels, single = batch()
    some = labels.clone()
    some[1] = some[4] = -1
    total = 0.0
    for b, y in enumerate(some.tolist()):
        for j in range(M):
            row = log_softmax(joint[b * M + j].tolist())
            total -= row[y * M + j] if y >= 0 else math.log(sum(math.exp(row[c * M + j]) for c in range(N)))
    assert objectives.sla(joint, some).item() == pytest.approx(total / (B * M), rel=1e-12)
    terms, whole = objectives.sla_terms(joint, some, single), objectives.sla_terms(joint, labels, single)
    torch.testing.assert_close(terms["distillation"], whole["distillation"], rtol=0, atol=0)
    expected = F.cross_entropy(single[::M], some, ignore_index=-1)
    torch.testing.assert_close(terms["single"], expected, rtol=1e-12, atol=0)
    nothing = torch.full((B,), -1)
    assert objectives.sla_da(single, nothing).item() == 0
    v = draw(B * M, M, seed=2)
    which = F.cross_entropy(v, torch.arange(M).repeat(B))
    torch.testing.assert_close(objectives.sla_mt(single, v, nothing), which, rtol=1e-12, atol=0)


def test_class_weights_give_weighted_means_and_margins_lower_the_true_logit():
    joint, labels, single = batch()
    weights, margins = torch.tensor([0.5, 1.0, 3.0]).double(), torch.tensor([0.2, 0.0, 0.7]).double()
    rows = labels.repeat_interleave(M)
    column = rows * M + torch.arange(M).repeat(B)
    lowered = joint.clone()
    for row in range(B * M):
        lowered[row, column[row]] -= margins[rows[row]]
    expected = F.cross_entropy(lowered, column, weight=weights.repeat_interleave(M))
    found = objectives.sla(joint, labels, class_weights=weights, margins=margins)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    equal = objectives.sla(joint, labels, single, class_weights=torch.full((N,), 2.0), margins=torch.zeros(N))
    torch.testing.assert_close(equal, objectives.sla(joint, labels, single), rtol=1e-12, atol=0)
    da = objectives.sla_da(single, labels, class_weights=weights)
    torch.testing.assert_close(da, F.cross_entropy(single, rows, weight=weights), rtol=1e-12, atol=0)


def test_effective_weights_and_ldam_margins():
    counts = torch.tensor([1000.0, 100.0, 10.0, 0.0], dtype=torch.float64)
    weights = objectives.effective_weights(counts, gamma=0.99)
    raw = [0.01 / (1 - 0.99 ** max(n, 1)) for n in counts.tolist()]
    expected = torch.tensor([w * 4 / sum(raw) for w in raw], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(objectives.effective_weights(counts, gamma=0.0), torch.ones(4).double())
    margins = objectives.ldam_margins(counts)
    torch.testing.assert_close(margins, 0.5 * torch.tensor([1000.0, 100.0, 10.0, 1.0]).double() ** -0.25)
    with pytest.raises(UserError, match="gamma"):
        objectives.effective_weights(counts, gamma=1.0)


def test_an_episode_has_a_pseudo_class_per_class_and_transformation():
    support, query = draw(4 * M, 6), draw(3 * M, 6, seed=1)
    labels = torch.tensor([1, 0, 1, 0])
    joint = objectives.sla_episode(support, labels, query, classes=2, copies=M)
    for row in range(3 * M):
        for c in range(2):
            for k in range(M):
                chosen = [support[i * M + k] for i in range(4) if labels[i] == c]
                prototype = sum(chosen) / len(chosen)
                distance = ((query[row] - prototype) ** 2).sum().item()
                assert joint[row, c * M + k].item() == pytest.approx(-distance, rel=1e-10)
    ridge = objectives.sla_episode(support, labels, query, classes=2, copies=M, head="ridge", ridge=2.0)
    hot = torch.zeros(4 * M, 2 * M, dtype=torch.float64)
    for i in range(4):
        for k in range(M):
            hot[i * M + k, labels[i] * M + k] = 1
    primal = torch.linalg.solve(support.T @ support + 2.0 * torch.eye(6).double(), support.T @ hot)
    torch.testing.assert_close(ridge, query @ primal, rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match="each of the 3 classes"):
        objectives.sla_episode(support, labels, query, classes=3, copies=M)


def test_half_precision_is_computed_in_float32():
    joint, labels, single = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objectives.sla(joint.bfloat16(), labels, single.bfloat16())
    assert loss.dtype == torch.float32
    expected = objectives.sla(joint.bfloat16().float(), labels, single.bfloat16().float())
    torch.testing.assert_close(loss, expected)
    assert torch.isnan(objectives.sla(joint * math.nan, labels))


def test_misuse_is_refused_in_one_line():
    joint, labels, single = batch()
    for call in (
        lambda: objectives.sla(joint[:-1], labels),
        lambda: objectives.sla(joint[:, :-1], labels),
        lambda: objectives.sla(joint, labels + 1),
        lambda: objectives.sla(joint, labels - 2),
        lambda: objectives.sla(joint, labels, single[:3]),
        lambda: objectives.sla(joint, labels, single, T=0.0),
        lambda: objectives.sla_mt(single, single, labels),
        lambda: objectives.sla_aggregate(joint[:-1], M),
    ):
        with pytest.raises(UserError) as found:
            call()
        assert "\n" not in str(found.value)
