"""SLA: a better classifier from the same labels, by joint labels of class and transformation (Lee et al., ICML 2020).

Every image is transformed in M known ways t_0 = identity, ..., t_{M-1}; s_j = joint logits of t_j(x), N*M of them:

    L_SLA = 1/M sum_j CE(s_j, (y, j))                                    training
    p_AG  = softmax_c( 1/M sum_j s_j[c, j] )                             M passes, each copy read at its own j
    p_SI  = softmax_c( s_0[c, 0] )                                       one pass
    L_SD  = L_SLA + beta CE(u, y) + T^2 KL( sg(p_AG) || softmax(u) )     a second head u learns p_AG for one pass

Baselines in the same code: ``baseline`` (cross-entropy), ``da`` (every copy has the image's label), ``mt`` (class and
transformation as two tasks). arXiv 1910.05872.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Form, Natural, NonNegative, Positive, PositiveShare, Range
from selftaught.engine.distributed import gather_labels
from selftaught.engine.method import LearningRateScaling, Optim, Optimizer, Schedule
from selftaught.engine.optim import parameter_groups
from selftaught.errors import UserError
from selftaught.methods._encoder import ClassifierConfig, ClassifierMethod, accuracy
from selftaught.methods._sla_classifier import SLAClassifier, few_shot_split
from selftaught.views import CenterCrop, ColorJitter, HorizontalFlip, Op, Pipeline, RandomResizedCrop, Resize
from selftaught.views import transformations as tf

__all__ = ["SLA"]

_SMALL_IMAGE = 40
_SHIFT = 4
Shares = Annotated[str, Form(r"(0|1|0?\.\d+)(-(0|1|0?\.\d+))*", "shares of the run joined by dashes, as 0.5-0.75")]


@dataclass
class Config(ClassifierConfig):
    """SLA's options; the defaults are the paper's for images of 224 pixels."""

    encoder: str = "resnet18"
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    lr_scaling: LearningRateScaling = "none"
    schedule: Schedule = "step"
    decay_factor: float = 0.1
    milestones: Shares = "0.5-0.75"
    """Shares of the run after which the step schedule decays."""
    mode: Literal["sla", "sla+sd", "da", "mt", "baseline"] = "sla"
    """sla; with self-distillation; data augmentation; multi-task; plain supervised."""
    transform: str = "rotation"
    """rotation, rotation2, color_perm, color_perm3, rot_color_perm6, ...12, ...24, or module:name of your own list."""
    inference: Literal["auto", "aggregate", "single", "distilled", "ten-crop"] = "auto"
    """How to predict; auto: distilled for sla+sd, aggregate for sla, else single."""
    T: Positive = 1.0
    """Temperature of the distillation."""
    beta: NonNegative = 1.0
    """Weight of the single head's cross-entropy."""
    large_loss: bool = False
    """Sum over the transformations instead of their mean (the paper's choice on large sets)."""
    imbalance: Literal["none", "reweight", "drw", "ldam", "ldam-drw"] = "none"
    """For uneven classes: weights by effective number, the same in the last fifth only (drw), margins (ldam), both."""
    labelled: PositiveShare = 1.0
    """Share of the samples whose label is used; the others teach their transformation only (semi-supervised)."""
    episodes: Literal["none", "prototypes", "ridge"] = "none"
    """Few-shot training in episodes drawn from each batch: ProtoNet's head, or MetaOptNet's with ridge regression."""
    ways: Annotated[int, Range(2)] = 5
    """Classes of an episode."""
    shots: Count = 5
    """Support images per class of an episode."""
    jitter: NonNegative = 0.0
    """Strength of colour jitter (0.4 on iNaturalist)."""
    cutout: Natural = 0
    """Side of Cutout's square in pixels."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix; 0 mixes nothing."""
    autoaugment: bool = False
    """torchvision's AutoAugment with the CIFAR-10 policy, on images of 1 or 3 channels."""
    ensemble: Count = 1
    """Independent networks trained side by side, mode baseline only: the comparison at equal inference cost."""


PRESETS = {
    "cifar10": {"encoder": "cresnet32", "image_size": 32, "steps": 80000, "batch_size": 128},
    "cifar100": {"encoder": "cresnet32", "image_size": 32, "steps": 80000, "batch_size": 128},
    "cifar-lt": {
        "encoder": "cresnet32", "image_size": 32, "mode": "sla+sd", "imbalance": "ldam-drw", "steps": 80000,
        "batch_size": 128,
    },
    "fine-grained": {"steps": 80000, "batch_size": 128},
    "imagenet": {
        "encoder": "resnet50", "mode": "sla+sd", "large_loss": True, "milestones": "0.333-0.667", "epochs": 90,
        "batch_size": 128,
    },
    "inat": {
        "encoder": "resnet50", "mode": "sla+sd", "large_loss": True, "milestones": "0.333-0.667", "jitter": 0.4,
        "epochs": 90, "batch_size": 128,
    },
    "few-shot": {"image_size": 84, "episodes": "prototypes", "steps": 60000, "batch_size": 256},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "optimizer": "adamw", "lr": 4e-3, "lr_scaling": "linear",
        "weight_decay": 0.05, "warmup_epochs": 1.0, "schedule": "cosine", "crop": 0.5, "steps": 1500, "batch_size": 64,
    },
}  # fmt: skip


class SLA(ClassifierMethod):
    """SLA with its baselines, its inference modes and its settings for few, uneven and missing labels."""

    slug = "sla"
    unwatchable = "knows of each training sample whether its label is given, which others have not"
    config_class = Config
    config: Config
    counts: Tensor
    known: Tensor
    centres: Tensor

    # ---- networks --------------------------------------------------------------------------------------------
    def build(self) -> None:
        """The encoder, and the heads that the mode needs."""
        c = self.config
        self._check()
        self.transformations = tf.transformations("identity" if c.mode == "baseline" else c.transform)
        tf.copies(torch.zeros(1, self.channels, 8, 8), self.transformations)  # refuses what these images don't admit
        self.encoder = self._encoder()
        self.heads = self._heads()
        members = [nn.ModuleList([self._encoder(), self._heads()]) for _ in range(c.ensemble - 1)]
        self.others = nn.ModuleList(members)
        copies, width = len(self.transformations), int(self.encoder.dim)  # type: ignore[arg-type]
        self.register_buffer("counts", torch.zeros(self.classes))
        chosen = torch.randperm(self.samples, generator=torch.Generator().manual_seed(0))
        self.register_buffer("known", chosen < round(c.labelled * self.samples))
        self.register_buffer("centres", torch.zeros(self.classes * copies if c.episodes != "none" else 0, width))

    def _check(self) -> None:
        c = self.config
        if c.ensemble > 1 and c.mode != "baseline":
            raise UserError(f"ensemble={c.ensemble}: more than 1 only with mode=baseline")
        if c.inference == "distilled" and c.mode != "sla+sd":
            raise UserError(f"inference=distilled needs the second head: use mode=sla+sd, not {c.mode}")
        if c.labelled < 1 and self.samples < 1:
            raise UserError(f"labelled={c.labelled}: a share of a training set of known size; give samples=len(source)")
        if c.episodes != "none" and c.mode not in ("sla", "baseline"):
            raise UserError(f"episodes need mode=sla or baseline, not {c.mode}")
        if c.episodes != "none" and (c.imbalance != "none" or c.labelled < 1 or c.cutmix or c.ensemble > 1):
            raise UserError("episodes go without imbalance, labelled, cutmix and ensemble")
        if c.autoaugment and self.channels not in (1, 3):
            raise UserError(f"autoaugment works on 1 or 3 channels, the images have {self.channels}")

    def _encoder(self) -> nn.Module:
        c = self.config
        if c.encoder in networks.CIFAR_RESNETS:
            return networks.CIFARResNet(c.encoder, channels=self.channels)
        return networks.encoder(
            c.encoder, channels=self.channels, image_size=c.image_size, stem=c.stem, pretrained=c.pretrained
        )

    def _heads(self) -> nn.ModuleDict:
        """Linear layers: joint (N*M), single (N), transformation (M)."""
        c, copies = self.config, len(self.transformations)
        widths = {"joint": self.classes * copies, "single": self.classes, "transformation": copies}
        chosen = {
            "baseline": ("single",), "da": ("single",), "mt": ("single", "transformation"), "sla": ("joint",),
            "sla+sd": ("joint", "single"),
        }[c.mode]  # fmt: skip
        if c.episodes != "none":
            return nn.ModuleDict()
        bias = "ldam" not in c.imbalance
        width = int(self.encoder.dim)  # type: ignore[arg-type]
        return nn.ModuleDict({name: nn.Linear(width, widths[name], bias=bias) for name in chosen})

    # ---- views -----------------------------------------------------------------------------------------------
    @property
    def _shifts(self) -> bool:
        return self.config.augment == "paper" and self.config.image_size <= _SMALL_IMAGE

    def paper_views(self) -> list[Pipeline]:
        """Small images: flip (and a shift by up to 4 pixels, on the device); large ones: resized crop and flip."""
        c = self.config
        ops: list[Op] = [RandomResizedCrop(c.image_size, (c.crop, 1.0)), HorizontalFlip()]
        if self._shifts:
            ops = [Resize(c.image_size), CenterCrop(c.image_size), HorizontalFlip()]
        if c.jitter:
            ops.append(ColorJitter(c.jitter, c.jitter, c.jitter, min(0.5, 0.625 * c.jitter), p=1.0))
        return [Pipeline(tuple(ops), name="view")]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> dict[str, Any]:
        """AutoAugment, image by image, before views are normalised."""
        if self.config.autoaugment and self.training:
            from torchvision.transforms import v2

            policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
            for key in ("views", "images"):
                if key in batch:
                    stacks = batch[key] if key == "views" else [batch[key]]
                    made = [torch.stack([policy(image) for image in stack]) for stack in stacks]
                    batch[key] = made if key == "views" else made[0]
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def augmented(self, x: Tensor) -> Tensor:
        """The shift of small images, and Cutout."""
        if self._shifts:
            x = tf.random_shift(x, _SHIFT, -self.pixel_mean / self.pixel_std)
        return tf.cutout(x, self.config.cutout) if self.config.cutout else x

    # ---- loss ------------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mode's loss on all copies of the batch."""
        c = self.config
        x, labels = self.augmented(batch["views"][0]), batch["label"]
        if c.labelled < 1:
            labels = torch.where(self.known[batch["index"]], labels, objectives.UNLABELLED)
        if c.imbalance != "none" and self.training:
            every = gather_labels(labels)
            self.counts += torch.bincount(every[every >= 0], minlength=self.classes)
        if c.episodes != "none":
            return self._episode(x, labels)
        if not c.cutmix:
            return self._terms(x, [(labels, torch.ones((), device=x.device))])
        x, partner, kept = tf.cutmix(x, c.cutmix)
        return self._terms(x, [(labels, kept), (labels[partner], 1 - kept)])

    def _terms(self, x: Tensor, targets: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """The sum over targets (labels (B,), share) of the criterion, and over the members of an ensemble."""
        copies = tf.copies(x, self.transformations)
        total: dict[str, Tensor] = {}
        for encoder, heads in self._members():
            logits = SLAClassifier.scores(heads, encoder(copies))
            for labels, share in targets:
                for name, value in self._criterion(logits, labels).items():
                    total[name] = total.get(name, 0.0) + share * value
        return total

    def _criterion(self, logits: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        c = self.config
        uneven = self._uneven()
        if c.mode in ("sla", "sla+sd"):
            return objectives.sla_terms(
                logits["joint"], labels, logits.get("single"), T=c.T, beta=c.beta, large_loss=c.large_loss, **uneven
            )
        if c.mode == "mt":
            return {"loss": objectives.sla_mt(logits["single"], logits["transformation"], labels, **uneven)}
        return {"loss": objectives.sla_da(logits["single"], labels, **uneven)}

    def _uneven(self) -> dict[str, Tensor]:
        """Class weights and margins from the labels seen so far, scaled to the size of the training set."""
        way = self.config.imbalance
        counts = self.counts * (self.samples / self.counts.sum().clamp_min(1)) if self.samples else self.counts
        found = {}
        if way == "reweight" or (way.endswith("drw") and self.progress >= 0.8):
            found["class_weights"] = objectives.effective_weights(counts)
        if way.startswith("ldam"):
            found["margins"] = SLAClassifier.SCALE * objectives.ldam_margins(counts)
        return found

    def _episode(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One episode out of the batch: every class and transformation is a class of its own."""
        c, copies = self.config, len(self.transformations)
        z = self.encoder(tf.copies(x, self.transformations)).float().view(len(x), copies, -1)
        self._follow(z.detach(), labels)
        support, query, names = few_shot_split(labels, c.ways, c.shots)
        place = torch.zeros(self.classes, dtype=torch.int64, device=x.device)
        place[names] = torch.arange(len(names), device=x.device)
        joint = objectives.sla_episode(
            z[support].flatten(0, 1), place[labels[support]], z[query].flatten(0, 1), classes=len(names),
            copies=copies, head=c.episodes,
        )  # fmt: skip
        truth = place[labels[query]]
        hits = accuracy(objectives.sla_aggregate(joint.detach(), copies), truth)
        return {"loss": objectives.sla(joint, truth, large_loss=c.large_loss), "accuracy": hits}

    @torch.no_grad()
    def _follow(self, z: Tensor, labels: Tensor) -> None:
        """Running means of every class and transformation, for predictions among the training classes."""
        if not self.training:
            return
        z, labels = gather_labels(z.flatten(1)).view(-1, *z.shape[1:]), gather_labels(labels)
        hot = torch.nn.functional.one_hot(labels, self.classes).to(z)
        number = hot.sum(0)
        means = torch.einsum("bc,bmd->cmd", hot, z) / number.clamp_min(1)[:, None, None]
        old = self.centres.view_as(means)
        seen = (self.counts > 0)[:, None, None]
        moved = torch.where(seen, old.lerp(means, 0.1), means)
        old.copy_(torch.where((number > 0)[:, None, None], moved, old))
        self.counts += number

    @torch.no_grad()
    def few_shot(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Aggregated logits (Q, N) of normalised query images among N new classes, from a labelled support.

        Args:
            support: (S, C, H, W) normalised images.
            labels: (S,) classes 0 .. N-1, each at least once.
            query: (Q, C, H, W) normalised images.
        """
        copies = len(self.transformations)
        z, q = (self.encoder(tf.copies(images, self.transformations)).float() for images in (support, query))
        head = "ridge" if self.config.episodes == "ridge" else "prototypes"
        classes = int(labels.max()) + 1
        joint = objectives.sla_episode(z, labels, q, classes=classes, copies=copies, head=head)
        return objectives.sla_aggregate(joint, copies)

    # ---- optimiser -------------------------------------------------------------------------------------------
    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """With SGD everything decays, as in the authors' recipe."""
        c = self.config
        return parameter_groups(self.trained_modules(), c.weight_decay, exclude_bias_and_norm=c.optimizer != "sgd")

    def optimisers(self) -> dict[str, Optim]:
        """The config's optimiser; the step schedule decays at the named shares of the run."""
        main = super().optimisers()["main"]
        if self.config.schedule == "step":
            total = self.total_steps
            main.milestones = [round(total * float(share)) for share in self.config.milestones.split("-")]
            main.warmup = 0
        return {"main": main}

    # ---- inference -------------------------------------------------------------------------------------------
    def _members(self) -> list[tuple[nn.Module, nn.ModuleDict]]:
        return [(self.encoder, self.heads), *((m[0], m[1]) for m in self.others)]  # type: ignore[index]

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Class logits (N, K) by the chosen inference."""
        return self.deliverable()(batch["views"][0])

    def deliverable(self) -> nn.Module:
        """Normalised images in, class logits out."""
        c = self.config
        own = {"sla": "aggregate", "sla+sd": "distilled"}.get(c.mode, "single")
        inference = own if c.inference == "auto" else c.inference
        centres = self.centres if c.episodes != "none" else None
        return SLAClassifier(self._members(), self.transformations, inference, centres)

    def deliverable_spec(self) -> dict[str, Any]:
        """Sizes, the transformations and the way of inference."""
        c = self.config
        names = {"mode": c.mode, "transform": c.transform, "inference": c.inference, "ensemble": c.ensemble}
        return {"name": "sla", "classes": self.classes, "encoder": dict(self.encoder.spec)} | names  # type: ignore[arg-type]
