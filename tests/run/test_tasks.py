"""Streams of tasks: what each learns from, where it begins, what is kept of it; annealed branches of endless runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught.data import open_source
from selftaught.engine.orders import Alternating
from selftaught.errors import UserError
from selftaught.evaluation import continual
from selftaught.methods import get
from selftaught.run.tasks import open_tasks
from selftaught.run_settings import Settings

TINY: dict[str, Any] = {
    "encoder": "vit-nano", "image_size": 8, "patch": 2, "decoder": "16-1-2", "preset": "laptop", "batch_size": 32,
    "workers": 0, "quiet": True, "knn_every": 0, "loggers": ["none"], "precision": "32",
}  # fmt: skip


def tasks_of(**settings):
    return open_tasks(get("mae"), "digits", open_source("digits", split="train"), Settings(data="digits", **settings))


def test_class_groups_and_memories() -> None:
    assert tasks_of() == []
    found = tasks_of(class_tasks=5)
    assert [t.name for t in found] == ["0, 1", "2, 3", "4, 5", "6, 7", "8, 9"]
    assert set(np.unique(found[1].own.labels)) == {2, 3}
    assert set(np.unique(found[1].parts[1].labels)) == {2, 3}
    replayed = tasks_of(class_tasks=5, continual="er", memory=0.1)
    assert len(replayed[0].learn) == len(found[0].own)
    third = replayed[2]
    old = sum(round(0.1 * len(found[i].own)) for i in (0, 1))
    assert len(third.learn) == len(third.own) + old
    assert third.order.length == 2 * len(third.own), "twice the new data"
    listed = third.order.epoch(0, 3)
    assert (listed[::2] < len(third.own)).all()
    assert (listed[1::2] >= len(third.own)).all()
    assert sorted(listed[::2].tolist()) == list(range(len(third.own)))
    assert set(np.unique(np.asarray(third.learn.labels))) == set(range(6))
    memory = tasks_of(class_tasks=5, continual="gdumb", memory=0.1)[4]
    assert memory.fresh
    counts = np.bincount(np.asarray(memory.learn.labels))
    assert counts.max() - counts.min() <= 2, "balanced"
    (joint,) = tasks_of(class_tasks=5, continual="joint")
    assert len(joint.learn) == sum(len(t.own) for t in found)


def test_what_makes_no_stream_is_refused() -> None:
    for settings, message in (
        ({"continual": "er"}, "goes with several tasks"),
        ({"class_tasks": 11}, "has 10 classes"),
        ({"class_tasks": 2, "then": ["digits"]}, "leave out then"),
        ({"class_tasks": 2, "continual": "er", "memory": 0.0}, "needs some of every"),
    ):
        with pytest.raises(UserError, match=message):
            tasks_of(**settings)
    with pytest.raises(UserError, match="can't learn a stream of tasks"):
        open_tasks(get("supervised"), "digits", open_source("digits"), Settings(class_tasks=2))
    with pytest.raises(UserError, match="at least 1"):
        Alternating(3, 0)


def test_forgetting_is_counted_as_the_sheet_says() -> None:
    found = continual([[0.9], [0.6, 0.8], [0.7, 0.5, 1.0]])
    assert found["average"] == pytest.approx(2.2 / 3)
    assert found["average_over_time"] == pytest.approx((0.9 + 0.7 + 2.2 / 3) / 3)
    assert found["backward_transfer"] == pytest.approx(((0.7 - 0.9) + (0.5 - 0.8)) / 2)
    assert found["forgetting"] == pytest.approx((0.2 + 0.3) / 2)
    assert continual([[0.4]])["forgetting"] == 0
    with pytest.raises(UserError, match="row t"):
        continual([[0.4], [0.1]])


@pytest.mark.slow
def test_a_stream_of_tasks_begins_at_branch_points_and_says_what_is_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = TINY | {"schedule": "infinite", "steps": 10, "class_tasks": 2, "anneal_start": 0.6, "warmup_epochs": 0.0}
    run = selftaught.train("mae", "digits", out=str(out), **options)
    first, second = (out / "tasks" / n / "checkpoints" for n in "12")
    branch = torch.load(first / "train.branch.ckpt", weights_only=True)
    assert branch["selftaught"]["steps"] == 6
    rates = [float(row["lr"]) for row in csv.DictReader((out / "metrics.csv").open())]
    assert rates[-1] == pytest.approx(0.1 * 2e-3, rel=0.5)
    found = json.loads((out / "forgetting.json").read_text())
    assert [len(row["accuracy"]) for row in found["rows"]] == [1, 2]
    assert {"average", "forgetting"} <= set(found["summary"])
    assert (out / "forgetting.csv").read_text().count("\n") == 4
    assert (second / "train.branch.ckpt").exists()
    assert run.config["data"]["tasks"][1]["name"] == "5, 6, 7, 8, 9"
    assert run.evaluate(protocols=["knn"])["knn"]["this"]["accuracy"].mean > 0.2
    assert "What is kept of earlier tasks" in run.report().read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_later_task_begins_with_the_branch_points_weights_and_moments(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Look(__import__("lightning").Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):  # type: ignore[no-untyped-def]
            if module.task == 1 and batch_idx == 0:
                seen["weight"] = module.encoder.model.blocks[0].attn.qkv.weight.detach().clone()
                state = trainer.optimizers[0].state
                seen["moments"] = sum(len(s) > 0 for s in state.values())
                seen["lr"] = trainer.optimizers[0].param_groups[0]["lr"]

    options = TINY | {"schedule": "infinite", "steps": 8, "class_tasks": 2, "anneal_start": 0.5, "lr": 1e-3}
    selftaught.train("mae", "digits", out=str(tmp_path / "run"), callbacks=[Look()], **options)
    branch = torch.load(tmp_path / "run/tasks/1/checkpoints/train.branch.ckpt", weights_only=True)
    assert torch.equal(seen["weight"], branch["state_dict"]["encoder.model.blocks.0.attn.qkv.weight"])
    assert seen["moments"] > 10
    assert seen["lr"] == pytest.approx(0.25e-3), "no warm-up again"


@pytest.mark.slow
def test_a_stream_that_is_cut_in_its_second_task_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    options = TINY | {"schedule": "infinite", "steps": 8, "class_tasks": 2, "anneal_start": 0.5, "checkpoint_steps": 3}
    options |= {"continual": "er", "memory": 0.2}
    selftaught.train("mae", "digits", out=str(tmp_path / "whole"), **options)
    kind = get("mae")
    after = kind.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.task == 1 and self.steps == 5:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("mae", "digits", out=str(tmp_path / "cut"), **options)
    assert json.loads((tmp_path / "cut/state.json").read_text())["stages"] == {}
    selftaught.train("mae", resume=tmp_path / "cut", quiet=True)
    whole, cut = (
        torch.load(tmp_path / name / "tasks/2/checkpoints/train.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)


@pytest.mark.slow
def test_an_annealed_branch_leaves_its_run_as_it_was(tmp_path: Path) -> None:
    """Saving at N_d, annealing beside it and going on is bitwise the run that never annealed."""
    options = TINY | {"schedule": "infinite", "anneal_start": 1.0, "cooldown_end": 0.3, "steps": 20}
    options |= {"warmup_end": 0.1, "lr": 1e-3, "lr_scaling": "none"}
    selftaught.train("simsiam", "digits", out=str(tmp_path / "whole"), **_contrastive(options))
    kind = get("simsiam")
    after = kind.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.steps == 12:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train(
                "simsiam", "digits", out=str(tmp_path / "cut"), checkpoint_steps=10, **_contrastive(options)
            )
    branch = selftaught.train("simsiam", anneal=str(tmp_path / "cut"), steps=6, quiet=True)
    assert branch.path.name == "cut-annealed-10"
    saved = torch.load(branch.path / "checkpoints/train.ckpt", weights_only=True)
    assert saved["selftaught"]["steps"] == 16
    last = saved["optimizer_states"][0]["param_groups"][0]["lr"]
    assert last == pytest.approx(0.1 * options["lr"]), "eta_min at the end of the branch"
    selftaught.train("simsiam", resume=tmp_path / "cut", quiet=True)
    late = selftaught.train("simsiam", anneal=str(tmp_path / "cut"), steps=4, quiet=True)
    saved = torch.load(late.path / "checkpoints/train.ckpt", weights_only=True)
    assert saved["selftaught"]["steps"] == 24, "a branch of a run that has come to its end is trained, too"
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.1 * options["lr"])
    whole, cut = (
        torch.load(tmp_path / name / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)
    with pytest.raises(UserError, match="leave out lr"):
        selftaught.train("simsiam", anneal=str(tmp_path / "cut"), lr=1.0)


@pytest.mark.slow
def test_a_run_in_stages_is_annealed_in_its_last(tmp_path: Path) -> None:
    options = {
        "encoder": "vit-pico", "image_size": 16, "words": 8, "tokeniser_steps": 2, "schedule": "infinite", "steps": 8,
        "cooldown_end": 0.3, "warmup_end": 0.1, "anneal_start": 1.0, "batch_size": 16, "knn_every": 0, "workers": 0,
        "quiet": True, "loggers": ["none"], "preset": "laptop",
    }  # fmt: skip
    run = selftaught.train("beit", "digits?n=100", out=str(tmp_path / "run"), **options)
    branch = selftaught.train("beit", anneal=str(run.path), steps=3, quiet=True)
    whole, cut = (
        torch.load(path / "stages/train/checkpoints/train.ckpt", weights_only=True) for path in (run.path, branch.path)
    )
    assert (whole["selftaught"]["steps"], cut["selftaught"]["steps"]) == (8, 11)
    rates = [saved["optimizer_states"][0]["param_groups"][0]["lr"] for saved in (whole, cut)]
    assert rates[1] == pytest.approx(0.1 / run.method.config.constant_lr * rates[0])
    words = [saved["state_dict"]["codebook.weight"] for saved in (whole, cut)]
    assert torch.equal(*words), "the tokeniser is that of the run"
    state = json.loads((run.path / "state.json").read_text())
    del state["stages"]["words"]
    (run.path / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="stands in its stage 'words'"):
        selftaught.train("beit", anneal=str(run.path), steps=3)


def _contrastive(options: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in options.items() if k not in ("encoder", "patch", "decoder", "image_size")}
    return kept | {"encoder": "cnn-small", "image_size": 16}
