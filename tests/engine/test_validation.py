"""Watched samples: their loss is logged, the best weights are kept, and a run is otherwise as without them."""

from __future__ import annotations

import csv
import math
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import selftaught
from selftaught.data import open_source
from selftaught.engine.keeping import untouched
from selftaught.errors import UserError
from tests.conftest import write_photos
from tests.two_processes import by_two

TINY: dict[str, Any] = {
    "encoder": "cnn-small", "image_size": 16, "augment": "grey", "batch_size": 16, "workers": 0, "quiet": True,
    "knn_every": 0, "loggers": ["none"], "precision": "32", "log_every": 1, "device": "cpu",
}  # fmt: skip


def train(slug: str, out: Path, data: str = "digits?n=60", **options: Any) -> Any:
    return selftaught.train(slug, data, out=str(out), **(TINY | options))


def rows(run: Any, column: str = "val_loss") -> dict[int, float]:
    """Step -> what stands in a column of metrics.csv."""
    with (run.path / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}


@pytest.mark.parametrize(
    ("slug", "options"),
    [
        ("moco-v2", {"queue": 32, "projector": "16-8"}),
        ("dino", {"prototypes": 16, "projector": "16-16-8", "local_crops": 1}),
        ("barlow-twins", {"projector": "16-16"}),
    ],
)
def test_watching_leaves_no_trace(slug: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Queue, centre, momentum copy, BatchNorm and the generators of chance are as if nobody had looked."""
    plain = train(slug, tmp_path / "plain", steps=4, **options)
    watched = train(slug, tmp_path / "watched", steps=4, validation="digits?n=40", keep_weights="last", **options)
    looks = rows(watched)
    assert looks
    assert all(math.isfinite(value) for value in looks.values())
    files = [run.path / "checkpoints/train.ckpt" for run in (plain, watched)]
    states = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert rows(plain, "loss") == rows(watched, "loss")


def test_a_share_is_held_out_and_the_weights_of_its_lowest_loss_are_kept(tmp_path: Path) -> None:
    run = train("simclr", tmp_path / "run", projector="16-8", validation=0.25, epochs=4, lr=0.5, schedule="constant")
    done = run.layout.read_state()["stages"]["train"]
    looks = rows(run)
    assert len(looks) == 4
    assert done["kept_loss"] == pytest.approx(min(looks.values()), rel=1e-4)
    assert done["kept_step"] == min(looks, key=lambda step: looks[step])
    epoch = round(0.75 * run.config["data"]["samples"]) // 16
    assert done["steps"] == 4 * epoch
    assert run.config["settings"]["validation"] == "0.25"
    longer = selftaught.train("simclr", extend=str(run.path), epochs=5, out=str(tmp_path / "longer"), quiet=True)
    assert longer.layout.read_state()["stages"]["train"]["steps"] == 5 * epoch, "an epoch is what is learnt from"
    options = {k: v for k, v in TINY.items() if k != "quiet"} | {"projector": "16-8", "validation": 0.25, "epochs": 4}
    assert f"{4 * epoch} steps, 4 passes over the data" in selftaught.rehearse("simclr", "digits?n=60", **options)


def watched_by(devices: int, out: str) -> dict[str, Any]:
    """What a run of some processes wrote down of its held-out samples, and what it ends with."""
    options: dict[str, Any] = {
        "epochs": 3, "optimizer": "sgd", "lr": 0.05, "lr_scaling": "none", "schedule": "constant", "warmup_epochs": 0.0,
        "encoder": "vit-pico", "projector": "16-8", "head_norm": "none", "heads": 1, "temp_net": "fixed",
        "validation": 0.3, "patience": 1, "batch_size": 16 // devices, "devices": devices,
    }  # fmt: skip
    run = train("amcl", Path(out), "digits?n=150", **options)  # no BatchNorm: on a CPU its statistics are per process
    state = {name: value for name, value in run.encoder.state_dict().items() if torch.is_tensor(value)}
    return {"looks": rows(run), "stage": run.layout.read_state()["stages"]["train"], "state": state}


@pytest.mark.slow
def test_two_processes_watch_what_one_does(tmp_path: Path) -> None:
    """Each looks at its share of the held-out samples; the loss, the best step and the weights are those of the run."""
    one, (two, other) = watched_by(1, str(tmp_path / "one")), by_two(watched_by, 2, str(tmp_path / "two"))
    assert len(one["looks"]) >= 2
    assert two["looks"] == pytest.approx(one["looks"], rel=1e-3)
    assert two["stage"]["kept_step"] == other["stage"]["kept_step"] == one["stage"]["kept_step"]
    for name in one["state"]:
        assert torch.equal(two["state"][name], other["state"][name]), name


def test_training_ends_where_nothing_is_gained(tmp_path: Path) -> None:
    watched = open_source(write_photos(tmp_path / "watch", count=20, side=16, classes=1, channels=1))
    options: dict[str, Any] = {"projector": "16-8", "lr": 1.0, "schedule": "constant", "warmup_epochs": 0.0}
    run = train("simclr", tmp_path / "run", validation=watched, patience=2, epochs=40, **options)
    done = run.layout.read_state()["stages"]["train"]
    looks = list(rows(run))
    assert len(looks) < 40
    assert done["steps"] == looks[-1]
    assert done["kept_step"] == looks[-3]
    with pytest.raises(UserError, match="1 sample held out: too few to watch a loss on"):
        train("simclr", tmp_path / "few", validation=watched.subset([0]), steps=1, **options)
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(
    ("slug", "options", "said"),
    [
        ("isogclr", {"validation": 0.1}, "validation: isogclr has a temperature of its own for each training sample"),
        ("simclr", {"validation": 1.5}, r"validation=1.5: a share of the training samples in \[0, 0.9\]"),
        ("simclr", {"validation": "photos"}, 'validation="photos" has 3 channels, the run was trained on 1'),
        ("simclr", {"patience": 2}, "patience watches a loss: give validation=0.1"),
        (
            "simclr",
            {"keep_weights": "best", "ema": 0.9},
            'keep_weights="best": with ema the run ends with the averaged',
        ),
        ("simclr", {"validation": 0.1, "class_tasks": 2}, "validation watches one set"),
    ],
)
def test_what_can_not_be_watched_is_refused_before_anything_is_made(
    slug: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        train(slug, tmp_path / "run", projector="16-8", steps=2, **options)
    assert not (tmp_path / "run").exists()


def test_whatever_a_module_keeps_is_put_back() -> None:
    class Keeper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("queue", torch.zeros(3))
            self.inner = nn.BatchNorm1d(2)
            self.count, self.loose = 0, torch.ones(2)
            self.cache, self.recent, self.seen = {1: "a"}, deque([1, 2], maxlen=2), [1]

    keeper = Keeper()
    cache = keeper.cache
    with untouched(keeper):
        keeper.queue[1] = 5.0
        keeper.inner(torch.randn(8, 2))
        keeper.count, keeper.loose, keeper.new = 7, torch.zeros(2), 1
        keeper.cache[2] = "b"
        keeper.recent.append(3)
        keeper.seen.append(2)
    assert torch.equal(keeper.queue, torch.zeros(3))
    assert torch.equal(keeper.inner.running_mean, torch.zeros(2))
    assert int(keeper.inner.num_batches_tracked) == 0
    assert (keeper.count, keeper.loose.tolist(), hasattr(keeper, "new")) == (0, [1.0, 1.0], False)
    assert keeper.cache is cache
    assert (keeper.cache, list(keeper.recent), keeper.seen) == ({1: "a"}, [1, 2], [1])


def test_a_folder_of_broken_files_alone_is_neither_watched_nor_judged(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    for k in range(3):
        (tmp_path / "broken" / f"{k}.png").write_bytes(b"no picture")
    options = TINY | {"steps": 1, "augment": "grey"}
    with pytest.raises(UserError, match="broken/: none of the samples looked at can be read"):
        selftaught.train("simclr", "digits?n=60", out=str(tmp_path / "a"), validation=tmp_path / "broken", **options)
    run = selftaught.train("simclr", "digits?n=60", out=str(tmp_path / "b"), **options)
    with pytest.raises(UserError, match="broken/: none of the samples looked at can be read"):
        run.apply(tmp_path / "broken", tmp_path / "e.npy", workers=0)
