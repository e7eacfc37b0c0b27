"""MoCHi: MoCo v2 with negatives mixed from its hardest ones (Kalantidis et al., NeurIPS 2020, arXiv 2010.01028).

For each query q, with n_i and n_j drawn from the N keys of the queue that score highest with it:

    h_m  = (alpha_m n_i + (1 - alpha_m) n_j) / ||.||,   alpha_m ~ U(0, 1),      m = 1..s
    h'_m = (beta_m  q   + (1 - beta_m)  n_j) / ||.||,   beta_m  ~ U(0, 1/2),    m = 1..s'

join the queue in the denominator of MoCo's loss. They are constants, never enter the queue, and wait for the end of a
warm-up, before which the hardest keys are noise. The recipe is written MoCHi (N, s, s').
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from selftaught import objectives
from selftaught.catalog.rules import Natural, NonNegative, Share
from selftaught.methods import moco_v2

__all__ = ["MoCHi"]


@dataclass
class Config(moco_v2.Config):
    """MoCHi's options; the defaults are the paper's ImageNet recipe, MoCHi (1024, 1024, 128)."""

    N: Natural = 1024
    """Hardest keys of the queue to mix, per query; at most the queue. All of the queue: mixed at random (ablation)."""
    s: Natural = 1024
    """Negatives mixed from two hard keys, per query; with s and s_prime 0 this is MoCo v2."""
    s_prime: Natural = 128
    """Negatives mixed from the query and a hard key, per query."""
    beta_max: Share = 0.5
    """Largest share of the query in those."""
    alpha_low: Share = 0.0
    """Smallest share of the first of two hard keys."""
    alpha_high: Share = 1.0
    """Largest share of the first of two hard keys."""
    mix_warmup_epochs: NonNegative = 15.0
    """Epochs before negatives are mixed, at most a fifth of the run."""
    normalize_mixed: bool = True
    """Bring mixtures back to length 1; off makes them easier (ablation)."""
    only_hard: bool = False
    """Of the queue, only the N hardest keys are negatives (ablation)."""


PRESETS = {
    "imagenet": {"epochs": 200, "batch_size": 512},
    "imagenet-800": {"N": 512, "s_prime": 512, "epochs": 800, "batch_size": 512},
    "imagenet-100": {
        "queue": 16384, "lr": 0.125, "lr_scaling": "none", "mix_warmup_epochs": 10.0, "epochs": 200, "batch_size": 128,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "queue": 4096, "mask": "image",
        "N": 256, "s": 128, "s_prime": 64, "target_decay": 0.99, "augment": "small", "optimizer": "adamw", "lr": 4e-3,
        "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class MoCHi(moco_v2.MoCoV2):
    """MoCo v2 in all but its negatives."""

    slug = "mochi"
    config_class = Config
    config: Config

    @property
    def mixes(self) -> bool:
        """Whether the warm-up is over."""
        per_epoch = max(1, self.epoch_batches // self.accumulate)
        return self.steps >= min(round(self.config.mix_warmup_epochs * per_epoch), self.total_steps // 5)

    def contrast(self, q: Tensor, k: Tensor, queue: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """MoCo's terms, after the warm-up with the mixed negatives."""
        if not self.mixes:
            return super().contrast(q, k, queue, mask)
        c = self.config
        return objectives.mochi_terms(
            q,
            k,
            queue,
            temperature=c.temperature,
            N=min(c.N, len(queue)),
            s=c.s,
            s_prime=c.s_prime,
            alpha_range=(c.alpha_low, c.alpha_high),
            beta_max=c.beta_max,
            normalize=c.normalize_mixed,
            only_hard=c.only_hard,
            include_positive=c.objective == "infonce",
            mask=mask,
        )
