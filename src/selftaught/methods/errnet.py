"""ERRNet: reflections off photographs by residual blocks (Wei et al., CVPR 2019, arXiv 1904.00637).

L = 0.2 MSE(O, T) + 0.4 |grad O - grad T| + 0.1 sum_i w_i |phi_i(O) - phi_i(T)| + 0.01 L_G,    L_G from epoch 20 on

Pairs that were taken by moving the camera or the glass do not lie on each other; of them only the deepest maps tell:

    L = 0.1 |phi_h(O) - phi_h(T)| + 0.01 L_G,        phi_h of VGG19's conv5_2, before its activation

The body is 13 residual blocks of 256 channels, each channel of a branch with a factor of its own, and a tenth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from selftaught import networks, objectives
from selftaught.catalog.rules import NonNegative
from selftaught.engine.orders import Order
from selftaught.errors import UserError
from selftaught.methods._reflection import BLENDED, TRANSMISSION
from selftaught.methods.rrformer import Config as RRFormerConfig
from selftaught.methods.rrformer import RRFormer
from selftaught.networks.frozen import Frozen

__all__ = ["ERRNet"]


@dataclass
class Config(RRFormerConfig):
    """ERRNet's options; the defaults are the paper's for aligned pairs."""

    lr: float = 1e-4
    sfem: Literal["swin", "identity", "resblocks"] = "resblocks"
    dim: int = 256
    recipe: Literal["perceptual", "ceilnet", "linear"] = "ceilnet"
    flip: bool = True
    patch: int = 224
    aligned: bool = True
    """Whether the data's own pairs lie on each other; those of --misaligned PAIRS never do."""
    invariant_weight: NonNegative = 0.1
    """Weight of the loss of misaligned pairs, on the maps of VGG's conv5_2 (images of 1 or 3 channels)."""


PRESETS = {
    "ceilnet": {"epochs": 60, "batch_size": 1},
    "uhdrr": {"lr": 2e-4, "recipe": "perceptual", "flip": False, "patch": 256, "epochs": 100, "batch_size": 1},
    "misaligned": {"aligned": False, "epochs": 60, "batch_size": 1},
    "laptop": {
        "width": 24, "dim": 24, "resblocks": 4, "levels": 2, "final": "residual", "patch": 64,
        "discriminator_width": 8, "gan_epoch": 60, "lr": 2e-3, "schedule": "step",
        "decay_every": 0.6, "decay_factor": 0.25, "steps": 400, "batch_size": 4,
    },
}  # fmt: skip


class ERRNet(RRFormer):
    """ERRNet on aligned pairs, misaligned ones (--misaligned PAIRS, or --no-aligned), or both at once."""

    slug = "errnet"
    config_class = Config
    config: Config
    roles = ("data", "reflections", "misaligned")

    @classmethod
    def streams(cls, source: Any, given: dict[str, Any], opened: Callable[..., Any]) -> dict[str, Any]:
        """The aligned ones, and misaligned pairs where there are some.

        Raises:
            UserError: misaligned data without the fields of pairs.
        """
        found = super().streams(source, {role: one for role, one in given.items() if role != "misaligned"}, opened)
        if "misaligned" in given:
            pairs = opened(given["misaligned"])
            if not {BLENDED, TRANSMISSION} <= set(pairs.fields):
                folder = "pairs:DIR?blended=blended&transmission=transmission_layer"
                raise UserError(f"--misaligned: {pairs.name} has no fields {BLENDED} and {TRANSMISSION}; give {folder}")
            found["misaligned"] = pairs
        return found

    def order(self, source: Any, role: str) -> Order | None:
        """Shuffled; the pairs of the second stream say nothing of the first's fields."""
        return None if role == "misaligned" else super().order(source, role)

    def views_of(self, role: str, source: Any) -> Any:
        """Patches of the same place in both pictures of a misaligned pair, too."""
        return self.patches_of(source.fields) if role == "misaligned" else super().views_of(role, source)

    @cached_property
    def phi_h(self) -> Frozen:
        """The VGG whose deepest maps are alike for pictures that are shifted a little."""
        return networks.vgg_features(((5, 2),), weights=self.config.vgg_weights, activated=False).to(self.device)

    def pairs(self, batch: dict[str, Any]) -> list[tuple[Tensor, Tensor, Callable[..., dict[str, Tensor]]]]:
        """The data's pairs, and the misaligned ones."""
        blended, target, _ = self.blend(batch)
        found = [(blended, target, self.content_terms if self.config.aligned else self.invariant_terms)]
        if "misaligned" in batch:
            blended, target, _ = self.blend(batch["misaligned"])
            found.append((blended, target, self.invariant_terms))
        return found

    def invariant_terms(self, output: Tensor, target: Tensor, **logits: Tensor) -> dict[str, Tensor]:
        """The loss of pairs that don't lie on each other, with the adversarial term where logits are given."""
        c = self.config
        if output.shape[1] not in (1, 3):
            raise UserError(f"misaligned pairs: VGG sees 1 or 3 channels, not {output.shape[1]}")
        scale = networks.map_scale(self.phi_h)
        with torch.no_grad():
            wanted = scale * self.phi_h(2 * target - 1)[0]
        found = scale * self.phi_h(2 * output - 1)[0]
        invariant = objectives.rrformer_feature([found], [wanted], weights=(1.0,))
        terms = {"loss": c.invariant_weight * invariant, "invariant": invariant}
        if logits:
            terms["adversarial"] = objectives.rrformer_adversarial(**logits, gan=c.gan)
            terms["loss"] = terms["loss"] + c.gan_weight * terms["adversarial"]
        return terms

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms without the adversarial one; what is watched on held-out pictures."""
        (blended, target, terms), *_ = self.pairs(batch)
        return terms(self.restored(blended), target)
