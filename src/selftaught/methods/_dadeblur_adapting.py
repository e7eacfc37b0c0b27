"""How DADeblur adapts to blurred videos: to a set of them at once, or to each before it is restored."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selftaught.data import Source, to_unit
from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.methods import _dadeblur_pairs as blurring

_LEAST = 7
"""Frames of a video that has a middle frame whose neighbours have neighbours themselves."""


class Adapting(Method):
    """The part of :class:`selftaught.methods.dadeblur.DADeblur` that adapts.

    Attributes:
        deblurrer, magnitude, diffusion: the networks; see there.
        restore: windows (N, C, 5, H, W) in [0, 1] to middle frames, shifted to [-0.5, 0.5].
        adapted: what was adapted to, by name.
        per_video: whether each video is adapted to in its turn.
    """

    deblurrer: Any
    magnitude: Any
    diffusion: Any
    restore: Callable[[Tensor], Tensor]
    adapted: list[str]
    per_video: bool = False

    def adapt(self, source: Source, per: str = "") -> None:
        """Fine-tune the deblurrer to blurred videos: to all of them now, or to each in its turn.

        Args:
            source: of blurred clips; no sharp ones are looked at.
            per: "set" or "video"; "" as the options say.

        Raises:
            UserError: nothing in any of the videos could be learnt from.
        """
        self.per_video, self.adapted = (per or self.config.per) == "video" and self._learns, []
        if self.per_video or not self._learns:
            return
        pairs = [pair for i in range(len(source)) for pair in self.pairs(source, i)]
        if not pairs:
            raise UserError(
                f"--adapt: {source.name} has no video of {_LEAST} frames or more with a sharp place; leave it out, or "
                "train with --min-box smaller or --ratio larger"
            )
        self.learn(pairs)
        self.adapted = [source.name]

    @property
    def _learns(self) -> bool:
        return self.config.adaptation != "none" and self.config.adapt_epochs > 0

    def face(self, source: Any, i: int) -> None:
        """Before a clip is restored, where each is adapted to: do so from the run's weights; one without a sharp place
        is restored by these.
        """
        if not self.per_video:
            return
        if not hasattr(self, "_trained"):
            self._trained = copy.deepcopy(self.deblurrer.state_dict())
        self.deblurrer.load_state_dict(self._trained)
        pairs = self.pairs(source, i)
        if pairs:
            self.learn(pairs)
            self.adapted.append(source.names[i])

    def pairs(self, source: Any, i: int) -> list[blurring.Pair]:
        """What the adaptation learns from clip i of a source of blurred videos."""
        c = self.config
        generator = torch.Generator().manual_seed(c.adapt_seed + 7919 * i)
        blurrer = blurring.Blurrer(c, self.diffusion, generator)
        found: list[blurring.Pair] = []
        self.eval()
        with torch.no_grad():
            for part in blurring.stretches(source, i):
                if len(part) < _LEAST:
                    continue
                frames = torch.from_numpy(to_unit(part, self.value_range)).permute(0, 3, 1, 2).float()
                shares = blurring.magnitudes(self.magnitude, frames, self.device)
                if c.adaptation == "reblur":
                    found += blurring.reblurring_pairs(frames, shares, blurrer, max(1, int(c.ratio * len(frames))))
                else:
                    found += blurring.sharp_pairs(frames, shares, blurrer, self.device)[0]
        return found

    def learn(self, pairs: list[blurring.Pair]) -> list[float]:
        """Fine-tune the deblurrer on pairs; returns the loss of every step."""
        generator = torch.Generator().manual_seed(self.config.adapt_seed)
        with torch.inference_mode(False), torch.enable_grad():
            self.deblurrer.requires_grad_(True)
            return blurring.fine_tune(self.restore, self.deblurrer, pairs, self.config, generator)
