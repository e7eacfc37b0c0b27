"""NNCLR: the positive is the nearest neighbour among past embeddings (Dwibedi et al., ICCV 2021, arXiv 2104.14548).

    nn(z) = argmax_{n in Q} <z, n>
    L = 1/2 [ l(nn(z_1), p_2) + l(nn(z_2), p_1) ]
    l(n, p) = mean_i -log( exp(n_i.p_i / tau) / sum_j exp(n_i.p_j / tau) )

z is the unit projection, p = predictor(z) of unit length, Q a queue of past z_1: positives differ more than any
augmentation makes them. With ``objective=dcl`` the sum leaves j = i out (arXiv 2110.06848).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, Positive, Widths
from selftaught.engine.distributed import gather, gather_labels
from selftaught.engine.method import Optimizer
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.methods._queue import fitted_queue, group_of, same_group
from selftaught.views import Pipeline

__all__ = ["NNCLR"]


@dataclass
class Config(JointEmbeddingConfig):
    """NNCLR's options; the defaults are the paper's ImageNet recipe."""

    optimizer: Optimizer = "lars"
    lr: float = 0.3
    weight_decay: float = 1e-6
    warmup_epochs: float = 10.0
    projector: str = "2048-2048-256"
    predictor: Widths = "4096"
    """Widths of the predictor's hidden layers."""
    temperature: Positive = 0.1
    """Temperature tau."""
    queue: Count = 98304
    """Embeddings in the queue; at most half the training set is taken."""
    objective: Literal["infonce", "dcl"] = "infonce"
    """dcl: the positive left out of the denominator."""
    symmetric: bool = True
    """Both directions; off keeps the neighbours of the first view alone."""
    mask: Literal["none", "image"] = "none"
    """image: an image's own past embedding is no neighbour of it."""


PRESETS = {
    "imagenet": {"epochs": 1000, "batch_size": 4096},
    "imagenet-dcl": {"objective": "dcl", "epochs": 400, "batch_size": 512},
    "medmnist": {
        "encoder": "resnet50", "image_size": 32, "queue": 65536, "temperature": 0.2, "lr": 0.4, "lars_eta": 0.02,
        "lars_clip": True, "weight_decay": 1e-5, "epochs": 400, "batch_size": 256,
    },
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-256-128", "predictor": "512",
        "queue": 4096, "mask": "image", "temperature": 0.2, "augment": "small", "crop": 0.2, "optimizer": "adamw",
        "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class NNCLR(JointEmbedding):
    """NNCLR on images of any number of channels, or on sensor series; with DCL as an option."""

    slug = "nnclr"
    config_class = Config
    config: Config

    def build(self) -> None:
        """Encoder, projector, predictor and the queue."""
        super().build()
        c = self.config
        width, hidden = int(str(c.projector).split("-")[-1]), [int(each) for each in str(c.predictor).split("-")]
        self.predictor = networks.mlp([width, *hidden, width], hidden_bias=False)
        self.queue = fitted_queue(c.queue, width, self.samples, labels=c.mask != "none")

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU twice, and Linear-BN."""
        return networks.mlp(widths, hidden_bias=False, out_bias=False, last_norm=True)

    def paper_views(self) -> list[Pipeline]:
        """T (always blurred) and T' (seldom blurred, sometimes solarised)."""
        return list(views.barlow_twins(self.config.image_size, scale=(self.config.crop, 1.0)))

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Neighbours of each view against the other's predictions, all gathered; then z_1 enters the queue."""
        c, own = self.config, group_of(batch, self.config.mask)
        z1, z2 = self.embed(batch)
        p1, p2 = gather(self.predictor(z1)), gather(self.predictor(z2))
        items, mask = self.queue.items, same_group(own, self.queue)
        near, far = (objectives.nearest(z, items, mask=mask)[0] for z in (z1, z2))
        loss = objectives.nnclr(
            p1, p2, gather(near), gather(far), temperature=c.temperature, symmetric=c.symmetric,
            include_positive=c.objective == "infonce",
        )  # fmt: skip
        unit = normalize(z1.detach().float())
        self.queue.push(gather(unit), None if own is None else gather_labels(own))
        return {"loss": loss, "neighbour_similarity": (unit * near).sum(1).mean()}
