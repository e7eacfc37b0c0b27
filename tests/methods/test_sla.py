"""SLA as wired: every mode's loss from its own heads, every way of inference, its settings, and that it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import selftaught
from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.methods._sla_classifier import few_shot_split
from selftaught.views import transformations as tf

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "augment": "small"}


def make(channels: int = 3, classes: int = 3, samples: int = 40, **options):
    torch.manual_seed(0)
    return methods.SLA(channels=channels, classes=classes, samples=samples, **SMALL | options)


def batch_for(method, n: int = 8, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8)
    label = torch.arange(n) % method.classes
    return method.on_after_batch_transfer({"views": [view], "index": torch.arange(n), "label": label})


@pytest.mark.parametrize("mode", ["baseline", "da", "mt", "sla", "sla+sd"])
def test_every_mode_is_its_formula_on_its_own_heads(mode: str) -> None:
    method = make(mode=mode, large_loss=True, T=2.0, beta=0.5).double()
    batch = batch_for(method)
    x, y = batch["views"][0].double(), batch["label"]
    batch["views"] = [x]
    m = 1 if mode == "baseline" else 4
    turned = torch.stack([x.rot90(k, (2, 3)) for k in range(m)], 1).flatten(0, 1)
    z = method.encoder(turned)
    logits = {name: head(z) for name, head in method.heads.items()}
    rows, which = y.repeat_interleave(m), torch.arange(m).repeat(len(y))
    if mode in ("baseline", "da"):
        expected = F.cross_entropy(logits["single"], rows)
    elif mode == "mt":
        expected = F.cross_entropy(logits["single"], rows) + F.cross_entropy(logits["transformation"], which)
    else:
        expected = 4 * F.cross_entropy(logits["joint"], rows * 4 + which)
    if mode == "sla+sd":
        a = sum(logits["joint"][j::4, j::4] for j in range(4)) / 4
        u = logits["single"][::4]
        expected = expected + 0.5 * F.cross_entropy(u, y)
        p = (a / 2).softmax(1)
        expected = expected + 4 * (p * (p.log() - (u / 2).log_softmax(1))).sum(1).mean()
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("mode", "inference"), [
    ("sla", "auto"), ("sla", "single"), ("sla", "ten-crop"), ("sla+sd", "auto"), ("sla+sd", "aggregate"),
    ("da", "auto"), ("da", "aggregate"), ("mt", "auto"), ("baseline", "auto"),
])  # fmt: skip
def test_inference_reads_the_heads_as_the_sheet_says(mode: str, inference: str) -> None:
    method = make(mode=mode, inference=inference).eval()
    batch = batch_for(method)
    x = batch["views"][0]
    with torch.no_grad():
        found = method.predict(batch)
        copies = [F.linear(method.encoder(x.rot90(k, (2, 3))), *_head(method)) for k in range(4)]
        step = 4 if mode.startswith("sla") else 1
        own = [c[:, (k if step == 4 else 0) :: step] for k, c in enumerate(copies)]
        if (mode, inference) in (("sla", "auto"), ("sla+sd", "aggregate"), ("da", "aggregate")):
            expected = sum(own) / 4
        elif mode == "sla+sd":
            expected = method.heads["single"](method.encoder(x))
        elif inference == "ten-crop":
            crops = tf.ten_crop(x).view(8, 10, 3, 16, 16)
            expected = sum(F.linear(method.encoder(crops[:, k]), *_head(method))[:, ::4] for k in range(10)) / 10
        else:
            expected = own[0]
    assert found.shape == (8, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.deliverable().eval()(x), found)
    assert method.features(batch).shape == (8, method.encoder.dim)


def _head(method) -> tuple:
    head = method.heads["joint"] if "joint" in method.heads else method.heads["single"]
    return head.weight, head.bias


@pytest.mark.parametrize("channels", [1, 4])
def test_any_channels_turn_but_only_three_permute(channels: int) -> None:
    method = make(channels=channels)
    terms = method.loss(batch_for(method, channels=channels))
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
    with pytest.raises(UserError, match="3 channels"):
        make(channels=channels, transform="color_perm3")
    colours = make(transform="rot_color_perm6")
    assert colours.heads["joint"].out_features == 18
    assert colours.loss(batch_for(colours))["loss"].item() > 0


def test_small_images_are_shifted_on_the_device_with_black_around() -> None:
    method = make(augment="paper", cutout=4, mode="baseline")
    method.pixel_mean.fill_(0.5)
    method.pixel_std.fill_(0.25)
    x = torch.full((64, 3, 16, 16), 1.0)
    found = method.augmented(x)
    assert set(found.unique().tolist()) == {-2.0, 0.0, 1.0}
    assert [type(op).__name__ for op in method.views()[0].ops] == ["Resize", "CenterCrop", "HorizontalFlip"]
    large = make(augment="paper", image_size=64, jitter=0.4)
    assert [type(op).__name__ for op in large.views()[0].ops] == ["RandomResizedCrop", "HorizontalFlip", "ColorJitter"]
    assert torch.equal(large.augmented(x), x)
    assert large.views()[0].ops[2].hue == pytest.approx(0.25) or large.views()[0].ops[2].hue == (-0.25, 0.25)


def test_cutmix_weighs_the_two_labels_by_what_is_seen_of_each() -> None:
    method = make(cutmix=1.0).eval()
    batch = batch_for(method)
    torch.manual_seed(3)
    found = method.loss(batch)["loss"].item()
    torch.manual_seed(3)
    mixed, partner, kept = tf.cutmix(batch["views"][0], 1.0)
    logits = method.heads["joint"](method.encoder(tf.copies(mixed, "rotation")))
    labels = batch["label"]
    expected = kept * objectives.sla(logits, labels) + (1 - kept) * objectives.sla(logits, labels[partner])
    assert found == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < kept < 1


def test_autoaugment_changes_training_views_only() -> None:
    method = make(autoaugment=True, mode="baseline")
    plain = make(mode="baseline")
    assert not torch.equal(batch_for(method)["views"][0], batch_for(plain)["views"][0])
    method.eval()
    assert torch.equal(batch_for(method)["views"][0], batch_for(plain)["views"][0])
    with pytest.raises(UserError, match="1 or 3 channels"):
        make(channels=4, autoaugment=True)


def test_uneven_classes_get_weights_and_margins_from_the_labels_seen() -> None:
    method = make(imbalance="ldam", mode="sla+sd", samples=80)
    batch = batch_for(method, 7)  # 3, 2, 2
    logits = {}
    z = method.encoder(tf.copies(batch["views"][0], "rotation"))
    for name, head in method.heads.items():
        assert head.bias is None
        logits[name] = 30 * F.normalize(z) @ F.normalize(head.weight).T
    margins = 30 * objectives.ldam_margins(torch.tensor([3.0, 2.0, 2.0]) * 80 / 7)
    expected = objectives.sla(logits["joint"], batch["label"], logits["single"], margins=margins)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert method.counts.tolist() == [3, 2, 2]
    method.eval().loss(batch)
    assert method.counts.tolist() == [3, 2, 2]
    weighted = make(imbalance="reweight", samples=80)
    weighted.counts.copy_(torch.tensor([60.0, 15.0, 5.0]))
    found = weighted._uneven()["class_weights"]
    torch.testing.assert_close(found, objectives.effective_weights(torch.tensor([60.0, 15.0, 5.0])))
    assert make(imbalance="drw", samples=80)._uneven() == {}  # deferred to the last fifth


def test_unlabelled_samples_teach_the_transformation() -> None:
    method = make(labelled=0.25, samples=40, mode="sla")
    assert int(method.known.sum()) == 10
    batch = batch_for(method, 40)
    logits = method.heads["joint"](method.encoder(tf.copies(batch["views"][0], "rotation")))
    labels = torch.where(method.known, batch["label"], -1)
    assert method.loss(batch)["loss"].item() == pytest.approx(objectives.sla(logits, labels).item(), rel=1e-5)
    assert torch.equal(make(labelled=0.25, samples=40, mode="da").known, method.known)


def test_an_ensemble_is_independent_networks_whose_probabilities_are_averaged() -> None:
    method = make(mode="baseline", ensemble=2)
    batch = batch_for(method)
    members = method._members()
    losses = [F.cross_entropy(h["single"](e(batch["views"][0])), batch["label"]) for e, h in members]
    assert method.loss(batch)["loss"].item() == pytest.approx(sum(losses).item(), rel=1e-5)
    assert not torch.equal(members[0][1]["single"].weight, members[1][1]["single"].weight)
    method.eval()
    with torch.no_grad():
        found = method.predict(batch).softmax(1)
        expected = sum(h["single"](e(batch["views"][0])).softmax(1) for e, h in members) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("head", ["prototypes", "ridge"])
def test_episodes_train_predict_and_meet_new_classes(head: str) -> None:
    method = make(episodes=head, ways=2, shots=2, classes=3)
    batch = batch_for(method, 12)
    terms = method.loss(batch)
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.encoder.parameters())
    assert 0 <= terms["accuracy"].item() <= 1
    z = method.encoder(tf.copies(batch["views"][0], "rotation")).view(12, 4, -1)
    for c in range(3):
        mean = z[batch["label"] == c].mean(0)
        torch.testing.assert_close(method.centres.view(3, 4, -1)[c], mean, rtol=1e-3, atol=1e-4)
    method.eval()
    with torch.no_grad():
        found = method.predict(batch)
        z = method.encoder(tf.copies(batch["views"][0], "rotation")).view(12, 4, 1, -1)
        expected = -(z - method.centres.view(3, 4, -1).transpose(0, 1)).square().sum(3).mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    images = batch["views"][0]
    new = method.few_shot(images[:6], torch.tensor([0, 1, 2, 0, 1, 2]), images[6:])
    assert new.shape == (6, 3)
    assert torch.equal(method.few_shot(images[:3], torch.arange(3), images[:3]).argmax(1), torch.arange(3))


def test_the_split_of_an_episode() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3])
    for _ in range(10):
        support, query, names = few_shot_split(labels, 2, 2)
        assert len(names) == 2
        assert 2 not in names
        assert not set(support.tolist()) & set(query.tolist())
        for name in names:
            assert (labels[support] == name).sum() == 2
            assert (labels[query] == name).sum() == (labels == name).sum() - 2
    with pytest.raises(UserError, match="raise batch_size"):
        few_shot_split(labels, 2, 3)


def test_the_steps_of_the_learning_rate_and_the_decay_of_everything() -> None:
    import lightning as L

    method = make(optimizer="sgd", lr=0.1)
    assert [g["weight_decay"] for g in method.parameter_groups(0.1)] == [1e-4]
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    batch = batch_for(method)
    data = [{"views": [(batch["views"][0] * 40 + 128).byte()], "index": batch["index"], "label": batch["label"]}] * 8
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = L.Trainer(max_steps=8, callbacks=[Watch()], accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(method, torch.utils.data.DataLoader(data, batch_size=None))
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_options_that_contradict_are_refused_in_a_line() -> None:
    for options in (
        {"mode": "sla", "ensemble": 2}, {"inference": "distilled"}, {"labelled": 0.0}, {"transform": "turns"},
        {"episodes": "prototypes", "mode": "mt"}, {"episodes": "ridge", "cutmix": 1.0}, {"ensemble": 0},
    ):  # fmt: skip
        with pytest.raises(UserError) as found:
            make(**options)
        assert "\n" not in str(found.value)
    with pytest.raises(UserError, match="at least two classes"):
        methods.SLA(**SMALL)


@pytest.mark.slow
def test_aggregation_gains_on_few_labelled_digits() -> None:
    """The sheet's toy: 10 labels a class; SLA+AG is above SLA+SI, above DA and MT, and not below the baseline.

    Measured: baseline 0.899, DA 0.842, MT 0.848, SLA+SI 0.891, SLA+AG 0.924.
    """
    from selftaught.data import open_source

    source = open_source("digits", split="all")
    images = torch.stack([torch.from_numpy(source.read(i)).float().mean(2) for i in range(len(source))])[:, None]
    images = (images / images.max() - 0.5) / 0.3
    labels = torch.as_tensor(source.labels)
    found: dict[str, float] = {}
    seed = 0
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    train = torch.cat([order[labels[order] == c][:10] for c in range(10)])
    test = torch.tensor(sorted(set(range(len(labels))) - set(train.tolist())))
    for mode in ("baseline", "da", "mt", "sla"):
        torch.manual_seed(seed)
        method = methods.SLA(mode=mode, channels=1, classes=10, encoder="cresnet20", augment="small", image_size=8)
        layers: list[torch.nn.Module] = []
        for before, width, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2)):
            layers += [torch.nn.Conv2d(before, width, 3, stride, 1, bias=False), torch.nn.BatchNorm2d(width)]
            layers.append(torch.nn.ReLU())
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        method.encoder = torch.nn.Sequential(*layers)
        optimiser = torch.optim.SGD(method.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 120)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(120):
            rows = train[torch.randint(0, 100, (64,), generator=generator)]
            batch = {"views": [images[rows]], "label": labels[rows], "index": rows}
            optimiser.zero_grad()
            method.loss(batch)["loss"].backward()
            optimiser.step()
            schedule.step()
        method.eval()
        for inference in ("single", "aggregate") if mode == "sla" else ("single",):
            method.config.inference = inference
            with torch.no_grad():
                guess = method.predict({"views": [images[test]]}).argmax(1)
            hits = (guess == labels[test]).float().mean().item()
            found[f"{mode} {inference}"] = hits
    assert found["sla aggregate"] > found["sla single"] + 0.015
    assert found["sla aggregate"] > found["da single"] + 0.03
    assert found["sla aggregate"] > found["mt single"] + 0.03
    assert found["sla aggregate"] > found["baseline single"] - 0.005


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mode": "sla+sd", "imbalance": "ldam-drw"}])
def test_it_learns_photographs(options: dict, tmp_path) -> None:
    common = {"steps": 60, "batch_size": 32, "encoder": "cnn-small", "image_size": 32, "knn_every": 0, "quiet": True}
    run = selftaught.train("sla", "photos?train=60&test=20", out=str(tmp_path / "run"), **common | options)
    found = run.evaluate(protocols=["classify"])["classify"]
    assert found["this"]["accuracy"].mean > found["random"]["accuracy"].mean + 0.2
