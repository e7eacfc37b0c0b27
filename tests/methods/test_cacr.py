"""CACR as wired: each host's loss is the sheet's formula of its own embeddings, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.methods.cacr import PRESETS, Config
from tests.conftest import TINY
from tests.methods.learning import assert_learns_waves
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small"}
BATCH = SMALL | {"host": "batch", "positives": 2}
QUEUE = SMALL | {"host": "queue", "positives": 2, "queue": 20}
MOMENTUM = SMALL | {"host": "momentum", "positives": 2, "predictor": "16-12"}


def batch_for(method, n: int = 8, channels: int = 3, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    shape, count = (n, channels, 16, 16), len(method.views())
    images = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in range(count)]
    batch = {"views": images, "index": torch.arange(n), "label": torch.arange(n) % 3}
    return method.on_after_batch_transfer(batch)


def softmax(x):
    return (x - x.max()).exp() / (x - x.max()).exp().sum()


def literal(z, tau_pos, tau_neg, alpha, beta):
    """L_CA + L_CR, query by query, in float64."""
    z = [v.detach().double() for v in z]
    attraction = repulsion = 0.0
    count, rows = len(z), len(z[0])
    for v in range(count):
        for i in range(rows):
            d = torch.stack([(z[v][i] - z[u][i]).square().sum() for u in range(count) if u != v])
            attraction += (softmax(tau_pos * d) * alpha * d).sum() / count / rows
    for v in range(count):
        for u in range(v + 1, count):
            for i in range(rows):
                d = torch.stack([(z[v][i] - z[u][j]).square().sum() for j in range(rows) if j != i])
                repulsion -= (softmax(-tau_neg * d) * beta * d).sum() / rows / (count * (count - 1) / 2)
    return attraction, repulsion


def test_batch_host_is_the_sheets_loss_of_three_normalised_projections() -> None:
    method = methods.CACR(tau_pos=1.5, tau_neg=0.7, alpha=2.0, beta=3.0, **BATCH)
    batch = batch_for(method)
    assert len(batch["views"]) == 3
    z = [normalize(method.project(x)) for x in batch["views"]]
    attraction, repulsion = literal(z, 1.5, 0.7, 2.0, 3.0)
    terms = method.loss(batch)
    assert terms["attraction"].item() == pytest.approx(attraction.item(), rel=1e-5)
    assert terms["repulsion"].item() == pytest.approx(repulsion.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((attraction + repulsion).item(), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"choice": "none"}, {"cost": "rbf", "t": 1.0}, {"tau_plus": 0.1}, {"symmetric": True}, {"choice": "without_w1"}],
)
def test_batch_host_hands_its_options_on(options: dict) -> None:
    method = methods.CACR(**BATCH | options)
    batch = batch_for(method)
    z = [normalize(method.project(x)) for x in batch["views"]]
    found = method.loss(batch)["loss"].item()
    assert found == pytest.approx(objectives.cacr(*z, **options).item(), abs=1e-6)
    assert abs(found - objectives.cacr(*z).item()) > 1e-6


def test_baseline_and_supervised_form_share_the_wiring() -> None:
    method = methods.CACR(objective="simclr", temperature=0.3, **BATCH)
    batch = batch_for(method)
    z = [normalize(method.project(x)) for x in batch["views"]]
    assert method.loss(batch)["loss"].item() == pytest.approx(objectives.simclr(*z, temperature=0.3).item(), rel=1e-5)
    method = methods.CACR(objective="hcl", temperature=0.3, tau_plus=0.05, beta=0.5, **BATCH | {"positives": 1})
    two = batch | {"views": batch["views"][:2]}
    z = [normalize(method.project(x)) for x in two["views"]]
    expected = objectives.hcl(*z, temperature=0.3, tau_plus=0.05, beta=0.5)
    assert method.loss(two)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    method = methods.CACR(objective="supervised", classes=3, **BATCH)
    z = [normalize(method.project(x)) for x in batch["views"]]
    expected = objectives.cacr_supervised(*z, labels=batch["label"])
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("intra_batch", [True, False])
def test_queue_host_is_the_sheets_loss_and_takes_in_the_last_views_keys(intra_batch: bool) -> None:
    method = methods.CACR(intra_batch=intra_batch, **QUEUE)
    batch = batch_for(method)
    with torch.no_grad():
        for parameter in method.momentum.parameters():
            parameter.mul_(1.1)  # keys differ from queries
    q = [normalize(method.project(x)) for x in batch["views"]]
    k = [normalize(method.target(x)) for x in batch["views"]]
    before = method.queue.items.clone()
    terms = method.loss(batch)
    attraction = repulsion = 0.0
    for v in range(3):
        for i in range(8):
            d = torch.stack([(q[v][i] - k[u][i]).square().sum() for u in range(3) if u != v])
            attraction += (softmax(d) * d).sum() / 24
            d = [2 - 2 * q[v][i] @ n for n in before]
            d += [2 - 2 * q[v][i] @ q[v][j] for j in range(8) if j != i] if intra_batch else []
            d = torch.stack(d)
            repulsion -= (softmax(-2.0 * d) * d).sum() / 24
    assert terms["attraction"].item() == pytest.approx(attraction.item(), rel=1e-4)
    assert terms["repulsion"].item() == pytest.approx(repulsion.item(), rel=1e-4)
    torch.testing.assert_close(method.queue.items[:8], k[-1])
    assert torch.equal(method.queue.items[8:], before[8:])


def test_momentum_host_with_two_views_is_moco_v3_symmetrised() -> None:
    method = methods.CACR(cost="rbf", temperature=0.4, **MOMENTUM | {"positives": 1})
    batch = batch_for(method)
    x1, x2 = batch["views"]
    q1, q2 = (normalize(method.predictor(method.project(x))) for x in (x1, x2))
    k1, k2 = (normalize(method.target(x)) for x in (x1, x2))
    rows = torch.arange(8)
    expected = sum(torch.nn.functional.cross_entropy(q @ k.T / 0.4, rows) for q, k in ((q1, k2), (q2, k1))) * 0.4
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("local_targets", [False, True])
def test_small_crops_are_queries_and_targets_only_where_asked(local_targets: bool) -> None:
    options = {"local_crops": 2, "local_size": 8, "image_size": 32, "stem": "small", "local_targets": local_targets}
    method = methods.CACR(cost="euclidean", **MOMENTUM | {"positives": 1} | options)
    sizes = [view.size for view in (pipeline.ops[0] for pipeline in method.views())]
    assert sizes == [32, 32, 8, 8]
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (6, 3, s, s), generator=generator, dtype=torch.uint8) for s in sizes]
    batch = method.on_after_batch_transfer({"views": images, "index": torch.arange(6)})
    q = [normalize(method.predictor(method.project(x))) for x in batch["views"]]
    k = [normalize(method.target(x)) for x in batch["views"]][: 4 if local_targets else 2]
    costs = [objectives.cacr_momentum(q[:u] + q[u + 1 :], key, cost="euclidean") for u, key in enumerate(k)]
    assert method.loss(batch)["loss"].item() == pytest.approx(torch.stack(costs).mean().item(), rel=1e-4)


@pytest.mark.parametrize("options", [BATCH, QUEUE, MOMENTUM | {"cost": "rbf"}])
def test_gradient_reaches_what_is_trained_and_nothing_else_and_the_copy_follows(options: dict) -> None:
    method = methods.CACR(channels=4, **options)
    method.loss(batch_for(method, channels=4))["loss"].backward()
    trained = [n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(n.startswith("encoder") for n in trained)
    assert any(n.startswith("projector") for n in trained)
    assert not any(n.startswith(("momentum", "queue")) for n in trained)
    assert any(n.startswith("predictor") for n in trained) == (options["host"] == "momentum")
    assert method.predict(batch_for(method, channels=4)).shape == (8, method.encoder.dim)
    if options["host"] == "batch":
        method.after_step()
        assert not hasattr(method, "momentum")
        return
    copy = next(iter(method.momentum.parameters()))
    own = next(iter(method.followed().parameters()))
    with torch.no_grad():
        own.add_(1.0)
    expected = 0.999 * copy.detach().clone() + 0.001 * own.detach()
    method.after_step()
    torch.testing.assert_close(copy.detach(), expected)


def test_options_without_meaning_are_refused() -> None:
    for options, said in (
        (QUEUE | {"cost": "rbf"}, "cost=rbf"), (QUEUE | {"objective": "simclr"}, "host=batch"),
        (MOMENTUM | {"choice": "none"}, "choice=none"), (BATCH | {"local_crops": 2}, "local_crops"),
        (BATCH | {"positives": 0}, "positives"), (BATCH | {"objective": "supervised"}, "labels"),
        (MOMENTUM | {"predictor": "16-10"}, "predictor"), (BATCH | {"objective": "hcl"}, "positives=1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            methods.CACR(**options)


def test_presets_name_options_that_exist_and_small_images_get_the_papers_jitter() -> None:
    settings = {"epochs", "batch_size", "steps"}
    for name, preset in PRESETS.items():
        Config(**{k: v for k, v in preset.items() if k not in settings})
        assert settings & set(preset), name
    method = methods.CACR(**BATCH | {"augment": "paper"})
    jitters = [view.ops[2] for view in method.views()]
    assert len(jitters) == 3
    assert (jitters[0].brightness, jitters[0].hue, jitters[0].p) == ((0.6, 1.4), (-0.4, 0.4), 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["queue", "momentum"])
def test_a_resumed_run_ends_in_the_same_weights(host: str, tmp_path: Path) -> None:
    options = {"host": host, "positives": 1, "queue": 64, "predictor": "16-16", "cost": "euclidean"}
    whole, cut = cut_and_whole("cacr", tmp_path, TINY | options)
    assert whole.keys() == cut.keys()
    assert any(name.startswith("momentum") for name in whole)
    for name in whole:
        assert torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])), name


@pytest.mark.slow
def test_it_learns_waves(tmp_path: Path) -> None:
    assert_learns_waves("cacr", tmp_path / "run")
