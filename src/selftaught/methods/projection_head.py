"""The projection-head study: what should sit on top of the representation while it is trained?

(Xue, Gan, Ni, Joshi, Mirzasoleiman: ICLR 2024, arXiv 2403.11391.)

    h = f(x),   z = g(h),      loss in {NT-Xent(z1, z2), spectral(z1, z2), SupCon(z, y), cross-entropy(C(z), y)}

g is nothing, a linear layer, an MLP, an MLP that starts as the identity, or the fixed weights z_i = kappa^(-i) h_i. The
layers of a network weigh features more and more unequally; what the loss does not ask for (since augmentation destroys
it, since coarse labels do not need it) is weaker in z than in h. Compare the two: ``layer`` says which one to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught import networks, objectives
from selftaught.catalog.rules import Positive, Share
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import Optimizer
from selftaught.errors import UserError
from selftaught.evaluation.layerwise import layer_features, layer_names
from selftaught.methods._encoder import EncoderConfig, EncoderMethod, accuracy
from selftaught.views import Pipeline

__all__ = ["ProjectionHead"]

SUPERVISED = ("supcon", "ce")


@dataclass
class Config(EncoderConfig):
    """Options of the projection-head study; the defaults are those of its SimCLR experiments."""

    head: Literal["none", "linear", "mlp", "mlp2", "identity-mlp", "reweight"] = "mlp"
    """What sits on the encoder while it is trained; all heads keep the width."""
    kappa: Positive = 1.05
    """Fixed reweighting: weight i is kappa^-i; 1 is no head."""
    normalise_weights: bool = False
    """Fixed reweighting: scale the weights so that the mean of their squares is 1."""
    objective: Literal["simclr", "spectral", "supcon", "ce"] = "simclr"
    """simclr and spectral compare two views; supcon and ce (cross-entropy) learn from labels."""
    temperature: Positive = 0.5
    """Temperature of simclr and supcon."""
    supcon_views: Literal[1, 2] = 1
    """Views of each image that supcon compares."""
    coarse: str = ""
    """Coarse class of every class, as 0-0-1-1: trained with these, judged with the fine ones; empty: no change."""
    frozen: Share = 0.0
    """Share of the run at its start in which only head and classifier learn (fine-tuning of pretrained encoders)."""
    layer: Literal["pre", "post", "block"] = "pre"
    """What evaluate and apply take: before the head, after it, or one stage of the encoder earlier."""
    optimizer: Optimizer = "sgd"
    lr: float = 0.03


PRESETS = {
    "cifar10": {
        "encoder": "resnet18", "image_size": 32, "augment": "small", "weight_decay": 5e-4, "epochs": 400,
        "batch_size": 256,
    },
    "waterbirds": {
        "objective": "supcon", "pretrained": True, "crop": 0.7, "lr": 1e-3, "lr_scaling": "none", "weight_decay": 1e-3,
        "schedule": "constant", "epochs": 100, "batch_size": 32,
    },
    "imagenet": {
        "objective": "ce", "head": "reweight", "kappa": 1.01, "pretrained": True, "crop": 0.7, "lr": 0.1,
        "lr_scaling": "none", "weight_decay": 1e-4, "frozen": 0.5, "schedule": "constant", "epochs": 20,
        "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "augment": "small", "crop": 0.2, "temperature": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "one_forward": True,
        "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class ProjectionHead(EncoderMethod):
    """One encoder, a choice of heads, a choice of losses, and the features before or after the head."""

    slug = "projection-head"
    config_class = Config
    config: Config
    coarse_of: Tensor

    def build(self) -> None:
        """Encoder f, head g, and a classifier for cross-entropy."""
        super().build()
        c, dim = self.config, int(self.encoder.dim)  # type: ignore[arg-type]
        if c.objective in SUPERVISED and self.classes < 2:
            raise UserError(
                f"objective={c.objective} learns from labels: give data with class folders, or objective=simclr"
            )
        self.head = networks.projection_head(c.head, dim, kappa=c.kappa, normalise_weights=c.normalise_weights)
        self.register_buffer("coarse_of", self._coarse_classes(), persistent=False)
        self.classifier = nn.Linear(dim, int(self.coarse_of.max()) + 1) if c.objective == "ce" else nn.Identity()

    def _coarse_classes(self) -> Tensor:
        c = self.config
        fine = torch.arange(max(self.classes, 1))
        if not c.coarse or c.objective not in SUPERVISED:
            return fine
        parts = c.coarse.split("-")
        if len(parts) != self.classes or not all(part.isdigit() for part in parts) or len(set(parts)) < 2:
            raise UserError(
                f"coarse={c.coarse}: give the coarse class of each of the {self.classes} classes, two or more kinds, "
                "joined by dashes"
            )
        return torch.tensor([int(part) for part in parts])

    def views(self) -> list[Pipeline]:
        """Two views for comparison, one for labels alone."""
        c = self.config
        return self.chosen_views({"ce": 1, "supcon": c.supcon_views}.get(c.objective, 2))

    # ---- the objective ---------------------------------------------------------------------------------------
    def project(self, x: Tensor) -> Tensor:
        """z = g(f(x)), (N, D); at the start of a frozen run without gradient to f."""
        if self.progress >= self.config.frozen:
            return self.head(self.encoder(x))
        was = self.encoder.training
        self.encoder.eval()
        with torch.no_grad():
            h = self.encoder(x)
        self.encoder.train(was)
        return self.head(h)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Views through encoder and head, then the chosen loss."""
        c = self.config
        zs = self.embed_views(self.seen(batch), self.project)
        labels = self.coarse_of[batch["label"]] if c.objective in SUPERVISED else None
        if c.objective == "ce":
            logits = self.classifier(zs[0])
            loss = objectives.projection_head(logits, labels=labels, loss="ce")
            return {"loss": loss, "accuracy": accuracy(logits, self.coarse_of[batch["label"]])}
        if labels is not None:
            labels = gather_labels(labels)
        gathered = [gather(z) for z in zs[: c.supcon_views if c.objective == "supcon" else 2]]
        return {
            "loss": objectives.projection_head(*gathered, labels=labels, loss=c.objective, temperature=c.temperature)
        }

    # ---- what one keeps --------------------------------------------------------------------------------------
    def layers(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Features (N, d) of every layer, in order: the encoder's stages, ``h``, the head's layers, ``z``."""
        x = self.inputs(batch)
        found = layer_features(self.encoder, x)
        inside = layer_features(self.head, found["h"])
        z = inside.pop("h")
        return found | {f"head.{name}": value for name, value in inside.items()} | {"z": z}

    def features(self, batch: dict[str, Any]) -> Tensor:
        """h before the head, z after it, or the pooled output of the encoder's last stage but one."""
        layer = self.config.layer
        if layer == "block":
            x = self.inputs(batch)
            earlier = layer_names(self.encoder)[-2]
            return layer_features(self.encoder, x, [earlier])[earlier]
        h = super().features(batch)
        return h if layer == "pre" else self.head(h)

    def deliverable(self) -> nn.Module:
        """The encoder; with the head on it where the features after it are asked for."""
        return nn.Sequential(self.encoder, self.head) if self.config.layer == "post" else self.encoder

    def deliverable_spec(self) -> dict[str, Any]:
        """The encoder's account, and the head's."""
        encoder, c = super().deliverable_spec(), self.config
        if c.layer != "post":
            return encoder
        head = {"head": c.head, "kappa": c.kappa, "normalise_weights": c.normalise_weights}
        return {"name": "projected", "encoder": encoder, "dim": encoder["dim"]} | head
