"""Losses on frozen features: a run that goes on has the features that it began with."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from selftaught.engine.method import Method
from selftaught.errors import UserError
from selftaught.networks.frozen import Frozen

__all__: list[str] = []


class FrozenFeatures(Method):
    """Base of methods whose loss has frozen features, called ``perceptual``; loaded when the first loss needs them."""

    @cached_property
    def perceptual(self) -> Frozen:
        """The features phi; a run that is only applied never loads them."""
        raise TypeError(f"{type(self).__name__} names no features")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Which features the loss was computed with, so that a resumed run can't go on with others."""
        super().on_save_checkpoint(checkpoint)
        if "perceptual" in self.__dict__:
            checkpoint["frozen"] = {"name": self.perceptual.name, "hash": self.perceptual.hash}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other features than the run began with.

        Raises:
            UserError: it names both.
        """
        super().on_load_checkpoint(checkpoint)
        known = checkpoint.get("frozen")
        if known is not None and known["hash"] != self.perceptual.hash:
            raise UserError(
                f"the run began with the features of {known['name']} ({known['hash']}), here are those of "
                f"{self.perceptual.name} ({self.perceptual.hash}); begin a new run with --vgg-weights"
            )
