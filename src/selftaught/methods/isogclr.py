"""iSogCLR: every sample owns its temperature (Qiu et al., ICML 2023, arXiv 2305.11965); SogCLR is the one that stays.

    F = (1/n) sum_i [ tau_i log E_{z in S_i^-} exp((e_i.e_z - e_i.e_i+) / tau_i) + tau_i rho ]

S_i^- are all other images of the training set: a moving average s_i per image stands for the mean over them, so that
small batches do. tau_i follows its own gradient, with momentum u_i, to where the negatives' weights are rho (in KL)
away from uniform: images with many alike get a large temperature, rare ones a small one. s, u and tau live in a table
with a row per image, in checkpoints, and shared out over processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Positive, Share
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.ema import cosine_decay
from selftaught.engine.method import LearningRateScaling, Optimizer
from selftaught.engine.sample_state import SampleState
from selftaught.errors import UserError
from selftaught.methods._joint_embedding import JointEmbedding
from selftaught.methods._momentum import MomentumConfig, MomentumEmbedding
from selftaught.methods._queue import fitted_queue
from selftaught.views import Pipeline

__all__ = ["ISogCLR"]


@dataclass
class Config(MomentumConfig):
    """iSogCLR's options; the defaults are the paper's recipe for ImageNet-100, ImageNet-LT and iNaturalist."""

    optimizer: Optimizer = "sgd"
    lr: float = 0.8
    lr_scaling: LearningRateScaling = "none"
    warmup_epochs: float = 10.0
    crop: float = 0.2
    projector: str = "8192-8192-8192"
    temperatures: Literal["individual", "global", "fixed"] = "individual"
    """A temperature for every image; one that is learnt; one that stays (SogCLR)."""
    temperature: Positive = 0.1
    """Temperature at the start."""
    rho: NonNegative = 0.4
    """Radius of the KL ball around uniform weights; larger makes temperatures smaller (0.1 to 0.5)."""
    eta: NonNegative = 0.03
    """Step size of the temperatures."""
    beta_u: Share = 0.5
    """Weight of the new value in the momentum of the temperatures' gradient."""
    gamma: Share = 0.8
    """Weight of the new value in the moving average; 1 looks at the batch alone."""
    gamma_schedule: Literal["constant", "cosine"] = "constant"
    """cosine: from 1 down to gamma over the first half of the run."""
    start: Literal["mean", "official"] = "mean"
    """Moving average of an image at its first visit: the batch's mean; official: gamma times it after the first epoch,
    as in the authors' code."""
    tau_min: Positive = 0.05
    """Lowest temperature."""
    tau_max: Positive = 1.0
    """Highest temperature."""
    form: Literal["official", "libauc"] = "official"
    """Details after the authors' code or after LibAUC (no clipping, other projector)."""
    host: Literal["batch", "queue"] = "batch"
    """Negatives from the batch, or from a queue of a momentum copy's keys (MoCo variant)."""
    queue: Count = 65536
    """Keys in the queue; at most half the training set is taken."""
    target_decay: float = 0.999
    target_schedule: Literal["cosine", "constant"] = "constant"


PRESETS = {
    "imagenet": {"epochs": 400, "batch_size": 256},
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "weight_decay": 5e-4, "epochs": 400, "batch_size": 128,
    },
    "libauc-cifar10": {
        "encoder": "resnet50", "image_size": 32, "projector": "2048-256", "form": "libauc", "temperature": 0.5,
        "gamma": 0.9, "tau_max": 0.7, "optimizer": "lars", "lr": 1.2, "weight_decay": 1e-6, "warmup_epochs": 2.0,
        "epochs": 50, "batch_size": 256,
    },
    "imagenet-queue": {"host": "queue", "projector": "2048-128", "epochs": 400, "batch_size": 256},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small",
        "temperature": 0.2, "optimizer": "adamw", "lr": 4e-3, "lr_scaling": "linear", "weight_decay": 0.05,
        "warmup_epochs": 1.0, "one_forward": True, "queue": 4096, "target_decay": 0.99, "steps": 2000,
        "batch_size": 128,
    },
}  # fmt: skip


class ISogCLR(MomentumEmbedding):
    """iSogCLR, with SogCLR and one learnt temperature as its baselines, on images of any number of channels."""

    slug = "isogclr"
    unwatchable = "has a temperature of its own for each training sample, which others have not"
    config_class = Config
    config: Config
    state: SampleState
    queue: networks.Queue
    shared_tau: Tensor
    shared_u: Tensor

    # ---- networks and state ----------------------------------------------------------------------------------
    def build(self) -> None:
        """Encoder and projector; for the queue the momentum copy, too; the table, where the samples are known."""
        c = self.config
        if c.form == "libauc" and c.host == "queue":
            raise UserError("form=libauc goes with host=batch; the queue has the authors' form only")
        if c.form == "libauc" and c.start != "mean":
            raise UserError(f"start={c.start} goes with form=official; LibAUC has a rule of its own")
        if not c.tau_min <= c.temperature <= c.tau_max and c.temperatures != "fixed":
            raise UserError(f"temperature={c.temperature}: it must lie between tau_min and tau_max")
        if c.host == "queue":
            super().build()
            self.queue = fitted_queue(c.queue, int(str(c.projector).split("-")[-1]), self.samples)
        else:
            JointEmbedding.build(self)
        self.register_buffer("shared_tau", torch.tensor(c.temperature))
        self.register_buffer("shared_u", torch.tensor(0.0))
        if self.samples:
            self.remember(self.samples)

    def remember(self, samples: int) -> None:
        """Make the table of ``samples`` rows."""
        self.samples = samples
        self.state = SampleState(samples, tau=self.config.temperature, s=0.0, u=0.0)
        self._ddp_params_and_buffers_to_ignore = self.state.buffer_names("state")

    def setup(self, stage: str) -> None:
        """A method built without its data learns their number from the trainer's."""
        source = getattr(getattr(self.trainer, "datamodule", None), "source", None)
        if not self.samples and source is not None:
            self.remember(len(source))
        self.check_samples()

    def check_samples(self) -> None:
        """Refuse to work without a table."""
        if not self.samples:
            raise UserError(f"{self.slug} keeps a temperature per image: build it with samples=len(source)")

    def on_train_start(self) -> None:
        """Every process keeps its share of the table."""
        self.state.spread()

    def on_train_end(self) -> None:
        """Every process has the whole table again."""
        self.state.join()

    def after_step(self) -> None:
        """The momentum copy moves, where there is one."""
        if self.config.host == "queue":
            super().after_step()

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU, and a Linear without bias; LibAUC: with a BN without scale and shift behind it."""
        libauc = self.config.form == "libauc"
        return networks.mlp(widths, hidden_bias=False, out_bias=False, last_norm=libauc, last_affine=False)

    def paper_views(self) -> list[Pipeline]:
        """Crop, flip, jitter (0.4, 0.4, 0.4, 0.1), grey 0.2, blur 0.5, at every size."""
        return list(views.dcl(self.config.image_size, scale=(self.config.crop, 1.0), blur=0.5))

    # ---- the loss --------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The surrogate whose gradient is F's, F's estimate, and the temperatures; the table takes the new state."""
        self.check_samples()
        index = gather_labels(batch["index"])
        kept = self.state.read(index)
        terms = self.compared(batch, kept)
        if self.training:
            self.write(index, terms)
        tau = kept["tau"] if self.config.temperatures == "individual" else self.shared_tau
        return {"loss": terms["loss"], "objective": terms["objective"], "temperature": tau.mean()}

    def compared(self, batch: dict[str, Any], kept: dict[str, Tensor]) -> dict[str, Tensor]:
        """The objective's terms for the gathered batch and its rows of the table."""
        c = self.config
        options: dict[str, Any] = {"rho": c.rho, "beta_u": c.beta_u, "gamma": self.gamma, "s": kept["s"]}
        options |= {"eta": c.eta, "tau_min": c.tau_min, "tau_max": c.tau_max, "tau": kept["tau"], "u": kept["u"]}
        if c.temperatures != "individual":
            options |= {"tau": self.shared_tau.expand_as(kept["s"]), "eta": 0.0}
        if c.temperatures == "fixed":
            options |= {"tau_min": c.temperature, "tau_max": c.temperature}
        if c.start == "official" and self.epochs_done >= 1:
            options["start"] = "zero"
        if c.host == "queue":
            return self.against_queue(batch, options)
        z1, z2 = (normalize(gather(z).float(), eps=1e-8) for z in self.embed(batch))
        step = objectives.isogclr_libauc_terms if c.form == "libauc" else objectives.isogclr_terms
        return step(z1, z2, **options)

    def against_queue(self, batch: dict[str, Any], options: dict[str, Any]) -> dict[str, Tensor]:
        """The first view's projections against the second's keys and the queue; the keys enter it afterwards."""
        x1, x2 = self.seen(batch)
        q, k = (normalize(gather(z).float(), eps=1e-8) for z in (self.project(x1), self.target(x2)))
        terms = objectives.isogclr_queue_terms(q, k, self.queue.items.clone(), **options)
        if self.training:
            self.queue.push(k)
        return terms

    @torch.no_grad()
    def write(self, index: Tensor, terms: dict[str, Tensor]) -> None:
        """Put the new state where it is kept: rows of the table, or one temperature for all."""
        c = self.config
        individual = c.temperatures == "individual"
        self.state.write(index, {name: terms[name] for name in (("tau", "s", "u") if individual else ("s",))})
        if c.temperatures == "global":
            self.shared_u.lerp_(terms["gradient"].mean().to(self.shared_u), c.beta_u)
            self.shared_tau.sub_(c.eta * self.shared_u).clamp_(c.tau_min, c.tau_max)

    @property
    def gamma(self) -> float:
        """The weight of the new value in the moving averages at this step."""
        c = self.config
        if c.gamma_schedule == "constant":
            return c.gamma
        return cosine_decay(round(self.progress * self.total_steps), self.total_steps // 2, 1.0, c.gamma)

    # ---- the temperatures ------------------------------------------------------------------------------------
    def temperatures(self) -> Tensor:
        """tau (N,) of every training image, in the source's order: sort by it to tell frequent content from rare."""
        if self.config.temperatures != "individual":
            return self.shared_tau.expand(self.samples).clone()
        return self.state.whole()["tau"].clone()


def temperatures(checkpoint: str | Path) -> Tensor:
    """tau (N,) of every training image, out of a run's ``checkpoints/train.ckpt``, in the order of its source.

    Raises:
        UserError: no such file, or not a checkpoint of iSogCLR.
    """
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]["state.tau"]
    except OSError:
        raise UserError(f"{checkpoint}: no such checkpoint; it is checkpoints/train.ckpt of a run's folder") from None
    except KeyError:
        raise UserError(f"{checkpoint} is no checkpoint of isogclr: it holds no temperatures") from None
