"""AMCL as wired on its four hosts: the formulas of its own embeddings, what learns and what doesn't, resuming."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.methods.amcl import PRESETS
from tests.conftest import TINY
from tests.methods.learning import assert_alike, assert_learns_waves, by_one_and_two
from tests.methods.resuming import cut_and_whole
from tests.objectives.test_amcl import dot, literal_amcl, literal_contrast, omega, tau_of, unit

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-5", "augment": "small", "head_norm": "all"}
HOSTS = ["simclr", "moco", "simsiam", "barlow"]


def make(host: str = "simclr", **more):
    extra = {"moco": {"queue": 7, "samples": 200}, "simsiam": {"predictor": "6"}}.get(host, {})
    return methods.AMCL(host=host, **SMALL | extra | more)


def batch_for(method, n: int = 8, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    batch = method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})
    batch["views"] = [view.to(next(method.parameters()).dtype) for view in batch["views"]]
    return batch


@pytest.mark.parametrize("options", [
    {}, {"temp_net": "concat"}, {"negatives": "max", "beta": 0.4}, {"include_positive": True, "tau_hi": 0.6},
])  # fmt: skip
def test_on_simclr_it_is_the_sheets_loss_of_its_own_heads(options: dict) -> None:
    method = make(**options).double()
    batch = batch_for(method)
    z1, z2 = (method.project(x).detach() for x in batch["views"])
    assert z1.shape == (8, 3, 5)
    c = method.config
    limits = {"tau_lo": 0.05, "tau_hi": c.tau_hi or 0.2, "beta": c.beta}
    expected = literal_amcl(z1, z2, method.phi, limits, c.negatives, c.include_positive)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)


def test_on_moco_it_is_the_sheets_loss_of_queries_keys_and_queue() -> None:
    method = make("moco").double()
    batch = batch_for(method)
    with torch.no_grad():
        q1, q2 = (method.project(x) for x in batch["views"])
        k1, k2 = (method.target(x) for x in batch["views"])
    before = method.queue.items.clone()
    assert before.shape == (7, 15)
    limits = {"tau_lo": 0.05, "tau_hi": 0.2, "beta": 0.1}
    expected = 0.0
    for q, k in ((q1, k2), (q2, k1)):
        for c in range(3):
            a, p, keys = ([unit(r) for r in t[:, c].tolist()] for t in (q, k, before.view(7, 3, 5)))
            expected += literal_contrast(a, p, lambda i, keys=keys: keys, method.phi, limits, "lse", False) / 2
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-6)
    # afterwards the second view's keys of every head are in the queue, the last rows of the batch
    found = normalize(method.queue.items.view(7, 3, 5), dim=2)
    torch.testing.assert_close(found, normalize(k2, dim=2)[-7:], rtol=0, atol=1e-6)


def test_on_simsiam_it_is_the_sheets_loss_of_predictions_and_projections() -> None:
    method = make("simsiam").double()
    batch = batch_for(method)
    with torch.no_grad():
        z1, z2 = (method.project(x) for x in batch["views"])
        p1, p2 = method.predictor(z1), method.predictor(z2)
    limits, expected = {"tau_lo": 0.5, "tau_hi": 2.0, "beta": 0.1}, 0.0
    for p, z in ((p1, z2), (p2, z1)):
        for c in range(3):
            for a, b in zip(p[:, c].tolist(), z[:, c].tolist(), strict=True):
                a, b = unit(a), unit(b)
                t = tau_of(method.phi, a, b, **limits)
                expected += (-dot(a, b) / (2 * t) + 0.1 * omega(t)) / 8
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)


def test_on_barlow_twins_every_entry_has_a_score_and_fixed_ones_give_the_host_back() -> None:
    method = make("barlow", lambda_=0.02).double()
    torch.nn.init.normal_(method.phi.table)
    batch = batch_for(method)
    with torch.no_grad():
        z1, z2 = (method.project(x) for x in batch["views"])
    scores = method.phi.table.detach()
    expected = objectives.amcl_barlow_twins(z1, z2, scores=scores, tau_lo=0.5, tau_hi=2.0, lambda_=0.02)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    host = make("barlow", temp_net="fixed", heads=1, beta=0.0).double()
    batch = batch_for(host)
    with torch.no_grad():
        z1, z2 = (host.project(x)[:, 0] for x in batch["views"])
    assert host.phi is None
    plain = objectives.barlow_twins(z1, z2, lambda_=5e-3).item()
    assert host.loss(batch)["loss"].item() == pytest.approx(plain, rel=1e-9)


def test_one_head_fixed_temperature_and_the_positive_counted_is_simclr() -> None:
    method = make(heads=1, temp_net="fixed", temperature=0.3, include_positive=True).double()
    batch = batch_for(method)
    with torch.no_grad():
        z1, z2 = (method.project(x)[:, 0] for x in batch["views"])
    expected = objectives.simclr(z1, z2, temperature=0.3).item()
    assert method.loss(batch)["loss"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("host", HOSTS)
def test_gradient_reaches_encoder_heads_and_phi_but_no_momentum_copy(host: str) -> None:
    method = make(host)
    terms = method.loss(batch_for(method))
    terms["loss"].backward()
    reached = {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for head in range(3):
        assert f"projector.heads.{head}.0.weight" in reached
        assert host != "simsiam" or f"predictor.heads.{head}.0.weight" in reached
    assert any(n.startswith("encoder.") for n in reached)
    assert any(n.startswith("phi.") for n in reached)
    assert not any(n.startswith("momentum.") for n in reached)
    assert any(n.startswith("momentum.") for n in method.state_dict()) == (host == "moco")
    assert 0 < terms["tau_positive"].item() < 2.0


def test_detached_phi_sends_no_gradient_into_the_encoder() -> None:
    gradients = []
    for detach in (False, True):
        torch.manual_seed(0)
        method = make(detach_phi=detach)
        method.loss(batch_for(method))["loss"].backward()
        gradients.append(method.projector.heads[0][0].weight.grad)
        assert method.phi.phi.weight.grad.abs().sum() > 0
    assert (gradients[0] - gradients[1]).abs().max() > 1e-6


def test_heads_as_the_released_code_has_them_and_with_norms() -> None:
    plain = methods.AMCL(**SMALL | {"head_norm": "none"}).projector.heads
    assert len(plain) == 3
    assert [type(layer).__name__ for layer in plain[0]] == ["Linear", "ReLU", "Linear"]
    assert not torch.equal(plain[0][0].weight, plain[1][0].weight)
    hidden = methods.AMCL(**SMALL | {"head_norm": "hidden"}).projector.heads[0]
    assert [type(layer).__name__ for layer in hidden] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    last = methods.AMCL(**SMALL).projector.heads[0][-1]
    assert isinstance(last, torch.nn.BatchNorm1d)
    assert not last.affine


def test_views_of_the_augmentation_study() -> None:
    def names(transforms: str) -> list[str]:
        method = methods.AMCL(**SMALL | {"augment": "paper"}, transforms=transforms)
        first, second = method.views()
        assert first.ops == second.ops
        return [type(op).__name__ for op in first.ops]

    assert names("a") == ["RandomResizedCrop"]
    assert names("ab") == ["RandomResizedCrop", "GaussianBlur"]
    assert names("acde") == ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "Grayscale"]
    assert len(names("abcde")) == 5
    with pytest.raises(UserError, match="transforms='bx'"):
        names("bx")


def test_limits_by_host_and_by_option() -> None:
    assert make("moco").limits == {"tau_lo": 0.05, "tau_hi": 0.2, "beta": 0.1}
    assert make("barlow").limits == {"tau_lo": 0.5, "tau_hi": 2.0, "beta": 0.1}
    assert make(tau_lo=0.01, tau_hi=2.0, beta=0.0).limits == {"tau_lo": 0.01, "tau_hi": 2.0, "beta": 0.0}
    assert make("simsiam", temp_net="fixed").limits["tau_lo"] == 1.0
    assert make(temp_net="fixed", temperature=0.4).limits == {"tau_lo": 0.4, "tau_hi": 0.4, "beta": 0.1}
    assert PRESETS["cifar10-published"]["negatives"] == "max"


@pytest.mark.parametrize("host", HOSTS)
def test_four_channels_and_series(host: str) -> None:
    method = make(host, channels=4)
    batch = batch_for(method, channels=4)
    assert method.loss(batch)["loss"].isfinite()
    assert method.predict(batch).shape == (8, method.encoder.dim)
    series = methods.AMCL(
        channels=2, length=64, host=host, encoder="resnet1d", features=16, projector="8-6", queue=5, predictor="4"
    )
    assert series.loss({"series": torch.randn(8, 2, 64), "index": torch.arange(8)})["loss"].isfinite()


def test_one_sample_is_refused() -> None:
    method = make().eval()
    with pytest.raises(UserError, match="no negatives"):
        method.loss(batch_for(method, n=1))


@pytest.mark.slow
def test_a_resumed_moco_run_is_bit_identical_in_weights_queue_and_copy(tmp_path: Path) -> None:
    first, second = cut_and_whole("amcl", tmp_path, TINY | {"host": "moco", "queue": 64})
    assert {"queue.items", "phi.phi.weight"} <= first.keys()
    assert any(name.startswith("momentum.") for name in first)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "more"),
    [("amcl", {"heads": 1}), ("amcl", {"heads": 1, "host": "moco", "queue": 100}), ("groco", {"topk_neg": 5})],
    ids=["amcl-simclr", "amcl-moco", "groco"],
)
def test_two_processes_equal_one_with_the_doubled_batch(slug: str, more: dict) -> None:
    one, two = by_one_and_two(slug, {"classes": 10} | more)
    assert_alike(one["state"], two["state"])


PHOTOS = {"augment": "grey", "crop": 0.08, "image_size": 32, "stem": "standard", "quiet": True, "workers": 0}
PHOTOS |= {"knn_every": 0, "log_every": 1}


@pytest.mark.slow
@pytest.mark.parametrize("host", ["simclr", "moco"])
def test_it_learns_waves(host: str, tmp_path: Path) -> None:
    assert_learns_waves("amcl", tmp_path / "run", host=host)


@pytest.mark.slow
@pytest.mark.parametrize("host", ["simsiam", "barlow"])
def test_its_loss_falls_on_photographs(host: str, tmp_path: Path) -> None:
    run = selftaught.train("amcl", "photos?train=20&test=9", out=str(tmp_path / "run"), host=host, steps=16, **PHOTOS)
    losses = [float(row["loss"]) for row in csv.DictReader((run.path / "metrics.csv").open())]
    assert sum(losses[-4:]) < sum(losses[:4])
