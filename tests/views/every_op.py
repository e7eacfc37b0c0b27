"""Instances of every operation, and samples of every kind: what the tests of the executors go through.

A new operation brings a file of its own in ``tests/views/instances``, with a tuple ``INSTANCES``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from selftaught import views
from selftaught.views import Op, Pipeline, cpu, device  # noqa: F401  (both declare their executors)
from tests.views.helpers import photo

INSTANCES: tuple[Op, ...] = (
    views.RandomResizedCrop(24),
    views.RandomResizedCrop((17, 30), scale=(0.05, 0.3)),
    views.Resize(20),
    views.Resize((50, 61)),
    views.RandomCrop((20, 23)),
    views.CenterCrop(31),
    views.HorizontalFlip(),
    views.Dihedral(),
    views.ColorJitter(0.8, 0.8, 0.8, 0.5, order="random"),
    views.Grayscale(0.5),
    views.GaussianBlur(0.7),
    views.Solarize(0.5),
    views.TemporalCrop(3, stride=2),
    views.TemporalCrop(4, stride=3, jitter=True),
    views.TemporalCenterCrop(3, stride=2),
    views.MultiScaleCrop(24),
    views.MultiScaleCrop((17, 30), scales=(0.9, 0.5), distort=0, fixed=False),
    views.TubeMask(0.75, tubelet=1, patch=8),
    views.TubeMask(0.5, tubelet=5, patch=(4, 10), count=3, fact="hidden"),
)
INSTANCES += tuple(
    one
    for file in sorted((Path(__file__).parent / "instances").glob("[!_]*.py"))
    for one in import_module(f"tests.views.instances.{file.stem}").INSTANCES
)

FRAMES, SIDE = 5, 40


def sample_of(kind: str, dtype: type, which: int = 0) -> np.ndarray:
    """One sample with real pixels, square: floats lie in [0, 1]."""
    image = photo(SIDE, SIDE, 3, which)
    if kind in ("clip", "volume"):
        image = np.stack([np.roll(image, 3 * t, axis=1) for t in range(FRAMES)])
    elif kind in ("mask", "depth"):
        image = image[:, :, 0]
    return (image / 255).astype(dtype) if np.issubdtype(dtype, np.floating) else image.astype(dtype)


def batched(samples: list[np.ndarray], kind: str) -> torch.Tensor:
    """Samples as the device executor takes them."""
    stacked = torch.from_numpy(np.stack(samples))
    return stacked if kind in ("mask", "depth") else stacked.movedim(-1, 1)


def unbatched(batch: torch.Tensor, kind: str) -> np.ndarray:
    """A batch in the samples' own layout, (N, ...)."""
    return (batch if kind in ("mask", "depth") else batch.movedim(1, -1)).numpy()


def by_both(op: Op | Pipeline, kind: str, dtype: type, n: int = 6, seed: int = 0):
    """Pixels (N, ...) and facts of both executors with the same parameters."""
    pipeline = op if isinstance(op, Pipeline) else Pipeline((op,))
    samples = [sample_of(kind, dtype, which) for which in range(n)]
    rng = np.random.default_rng(seed)
    params = [pipeline.sample_shape(rng, sample.shape, kind)[0] for sample in samples]
    facts: list[dict] = [{} for _ in samples]
    one = [
        views.render(sample, pipeline, row, kind=kind, facts=told)
        for sample, row, told in zip(samples, params, facts, strict=True)
    ]
    together: dict = {}
    many = views.render_batch(batched(samples, kind), pipeline, np.stack(params), kind=kind, facts=together)
    alone = {name: np.stack([told[name] for told in facts]) for name in facts[0]}
    return np.stack(one), unbatched(many, kind), alone, {name: fact.numpy() for name, fact in together.items()}
