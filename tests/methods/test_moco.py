"""MoCo v2, MoCHi and MoCo v3 as wired: losses of their own embeddings, queues, stops, warm-up, resuming, processes."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from selftaught import methods, objectives
from selftaught.errors import UserError
from tests.conftest import TINY
from tests.methods.learning import assert_alike, assert_learns_photographs, by_one_and_two
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small"}
QUEUED = SMALL | {"queue": 50, "samples": 200}


def batch_for(method, n: int = 10, channels: int = 3, start: int = 0) -> dict:
    generator = torch.Generator().manual_seed(start)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    batch = {"views": views, "index": torch.arange(start, start + n), "label": torch.arange(n) % 3}
    return method.on_after_batch_transfer(batch)


def literal(q, k, queue, tau, *, positive=True, mask=None) -> float:
    """The sheet's sum, row by row, in float64."""
    q, k, queue = (t.detach().double() for t in (q, k, queue))
    total = 0.0
    for i in range(len(q)):
        kept = [n for j, n in enumerate(queue) if mask is None or not mask[i, j]]
        above = math.exp(q[i] @ k[i] / tau)
        below = sum(math.exp(q[i] @ n / tau) for n in kept) + (above if positive else 0.0)
        total -= math.log(above / below)
    return total / len(q)


def queries_and_keys(method, batch):
    x1, x2 = batch["views"]
    return normalize(method.project(x1)), normalize(method.target(x2))


@pytest.mark.parametrize("objective", ["infonce", "dcl"])
def test_moco_v2_is_the_formula_of_its_own_queries_keys_and_queue(objective: str) -> None:
    method = methods.MoCoV2(objective=objective, temperature=0.3, **QUEUED)
    batch = batch_for(method)
    q, k = queries_and_keys(method, batch)
    before = method.queues[0].items.clone()
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(literal(q, k, before, 0.3, positive=objective == "infonce"), rel=1e-5)
    # The keys enter the queue after the loss, and nothing else does.
    torch.testing.assert_close(method.queues[0].items[:10], k)
    assert torch.equal(method.queues[0].items[10:], before[10:])


def test_symmetric_moco_v2_has_a_queue_per_view_and_takes_the_mean() -> None:
    method = methods.MoCoV2(symmetric=True, **QUEUED)
    batch = batch_for(method)
    x1, x2 = batch["views"]
    queues = [queue.items.clone() for queue in method.queues]
    assert not torch.equal(*queues)
    q1, q2, k1, k2 = (normalize(f(x)) for f, x in (
        (method.project, x1), (method.project, x2), (method.target, x1), (method.target, x2)))  # fmt: skip
    expected = (literal(q1, k2, queues[0], 0.2) + literal(q2, k1, queues[1], 0.2)) / 2
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(method.queues[0].items[:10], k2)
    torch.testing.assert_close(method.queues[1].items[:10], k1)


def test_gradient_reaches_encoder_and_projector_but_not_the_copy_nor_the_queue() -> None:
    for method in (methods.MoCoV2(**QUEUED), methods.MoCHi(N=20, s=9, s_prime=4, **QUEUED), methods.MoCoV3(**SMALL)):
        method.loss(batch_for(method))["loss"].backward()
        trained = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert {name.split(".")[0] for name in trained} >= {"encoder", "projector"}
        assert not any(name.startswith(("momentum", "queues")) for name in trained)
        assert all(p.grad is None for p in method.momentum.parameters())
    assert any(name.startswith("predictor") for name in trained)


@pytest.mark.parametrize("mask", ["image", "class"])
def test_entries_of_the_same_image_or_class_are_no_negatives(mask: str) -> None:
    method = methods.MoCoV2(mask=mask, **QUEUED)
    batch = batch_for(method)
    method.loss(batch)
    labels = method.queues[0].labels.tolist()
    own = (batch["index"] if mask == "image" else batch["label"]).tolist()
    assert labels == own + [-1] * 40
    left_out = torch.tensor([[a == b for b in labels] for a in own])
    assert left_out.sum().item() == (10 if mask == "image" else 34)
    q, k = queries_and_keys(method, batch)
    expected = literal(q, k, method.queues[0].items, 0.2, mask=left_out)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_oracle_needs_labels_and_an_unknown_label_is_nobodys_relative() -> None:
    method = methods.MoCoV2(mask="class", **QUEUED)
    batch = batch_for(method)
    unlabelled = {name: value for name, value in batch.items() if name != "label"}
    with pytest.raises(UserError, match="no labels"):
        method.loss(unlabelled)
    q, k = queries_and_keys(method, batch)
    before = method.queues[0].items.clone()
    terms = method.loss(batch | {"label": torch.full((10,), -1)})
    assert terms["loss"].item() == pytest.approx(literal(q, k, before, 0.2), rel=1e-5)


def test_a_queue_is_at_most_half_the_data() -> None:
    assert len(methods.MoCoV2(**SMALL | {"queue": 50, "samples": 30}).queues[0]) == 15
    assert len(methods.MoCoV2(**SMALL | {"queue": 50}).queues[0]) == 50
    method = methods.MoCHi(N=1024, s=5, s_prime=5, **SMALL | {"queue": 50, "samples": 30})
    assert method.loss(batch_for(method))["loss"].isfinite()


def test_mixed_query_images_share_their_loss_between_two_keys() -> None:
    method = methods.MoCoV2(input_mix=1.0, mask="image", **QUEUED)
    batch = batch_for(method)
    method.queues[0].push(normalize(torch.randn(10, 12)), torch.arange(10))
    before = method.queues[0].items.clone()
    torch.manual_seed(5)
    (mixed,), partner, share = method.mix_inputs([batch["views"][0]])
    assert 0 < share < 1
    assert sorted(partner.tolist()) == list(range(10))
    x = batch["views"][0]
    torch.testing.assert_close(mixed, share * x + (1 - share) * x[partner])
    q, k = normalize(method.project(mixed)), normalize(method.target(batch["views"][1]))
    mask = torch.zeros(10, 50, dtype=torch.bool)
    mask[:, :10] = torch.eye(10, dtype=torch.bool)
    both = mask | mask[partner]
    expected = share * literal(q, k, before, 0.2, mask=mask) + (1 - share) * literal(
        q, k[partner], before, 0.2, mask=both
    )
    torch.manual_seed(5)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_mochi_is_mochis_formula_of_its_own_embeddings() -> None:
    options = {"N": 20, "s": 30, "s_prime": 10, "beta_max": 0.4, "alpha_low": 0.2, "alpha_high": 0.7}
    method = methods.MoCHi(**options, temperature=0.3, **QUEUED)
    assert isinstance(method, methods.MoCoV2)
    batch = batch_for(method)
    q, k = queries_and_keys(method, batch)
    queue = method.queues[0].items.clone()
    torch.manual_seed(1)
    h, h_prime = objectives.mochi_negatives(
        q.detach(), queue, N=20, s=30, s_prime=10, beta_max=0.4, alpha_range=(0.2, 0.7)
    )
    total = 0.0
    for i in range(10):
        keys = torch.cat([k[i : i + 1], queue, h[i], h_prime[i]]).double()
        assert len(keys) == 1 + 50 + 30 + 10
        total -= (keys @ q[i].detach().double() / 0.3).log_softmax(0)[0].item()
    torch.manual_seed(1)
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(total / 10, rel=1e-5)
    torch.testing.assert_close(method.queues[0].items[:10], k)  # keys only: the mixtures never enter


def test_mochi_without_mixtures_is_moco_v2_to_the_bit_and_with_them_above_it() -> None:
    torch.manual_seed(0)
    moco = methods.MoCoV2(**QUEUED)
    values = {}
    for name, sizes in (("none", (0, 0)), ("some", (40, 20))):
        mochi = methods.MoCHi(N=20, s=sizes[0], s_prime=sizes[1], **QUEUED)
        mochi.load_state_dict(moco.state_dict())
        values[name] = mochi.loss(batch_for(mochi))
    plain = copy.deepcopy(moco).loss(batch_for(moco))
    assert torch.equal(values["none"]["loss"], plain["loss"])
    assert values["some"]["loss"] > plain["loss"]
    assert values["some"]["proxy_accuracy"] <= plain["proxy_accuracy"]


def put(method: methods.MoCHi, step: int, steps: int) -> None:
    """Put a method of two batches per step, and 8 batches per epoch, at a step of a run."""
    method.plan(steps, 8)
    method.accumulate, method.steps = 2, step


def test_mochi_waits_for_its_warm_up_counted_in_epochs_of_optimiser_steps() -> None:
    method = methods.MoCHi(mix_warmup_epochs=3.0, N=20, s=5, s_prime=5, **QUEUED)
    assert method.mixes  # without a trainer there is no warm-up
    for step, steps, expected in ((0, 100, False), (11, 100, False), (12, 100, True), (5, 30, False), (6, 30, True)):
        put(method, step, steps)
        assert method.mixes == expected
    batch, state = batch_for(method), copy.deepcopy(method.state_dict())
    queue = method.queues[0].items.clone()
    put(method, 0, 100)
    q, k = queries_and_keys(method, batch)
    assert method.loss(batch)["loss"].item() == pytest.approx(literal(q, k, queue, 0.2), rel=1e-5)
    method.load_state_dict(state)
    put(method, 12, 100)
    assert method.loss(batch)["loss"].item() > literal(q, k, queue, 0.2) + 1e-3


def test_moco_v3_is_the_formula_of_predictions_and_keys() -> None:
    method = methods.MoCoV3(temperature=0.3, predictor="20", **SMALL)
    batch = batch_for(method)
    qs = [normalize(method.predictor(method.project(x))).detach().double() for x in batch["views"]]
    ks = [normalize(method.target(x)).double() for x in batch["views"]]
    expected = 0.0
    for q, k in ((qs[0], ks[1]), (qs[1], ks[0])):
        for i in range(10):
            scores = [math.exp(q[i] @ other / 0.3) for other in k]
            expected -= 2 * 0.3 * math.log(scores[i] / sum(scores)) / 10
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_moco_v3_heads_are_the_papers() -> None:
    method = methods.MoCoV3(**SMALL | {"projector": "24-24-12"}, predictor="20", predictor_norm=True)
    for head, norms in ((method.projector, 3), (method.predictor, 2)):
        linear = [m for m in head if isinstance(m, torch.nn.Linear)]
        batchnorm = [m for m in head if isinstance(m, torch.nn.BatchNorm1d)]
        assert all(m.bias is None for m in linear)
        assert len(batchnorm) == norms
        assert isinstance(head[-1], torch.nn.BatchNorm1d)
        assert not head[-1].affine
    plain = methods.MoCoV3(**SMALL, predictor="20")
    assert isinstance(plain.predictor[-1], torch.nn.Linear)
    assert plain.predictor[-1].weight.shape == (12, 20)
    assert isinstance(methods.MoCoV3(**SMALL, predictor="none").predictor, torch.nn.Identity)


def test_frozen_patches_stay_and_need_a_transformer() -> None:
    small = SMALL | {"encoder": "vit_tiny_patch16_224", "image_size": 32}
    method = methods.MoCoV3(freeze_patches=True, predictor="20", **small)
    frozen = [name for name, p in method.encoder.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("patch_embed.proj" in name for name in frozen)
    trained = {id(p) for group in method.parameter_groups(1.0) for p in group["params"]}
    assert not any(id(p) in trained for n, p in method.encoder.named_parameters() if n in frozen)
    with pytest.raises(UserError, match="take a ViT"):
        methods.MoCoV3(freeze_patches=True, predictor="20", **SMALL)


@pytest.mark.parametrize("name", ["MoCoV2", "MoCoV3", "MoCHi"])
def test_four_channels_and_the_embedding_is_before_the_projector(name: str) -> None:
    options = SMALL if name == "MoCoV3" else QUEUED
    method = getattr(methods, name)(channels=4, **options)
    batch = batch_for(method, channels=4)
    assert method.loss(batch)["loss"].isfinite()
    assert method.eval().predict(batch).shape == (10, method.encoder.dim)
    recipe = getattr(methods, name)(**options | {"augment": "paper", "image_size": 96}).views()
    assert len(recipe) == 2


def test_series_are_learnt_from_as_well() -> None:
    for name, more in (("MoCoV2", {"queue": 8}), ("MoCHi", {"queue": 8}), ("MoCoV3", {"predictor": "20"})):
        method = getattr(methods, name)(encoder="resnet1d", projector="24-12", channels=3, length=64, **more)
        batch = {"series": torch.randn(6, 3, 64), "index": torch.arange(6)}
        assert method.loss(batch)["loss"].isfinite()
        assert method.predict(batch).shape == (6, 128)


@pytest.mark.slow
def test_a_resumed_mochi_run_is_bit_identical_in_weights_queue_and_copy(tmp_path: Path) -> None:
    options = TINY | {"queue": 64, "N": 16, "s": 8, "s_prime": 4}
    first, second = cut_and_whole("mochi", tmp_path, options)
    assert any(name.startswith("queues.0.items") for name in first)
    assert any(name.startswith("momentum.") for name in first)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])), name


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["moco-v2", "moco-v3", "mochi"])
def test_it_learns_photographs(slug: str, tmp_path: Path) -> None:
    assert_learns_photographs(slug, tmp_path / "run", margin=0.02, lr=0.01 if slug == "moco-v3" else 4e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "more"),
    [
        ("moco-v2", {"queue": 100, "mask": "image"}),
        ("mochi", {"queue": 100, "N": 1, "s": 5, "s_prime": 0, "mix_warmup_epochs": 0.0}),
        ("moco-v3", {}),
        ("nnclr", {"queue": 100, "mask": "image"}),
        ("supcon", {}),
    ],
    ids=["moco-v2", "mochi", "moco-v3", "nnclr", "supcon"],
)
def test_two_processes_equal_one_with_the_doubled_batch(slug: str, more: dict) -> None:
    """The same weights, and on all ranks the same queue; MoCo's keys are computed in shuffled batches on the way."""
    one, two = by_one_and_two(slug, {"classes": 10} | more)
    assert_alike(one["state"], two["state"])
