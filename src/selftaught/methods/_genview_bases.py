"""The losses of six two-view methods with a weight for every pair: what GenView puts on top of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from selftaught import objectives
from selftaught.engine.distributed import gather, gather_labels, is_distributed
from selftaught.methods._queue import group_of, same_group

Weighted = Callable[[Any, list[Tensor], Tensor, dict[str, Any]], dict[str, Tensor]]
"""(the base method, its views, the weights (B,) of the local pairs, the batch) -> named terms."""


def _moco_v3(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    q1, q2 = (gather(q) for q in base.embed_views(xs, base.predicted))
    k1, k2 = (gather(k) for k in base.embed_views(xs, base.target))
    loss = objectives.genview_moco_v3(q1, q2, k1, k2, gather(weights), temperature=base.config.temperature)
    return {"loss": loss, "agreement": cosine_similarity(q1.detach().float(), k2.float()).mean()}


def _simsiam(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    z1, z2 = base.embed_views(xs)
    loss = objectives.genview_simsiam(base.predictor(z1), base.predictor(z2), z1, z2, weights)
    return {"loss": loss, "spread": objectives.spread(z1)}


def _byol(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    """2 - 2 cos in both directions is 4 + 4 times SimSiam's loss, as the weights' mean is 1."""
    z1, z2 = base.embed_views(xs)
    t1, t2 = base.embed_views(xs, base.target)
    loss = 4 + 4 * objectives.genview_simsiam(base.predictor(z1), base.predictor(z2), t1, t2, weights)
    return {"loss": loss, "spread": objectives.spread(z1)}


def _simclr(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    z1, z2 = (gather(z) for z in base.embed_views(xs))
    loss = objectives.genview_simclr(z1, z2, gather(weights), temperature=base.config.temperature)
    return {"loss": loss, "agreement": cosine_similarity(z1.detach().float(), z2.detach().float()).mean()}


def _moco_v2(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    c, own = base.config, group_of(batch, base.config.mask)
    directions = [(0, 1), (1, 0)][: len(base.queues)]
    queries = [normalize(q.float(), eps=1e-8) for q in base.embed_views([xs[a] for a, _ in directions])]
    keys = [normalize(k.float()) for k in base.embed_views([xs[b] for _, b in directions], base.keys)]
    found = []
    for q, k, queue in zip(queries, keys, base.queues, strict=True):
        known, mask = queue.items.clone(), same_group(own, queue)
        found.append(objectives.genview_moco_v2(q, k, known, weights, temperature=c.temperature, mask=mask))
        queue.push(gather(k), None if own is None else gather_labels(own))
    agreement = cosine_similarity(queries[0].detach(), keys[0]).mean()
    return {"loss": torch.stack(found).mean(), "agreement": agreement}


def _swav(base: Any, xs: list[Tensor], weights: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
    crops = base.embed_crops(xs, base.encoder, base.projector)
    z = [normalize(crop.to(torch.promote_types(crop.dtype, torch.float32)), eps=1e-8) for crop in crops]
    with torch.autocast(z[0].device.type, enabled=False):
        losses = [_swav_head(base, head, z, weights) for head in base.prototypes]
    if base.queues and base.epochs_done >= base.config.queue_start:
        for queue, embedding in zip(base.queues, z[:2], strict=True):
            queue.push(gather(embedding.detach()))
    return {"loss": torch.stack(losses).mean()}


def _swav_head(base: Any, head: Any, z: list[Tensor], weights: Tensor) -> Tensor:
    c, scores = base.config, [head(each) for each in z]
    earlier = base._queued() or [z[0][:0]] * 2
    codes = [
        objectives.sinkhorn(
            torch.cat([head(rows), s.detach()]), eps=c.eps, iters=c.iters, power_law=c.power_law,
            hard=base.steps < c.hard_steps, join=gather if is_distributed() else None,
        )[-len(s) :]
        for rows, s in zip(earlier, scores, strict=False)
    ]  # fmt: skip
    return objectives.genview_swav(*scores, codes=torch.stack(codes), weights=weights, temperature=c.temperature)


WEIGHTED: dict[str, Weighted] = {
    "moco-v3": _moco_v3,
    "simsiam": _simsiam,
    "byol": _byol,
    "swav": _swav,
    "moco-v2": _moco_v2,
    "simclr": _simclr,
}
