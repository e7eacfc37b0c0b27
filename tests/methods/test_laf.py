"""LAF on a run: it forgets, reads no label, changes the encoder alone, goes on after a cut; and its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import selftaught
from selftaught import methods
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.methods.laf import LAF

QUIET: dict[str, Any] = {"quiet": True, "loggers": ["none"], "workers": 0, "knn_every": 0}
DIGITS = "digits"
SHORT: dict[str, Any] = QUIET | {"steps": 4, "vae_epochs": 0.1}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> selftaught.Run:
    """A classifier of digits that knows most of them."""
    out = tmp_path_factory.mktemp("laf") / "original"
    options = {"encoder": "cnn-small", "image_size": 16, "augment": "grey", "crop": 0.8, "steps": 150, "batch_size": 64}
    return selftaught.train("supervised", DIGITS, out=str(out), seed=3, **QUIET | options)


@pytest.fixture(scope="module")
def edited(original: selftaught.Run) -> selftaught.Run:
    """The same, made to forget the threes."""
    out = str(original.path.parent / "edited")
    options = {"steps": 200, "vae_epochs": 4.0}
    return selftaught.train("laf", init=str(original.path), forget="class=3", out=out, **QUIET | options)


def weights(run: selftaught.Run) -> dict[str, torch.Tensor]:
    return load_file(run.layout.weights)


@pytest.mark.slow
def test_it_forgets_the_class_keeps_the_others_and_is_judged_beside_the_original(edited: selftaught.Run) -> None:
    found = edited.evaluate(protocols=["unlearning"])["unlearning"]
    this, before = found["this"], found["original"]
    assert before["forget"].mean > 0.8
    assert this["forget"].mean < 0.1
    assert this["test_forget"].mean < 0.2
    assert this["remain"].mean > before["remain"].mean - 0.05
    assert this["test_remain"].mean > before["test_remain"].mean - 0.06
    assert this["balance"].mean > 0.85 > 0.5 > before["balance"].mean
    assert 0 <= this["attack"].mean <= 1
    page = edited.report().read_text()
    assert "Forgotten, and what was to stay is still known." in page
    assert ">original model<" in page


@pytest.mark.slow
def test_only_the_encoder_changes_and_it_is_used_as_any_classifier_is(
    original: selftaught.Run, edited: selftaught.Run, tmp_path: Path
) -> None:
    before, after = weights(original), weights(edited)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("0.") for name in changed), "the head moved"
    assert edited.apply("digits?n=50", tmp_path / "found.npy") == 50
    assert np.load(tmp_path / "found.npy").shape == (50, 10)
    exported = edited.export("safetensors", tmp_path / "model")
    assert exported.exists()
    assert edited.method.deliverable_spec() == original.method.deliverable_spec()


@pytest.mark.slow
def test_data_pixels_and_split_are_the_original_runs_whatever_the_seed(
    original: selftaught.Run, edited: selftaught.Run
) -> None:
    assert edited.settings.seed != original.settings.seed
    assert edited.config["data"]["fingerprints"]["data"] == original.config["data"]["fingerprints"]["data"]
    assert edited.config["data"]["mean"] == original.config["data"]["mean"]
    assert edited.config["data"]["classes"] == original.config["data"]["classes"]
    assert torch.equal(edited.method.pixel_mean, original.method.pixel_mean)
    assert list(edited.layout.read_state()["stages"]) == ["vae", "vae-forget", "forget"]


def arrays(order: np.ndarray | None = None) -> dict[str, np.ndarray]:
    source = open_source("digits?n=200", split="all")
    images = np.stack([source.read(i) for i in range(len(source))])
    labels = np.asarray(source.labels)
    return {"images": images, "labels": labels if order is None else labels[order]}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["laf", "bad-teacher"])
def test_labels_are_never_read(mode: str, tmp_path: Path) -> None:
    """Other labels for every sample: the same weights, bit for bit."""
    options = {"encoder": "cnn-small", "image_size": 16, "steps": 4, "batch_size": 50, "split": "all"}
    start = selftaught.train("supervised", arrays(), out=str(tmp_path / "start"), **QUIET | options)
    names = open_source(arrays(), split="all").names
    (tmp_path / "list.txt").write_text("\n".join(names[:60]))
    other = np.random.default_rng(1).permutation(200)
    assert not np.array_equal(arrays()["labels"], arrays(other)["labels"])
    runs = [
        selftaught.train(
            "laf", data, init=str(start.path), forget=str(tmp_path / "list.txt"), out=str(tmp_path / name), mode=mode,
            **SHORT,
        )
        for name, data in (("a", arrays()), ("b", arrays(other)))
    ]  # fmt: skip
    a, b = map(weights, runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], weights(start)[name]) for name in a)


@pytest.mark.slow
def test_a_run_that_is_cut_in_its_third_stage_ends_in_the_same_weights(
    original: selftaught.Run, tmp_path: Path
) -> None:
    options = SHORT | {"init": str(original.path), "forget": "class=3", "checkpoint_steps": 2, "steps": 6}
    whole = selftaught.train("laf", out=str(tmp_path / "whole"), **options)
    after = LAF.after_step

    def power_cut(self: LAF) -> None:
        after(self)
        if self.stage == "forget" and self.steps == 3:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LAF, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("laf", out=str(tmp_path / "cut"), **options)
    cut = selftaught.train("laf", resume=tmp_path / "cut", quiet=True)
    assert all(torch.equal(value, weights(cut)[name]) for name, value in weights(whole).items())


@pytest.mark.slow
def test_a_reference_adds_the_tug_of_war_and_repair_uses_a_few_labels(
    original: selftaught.Run, edited: selftaught.Run, tmp_path: Path
) -> None:
    repaired = selftaught.train(
        "laf", init=str(original.path), forget="class=3:0.1", out=str(tmp_path / "repaired"),
        **SHORT | {"repair_labels": 18, "repair_steps": 3, "lr": 1e-2},
    )  # fmt: skip
    a, b = weights(original), weights(repaired)
    assert any(not torch.equal(a[name], b[name]) for name in a if name.startswith("1.")), "the head was not repaired"
    found = edited.evaluate(protocols=["unlearning"], reference=str(repaired.path))["unlearning"]
    assert list(found) == ["this", "original", "retrained"]
    parts = (1 - abs(found["this"][n].mean - found["retrained"][n].mean) for n in ("remain", "forget", "test_remain"))
    assert found["this"]["tug_of_war"].mean == pytest.approx(np.prod(list(parts)))


def test_the_repair_takes_as_many_samples_of_every_class() -> None:
    from selftaught.methods.laf import _evenly

    labels = np.repeat([0, 1, 2], [50, 20, 5])
    assert np.bincount(labels[_evenly(labels, 9)]).tolist() == [3, 3, 3]
    assert np.bincount(labels[_evenly(labels, 21)]).tolist() == [8, 8, 5]
    with pytest.raises(UserError, match="75 samples"):
        _evenly(labels, 76)


def _told(slug: str, options: dict[str, Any]) -> dict[str, Any]:
    """What LAF takes over from a run of a method with these options; how its data were divided is no option."""
    told = LAF.inherits({"method": slug, "options": options, "settings": {"split": "all", "by": "auto", "noise": ""}})
    assert (told.pop("split"), told.pop("by")) == ("all", "auto")
    return told


def made(**options: Any) -> LAF:
    config = methods.get("supervised").config_class(encoder="cnn-small", image_size=16)
    return LAF(channels=1, classes=4, samples=40, **_told("supervised", vars(config)) | options)


@pytest.mark.parametrize("slug", ["supervised", "sla", "core-tuning"])
def test_any_classifier_is_rebuilt_as_it_was_and_split_into_encoder_and_head(slug: str) -> None:
    kind = methods.get(slug)
    config = kind.config_class(encoder="cnn-small", image_size=16)
    before = kind(config, channels=1, classes=4, samples=40)
    method = LAF(channels=1, classes=4, samples=40, **_told(slug, vars(config)))
    method.deliverable().load_state_dict(before.deliverable().state_dict())
    batch = {"index": torch.arange(3), "views": [torch.randn(3, 1, 16, 16)]}
    before.eval()
    method.eval()
    assert torch.allclose(method.predict(batch), before.predict(batch))
    assert method.features(batch).shape == (3, method.h.dim) == (3, 256)
    assert method.deliverable_spec() == before.deliverable_spec()


def test_what_each_stage_trains_and_in_which_mode() -> None:
    method = made(repair_labels=4)
    assert method.stages == ("vae", "vae-forget", "forget", "repair")
    for stage, wanted in zip(method.stages, ("h.", "h_forget.", "model.encoder.", "model.classifier."), strict=True):
        method.enter_stage(stage)
        method.train()
        moving = {name for name, p in method.named_parameters() if p.requires_grad}
        assert moving
        assert all(name.startswith(wanted) for name in moving)
        assert not method.model.training
        assert not method.teacher.training
    plain = made(mode="fine-tune")
    assert plain.stages == ("forget",)
    plain.enter_stage("forget")
    plain.train()
    assert plain.model.training


def test_the_terms_are_the_objectives_of_the_embeddings() -> None:
    from selftaught.objectives.laf import laf_ra, laf_ue

    method = made()
    method.enter_stage("forget")
    batch = {
        role: {"index": torch.arange(n), "views": [torch.randn(n, 1, 16, 16)]}
        for role, n in (("forget", 3), ("remain", 5))
    }
    same = method.alignment_terms(batch)["loss"].detach()  # the student is the teacher
    assert float(same) == pytest.approx(-5 * np.log(3), abs=1e-4)
    with torch.no_grad():
        method.model.encoder.model[-1].weight.mul_(1.3).add_(0.01)  # type: ignore[index, union-attr, operator]
        er, ef = (method.model.encoder(batch[role]["views"][0]) for role in ("remain", "forget"))
        tr, tf = (method.teacher.encoder(batch[role]["views"][0]) for role in ("remain", "forget"))
    torch.manual_seed(0)
    got = method.unlearning_terms(batch)["loss"]
    torch.manual_seed(0)
    assert torch.allclose(got, laf_ue(er, method.h(er).reconstruction, ef, method.h_forget(ef).reconstruction))
    assert torch.allclose(method.alignment_terms(batch)["loss"], laf_ra(er, tr, ef, tf, temperature=20.0))
    head = list(method.model.classifier.requires_grad_(True).parameters())  # type: ignore[union-attr, operator]
    for terms in (method.unlearning_terms(batch), method.alignment_terms(batch)):
        assert all(g is None for g in torch.autograd.grad(terms["loss"], head, allow_unused=True))


@pytest.mark.parametrize("mode", ["fine-tune", "retrain", "negative-gradient", "random-label", "bad-teacher"])
def test_the_baselines_minimise_what_they_say(mode: str) -> None:
    from selftaught.objectives import laf

    method = made(mode=mode, forget_weight=0.5)
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    method.enter_stage("forget")
    fresh = any(not torch.equal(value, before[name]) for name, value in method.model.state_dict().items())
    assert fresh == (mode == "retrain"), "only retraining begins anew"
    method.eval()
    labels = {"remain": torch.tensor([1, 2, 3, 1, 2]), "forget": torch.tensor([0, 0, 0])}
    batch = {role: {"index": y, "label": y, "views": [torch.randn(len(y), 1, 16, 16)]} for role, y in labels.items()}
    kept, gone = (method.predict(batch[role]) for role in ("remain", "forget"))
    torch.manual_seed(0)
    got = method._baseline(batch if mode not in ("fine-tune", "retrain") else batch["remain"])["loss"]
    torch.manual_seed(0)
    y, z = labels["remain"], labels["forget"]
    if mode == "negative-gradient":
        wanted = laf.negative_gradient(kept, y, gone, z, weight=0.5)
    elif mode == "random-label":
        wanted = laf.random_label(kept, y, gone, laf.random_other_labels(z, 4), weight=0.5)
    elif mode == "bad-teacher":
        assert not torch.equal(method.stranger.predict(batch["forget"]), method.teacher.predict(batch["forget"]))
        wanted = laf.bad_teacher(kept, kept, gone, method.stranger.predict(batch["forget"]))
    else:
        wanted = torch.nn.functional.cross_entropy(kept, y)
    assert torch.allclose(got, wanted)
    if mode != "bad-teacher":
        for part in batch.values():
            del part["label"]
        with pytest.raises(UserError, match=f'mode="{mode}" reads labels'):
            method._baseline(batch if mode not in ("fine-tune", "retrain") else batch["remain"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"init": None}, "init=RUN"),
        ({"forget": None}, 'forget="class=NAME"'),
        ({"remain": "class=3,4"}, "both name"),
        ({"forget": "class=twelve"}, "no such class"),
        ({"temperature": 0.0}, "temperature"),
        ({"repair_labels": -1}, "repair_labels"),
        ({"mode": "fastest"}, "mode"),
        ({"accumulate": 2}, "accumulate"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: dict[str, Any], said: str, original: selftaught.Run, tmp_path: Path
) -> None:
    given = SHORT | {"init": str(original.path), "forget": "class=3"} | options
    with pytest.raises(UserError, match=said) as caught:
        selftaught.train("laf", out=str(tmp_path / "run"), **given)
    assert "\n" not in str(caught.value)


def test_a_run_without_classes_is_refused(tiny_run: selftaught.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="delivers no classes"):
        selftaught.train("laf", init=str(tiny_run.path), forget="class=3", out=str(tmp_path / "run"), **SHORT)
    with pytest.raises(UserError, match="made to forget"):
        tiny_run.evaluate(protocols=["unlearning"])
