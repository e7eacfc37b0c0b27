"""What loggers get: the options, the rate that the schedule gives, the gradient before it is clipped, the views."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import selftaught
from selftaught.engine.tracking import view_rows
from tests.conftest import TINY


def test_views_are_put_side_by_side_in_their_own_colours() -> None:
    views = [torch.full((3, 3, 4, 4), 2.0), torch.full((3, 3, 8, 8), -1.0)]
    mean, std = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.1, 0.2, 0.3])
    rows = view_rows({"views": views}, mean, std, False)
    assert rows is not None
    assert rows.shape == (3, 8, 12)
    torch.testing.assert_close(rows[:, 0, 0], torch.tensor([0.7, 0.9, 1.0]))
    torch.testing.assert_close(rows[:, 7, 11], torch.tensor([0.4, 0.3, 0.2]))
    assert view_rows({"series": torch.zeros(2, 3, 8)}, mean, std, False) is None


def test_the_table_of_metrics_holds_the_rate_that_a_step_was_made_with(tmp_path: Path) -> None:
    """A line from 0.4 to 0 over four steps: the first is made with 0.4, the last with 0.1, none with 0."""
    options = TINY | {"steps": 4, "batch_size": 8, "augment": "grey", "log_every": 1, "knn_every": 0, "lr": 0.4}
    options |= {"schedule": "linear", "decay_every": 0.0, "lr_scaling": "none", "warmup_epochs": 0.0, "loggers": []}
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), **options)
    with (run.path / "metrics.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.slow
def test_tensorboard_gets_rate_throughput_gradients_options_and_views(tmp_path: Path) -> None:
    options: dict[str, Any] = TINY | {
        "steps": 4, "batch_size": 8, "augment": "grey", "device": "cpu", "precision": "32", "log_every": 2,
        "schedule": "step", "decay_every": 0.5, "decay_factor": 0.1, "lr": 0.4, "lr_scaling": "none",
        "warmup_epochs": 0.0, "optimizer": "sgd", "clip": 1e-3,
    }  # fmt: skip
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), loggers=["tensorboard"], **options)
    (folder,) = {path.parent for path in run.path.rglob("events.out*")}
    found = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    tags = found.Tags()
    assert {"lr", "samples_per_second", "gradient_norm", "loss"} <= set(tags["scalars"])
    assert [round(event.value, 4) for event in found.Scalars("lr")] == [0.4, 0.04], "the step's own"
    assert [event.step for event in found.Scalars("gradient_norm")] == [2, 4]
    assert all(event.value > 1e-3 for event in found.Scalars("gradient_norm")), "the norm before clipping"
    assert tags["images"] == ["views"]
    assert found.Images("views")[0].width == 8 * 32
    assert b"batch_size" in found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
