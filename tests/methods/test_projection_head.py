"""The projection-head study as wired: losses of its own projections, heads, coarse labels, layers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from selftaught import methods, networks, objectives
from selftaught.errors import UserError
from selftaught.evaluation import linear
from selftaught.methods.projection_head import PRESETS, Config
from tests.methods.learning import assert_learns_photographs

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "augment": "small"}


def made(classes: int = 4, **options) -> methods.ProjectionHead:
    torch.manual_seed(0)
    return methods.ProjectionHead(classes=classes, **SMALL | options)


def batch_for(method, n: int = 8, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, 16, 16)
    views = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in method.views()]
    batch = {"views": views, "index": torch.arange(n), "label": torch.arange(n) % 4}
    return method.on_after_batch_transfer(batch)


def literal(z: list[np.ndarray], labels: list[int], objective: str, tau: float) -> float:
    """Each loss by loops over rows, from projections that are not normalised."""
    if objective == "spectral":
        rows = len(z[0])
        cross = [float(z[0][i] @ z[1][j]) for i in range(rows) for j in range(rows) if i != j]
        return -2 * sum(float(a @ b) for a, b in zip(*z, strict=True)) / rows + sum(c * c for c in cross) / len(cross)
    groups = labels * len(z) if objective == "supcon" else list(range(len(z[0]))) * 2
    rows = [row / np.linalg.norm(row) for view in z for row in view]
    losses = []
    for i, anchor in enumerate(rows):
        s = [float(anchor @ other) / tau for other in rows]
        positives = [j for j in range(len(rows)) if j != i and groups[j] == groups[i]]
        partition = math.log(sum(math.exp(v) for j, v in enumerate(s) if j != i))
        losses.append(partition - sum(s[j] for j in positives) / len(positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("head", ["none", "mlp", "reweight"])
@pytest.mark.parametrize(("objective", "views"), [("simclr", 2), ("spectral", 2), ("supcon", 1), ("supcon", 2)])
def test_the_loss_is_the_sheets_on_its_own_projections(head: str, objective: str, views: int) -> None:
    method = made(head=head, objective=objective, supcon_views=views if objective == "supcon" else 1, temperature=0.3)
    batch = batch_for(method.eval())
    assert len(batch["views"]) == views
    z = [method.project(x).detach().double().numpy() for x in batch["views"]]
    expected = literal(z, batch["label"].tolist(), objective, 0.3)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_cross_entropy_sits_on_the_head_and_counts_coarse_classes() -> None:
    method = made(objective="ce", coarse="0-0-1-2", head="reweight", kappa=1.2).eval()
    batch = batch_for(method)
    assert len(method.views()) == 1
    assert method.classifier.out_features == 3
    z = method.encoder(batch["views"][0]) * networks.reweighting(256, 1.2)
    expected = cross_entropy(method.classifier(z), torch.tensor([0, 0, 1, 2])[batch["label"]])
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_coarse_labels_are_what_supcon_sees() -> None:
    coarse, plain = made(objective="supcon", coarse="0-1-0-1").eval(), made(objective="supcon").eval()
    batch = batch_for(coarse)
    merged = batch | {"label": batch["label"] % 2}
    assert coarse.loss(batch)["loss"].item() == plain.loss(merged)["loss"].item()
    assert coarse.loss(batch)["loss"].item() != plain.loss(batch)["loss"].item()


def test_the_fixed_head_has_no_weights_to_train_and_scales_the_gradient() -> None:
    method = made(head="reweight", kappa=1.5)
    assert {name for name, _ in method.named_parameters() if not name.startswith("encoder.")} == set()
    assert "head.weight" in method.state_dict()
    decayed = [p for group in method.parameter_groups(0.1) for p in group["params"]]
    assert not any(p is method.head.weight for p in decayed)
    h = torch.randn(8, 256, requires_grad=True)
    z = method.head(h)
    z.retain_grad()
    objectives.simclr(z[:4], z[4:], temperature=0.5).backward()
    torch.testing.assert_close(h.grad, z.grad * method.head.weight)


@pytest.mark.parametrize("head", ["linear", "mlp", "mlp2", "identity-mlp"])
def test_every_trained_head_gets_a_gradient(head: str) -> None:
    method = made(head=head)
    method.loss(batch_for(method))["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.head.parameters() if p.ndim > 1)


def test_the_encoder_stands_still_while_it_is_frozen() -> None:
    method = made(objective="ce", frozen=0.5)
    statistics = [b.clone() for b in method.encoder.buffers()]
    method.loss(batch_for(method))["loss"].backward()
    assert all(p.grad is None for p in method.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(statistics, method.encoder.buffers(), strict=True))
    assert all(p.grad is not None for m in (method.head, method.classifier) for p in m.parameters())
    assert method.encoder.training
    free = made(objective="ce")
    free.loss(batch_for(free))["loss"].backward()
    assert all(p.grad is not None for p in free.encoder.parameters())


def test_pre_post_and_block_are_three_different_features() -> None:
    by_layer = {layer: made(layer=layer, channels=4).eval() for layer in ("pre", "post", "block")}
    batch = batch_for(by_layer["pre"], channels=4)
    pre, post, block = (by_layer[layer].predict(batch) for layer in ("pre", "post", "block"))
    x, method = batch["views"][0], by_layer["pre"]
    torch.testing.assert_close(pre, method.encoder(x))
    torch.testing.assert_close(post, method.head(pre))  # not normalised
    assert block.shape == (8, 128)
    layers = method.layers(batch)
    assert list(layers)[-5:] == ["h", "head.0", "head.1", "head.2", "z"]
    torch.testing.assert_close(layers["h"], pre)
    torch.testing.assert_close(layers["z"], post)
    torch.testing.assert_close(layers["model.layer3"], block)
    torch.testing.assert_close(by_layer["post"].deliverable()(x), post)
    assert by_layer["post"].deliverable_spec()["encoder"]["name"] == "resnet10-narrow"
    torch.testing.assert_close(by_layer["pre"].deliverable()(x), pre)


def test_labels_that_are_missing_or_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="class folders"):
        made(classes=0, objective="supcon")
    assert made(classes=0).loss(batch_for(made(classes=0)))["loss"].isfinite()
    for coarse in ("0-1", "0-0-0-0", "0-1-x-1"):
        with pytest.raises(UserError, match="each of the 4 classes"):
            made(objective="ce", coarse=coarse)


def test_defaults_and_presets() -> None:
    c = Config()
    assert (c.optimizer, c.momentum, c.kappa, c.temperature, c.supcon_views) == ("sgd", 0.9, 1.05, 0.5, 1)
    fields = set(Config.__dataclass_fields__) | {"epochs", "steps", "batch_size"}
    assert all(set(preset) <= fields for preset in PRESETS.values())
    assert PRESETS["waterbirds"]["weight_decay"] == PRESETS["waterbirds"]["lr"] == 1e-3
    assert PRESETS["imagenet"]["kappa"] == 1.01


@pytest.mark.slow
def test_before_the_head_the_fine_classes_survive_coarse_training() -> None:
    """The sheet's toy: digits, label y >= 5, SupCon, an MLP head; probes of h and z after 200 steps, two seeds."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.from_numpy(data.images[:, None] / 16).float(), data.target
    coarse, gaps = torch.from_numpy((y >= 5).astype(np.int64)), []
    for seed in range(2):
        torch.manual_seed(seed)
        encoder = torch.nn.Sequential(
            torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, 2, 1), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(64 * 16, 64), torch.nn.ReLU(),
        )  # fmt: skip
        head = networks.projection_head("mlp", 64)
        optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-3)
        for _ in range(200):
            rows = torch.randint(1200, (128,))
            loss = objectives.projection_head(
                head(encoder(x[rows])), labels=coarse[rows], loss="supcon", temperature=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            h = encoder(x)
            z = head(h)
        scores = [linear(f[:1200], y[:1200], f[1200:], y[1200:])["accuracy"].mean for f in (h, z)]
        gaps.append(scores[0] - scores[1])
    assert np.mean(gaps) > 0.015


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"head": "reweight"}, {"objective": "supcon", "head": "identity-mlp"}])
def test_it_learns_photographs(options: dict, tmp_path: Path) -> None:
    assert_learns_photographs("projection-head", tmp_path / "run", margin=0.05, temperature=0.2, **options)
