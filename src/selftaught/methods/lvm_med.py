"""LVM-Med: two views of a batch are two graphs, matched by a real solver (Nguyen et al., NeurIPS 2023, 2306.11925).

    vertices   zhat = g(h(f(x)), E), E the k nearest neighbours of a view's embeddings, g two graph convolutions
    affinities c^v_ia = alpha c^lo_ia + (1 - alpha) cos(zhat_i, zhat_a)
               c^e_{ia,jb} = cos(zhat_i - zhat_j, zhat_a - zhat_b)
    vhat = argmax_v <c^v, v> + sum over edge pairs of c^e v_ia v_jb        v a permutation matrix
    L    = Hamming(vhat, I) / 2N

c^lo compares feature maps location by location. The loss is piecewise constant; its gradient comes from a second solve
of affinities that are pushed towards the truth. Without the edges (``second_order=False``) it is the first-order
baseline, a linear assignment. Every process matches graphs of its own batch; nothing is gathered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, cat, nn

from selftaught import networks, objectives, views
from selftaught.catalog.rules import Count, NonNegative, Positive, Range, Share
from selftaught.engine.method import LearningRateScaling
from selftaught.errors import UserError
from selftaught.methods._joint_embedding import JointEmbedding, JointEmbeddingConfig
from selftaught.views import Pipeline

__all__ = ["LVMMed"]


@dataclass
class Config(JointEmbeddingConfig):
    """LVM-Med's options; the defaults are the paper's, and where it is silent those of the sheet."""

    lr: float = 1e-3
    lr_scaling: LearningRateScaling = "none"
    projector: str = "2048-256"
    crop: float = 0.2
    second_order: bool = True
    """Match edges too; off is the first-order baseline."""
    edge_weight: NonNegative = 1.0
    """Factor on the edges' affinity; 0.1 gives a vertex's dozen edges about the weight of the vertex itself."""
    alpha: Share = 0.8
    """Weight of the local affinity against the global one."""
    use_local: Literal["both", "feature", "location", "none"] = "both"
    """Local affinity by nearest features, by place in the image (where the loader passes the crops), both or none."""
    gamma: Count = 20
    """Location pairs to keep per pair of images."""
    k: Count = 5
    """Neighbours of a vertex in its graph."""
    use_mpn: bool = True
    """Pass messages along the edges before matching."""
    graph: Annotated[int, Range(2)] = 64
    """Vertices of a graph at most; a batch is divided into equal graphs."""
    solver: Literal["ipfp", "assignment", "exhaustive"] = "ipfp"
    """ipfp: integer projected fixed point; assignment: vertices alone; exhaustive: up to 8 vertices."""
    starts: Count = 4
    """Starts of ipfp."""
    gumbel_scale: NonNegative = 0.1
    """Scale of the noise on the affinities; 0 is deterministic."""
    lam: Positive = 80.0
    """Push towards the truth in the second solve."""
    kappa: Positive = 1.0
    """Scale of the gradient: 1, or 1/lam for black-box differentiation."""
    margin: NonNegative = 0.0
    """Taken from the true matches' affinity in the first solve."""


PRESETS = {
    "medical": {"epochs": 100, "batch_size": 200},
    "medical-vit": {"encoder": "vit_base_patch16_224", "lr": 1e-4, "epochs": 100, "batch_size": 175},
    "laptop": {
        "encoder": "resnet10-narrow", "image_size": 0, "projector": "256-128", "augment": "small", "crop": 0.2,
        "optimizer": "adamw", "lr": 4e-3, "lr_scaling": "linear", "weight_decay": 0.05, "warmup_epochs": 1.0,
        "edge_weight": 0.1, "one_forward": True, "steps": 2000, "batch_size": 128,
    },
}  # fmt: skip


class LVMMed(JointEmbedding):
    """LVM-Med and its first-order baseline, on images of any number of channels."""

    slug = "lvm-med"
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder f, the projector h and the message passing g."""
        super().build()
        c = self.config
        width = int(str(c.projector).split("-")[-1])
        self.messages = networks.MessagePassing(width) if c.use_mpn else None

    def head(self, widths: list[int]) -> nn.Module:
        """Linear-BN-ReLU-Linear."""
        return networks.mlp(widths, norm="bn", hidden_bias=False, out_bias=True)

    def paper_views(self) -> list[Pipeline]:
        """SimCLR's views with crops of at least a fifth."""
        return list(views.simclr(self.config.image_size, scale=(self.config.crop, 1.0)))

    # ---- graphs ----------------------------------------------------------------------------------------------
    def vertices(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (N, F) of a view, and its feature map (N, D, R, S) where local affinities are wanted."""
        if self.config.use_local == "none" or not self.spatial:
            return self.project(x), None
        embedding, maps = self.encoder.with_maps(x)  # type: ignore[operator]
        return self.projector(embedding), maps

    def global_vertices(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """zhat (n, F) after message passing, and the edges (E, 2) of the graph."""
        edges = objectives.knn_edges(z, self.config.k)
        return (self.messages(z, edges) if self.messages is not None else z), edges

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> dict[str, Any]:
        """Keep the crops of views that are made here."""
        params = batch.get("params")
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if params is None else batch | {"params": params}

    def centres(self, batch: dict[str, Any], maps: Tensor | None) -> list[Tensor] | list[None]:
        """Places (N, R*S, 2) of both views' cells in their images; None where not known or not asked for."""
        way = self.config.use_local
        if maps is None or way == "feature":
            return [None, None]
        if "params" not in batch:
            if way == "location":
                raise UserError("use_local=location needs the views' crops: use --view-device model, or use_local=both")
            return [None, None]
        boxes = [crop_boxes(p, values) for p, values in zip(self.learning_views(), batch["params"], strict=True)]
        return [objectives.grid_centres(b.to(maps.device), *maps.shape[2:]) for b in boxes]

    # ---- loss ------------------------------------------------------------------------------------------------
    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The share of wrong matches, over all graphs of the batch."""
        (z1, y1), (z2, y2) = self._both(self.seen(batch))
        s1, s2 = self.centres(batch, y1)
        count = math.ceil(len(z1) / self.config.graph)
        total: dict[str, Tensor] = {}
        for rows in torch.arange(len(z1), device=z1.device).tensor_split(count):
            part = [None if t is None else t[rows] for t in (z1, z2, y1, y2, s1, s2)]
            for name, value in self.match(*part).items():  # type: ignore[arg-type]
                total[name] = total.get(name, 0.0) + value * (len(rows) / len(z1))
        return total

    def match(
        self, z1: Tensor, z2: Tensor, y1: Tensor | None, y2: Tensor | None, s1: Tensor | None, s2: Tensor | None
    ) -> dict[str, Tensor]:
        """Match one pair of graphs: embeddings z (n, F), maps y (n, D, R, S), centres s (n, R*S, 2)."""
        c = self.config
        (h1, edges1), (h2, edges2) = self.global_vertices(z1), self.global_vertices(z2)
        local = None
        if y1 is not None and y2 is not None:
            only = c.use_local == "location"
            local = objectives.local_similarity(y1, y2, s1, s2, gamma=c.gamma, location_only=only)
        return objectives.lvm_med_terms(
            h1, h2, local=local, edges=(edges1, edges2), alpha=c.alpha, k=c.k, second_order=c.second_order,
            edge_weight=c.edge_weight, solver=c.solver, starts=c.starts, gumbel_scale=c.gumbel_scale, lam=c.lam,
            kappa=c.kappa, margin=c.margin,
        )  # fmt: skip

    def _both(self, xs: list[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
        x1, x2 = xs
        if not self.config.one_forward or x1.shape != x2.shape:
            return [self.vertices(x1), self.vertices(x2)]
        z, maps = self.vertices(cat([x1, x2]))
        halves = (None, None) if maps is None else maps.chunk(2)
        return list(zip(z.chunk(2), halves, strict=True))


def crop_boxes(pipeline: Pipeline, params: Any) -> Tensor:
    """(N, 5): top, left, height and width of each crop in the source image, and whether it was flipped.

    Args:
        pipeline: a view that begins with a resized crop.
        params: (N, P) its parameters.

    Raises:
        UserError: the view has no such crop.
    """
    columns = list(pipeline.columns)
    try:
        places = [columns.index(f"0.RandomResizedCrop.{name}") for name in ("top", "left", "height", "width")]
    except ValueError as error:
        raise UserError(f"{pipeline.name}: has no resized crop to tell places by; use use_local=feature") from error
    table = torch.as_tensor(params, dtype=torch.float32)
    flips = [i for i, column in enumerate(columns) if column.endswith("HorizontalFlip.flip")]
    return torch.cat([table[:, places], table[:, flips].sum(1, keepdim=True) % 2], 1)
