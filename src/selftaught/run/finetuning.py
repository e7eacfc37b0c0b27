"""Fine-tuning on samples that are read as they are needed, each time under a new random view: clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.data import Source
from selftaught.engine.batches import render_sample, stack_views
from selftaught.engine.method import Method
from selftaught.errors import SampleError
from selftaught.evaluation import Result
from selftaught.evaluation.finetune import finetune

__all__ = ["finetune_views"]


def finetune_views(model: Method, parts: tuple[Source, Source], *, seed: int = 0, **options: Any) -> Result:
    """Encoder and a linear head on labels: random views to train with, the evaluation view or views to judge with.

    Args:
        model: a method with a ``finetuning_view``; its deliverable is copied, not changed.
        parts: labelled samples to train and to judge with; those that can't be read are left out.
        seed: of the views, and of `evaluation.finetune`.
        **options: of `evaluation.finetune`: ``recipe``, ``epochs`` ...
    """
    train, test = (_readable(model, part) for part in parts)
    drawn = np.random.default_rng(seed)
    shown = model.evaluation_view()
    views = sum(not view.name.startswith("_") for view in shown.views)

    def random_views(rows: Tensor) -> Tensor:
        return torch.cat(_views(model, train, rows, model.finetuning_view(), drawn))

    def even_views(rows: Tensor) -> Tensor:
        return torch.cat(_views(model, test, rows, shown, np.random.default_rng(0)))

    assert train.labels is not None
    assert test.labels is not None
    fixed: dict[str, Any] = {"test_views": views, "seed": seed, "device": model.device}
    return finetune(model.deliverable(), random_views, train.labels, even_views, test.labels, **fixed | options)


def _views(model: Method, source: Source, rows: Tensor, recipe: Any, rng: np.random.Generator) -> list[Tensor]:
    """Every view of the samples, (b, C, T, H, W) each, as the network takes them."""
    recipe = recipe.with_kinds({name: field.kind for name, field in source.fields.items()})
    made = [
        render_sample(source, i, recipe, np.random.default_rng(rng.integers(2**62)), model.pixels, model.value_range)
        for i in rows.tolist()
    ]
    batch = {name: value.to(model.device) for name, value in stack_views(made, recipe).items()}
    batch = model.prepare({"index": rows, **batch})
    return [value for name, value in batch.items() if name != "index"]


def _readable(model: Method, source: Source) -> Source:
    """The samples that the evaluation view can be made of."""
    recipe = model.evaluation_view().with_kinds({name: field.kind for name, field in source.fields.items()})
    kept = []
    for i in range(len(source)):
        try:
            render_sample(source, i, recipe, np.random.default_rng(0), model.pixels, model.value_range)
        except SampleError:
            continue
        kept.append(i)
    return source.subset(np.array(kept, dtype=np.int64))
