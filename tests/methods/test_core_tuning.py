"""Core-tuning as wired: every mode, what gets gradient, starts, attack, resuming, learning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import selftaught
from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.methods.core_tuning import PRESETS
from selftaught.views import RandomCrop, Resize
from tests.conftest import TINY
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "augment": "small", "classes": 3, "head_dim": 12}
RUN = {k: v for k, v in TINY.items() if k != "projector"} | {"augment": "grey", "head_dim": 16, "loggers": ["none"]}


def make(channels: int = 3, **options):
    torch.manual_seed(0)
    return methods.CoreTuning(channels=channels, **SMALL | options)


def batch_for(method, n: int = 8, channels: int = 3) -> dict:
    view = torch.randint(0, 256, (n, channels, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = {"views": [view], "index": torch.arange(n), "label": torch.arange(n) % 3}
    return method.on_after_batch_transfer(batch)


@pytest.mark.parametrize("mixed_ce", [True, False])
@pytest.mark.parametrize(
    ("mining", "normalisation"), [("paper", "code"), ("official", "per-positive"), ("none", "code")]
)
def test_its_loss_is_the_objective_of_its_own_networks(mixed_ce: bool, mining: str, normalisation: str) -> None:
    method = make(mining=mining, normalisation=normalisation, mixed_ce=mixed_ce, eta=2.0, tau=0.3)
    batch = batch_for(method)
    h, labels = method.encoder(batch["views"][0]), batch["label"]
    torch.manual_seed(3)
    pool = objectives.core_tuning_pool(h, labels, classes=3, mining=mining)
    logits = method.classifier(pool.features if mixed_ce else h)
    expected = objectives.core_tuning(
        logits, method.head(pool.features), pool.targets, eta=2.0, tau=0.3, normalisation=normalisation
    )
    torch.manual_seed(3)
    terms = method.loss(batch)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    total = terms["cross_entropy"] + 2 * terms["contrast"]
    assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-6)


def test_the_baselines_are_their_formulas() -> None:
    for mode in ("ce", "linear", "ce+supcon", "mixup"):
        method = make(mode=mode, eta=0.5, tau=0.3)
        batch = batch_for(method)
        x, labels = batch["views"][0], batch["label"]
        torch.manual_seed(3)
        expected = F.cross_entropy(method.classifier(method.encoder(x)), labels)
        if mode == "ce+supcon":
            z = method.head(method.encoder(x))
            expected = expected + 0.5 * objectives.supcon(z, labels=labels, temperature=0.3)
        if mode == "mixup":
            share = torch.distributions.Beta(torch.ones(8), torch.ones(8)).sample()
            other = torch.randperm(8)
            mixed = torch.stack([s * a + (1 - s) * b for s, a, b in zip(share, x, x[other], strict=True)])
            log_p = method.classifier(method.encoder(mixed)).log_softmax(1)
            rows = torch.arange(8)
            expected = -(share * log_p[rows, labels] + (1 - share) * log_p[rows, labels[other]]).mean()
        torch.manual_seed(3)
        assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5), mode


def test_gradient_reaches_what_the_mode_trains() -> None:
    def trained(**options) -> set[str]:
        method = make(**options)
        method.loss(batch_for(method))["loss"].backward()
        moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
        assert method.classifier.bias is None
        return moved

    assert trained() == {"encoder", "classifier", "head"}
    assert trained(mode="ce") == trained(mode="mixup") == trained(eta=0.0) == {"encoder", "classifier"}
    assert trained(mode="linear") == {"classifier"}
    # Without mixing, detached originals leave the encoder nothing but the cross-entropy of mixed_ce=False.
    assert trained(mining="none", detach_originals=True) == {"classifier", "head"}
    assert "encoder" in trained(mining="none", detach_originals=True, mixed_ce=False)


def test_a_frozen_encoder_keeps_its_statistics() -> None:
    for mode, moves in (("linear", False), ("ce", True)):
        method = make(mode=mode)
        before = {name: value.clone() for name, value in method.encoder.named_buffers()}
        method.loss(batch_for(method))
        same = all(torch.equal(before[name], value) for name, value in method.encoder.named_buffers())
        assert same != moves
        assert method.train().encoder.training == moves
    groups = make(mode="linear").parameter_groups(0.1)
    assert [len(group["params"]) for group in groups] == [1]
    assert groups[0]["nesterov"] is True
    assert "nesterov" not in make(optimizer="adamw").parameter_groups(0.1)[0]


def test_adversarial_training_sees_attacked_images_and_leaves_batchnorm_alone() -> None:
    method = make(mode="ce", adversarial=3, epsilon=0.1).train()
    batch = batch_for(method)
    x, labels = batch["views"][0], batch["label"]
    before = {name: value.clone() for name, value in method.encoder.named_buffers()}
    attacked = method._attacked(x, labels)
    assert method.training
    assert all(torch.equal(before[name], value) for name, value in method.encoder.named_buffers())
    assert all(p.grad is None for p in method.parameters())
    pixels = [v * method.pixel_std[:, None, None] + method.pixel_mean[:, None, None] for v in (x, attacked)]
    assert 0.05 < (pixels[1] - pixels[0]).abs().max() <= 0.1 + 1e-5
    method.eval()
    harm = [F.cross_entropy(method.classifier(method.encoder(v)), labels).item() for v in (x, attacked)]
    assert harm[1] > harm[0]
    torch.manual_seed(4)
    first = method.loss(batch)["loss"].item()
    torch.manual_seed(4)
    again = F.cross_entropy(method.classifier(method.encoder(method._attacked(x, labels))), labels).item()
    assert first == pytest.approx(again, rel=1e-5)


def test_rotation_turns_about_the_centre_and_fills_with_black() -> None:
    method = make(rotation=15.0)
    spot = torch.zeros(64, 3, 16, 16)
    spot[:, :, 7:9, 7:9] = 1.0
    turned = method._rotated(method.normalise(spot))
    pixels = turned * method.pixel_std[:, None, None] + method.pixel_mean[:, None, None]
    torch.testing.assert_close(pixels[:, :, 7:9, 7:9].mean((1, 2, 3)), torch.ones(64), atol=0.25, rtol=0)
    assert pixels.min() > -1e-5
    line = torch.zeros(64, 3, 16, 16)
    line[:, :, 7:9] = 1.0
    rows, columns = torch.meshgrid(torch.arange(16.0) - 7.5, torch.arange(16.0) - 7.5, indexing="ij")
    mass = method._rotated(method.normalise(line)) * 0.25 + 0.5
    slope = (mass[:, 0] * rows * columns).sum((1, 2)) / (mass[:, 0] * columns**2).sum((1, 2))
    angles = slope.atan().rad2deg()
    assert 6 < angles.abs().max() < 17
    assert angles.min() < 0 < angles.max()
    torch.testing.assert_close(make(rotation=0.001)._rotated(line), line, atol=1e-3, rtol=0)


def test_views_presets_channels_and_series() -> None:
    views = make(augment="paper", crops="window", image_size=32).views()
    assert [type(op) for op in views[0].ops[:2]] == [Resize, RandomCrop]
    assert views[0].ops[0].size == 34
    assert len(make(augment="paper").views()) == 1
    for preset in PRESETS.values():
        fields = methods.CoreTuning.config_class.__dataclass_fields__
        assert {key for key in preset if key not in fields} <= {"epochs", "steps", "batch_size", "accumulate"}
    method = make(channels=4)
    assert method.loss(batch_for(method, channels=4))["loss"].isfinite()
    assert method.eval().predict(batch_for(method, channels=4)).shape == (8, 3)
    torch.manual_seed(0)
    series = methods.CoreTuning(length=64, **SMALL | {"encoder": "resnet1d"})
    batch = {"series": torch.randn(6, 3, 64), "index": torch.arange(6), "label": torch.arange(6) % 3}
    assert series.loss(batch)["loss"].isfinite()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neg_threshold": 1.2}, "neg_threshold=1.2; it may be: a number from 0 to 1"),
        ({"alpha": 0.0}, "alpha=0.0; it may be: a number above 0"),
        ({"adversarial": 5, "epsilon": 0.0}, "epsilon=0.0; it may be: a number above 0 and at most 1"),
        ({"mode": "linear", "adversarial": 5}, "mode=linear"),
        ({"mode": "probe"}, "it may be"),
        ({"classes": 0}, "learns from labels"),
        ({"length": 64, "encoder": "resnet1d", "adversarial": 5}, "are for images"),
    ],
)
def test_errors_name_the_option(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**options)


@pytest.mark.slow
def test_it_begins_with_another_runs_encoder(tiny_run, tmp_path: Path) -> None:
    """The encoder, its stem and size are those of the run; so are the weights, of a classifier's run too."""
    options = {"steps": 1, "lr": 0.0, "weight_decay": 0.0}
    free = {k: v for k, v in RUN.items() if k not in ("encoder", "stem", "image_size")}
    run = selftaught.train("core-tuning", "digits", out=str(tmp_path / "a"), init=str(tiny_run.path), **free | options)
    assert run.config["options"]["encoder"] == "resnet10-narrow"
    assert run.config["options"]["stem"] == "standard"
    assert run.config["options"]["image_size"] == 32
    again = selftaught.train("supervised", "digits", out=str(tmp_path / "b"), init=str(run.path), **free | options
                             | {"head_dim": None})  # fmt: skip
    for found in (run, again):
        for (name, old), new in zip(
            tiny_run.encoder.named_parameters(), found.method.encoder.parameters(), strict=True
        ):
            assert torch.equal(old, new), name
    with pytest.raises(UserError, match="has shape"):
        selftaught.train("core-tuning", "digits", out=str(tmp_path / "c"), init=str(tiny_run.path),
                         **RUN | {"encoder": "resnet18", "steps": 1})  # fmt: skip


@pytest.mark.slow
def test_a_cut_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = cut_and_whole("core-tuning", tmp_path, RUN)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.slow
def test_a_short_run_classifies_and_is_judged_under_attack(tmp_path: Path) -> None:
    options = RUN | {"crop": 0.6, "steps": 70, "lr": 0.03, "lr_scaling": "linear", "optimizer": "adamw"}
    run = selftaught.train("core-tuning", "digits", out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["classify", "robustness"])
    assert found["classify"]["this"]["accuracy"].mean > 0.5
    numbers = found["robustness"]["this"]
    assert numbers["accuracy"].mean == pytest.approx(found["classify"]["this"]["accuracy"].mean, abs=0.02)
    assert numbers["pgd@8"].mean <= numbers["pgd@1"].mean <= numbers["accuracy"].mean
    assert set(found["robustness"]) == {"this", "random"}
