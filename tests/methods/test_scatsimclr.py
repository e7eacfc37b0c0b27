"""ScatSimCLR as wired: the sheet's sum of its own embeddings and answers, pretext images as described, learning."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, normalize

import selftaught
from selftaught import methods, networks
from selftaught.errors import UserError
from selftaught.methods.scatsimclr import PRESETS, Config
from tests.conftest import TINY
from tests.methods.resuming import cut_and_whole

SMALL = {
    "encoder": "scatsimclr-2", "image_size": 16, "projector": "24-12", "augment": "small", "angles": 2, "scat_bn": True,
}  # fmt: skip


def made(**options) -> methods.ScatSimCLR:
    torch.manual_seed(0)
    return methods.ScatSimCLR(**SMALL | options)


def batch_for(method, n: int = 6, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, 16, 16)
    views = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for _ in method.views()]
    return method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})


def literal_nt_xent(z1: np.ndarray, z2: np.ndarray, tau: float) -> float:
    z, rows = np.concatenate([z1, z2]), len(z1)
    s = z @ z.T / tau
    total = 0.0
    for i in range(2 * rows):
        partition = sum(math.exp(s[i, k]) for k in range(2 * rows) if k != i)
        total -= math.log(math.exp(s[i, (i + rows) % (2 * rows)]) / partition)
    return total / (2 * rows)


@pytest.mark.parametrize("pretext", ["none", "rotation", "jigsaw"])
def test_the_loss_is_the_sheets_sum(pretext: str) -> None:
    method = made(pretext=pretext, temperature=0.3, lambda_=0.7, permutations=5).eval()  # eval: no dropout
    batch = batch_for(method)
    z1, z2 = (normalize(method.project(x)).detach().double().numpy() for x in batch["views"][:2])
    torch.manual_seed(1)
    terms = method.loss(batch)
    expected = literal_nt_xent(z1, z2, 0.3)
    assert terms["contrast"].item() == pytest.approx(expected, rel=1e-5)
    if pretext != "none":
        torch.manual_seed(1)
        images, labels = method.puzzle(batch["views"][2:])
        log_p = method.answer(method.encoder(images)).log_softmax(1).detach().double()
        answered = -sum(float(row[int(label)]) for row, label in zip(log_p, labels, strict=True)) / len(labels)
        assert terms["pretext"].item() == pytest.approx(answered, rel=1e-5)
        expected += 0.7 * answered
    assert ("pretext" in terms) == (pretext != "none")
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_at_initialisation_the_answers_are_guesses() -> None:
    for pretext, choices in (("rotation", 4), ("jigsaw", 35)):
        method = made(pretext=pretext)
        assert method.loss(batch_for(method))["pretext"].item() == pytest.approx(math.log(choices), abs=0.15)


def test_rotations_are_clockwise_quarters_of_the_four_pretext_views() -> None:
    method = made(pretext="rotation")
    pipelines = method.views()
    assert len(pipelines) == 6
    kinds = [[type(op).__name__ for op in p.ops] for p in pipelines]
    assert "HorizontalFlip" in kinds[0]
    assert kinds[2:] == [[kind for kind in kinds[0] if kind != "HorizontalFlip"]] * 4
    xs = list(torch.randn(4, 50, 3, 8, 8))
    images, labels = method.puzzle(xs)
    assert images.shape == (200, 3, 8, 8)
    assert labels.tolist() == [0] * 50 + [1] * 50 + [2] * 50 + [3] * 50
    flips = 0
    for k, x in enumerate(xs):
        for n in range(50):
            top_left, found = x[n, :, 0, 0], images[50 * k + n]
            turned = np.rot90(x[n].numpy(), -k, (1, 2))  # clockwise
            same = np.array_equal(found.numpy(), turned)
            flips += not same
            assert same or np.array_equal(found.numpy(), turned[:, :, ::-1])
            if k == 1 and same:
                assert torch.equal(found[:, 0, -1], top_left)  # a quarter clockwise: top left goes to top right
    assert 60 < flips < 140


def test_jigsaw_tiles_are_cut_from_the_unnormalised_image_in_the_order_of_their_label() -> None:
    method = made(pretext="jigsaw", image_size=12, scales=1)
    method.pixel_mean.copy_(torch.tensor([0.2, 0.4, 0.6]))
    method.pixel_std.copy_(torch.tensor([0.1, 0.2, 0.3]))
    pixels = torch.rand(5, 3, 12, 12)
    assert len(method.views()) == 3
    assert [type(op).__name__ for op in method.views()[2].ops] == ["Resize", "CenterCrop"]
    images, labels = method.puzzle([method.normalise(pixels)])
    assert images.shape == (45, 3, 12, 12)
    assert len(set(labels.tolist())) > 1
    for n in range(5):
        for place, tile in enumerate(method.orders[labels[n]].tolist()):
            top, left = 4 * (tile // 3), 4 * (tile % 3)
            cut = pixels[n : n + 1, :, top : top + 4, left : left + 4]
            expected = interpolate(cut, (12, 12), mode="bilinear")[0]
            torch.testing.assert_close(images[9 * n + place], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pretext", ["rotation", "jigsaw"])
def test_gradients_reach_what_learns_and_each_loss_its_own_head(pretext: str) -> None:
    method = made(pretext=pretext)
    terms = method.loss(batch_for(method))
    terms["pretext"].backward(retain_graph=True)
    assert all(p.grad is None for p in method.projector.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.answer.parameters() if p.ndim > 1)
    before = [p.grad.clone() for p in method.answer.parameters()]
    terms["contrast"].backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(before, method.answer.parameters(), strict=True))
    assert all(p.grad is not None for p in method.parameters())
    assert not list(method.encoder.model.scattering.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("pretext", "chance", "steps"), [("rotation", math.log(4), 40), ("jigsaw", math.log(5), 12)])
def test_the_second_task_is_learnt(pretext: str, chance: float, steps: int) -> None:
    """Shapes that look different from every side: some steps on one batch, labels drawn anew in each."""
    method = made(pretext=pretext, permutations=5, lambda_=5.0)
    pixels = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(2).cumsum(3)
    pixels = (pixels / pixels.amax((2, 3), keepdim=True)).expand(-1, 3, -1, -1)
    batch = {"views": [method.normalise(pixels) for _ in method.views()], "index": torch.arange(8)}
    optimiser = torch.optim.Adam(method.parameters(), 2e-3)
    found = []
    for _ in range(steps):
        optimiser.zero_grad()
        terms = method.loss(batch)
        terms["loss"].backward()
        optimiser.step()
        found.append(terms["pretext"].item())
    assert found[0] > chance - 0.2
    assert np.mean(found[-5:]) < 0.6 * chance


def test_the_second_task_begins_with_its_epoch() -> None:
    method = made(pretext="rotation", pretext_start_epoch=2)
    method.plan(100, 10)
    method.accumulate, method.steps = 2, 9
    assert not method.asks  # 18 of 20 batches
    assert "pretext" not in method.loss(batch_for(method))
    method.steps = 10
    assert method.asks
    assert "pretext" in method.loss(batch_for(method))
    assert not made(pretext="none").asks


def test_four_channels_the_baseline_encoder_and_the_three_embeddings() -> None:
    method = methods.ScatSimCLR(channels=4, **SMALL)
    batch = batch_for(method, channels=4)
    assert method.loss(batch)["loss"].isfinite()
    baseline = made(encoder="resnet10-narrow", pretext="rotation")
    assert baseline.loss(batch_for(baseline))["pretext"].isfinite()
    kinds = {kind: made(embedding=kind).eval() for kind in ("h", "z", "concat")}
    batch = batch_for(kinds["h"])
    found = {kind: method.predict(batch) for kind, method in kinds.items()}
    assert [found[kind].shape[1] for kind in ("h", "z", "concat")] == [1024, 12, 1036]
    torch.testing.assert_close(torch.cat([found["h"], found["z"]], 1), found["concat"])
    torch.testing.assert_close(kinds["z"].projector(found["h"]), found["z"])  # not normalised
    assert kinds["z"].deliverable() is kinds["z"].encoder


def test_a_batch_of_one_and_series_are_refused() -> None:
    method = made()
    with pytest.raises(UserError, match="negatives"):
        method.eval().loss(batch_for(method, n=1))
    with pytest.raises(UserError, match="take simclr"):
        methods.ScatSimCLR(length=100, channels=1)


def test_defaults_and_presets_are_the_papers() -> None:
    c = Config()
    assert (c.optimizer, c.lr, c.weight_decay, c.temperature, c.lambda_) == ("adam", 3e-4, 1e-5, 0.5, 0.3)
    assert (c.scales, c.angles, c.max_order, c.image_size, c.pretext_start_epoch) == (2, 16, 2, 96, 0)
    head = methods.ScatSimCLR(encoder="scatsimclr-8").projector
    shapes = [(m.in_features, m.out_features) for m in head if isinstance(m, torch.nn.Linear)]
    assert shapes == [(2048, 2048), (2048, 128)]
    assert not any(isinstance(m, torch.nn.BatchNorm1d) for m in head)
    fields = set(Config.__dataclass_fields__) | {"epochs", "steps", "batch_size"}
    assert all(set(preset) <= fields for preset in PRESETS.values())
    assert PRESETS["laptop"]["encoder"] in networks.ADAPTERS


RUN = {key: value for key, value in TINY.items() if key not in ("encoder", "stem")}
RUN |= {"encoder": "scatsimclr-2", "angles": 2, "augment": "grey"}


@pytest.mark.slow
@pytest.mark.parametrize("pretext", ["rotation", "jigsaw"])
def test_a_resumed_run_is_bit_identical(pretext: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flips of the rotated images, orders of the tiles and dropout go on where they stopped."""
    monkeypatch.setattr(networks, "JigsawHead", partial(networks.JigsawHead, hidden=32))  # 19 million weights less
    whole, cut = cut_and_whole("scatsimclr", tmp_path, RUN | {"pretext": pretext, "permutations": 5})
    assert whole.keys() == cut.keys()
    for name in whole:
        assert torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])), name


@pytest.mark.slow
def test_it_learns_photographs(tmp_path: Path) -> None:
    """A short run beats the untrained encoder's and the raw pixels' k-NN clearly."""
    options = {"crop": 0.08, "steps": 40, "batch_size": 32, "pretext": "rotation", "loggers": ["none"]}
    run = selftaught.train("scatsimclr", "photos?train=80&test=30", out=str(tmp_path / "run"), **RUN | options)
    found = run.evaluate(protocols=["knn"])["knn"]
    assert found["this"]["accuracy"].mean > found["random"]["accuracy"].mean + 0.03
    assert found["this"]["accuracy"].mean > found["raw"]["accuracy"].mean + 0.1


@pytest.mark.slow
def test_scattering_and_two_convolutions_learn_to_see_which_way_is_up() -> None:
    """The sheet's toy: digits at 32 x 32, rotation alone, 200 steps; chance is 0.25."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    images = interpolate(torch.from_numpy(load_digits().images[:, None] / 16).float(), (32, 32), mode="bilinear")
    scatter = networks.Scattering2d(2, 4)
    quarter = torch.stack([torch.rot90(images, -k, (2, 3)) for k in range(4)])
    with torch.no_grad():
        features = scatter(quarter.flatten(0, 1)).flatten(1, 2).unflatten(0, (4, len(images)))
    width = features.shape[2]
    network = torch.nn.Sequential(
        torch.nn.BatchNorm2d(width), torch.nn.Conv2d(width, 32, 3, padding=1), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 64, 4),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(200):
        rows, labels = torch.randint(1200, (32,)), torch.randint(4, (32,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(features[labels, rows]), labels).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        right = [(network(features[k, 1200:]).argmax(1) == k).float().mean() for k in range(4)]
    assert torch.stack(right).mean() > 0.7
