"""A run that is cut off and goes on, beside one that was never cut: their checkpoints' states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import selftaught
from selftaught import methods


def cut_and_whole(
    slug: str, folder: Path, options: dict[str, Any], data: str = "digits", steps: int = 6
) -> tuple[dict, dict]:
    """State of an uncut run of some steps, and of one that is cut after two thirds and resumes from half of them."""
    kind = methods.get(slug)
    grey = {"augment": "grey"} if hasattr(kind.config_class, "augment") else {}
    options = grey | {"loggers": ["none"]} | options | {"steps": steps, "checkpoint_steps": steps // 2}
    selftaught.train(slug, data, out=str(folder / "whole"), **options)
    after = kind.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.steps == steps * 2 // 3:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train(slug, data, out=str(folder / "cut"), **options)
    path = folder / "cut/checkpoints/train.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == steps // 2
    selftaught.train(slug, resume=folder / "cut", quiet=True)
    whole, cut = (
        torch.load(folder / name / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    return whole, cut
