"""Killed at any moment and resumed, a run ends in the same weights as one that was never killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file

import selftaught
from selftaught.engine.checkpoint import Interrupted
from selftaught.errors import UserError
from tests.conftest import TINY
from tests.forked import Forked, run

pytestmark = pytest.mark.slow

COMMAND = ["--data", "digits", "--encoder", "resnet10-narrow", "--image-size", "32", "--projector", "32-16"]
COMMAND += ["--stem", "standard", "--augment", "grey", "--batch-size", "32", "--workers", "1"]
COMMAND += ["--steps", "36", "--checkpoint-steps", "4"]
COMMAND += ["--knn-every", "0.25", "--loggers", "none", "--ema", "0.9", "--accumulate", "2"]


def _start(out: Path, *more: str) -> Forked:
    return Forked(["train", *more, "--no-report"], out.parent)


def _wait_for_checkpoint(process: Forked, path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.02)


def _step(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True, map_location="cpu")["global_step"])


def test_sigkill_and_sigterm_then_resume_give_bit_identical_weights(tmp_path: Path) -> None:
    whole = _start(tmp_path / "whole", "simclr", *COMMAND, "--out", "whole")
    _, err = whole.communicate(timeout=400)
    assert whole.returncode == 0, err

    cut = _start(tmp_path / "cut", "simclr", *COMMAND, "--out", "cut")
    _wait_for_checkpoint(cut, tmp_path / "cut/checkpoints/train.ckpt")
    time.sleep(0.3)
    cut.kill()
    cut.communicate()
    killed_at = _step(tmp_path / "cut/checkpoints/train.ckpt")
    assert 0 < killed_at < 36
    assert not (tmp_path / "cut/encoder.safetensors").exists()

    again = _start(tmp_path / "cut", "--resume", "cut")
    mark = (tmp_path / "cut/checkpoints/train.ckpt").stat().st_mtime_ns
    while again.poll() is None and (tmp_path / "cut/checkpoints/train.ckpt").stat().st_mtime_ns == mark:
        time.sleep(0.02)
    again.signal_all(signal.SIGTERM)  # to its loader too, as timeout, systemd and scancel do
    _, err = again.communicate(timeout=200)
    assert again.returncode == 128 + signal.SIGTERM, err
    assert "selftaught train --resume cut" in err
    assert "Traceback" not in err
    assert killed_at < _step(tmp_path / "cut/checkpoints/train.ckpt") < 36

    last = _start(tmp_path / "cut", "--resume", "cut")
    _, err = last.communicate(timeout=400)
    assert last.returncode == 0, err
    for name in ("encoder.safetensors",):
        a, b = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    whole_state = torch.load(tmp_path / "whole/checkpoints/train.ckpt", weights_only=True)
    cut_state = torch.load(tmp_path / "cut/checkpoints/train.ckpt", weights_only=True)
    assert all(torch.equal(v, cut_state["state_dict"][k]) for k, v in whole_state["state_dict"].items())
    rows = [(tmp_path / n / "metrics.csv").read_text().splitlines() for n in ("whole", "cut")]
    assert len(rows[0]) == len(rows[1])  # no step twice, none missing


def test_two_stages_resume_between_and_inside(tmp_path: Path) -> None:
    options = {"epochs": 2, "batch_size": 16, "workers": 0, "quiet": True, "knn_every": 0, "scales": 8}
    whole = selftaught.train("frame-projections", "basic-motions", out=str(tmp_path / "a"), **options)
    cut = selftaught.train("frame-projections", "basic-motions", out=str(tmp_path / "b"), **options)
    # as if killed after the first stage: the second is undone
    import json

    state = json.loads((cut.path / "state.json").read_text())
    assert list(state["stages"]) == ["pretrain", "map"]
    del state["stages"]["map"]
    (cut.path / "state.json").write_text(json.dumps(state))
    (cut.path / "stages/map/checkpoints/map.ckpt").unlink()
    (cut.path / "encoder.safetensors").unlink()
    selftaught.train("frame-projections", resume=cut.path, quiet=True)
    a, b = load_file(whole.path / "encoder.safetensors"), load_file(cut.path / "encoder.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: writing fails part-way with an OSError."""
    code = f"""
import resource, sys
import selftaught
from selftaught.engine import checkpoint
options = {TINY | {"steps": 12, "checkpoint_steps": 4, "loggers": ["none"]}!r}
real = checkpoint.save_atomically
calls = []
def limited(trainer, path):
    calls.append(path)
    if len(calls) == 2:  # the first checkpoint is written, then the disk is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    found = real(trainer, path)
    if len(calls) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("problem:", found)
        import torch
        print("step kept:", torch.load(path, weights_only=True)["global_step"])
        print("left over:", [p.name for p in path.parent.iterdir()])
    return found
checkpoint.save_atomically = limited
selftaught.train("simclr", "digits", augment="grey", out="run", **options)
"""
    said = run(code, tmp_path)
    assert "the last good one stays" in said
    assert "step kept: 4" in said
    assert "left over: ['train.ckpt']" in said


def test_nan_stops_and_names_the_term_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    options = TINY | {"projector": "32-32-16", "steps": 60, "checkpoint_steps": 1, "optimizer": "sgd", "clip": 0.0}
    with pytest.raises(UserError, match=r"(loss term|weight) .* became NaN or infinite .* last good checkpoint"):
        selftaught.train("barlow-twins", "digits", out=str(tmp_path / "run"), augment="grey", lr=1e30, **options)
    state = torch.load(tmp_path / "run/checkpoints/train.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


def test_resume_refuses_other_options_and_other_data(tmp_path: Path) -> None:
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), augment="grey", **TINY)
    with pytest.raises(UserError, match="leave out lr"):
        selftaught.train("simclr", resume=run.path, lr=1.0)
    with pytest.raises(UserError, match="no such run folder"):
        selftaught.train("simclr", resume=tmp_path / "nowhere")


def test_a_second_ctrl_c_in_one_step_changes_nothing(tmp_path: Path) -> None:
    """Lightning ends a process that is interrupted twice without a word, and nothing of it was saved."""

    class Twice(L.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    options = {
        "encoder": "cnn-small", "image_size": 16, "projector": "16-8", "augment": "grey", "batch_size": 16, "steps": 8,
        "workers": 0, "quiet": True, "knn_every": 0, "loggers": ["none"], "out": str(tmp_path / "run"),
    }  # fmt: skip
    with pytest.raises(Interrupted):
        selftaught.train("simclr", "digits?n=60", callbacks=[Twice()], **options)
    done = selftaught.train("simclr", "digits?n=60", resume="auto", **options)
    assert (Path(done.path) / "encoder.safetensors").is_file()
