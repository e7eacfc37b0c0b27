"""A transformer's blocks in shares: two processes of a CPU learn what one does, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn

import selftaught
from selftaught import DataModule, methods
from selftaught.engine.sharding import apart, clip_gradients, is_whole, shard, sharding_strategy, whole
from selftaught.engine.trainer import quiet_lightning
from selftaught.errors import UserError
from tests.two_processes import by_two


def learnt(devices: int, steps: int, out: str, start: str | None = None) -> dict[str, torch.Tensor]:
    """The weights after some steps with 32 digits in all; a checkpoint is written to ``out``."""
    quiet_lightning()
    lightning.seed_everything(0, verbose=False)
    method = methods.get("simclr")(
        encoder="vit-pico", image_size=16, channels=1, projector="16-8", augment="grey", optimizer="sgd", lr=0.1,
        lr_scaling="none", schedule="constant", warmup_epochs=0.0,
    )  # fmt: skip
    method.projector = nn.Linear(32, 8)  # no BatchNorm: its statistics are per process on a CPU
    method.clip = 0.5
    source = DataModule("digits", method, batch_size=32 // devices, workers=0, seed=3, total_batches=steps)
    trainer = lightning.Trainer(
        accelerator="cpu", devices=devices, strategy=sharding_strategy(2) if devices > 1 else "auto", max_steps=steps,
        precision="32-true", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(method, datamodule=source, ckpt_path=start, weights_only=True)
    if devices > 1:
        inside = [p for name, p in method.named_parameters() if "blocks" in name]
        assert inside
        assert not any(is_whole(p) for p in inside), "nothing is spread"
        moments = trainer.optimizers[0].state[inside[0]]["momentum_buffer"]
        assert 2 * moments.to_local().numel() == moments.numel() == inside[0].numel(), "moments are whole"
    trainer.save_checkpoint(out)
    whole(method.sharded)
    assert all(is_whole(p) for p in method.parameters())
    return {name: value.clone() for name, value in method.state_dict().items()}


def learnt_in_two_goes(devices: int, folder: str) -> dict[str, torch.Tensor]:
    """Two steps, and two more from the checkpoint of the first two."""
    paths = [f"{folder}/{devices}-{steps}.ckpt" for steps in (2, 4)]
    learnt(devices, 2, paths[0])
    return learnt(devices, 4, paths[1], start=paths[0])


@pytest.mark.slow
def test_two_processes_with_shares_learn_what_one_learns_and_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    one, (two, _) = learnt_in_two_goes(1, str(tmp_path)), by_two(learnt_in_two_goes, 2, str(tmp_path))
    assert one.keys() == two.keys()
    start = torch.load(tmp_path / "1-2.ckpt", weights_only=True)["state_dict"]
    assert any(float((one[name] - start[name]).abs().max()) > 1e-3 for name in one if "blocks" in name)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    saved = [torch.load(tmp_path / f"{n}-4.ckpt", weights_only=True)["state_dict"] for n in (1, 2)]
    assert {name: value.shape for name, value in saved[0].items()} == {n: v.shape for n, v in saved[1].items()}


def test_whole_networks_are_clipped_and_grouped_as_before() -> None:
    torch.manual_seed(0)
    one, two = nn.Linear(4, 3), nn.Linear(4, 3)
    two.load_state_dict(one.state_dict())
    for limit in (100.0, 0.1):
        for net in (one, two):
            net.zero_grad()
            net(torch.ones(2, 4)).square().sum().backward()
        nn.utils.clip_grad_norm_(one.parameters(), limit)
        clip_gradients(two.parameters(), limit)
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)
    groups = [{"params": [one.weight], "lr": 1.0}, one.bias]
    assert apart(groups) is groups


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give devices=2"),
        ({"devices": 2, "ema": 0.9}, "ema needs the whole network"),
        ({"devices": 2, "compile": True}, "compile needs"),
    ],
)
def test_what_shares_can_not_have(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        selftaught.train(
            "simclr", "digits", out=str(tmp_path / "run"), steps=1, quiet=True, strategy="fsdp2", device="cpu", **given
        )
    with pytest.raises(UserError, match="this network has none"):
        shard(nn.Sequential(nn.Linear(2, 2)), None)
