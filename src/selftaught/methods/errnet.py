"""ERRNet: reflections off photographs by residual blocks (Wei et al., CVPR 2019, arXiv 1904.00637).

L = 0.2 MSE(O, T) + 0.4 |grad O - grad T| + 0.1 sum_i w_i |phi_i(O) - phi_i(T)| + 0.01 L_G,    L_G from epoch 20 on

The body is 13 residual blocks of 256 channels, each channel of a branch with a factor of its own, and a tenth of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from selftaught.methods.rrformer import Config as RRFormerConfig
from selftaught.methods.rrformer import RRFormer

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


PRESETS = {
    "ceilnet": {"epochs": 60, "batch_size": 1},
    "uhdrr": {"lr": 2e-4, "recipe": "perceptual", "flip": False, "patch": 256, "epochs": 100, "batch_size": 1},
    "laptop": {
        "width": 24, "dim": 24, "resblocks": 4, "levels": 2, "final": "residual", "patch": 64,
        "discriminator_width": 8, "gan_epoch": 60, "lr": 2e-3, "schedule": "step",
        "decay_every": 0.6, "decay_factor": 0.25, "steps": 400, "batch_size": 4,
    },
}  # fmt: skip


class ERRNet(RRFormer):
    """ERRNet on aligned pairs; its loss for misaligned ones is left out."""

    slug = "errnet"
    config_class = Config
    config: Config
