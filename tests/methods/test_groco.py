"""GroCo as wired: the objective of its own projections, its crops, its projector, and that it learns."""

from __future__ import annotations

import pytest
import torch

import selftaught
from selftaught import methods, objectives, views
from selftaught.errors import UserError
from selftaught.methods.groco import PRESETS, Config
from tests.conftest import TINY
from tests.methods.learning import assert_learns_waves
from tests.objectives.test_groco import literal_groco, literal_nt_xent

SMALL = {"encoder": "resnet10-narrow", "image_size": 32, "stem": "standard", "projector": "24-24-12"}


def batch_for(method, n: int = 14, channels: int = 3) -> dict:
    """Random images through the method's own views, as the loader makes them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, channels, 40, 40), generator=generator, dtype=torch.uint8)
    made = views.ViewSet(method.views(), seed=0)(images)
    return method.on_after_batch_transfer({"views": list(made), "index": torch.arange(n)})


def projections(method, batch):
    return [method.project(x).detach().double() for x in batch["views"]]


@pytest.mark.parametrize(("large", "local", "k"), [(2, 0, 10), (3, 0, 5), (2, 2, 6)])
def test_the_loss_is_the_sheets_of_its_own_projections(large: int, local: int, k: int) -> None:
    method = methods.GroCo(n_pos_augs=large, local_crops=local, topk_neg=k, **SMALL)
    batch = batch_for(method)
    assert [v.shape[-1] for v in batch["views"]] == [32] * large + [method.local_side] * local
    expected = literal_groco(projections(method, batch), large, k)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_options_reach_the_objective() -> None:
    options = {"steepness": 3.0, "relaxation": "reciprocal", "network": "bitonic", "topk_neg": 7, "n_pos_augs": 3}
    method = methods.GroCo(**options, pre_order=False, stop_grad=False, **SMALL)
    batch = batch_for(method)
    expected = literal_groco(
        projections(method, batch), 3, 7, "reciprocal", 3.0, lambda n: objectives.sorting_network(n, "bitonic"), False
    )
    loss = method.loss(batch)["loss"]
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    z1, z2, z3 = (torch.randn(14, 12, requires_grad=True) for _ in range(3))
    (free,) = torch.autograd.grad(method.compare([z1, z2, z3]), z1)
    method.config.stop_grad = True
    (stopped,) = torch.autograd.grad(method.compare([z1, z2, z3]), z1)
    assert (free - stopped).abs().max() > 1e-6


@pytest.mark.parametrize("objective", ["nt_xent", "nt_xent_top"])
def test_baselines_are_their_formulas(objective: str) -> None:
    method = methods.GroCo(objective=objective, temperature=0.4, topk_neg=6, local_crops=1, **SMALL)
    batch = batch_for(method)
    k = 6 if objective == "nt_xent_top" else None
    expected = literal_nt_xent(projections(method, batch), 0.4, 2, k)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-4)
    z1, z2, z3 = (torch.randn(14, 12, requires_grad=True) for _ in range(3))
    (wired,) = torch.autograd.grad(method.compare([z1, z2, z3]), z1)
    options = {"temperature": 0.4, "n_pos_augs": 2, "topk_neg": k, "stop_grad": k is not None}
    (direct,) = torch.autograd.grad(objectives.nt_xent_pairs(z1, z2, z3, **options), z1)
    torch.testing.assert_close(wired, direct)


def test_every_crop_sends_gradient_to_encoder_and_projector() -> None:
    method = methods.GroCo(local_crops=1, **SMALL)
    batch = batch_for(method)
    for view in batch["views"]:
        view.requires_grad_()
    method.loss(batch)["loss"].backward()
    assert all(view.grad.abs().sum() > 0 for view in batch["views"])
    assert all(p.grad is not None for p in method.parameters())
    assert method.projector[0].weight.grad.abs().sum() > 0


def test_the_projector_is_the_papers_and_ends_in_a_plain_batch_norm() -> None:
    method = methods.GroCo(**SMALL)
    kinds = [type(layer).__name__ for layer in method.projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert not method.projector[-1].affine
    assert all(layer.bias is None for layer in method.projector if isinstance(layer, torch.nn.Linear))
    assert Config().projector == "2048-2048-2048"


def test_views_of_the_paper_take_turns_and_small_crops_never_solarise() -> None:
    method = methods.GroCo(n_pos_augs=4, local_crops=2, image_size=96, encoder="resnet10-narrow")
    made = method.views()
    names = [[type(op).__name__ for op in view.ops] for view in made]
    assert [("Solarize" in ops) for ops in names] == [False, True, False, True, False, False]
    assert [view.ops[4].p for view in made] == [1.0, 0.1, 1.0, 0.1, 0.5, 0.5]
    assert made[0].ops[0].scale == (0.14, 1.0)
    assert made[4].ops[0].scale == (0.05, 0.14)
    plain = methods.GroCo(augment="grey", local_crops=1, **SMALL).views()
    assert [type(op) for op in plain[2].ops] == [type(op) for op in plain[0].ops]


def test_the_papers_learning_rate_at_its_batch_is_24() -> None:
    default = methods.GroCo(**SMALL).config
    assert default.lr * 1024 / 256 == 24.0
    assert PRESETS["imagenet-4-views"]["lr"] == 24.0
    assert PRESETS["imagenet-800"]["lr"] * 1024 / 256 == 0.1875 * 32
    assert (default.optimizer, default.momentum, default.weight_decay) == ("sgd", 0.9, 1e-6)


def test_a_batch_without_enough_negatives_is_refused_and_the_option_named() -> None:
    method = methods.GroCo(**SMALL)
    with pytest.raises(UserError, match="topk_neg"):
        method.loss(batch_for(method, n=8))
    with pytest.raises(UserError, match="n_pos_augs=1; it may be: a whole number of at least 2"):
        methods.GroCo(n_pos_augs=1, local_crops=1, **SMALL)


def test_four_channels_and_series() -> None:
    method = methods.GroCo(channels=4, augment="small", **SMALL)
    batch = batch_for(method, channels=4)
    assert method.loss(batch)["loss"].isfinite()
    assert method.predict(batch).shape == (14, method.encoder.dim)
    series = methods.GroCo(channels=2, length=64, encoder="resnet1d", features=16, projector="8-8", n_pos_augs=3)
    batch = {"series": torch.randn(12, 2, 64), "index": torch.arange(12)}
    assert len(series.seen(batch)) == 3
    assert series.loss(batch)["loss"].isfinite()


def test_a_run_with_small_crops_trains_and_is_the_same_again(tmp_path) -> None:
    options = TINY | {"steps": 4, "local_crops": 1, "projector": "32-32-16", "augment": "grey"}
    for name in ("a", "b"):
        selftaught.train("groco", "digits", out=str(tmp_path / name), **options)
    files = [(tmp_path / n / "encoder.safetensors").read_bytes() for n in ("a", "b")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_it_learns_waves(tmp_path) -> None:
    assert_learns_waves("groco", tmp_path / "run")
