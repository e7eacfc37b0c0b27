"""GLARE's regions and terms: literal transcriptions, limits, invariances, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import objectives
from selftaught.errors import UserError

K, D = 7, 5


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_windows_are_clipped_at_the_border() -> None:
    anchors = torch.tensor([[0, 2, 7, 9]])  # corner, edge, inside, edge of a grid of 3 x 5
    found = objectives.region_windows(anchors, (3, 5), 3)
    assert (found > 0).sum(2).tolist() == [[4, 6, 9, 6]]
    torch.testing.assert_close(found.sum(2), torch.ones(1, 4))
    assert objectives.region_windows(anchors, (3, 5), 1)[0, 2].argmax() == 7
    tokens = rand(1, 15, D)
    means = objectives.region_means(tokens, found)
    torch.testing.assert_close(means[0, 0], tokens[0, [0, 1, 5, 6]].mean(0))


def test_anchors_follow_the_attention_and_never_repeat() -> None:
    attention = torch.full((500, 9), 1e-6)
    attention[:, 4] = 1
    g = torch.Generator().manual_seed(0)
    found = objectives.sample_anchors(attention, 3, generator=g)
    assert bool((found == 4).any(1).all())
    assert all(len(set(row)) == 3 for row in found.tolist())
    first = objectives.sample_anchors(torch.tensor([[1.0, 3.0]]).expand(4000, 2), 1, generator=g)
    assert abs(float((first == 1).float().mean()) - 0.75) < 0.03
    even = objectives.sample_anchors(attention, 1, how="uniform", generator=g)
    assert float((even == 4).float().mean()) < 0.25
    assert objectives.sample_anchors(attention[:2], 1, how="topk").tolist() == [[4], [4]]
    with pytest.raises(UserError, match="regions=10"):
        objectives.sample_anchors(attention, 10)


def test_counterparts_are_the_formulas_and_in_the_limit_the_token_itself() -> None:
    q, t = rand(2, 3, D), rand(2, 6, D, seed=1)
    found, sure = objectives.counterparts(q, t, temperature=0.3)
    for b in range(2):
        for k in range(3):
            cos = [float(q[b, k] @ t[b, j] / q[b, k].norm() / t[b, j].norm()) for j in range(6)]
            alpha = softmax(np.array(cos) / 0.3)
            np.testing.assert_allclose(found[b, k], alpha @ t[b].numpy(), rtol=1e-9)
            assert float(sure[b, k]) == pytest.approx(alpha.max())
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(objectives.counterparts(q, t[:, order], temperature=0.3)[0], found)
    itself, sure = objectives.counterparts(t, t, temperature=1e-4)
    torch.testing.assert_close(itself, t)
    torch.testing.assert_close(sure, torch.ones_like(sure))


def test_the_regional_term_is_the_formula() -> None:
    s, t, c = rand(2, 3, 4, K), rand(2, 3, 4, K, seed=1), rand(K, seed=2)
    each = np.zeros((2, 3, 4))
    for at in np.ndindex(2, 3, 4):
        p = softmax((t[at].numpy() - c.numpy()) / 0.05)
        each[at] = -(p * np.log(softmax(s[at].numpy() / 0.2))).sum()
    tau = {"student_temperature": 0.2, "teacher_temperature": 0.05}
    found = objectives.glare_regional(s, t, center=c, **tau)
    assert float(found) == pytest.approx(each.mean(), rel=1e-6)
    weight = torch.rand(2, 3, 4, dtype=torch.float64)
    weighed = objectives.glare_regional(s, t, center=c, weight=weight, **tau)
    assert float(weighed) == pytest.approx((each * weight.numpy()).mean(), rel=1e-6)
    grad_s = s[:1, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objectives.glare_regional(x, t[:1, :2], **tau), grad_s)
    teacher = t.clone().requires_grad_()
    assert not objectives.glare_regional(s, teacher).requires_grad


def case(seed: int = 0) -> dict[str, torch.Tensor]:
    shapes = {"cls": (2, 3, K), "patch": (2, 3, 6, K), "region": (2, 3, 4, K)}
    found = {
        f"{who} {name}": rand(*shape, seed=seed + 10 * i + j)
        for i, who in enumerate(("student", "teacher"))
        for j, (name, shape) in enumerate(shapes.items())
    }
    mask = torch.zeros(2, 3, 6, dtype=torch.bool)
    mask[:, :, 1::2] = True
    return found | {"mask": mask}


def terms(x: dict[str, torch.Tensor], **options) -> dict[str, torch.Tensor]:
    return objectives.glare_terms(
        x["student cls"], x["teacher cls"], x["student patch"], x["teacher patch"], x["mask"], x["student region"],
        x["teacher region"], **options,
    )  # fmt: skip


def test_the_three_terms_add_up_and_are_dinos_ibots_and_the_regions() -> None:
    x, c = case(), [rand(K, seed=s) for s in range(3)]
    found = terms(x, centers=c, lambda_local=0.5, lambda_regional=2.0)
    total = found["global"] + 0.5 * found["local"] + 2 * found["regional"]
    torch.testing.assert_close(found["loss"], total)
    torch.testing.assert_close(found["global"], objectives.dino(x["student cls"], x["teacher cls"], center=c[0]))
    local = objectives.ibot_patches(x["student patch"], x["teacher patch"], x["mask"], center=c[1])
    torch.testing.assert_close(found["local"], local)
    alone = terms(x, lambda_local=0.0, lambda_regional=0.0)
    torch.testing.assert_close(alone["loss"], alone["global"])
    torch.testing.assert_close(terms(x, lambda_global=0.0)["loss"], found_sum(terms(x)))


def found_sum(found: dict[str, torch.Tensor]) -> torch.Tensor:
    return found["local"] + found["regional"]


def test_uniform_logits_give_log_k_at_every_level_and_nothing_perturbed_gives_none() -> None:
    x = {name: torch.zeros_like(value) for name, value in case().items()} | {"mask": case()["mask"]}
    found = terms(x)
    for level in ("global", "local", "regional"):
        assert float(found[level]) == pytest.approx(np.log(K))
    assert float(found["teacher_entropy"]) == pytest.approx(np.log(K))
    nothing = case() | {"mask": torch.zeros(2, 3, 6, dtype=torch.bool)}
    assert float(terms(nothing)["local"]) == 0
