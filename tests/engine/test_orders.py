"""Orders: pure in (seed, epoch, state), the same on all ranks, and a state that takes effect and survives a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftaught import UserError, methods
from selftaught.data import open_source
from selftaught.engine.batches import Batches
from selftaught.engine.fit import fit
from selftaught.engine.loader import DataModule
from selftaught.engine.orders import (
    ActiveSet,
    Balanced,
    Grouped,
    InOrder,
    Order,
    Partitions,
    Shuffled,
    batches_of,
    earlier,
)
from selftaught.engine.streams import Stream
from selftaught.run_settings import Settings
from selftaught.views import Pipeline, RandomResizedCrop
from tests.engine.test_several_optimisers import SETTINGS, Toy, series


def test_shuffled_and_in_order_hold_every_sample_once() -> None:
    order = Shuffled(50)
    assert sorted(order.epoch(1, 3)) == list(range(50))
    assert np.array_equal(order.epoch(1, 3), order.epoch(1, 3))
    assert not np.array_equal(order.epoch(1, 3), order.epoch(1, 4))
    assert not np.array_equal(order.epoch(1, 3), order.epoch(2, 3))
    assert InOrder(5).epoch(0, 9).tolist() == [0, 1, 2, 3, 4]


def test_partitions_hold_one_slice_of_each_part_of_different_volumes() -> None:
    volumes = np.repeat(np.arange(5), 9)
    part = np.tile([0, 0, 1, 1, 2, 2, 3, 3, -1], 5)
    order = Partitions(volumes, part, 4)
    order.batched(8)
    assert order.length == 16  # two batches of two volumes; the fifth waits
    seen = set()
    for epoch in range(20):
        rows = order.epoch(0, epoch)
        assert part[rows].tolist() == [0, 1, 2, 3] * 4
        named = volumes[rows].reshape(4, 4)
        assert (named == named[:, :1]).all()
        assert len(set(named[:, 0])) == 4
        seen |= set(rows.tolist())
    assert seen == set(np.flatnonzero(part >= 0).tolist())
    assert np.array_equal(order.epoch(0, 3), order.epoch(0, 3))
    for rows in (6, 24):
        with pytest.raises(UserError, match="a multiple of the 4 partitions"):
            order.batched(rows)
    with pytest.raises(UserError, match="no slice in one"):
        Partitions(volumes, np.where(part == 2, 1, part), 4)


def test_ranks_laid_side_by_side_are_the_batch_of_one_process() -> None:
    order = Shuffled(41)
    one = list(batches_of(order, 8, seed=3, epoch=2))
    two = [list(batches_of(order, 4, seed=3, epoch=2, rank=r, world=2)) for r in range(2)]
    assert len(one) == 5
    assert [a + b for a, b in zip(*two, strict=True)] == one
    assert list(batches_of(order, 8, seed=3, epoch=2, start=3)) == one[3:]
    with pytest.raises(UserError, match="batch_size=20"):
        list(batches_of(order, 30, seed=0, epoch=0, world=2))


def test_grouped_keeps_runs_of_one_group_together() -> None:
    groups = np.repeat([7, 3, 9], [5, 8, 2])
    order = Grouped(groups, 3)
    assert order.length == 9  # one run of the first group, two of the second, none of the third
    for epoch in range(3):
        rows = order.epoch(0, epoch).reshape(-1, 3)
        assert all(len(set(groups[row])) == 1 for row in rows)
        assert len(set(rows.reshape(-1).tolist())) == 9
    with pytest.raises(UserError, match="the largest has 8"):
        Grouped(groups, 9)


def test_balanced_shows_every_class_as_often() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2] * 1 + [-1] * 20)
    order = Balanced(labels)
    listed = order.epoch(0, 0)
    assert len(listed) == order.length == 100
    counts = np.bincount(labels[listed], minlength=3)
    assert counts.max() - counts.min() <= 1
    assert len(set(listed[labels[listed] == 0].tolist())) == counts[0]  # no sample twice before all were seen
    with pytest.raises(UserError, match="needs labelled"):
        Balanced(np.full(4, -1))


def test_an_active_set_is_gone_through_evenly() -> None:
    order = ActiveSet(30, 12)
    order.select([4, 9, 20, 2, 11])
    listed = order.epoch(5, 0)
    assert len(listed) == 12
    assert set(listed.tolist()) == {2, 4, 9, 11, 20}
    assert np.bincount(listed).max() - np.bincount(listed)[[2, 4, 9, 11, 20]].min() <= 1
    again = ActiveSet(30, 12)
    again.load_state_dict(order.state_dict())
    assert np.array_equal(again.epoch(5, 0), listed)
    for wrong in ([], [30], [1, 1]):
        with pytest.raises(UserError, match="each of its samples once"):
            order.select(wrong)


class Chooser(Toy):
    """Chooses anew after every epoch of five steps: the samples whose number has the epoch's remainder by three."""

    armed = False

    def order(self, source: Any, role: str) -> Order:
        self.chosen = ActiveSet(len(source), 40)
        self.seen_rows: list[list[int]] = []
        return self.chosen

    def step(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        self.seen_rows.append(batch["index"].tolist())
        return super().step(batch)

    def after_step(self) -> None:
        if (self.steps + 1) % 5 == 0:
            self.chosen.select([i for i in range(40) if i % 3 == (self.steps + 1) // 5 % 3])
        if Chooser.armed and self.steps == 8:
            raise RuntimeError("power cut")


def _chosen(folder: Path) -> Chooser:
    torch.manual_seed(0)
    method = Chooser(channels=6, length=16)
    settings = Settings(**SETTINGS | {"steps": 15, "checkpoint_steps": 1, "workers": 1})
    fit(method, {"data": series()}, settings, folder, quiet=True)
    return method


def test_what_a_method_chooses_holds_from_the_next_epoch_on_and_after_a_resume(tmp_path: Path) -> None:
    whole = _chosen(tmp_path / "whole")
    remainders = [{i % 3 for row in whole.seen_rows[start : start + 5] for i in row} for start in (0, 5, 10)]
    assert remainders == [{0, 1, 2}, {1}, {2}]
    Chooser.armed = True
    with pytest.raises(RuntimeError, match="power cut"):
        _chosen(tmp_path / "cut")
    Chooser.armed = False
    again = _chosen(tmp_path / "cut")
    assert again.seen_rows == whole.seen_rows[8:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_streams_of_two_roles_stand_side_by_side() -> None:
    class Two(Toy):
        roles = ("first", "second")

    method = Two(channels=6, length=16)
    data = DataModule(
        {"first": series(), "second": series().subset(np.arange(12))}, method, batch_size=8, workers=0, total_batches=4
    )
    batches = list(data.train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        assert batch.keys() == {"first", "second"}
        assert batch["first"]["series"].shape == batch["second"]["series"].shape == (8, 6, 16)
        assert int(batch["second"]["index"].max()) < 12
    assert data.epoch_batches() == 1  # of the shorter stream


def test_a_sample_that_comes_again_in_an_epoch_is_seen_otherwise() -> None:
    """One sample of a rare class among forty: its views differ each time, and a run that is cut sees the same ones."""
    assert earlier(np.array([3, 1, 3, 3, 1, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    assert earlier(np.zeros(0, dtype=np.int64)).tolist() == []
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    source = open_source(images, split="all")
    pipeline = Pipeline((RandomResizedCrop(16, scale=(0.1, 1.0)),))
    batches = Batches(source, [pipeline], seed=0)
    order = Balanced(np.array([1] + [0] * 39))
    keys = list(Stream(order, 8, 0, 0, 5))
    seen = [batch["views"][0][batch["index"] == 0] for batch in (batches[key] for key in keys)]
    rare = torch.cat(seen)
    assert len(rare) == 20
    assert len(torch.unique(rare.flatten(1), dim=0)) == 20
    assert list(Stream(order, 8, 0, 3, 5)) == keys[3:]
    assert list(Stream(Shuffled(40), 8, 0, 0, 5)) == [key[:2] for key in Stream(Shuffled(40), 8, 0, 0, 5)]


def test_few_pictures_fill_a_large_batch_of_a_method_that_compares_nothing() -> None:
    """Five pictures, batches of 16: every picture three or four times, never the same patch; SimCLR refuses."""
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    source = open_source(images, split="all")
    method = methods.get("srresnet")(channels=3, patch=24)
    data = DataModule(source, method, batch_size=16, workers=0, total_batches=3)
    batches = list(data.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [16] * 3
    for batch in batches:
        counts = np.bincount(batch["index"].numpy(), minlength=5)
        assert sorted(counts.tolist()) == [3, 3, 3, 3, 4]
        name = next(n for n, v in batch.items() if isinstance(v, torch.Tensor) and v.dim() == 4)
        assert len(torch.unique(batch[name].flatten(1), dim=0)) == 16
    with pytest.raises(UserError, match="fewer than one batch of 16"):
        DataModule(source, methods.get("simclr")(encoder="resnet10-narrow", image_size=32), batch_size=16, workers=0)
