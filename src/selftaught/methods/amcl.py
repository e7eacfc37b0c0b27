"""AMCL: several projection heads and a temperature for every pair, on four hosts (Wang et al., ECCV 2024, 2310.05615).

    tau_ij = tau_lo + (tau_hi - tau_lo) sigmoid(phi(z_i, z_j)),      Omega(tau) = (d/2) log tau + 1/tau
    L = sum over heads, mean over i of
            -s_i+/tau_i+ + beta Omega(tau_i+) + log sum_n exp(s_in/tau_in - beta Omega(tau_in))

Under strong augmentation one head and one temperature mix up positives and negatives. That is the form on SimCLR and
MoCo; ``negatives=max`` has the paper's hardest negative in place of the log-sum-exp. SimSiam has no negatives, and on
Barlow Twins the pairs are features. The encoder is used as the host's is; heads and phi are thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Form, NonNegative, Widths
from selftaught.engine.distributed import gather
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._queue import fitted_queue
from selftaught.views import ColorJitter, GaussianBlur, Grayscale, HorizontalFlip, Op, Pipeline, RandomResizedCrop

__all__ = ["AMCL"]
Transforms = Annotated[str, Form(r"(?=.*a)[abcde]+", "a (crop) and any of b blur, c grey, d colour, e flip, as acde")]


@dataclass
class Config(MomentumConfig):
    """AMCL's options; the defaults are the paper's on SimCLR, but with the log-sum-exp and narrow limits (see amcl)."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.06
    lr_scaling: Literal["linear", "none"] = "none"
    weight_decay: float = 5e-4
    projector: str = "512-128"
    target_schedule: Literal["cosine", "constant"] = "constant"
    host: Literal["simclr", "moco", "simsiam", "barlow"] = "simclr"
    """Method that gets several heads and temperatures."""
    heads: Count = 3
    """Projection heads C."""
    head_norm: Literal["none", "hidden", "all"] = "none"
    """BatchNorm in the heads: none, after hidden layers, or also at the end without scale and shift."""
    temp_net: Literal["dot", "concat", "fixed"] = "dot"
    """How a pair's temperature is predicted (dot: <phi(a), phi(b)>; concat: phi([a, b]), slow), or that it is fixed.
    On barlow every entry of the correlation has a score of its own instead of phi."""
    tau_lo: NonNegative = 0.0
    """Lowest temperature; 0 takes 0.05 (simclr, moco) or 0.5 (simsiam, barlow)."""
    tau_hi: NonNegative = 0.0
    """Highest temperature; 0 takes 0.2 (simclr, moco) or 2 (simsiam, barlow)."""
    temperature: NonNegative = 0.0
    """The fixed temperature; 0 takes 0.1 (simclr, moco) or 1 (simsiam, barlow)."""
    beta: NonNegative = 0.1
    """Weight of the temperatures' regulariser; 0 leaves it out."""
    detach_phi: bool = False
    """No gradient from the temperatures into the heads."""
    negatives: Literal["lse", "max"] = "lse"
    """Log-sum-exp over all negatives, or the paper's hardest one, which collapses with wide limits (simclr, moco)."""
    include_positive: bool = False
    """Count the positive among the negatives, as LGP and CAN do (simclr, moco)."""
    queue: Count = 4096
    """Keys in the queue (moco); at most half the training set is taken."""
    predictor: Widths = "128"
    """Widths of the predictors' hidden layers (simsiam)."""
    lambda_: NonNegative = 5e-3
    """Weight of the redundancy term (barlow)."""
    transforms: Transforms = "acde"
    """What the paper's views are made of: a crop (always), b blur, c grey, d colour distortion, e flip."""


PRESETS = {
    "cifar10": {"encoder": "resnet18", "image_size": 32, "epochs": 800, "batch_size": 512},
    "cifar10-published": {
        "encoder": "resnet18", "image_size": 32, "negatives": "max", "tau_lo": 0.01, "tau_hi": 2.0, "epochs": 800,
        "batch_size": 512,
    },
    "cifar10-moco": {
        "host": "moco", "encoder": "resnet18", "image_size": 32, "lr": 0.08, "epochs": 800, "batch_size": 512,
    },
    "cifar10-simsiam": {
        "host": "simsiam", "encoder": "resnet18", "image_size": 32, "projector": "2048-2048", "predictor": "512",
        "head_norm": "all", "lr": 0.05, "epochs": 800, "batch_size": 512,
    },
    "cifar10-barlow": {
        "host": "barlow", "encoder": "resnet18", "image_size": 32, "projector": "2048-2048-2048",
        "head_norm": "hidden", "lr": 0.11, "epochs": 800, "batch_size": 512,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "head_norm": "all", "augment": "small",
        "crop": 0.2, "optimizer": "adamw", "lr": 4e-3, "lr_scaling": "linear", "weight_decay": 0.05,
        "warmup_epochs": 1.0, "one_forward": True, "steps": 2000, "batch_size": 128,
    },
    "laptop-series": {
        "encoder": "resnet1d", "projector": "128-128", "head_norm": "all", "optimizer": "adam", "lr": 1e-3,
        "weight_decay": 1e-6, "epochs": 60, "batch_size": 256,
    },
}  # fmt: skip


class AMCL(MomentumEmbedding):
    """AMCL on images of any number of channels, or on sensor series; a momentum copy only with MoCo."""

    slug = "amcl"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, C heads, the network of the temperatures, and what the host has besides."""
        c = self.config
        if c.host == "moco":
            super().build()
        else:
            JointEmbedding.build(self)
        width = int(str(c.projector).split("-")[-1])
        self.phi: nn.Module | None = None
        if c.temp_net != "fixed":
            self.phi = (
                networks.TemperatureTable(c.heads, width)
                if c.host == "barlow"
                else networks.PairScore(width, c.temp_net)
            )
        if c.host == "moco":
            self.queue = fitted_queue(c.queue, c.heads * width, self.samples)
        if c.host == "simsiam":
            hidden = [int(w) for w in str(c.predictor).split("-")]
            self.predictor = networks.MultiHead(c.heads, [width, *hidden, width], hidden_bias=False)

    def head(self, widths: list[int]) -> nn.Module:
        """C heads of one shape, each initialised independently."""
        kind, last = self.config.head_norm, self.config.head_norm == "all"
        norm: Literal["bn", "none"] = "none" if kind == "none" else "bn"
        return networks.MultiHead(
            self.config.heads, widths, norm=norm, hidden_bias=norm == "none", out_bias=not last, last_norm=last,
            last_affine=False,
        )  # fmt: skip

    def paper_views(self) -> list[Pipeline]:
        """Two equal views of the chosen transforms, in SimCLR's order."""
        c = self.config
        ops: dict[str, Op] = {
            "a": RandomResizedCrop(c.image_size, (c.crop, 1.0)),
            "e": HorizontalFlip(),
            "d": ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            "c": Grayscale(0.2),
            "b": GaussianBlur(0.5),
        }
        kept = tuple(op for letter, op in ops.items() if letter in c.transforms)
        return [Pipeline(kept, name=f"view {i}") for i in (1, 2)]

    # ---- training --------------------------------------------------------------------------------------------
    @property
    def limits(self) -> dict[str, float]:
        """tau_lo, tau_hi and beta; equal limits where the temperature is fixed."""
        c, wide = self.config, self.config.host in ("simsiam", "barlow")
        lo, hi = c.tau_lo or (0.5 if wide else 0.05), c.tau_hi or (2.0 if wide else 0.2)
        if c.temp_net == "fixed":
            lo = hi = c.temperature or (1.0 if wide else 0.1)
        return {"tau_lo": lo, "tau_hi": hi, "beta": c.beta}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The host's loss; its parts and the mean temperatures are logged."""
        xs = self.seen(batch)
        z1, z2 = self.embed_views(xs)
        c = self.config
        scored: dict[str, Any] = self.limits | {"phi": self.phi, "detach_phi": c.detach_phi}
        contrast: dict[str, Any] = {"negatives": c.negatives, "include_positive": c.include_positive}
        if c.host == "simclr":
            return objectives.amcl_terms(gather(z1), gather(z2), **scored, **contrast)
        if c.host == "moco":
            return self.moco(xs, z1, z2, scored | contrast)
        if c.host == "simsiam":
            return objectives.amcl_simsiam_terms(self.predictor(z1), self.predictor(z2), z1, z2, **scored)
        scores = None if self.phi is None else self.phi()
        return objectives.amcl_barlow_twins_terms(
            gather(z1), gather(z2), scores=scores, lambda_=c.lambda_, **self.limits
        )

    def moco(self, xs: list[Tensor], q1: Tensor, q2: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
        """Both views are queries against one queue, which then takes in the second view's keys."""
        k1, k2 = self.embed_views(xs, self.target)
        queue = self.queue.items.view(len(self.queue), *q1.shape[1:]).clone()
        ways = [objectives.amcl_moco_terms(q, k, queue, **options) for q, k in ((q1, k2), (q2, k1))]
        self.queue.push(gather(normalize(k2.float(), dim=-1).flatten(1)))
        return {name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]}

    def after_step(self) -> None:
        """The momentum copy moves, where there is one."""
        if self.config.host == "moco":
            super().after_step()
